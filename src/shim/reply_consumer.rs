//! The reply consumer: reads one partition of the replies topic on a thread of its own.
//!
//! The partition is assigned, never subscribed to, so no rebalance can take it away. Its end is found before the first
//! call is let in, so no reply to a call can lie before that.

use std::convert::identity;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::error::ShimError;
use super::reply_partition::ReplyPartition;
use crate::broker::{BrokerContext, ClientThread, Cluster, TOPIC_IDS, read_foreign};
use crate::callers::{Callers, Recipient, ReplyRecord};
use crate::config::Kafka;
use crate::message::{HeadersBuilder, header};
use crate::telemetry::{Metrics, ReadinessPart};

/// Longest wait of one poll for replies; the end of the process is noticed that soon.
const POLL: Duration = Duration::from_millis(100);

/// Longest time that the broker may take to say where a partition ends; after it the question is asked again.
const POSITION_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two attempts to find the end of the partition.
const POSITION_PAUSE: Duration = Duration::from_millis(200);

/// Says from where replies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartPosition {
    /// From the end: nobody waits for a reply that is there already.
    End,
    /// From this offset, up to which replies were read. When that offset is gone, from the first that is left.
    After(i64),
    /// From the beginning: the topic is another one than before, and callers may wait for replies that it has already.
    Beginning,
}

/// Reads replies on the thread, and hands them to their callers.
struct ReplyReader {
    consumer: BaseConsumer<BrokerContext>,
    /// The cluster, dropped after the consumer: an embedded broker stops with the cluster.
    cluster: Arc<Cluster>,
    source: ReplyPartition,
    callers: Callers,
    part: ReadinessPart,
    /// Counter of the replies that callers have got over the topic.
    received: IntCounter,
    unclaimed: IntCounter,
}

impl StartPosition {
    /// Finds the offset to start at, in a partition with these first and end offsets.
    fn offset(self, first: i64, end: i64) -> i64 {
        match self {
            Self::Beginning => first,
            Self::After(next) if next < first || next > end => first,
            Self::After(_) | Self::End => end,
        }
    }
}

/// Starts the thread, which lets callers wait once it stands at the partition's end. Blocks; not for the runtime's
/// workers.
///
/// # Errors
/// When the client cannot be made, or no thread can be started.
pub(super) fn start(
    cluster: &Arc<Cluster>,
    config: &Kafka,
    source: ReplyPartition,
    callers: Callers,
    part: ReadinessPart,
    metrics: &Metrics,
) -> Result<ClientThread, ShimError> {
    // The Kafka library insists on a group; this group is never joined, and nothing is committed to it.
    let group = format!("{}-shim", config.group_id);
    // The embedded broker does not wake a waiting fetch when a record comes.
    let wait = if cluster.is_embedded() { "5" } else { "100" };
    let settings = [
        TOPIC_IDS,
        ("group.id", group.as_str()),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_uncommitted"),
        ("fetch.wait.max.ms", wait),
        ("fetch.queue.backoff.ms", "5"),
        ("queued.max.messages.kbytes", "16384"),
    ];
    let reader = ReplyReader {
        consumer: cluster.client("shim-consumer", &settings, identity)?,
        cluster: cluster.clone(),
        source,
        callers,
        part,
        received: metrics.shim_replies.with_label_values(&["topic"]),
        unclaimed: metrics.shim_unclaimed.clone(),
    };
    ClientThread::start("shim-replies", move |stop| reader.run(stop)).map_err(ShimError::Thread)
}

impl ReplyReader {
    fn run(&self, stop: &CancellationToken) {
        // The offset of the next reply; `None` until it is known, which is before the first assignment and after a
        // loss.
        let mut next = None;
        let mut start = StartPosition::End;
        let mut unreachable = false;
        while !stop.is_cancelled() {
            if next.is_none() {
                next = self.position(start);
                continue;
            }
            match self.consumer.poll(POLL) {
                Some(Ok(record)) => {
                    start = StartPosition::After(record.offset() + 1);
                    self.deliver(&record);
                }
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                    warn!(?start, "the replies topic no longer has the next offset; a new start position is looked up");
                    next = None;
                }
                Some(Err(error)) => debug!(%error, "replies cannot be read for now"),
                None => {}
            }
            if self.is_topic_recreated() {
                warn!(
                    topic = self.source.topic,
                    "the replies topic was deleted and made again; it is read from its beginning"
                );
                (next, start) = (None, StartPosition::Beginning);
            }
            unreachable = self.watch_health(unreachable);
        }
    }

    fn is_topic_recreated(&self) -> bool {
        let topic_ids = self.consumer.context().topic_ids();
        topic_ids.is_any_anew() && topic_ids.take_anew().contains(&self.source.topic)
    }

    /// Assigns the partition from its start position, and opens the callers once that has succeeded.
    fn position(&self, start: StartPosition) -> Option<i64> {
        match self.assign(start) {
            Ok(offset) => {
                debug!(topic = self.source.topic, partition = self.source.partition, offset, "replies are read");
                self.cluster.health().answered();
                // The callers are opened only after the assignment: a caller who waited earlier could have his reply
                // before the start position.
                self.callers.open(&self.source.topic, self.source.partition);
                self.part.ready();
                Some(offset)
            }
            Err(error) => {
                let ReplyPartition { topic, partition } = &self.source;
                self.part.waits_for(format!("the end of {topic}, partition {partition}: {error}"));
                // This poll lets the client serve its events, and paces the attempts.
                let _ = self.consumer.poll(POSITION_PAUSE);
                None
            }
        }
    }

    fn assign(&self, start: StartPosition) -> Result<i64, KafkaError> {
        let ReplyPartition { topic, partition } = &self.source;
        let (first, end) = self.consumer.fetch_watermarks(topic, *partition, POSITION_TIMEOUT)?;
        let offset = start.offset(first, end);
        let mut assignment = TopicPartitionList::with_capacity(1);
        assignment.add_partition_offset(topic, *partition, Offset::Offset(offset))?;
        self.consumer.assign(&assignment)?;
        Ok(offset)
    }

    fn deliver(&self, record: &BorrowedMessage<'_>) {
        self.cluster.health().answered();
        let correlation = read_foreign(|| correlation(record)).flatten();
        match correlation.map(|correlation| self.callers.receive(correlation, || copy(record))) {
            Some(Recipient::Waiting) => self.received.inc(),
            Some(Recipient::AnsweredAhead) => {}
            Some(Recipient::Unknown) | None => self.unclaimed.inc(),
        }
    }

    /// Says on `/ready` when the broker goes and when it is back. While the broker is away no other answer of it may
    /// come, so it is asked for the offsets of the partition.
    fn watch_health(&self, was_unreachable: bool) -> bool {
        let health = self.cluster.health();
        if !health.is_unreachable() {
            if was_unreachable {
                self.part.ready();
            }
            return false;
        }
        if !was_unreachable {
            self.part.waits_for("the broker: it cannot be reached");
        }
        if self.consumer.fetch_watermarks(&self.source.topic, self.source.partition, POLL).is_ok() {
            health.answered();
        }
        true
    }
}

/// Finds the correlation id of a reply. Looks at every header, so it panics where [`copy`] would.
fn correlation(record: &BorrowedMessage<'_>) -> Option<Uuid> {
    let last = record.headers()?.iter().filter(|header| header.key == header::CORRELATION_ID).last()?;
    Uuid::try_parse_ascii(last.value?).ok()
}

/// Copies a record out of the client's memory: headers and value, once, in one buffer.
pub(super) fn copy(record: &BorrowedMessage<'_>) -> ReplyRecord {
    let payload = record.payload().unwrap_or_default();
    let mut builder = HeadersBuilder::with_capacity(payload.len() + 512, 16);
    if let Some(headers) = record.headers() {
        for header in headers.iter() {
            builder.push(header.key, header.value);
        }
    }
    let body = builder.append(payload);
    let (headers, buffer) = builder.finish_with_buffer();
    ReplyRecord { headers, body: buffer.slice(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_position_skips_no_reply_that_a_caller_waits_for() {
        assert_eq!(StartPosition::End.offset(3, 9), 9);
        assert_eq!(StartPosition::Beginning.offset(3, 9), 3);
        assert_eq!(StartPosition::After(2).offset(3, 9), 3, "some were deleted before they were read");
        assert_eq!(StartPosition::After(12).offset(0, 9), 0, "it is another topic, or has lost its last");
        assert_eq!(StartPosition::After(9).offset(3, 9), 9);
    }
}

//! Kafka records of a finished request, ready for a producer.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;

/// Bytes that a record and a batch around it take beside key, value and headers, at most.
pub(super) const RECORD_OVERHEAD: usize = 128;

/// One record.
pub(super) struct OutgoingRecord {
    pub(super) topic: Arc<str>,
    partition: Option<i32>,
    key: Option<Bytes>,
    payload: Option<Bytes>,
    headers: OwnedHeaders,
    /// Bytes that the record takes on the broker, at most.
    pub(super) bytes: usize,
}

/// Topic of dead letters, and the consumer group that they name as their origin.
#[derive(Debug, Clone)]
pub(super) struct DeadLetterTopic {
    pub(super) topic: Arc<str>,
    pub(super) group: String,
}

/// Destination of a record.
pub(super) struct RecordTarget<'a> {
    pub(super) topic: &'a Arc<str>,
    /// None: the key chooses.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Bytes>,
}

impl OutgoingRecord {
    /// Creates a record whose value and headers take this many bytes.
    pub(super) fn new(target: RecordTarget<'_>, payload: Option<Bytes>, headers: OwnedHeaders, bytes: usize) -> Self {
        let RecordTarget { topic, partition, key } = target;
        let bytes = bytes + key.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD;
        Self { topic: topic.clone(), partition, key, payload, headers, bytes }
    }

    /// Has the record produced by librdkafka, which copies it. The opaque value comes back with the broker's
    /// acknowledgement.
    ///
    /// # Errors
    /// As `produce` says.
    pub(super) fn send<O: IntoOpaque, E>(
        self,
        opaque: O,
        produce: impl FnOnce(BaseRecord<'_, [u8], [u8], O>) -> Result<(), E>,
    ) -> Result<(), E> {
        let base = BaseRecord::with_opaque_to(&self.topic, opaque).headers(self.headers);
        produce(BaseRecord {
            partition: self.partition,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            ..base
        })
    }
}

//! Probe of a broker's transactions. Some brokers take all the calls, and keep nothing of what they promise.

use std::convert::identity;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::Cluster;
use super::context::BrokerContext;
use super::error::BrokerError;
use crate::config::Kafka;

/// Longest wait for each step.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts to see a committed offset: another instance's probe may have overwritten it before it is looked at; hardly
/// this often.
const KEPT_TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);

type ProbeProducer = ThreadedProducer<BrokerContext>;

impl Cluster {
    /// Checks that an aborted transaction leaves nothing behind, that a committed one is kept, and that a later
    /// producer of the same name shuts the earlier one out (fencing). It writes offsets of a group of its own, named
    /// after ours, and no record. Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When one of these is not so, or the broker has no transactions.
    pub fn probe_transactions(&self, config: &Kafka, instance: &str) -> Result<(), BrokerError> {
        let group = format!("{}-probe", config.group_id);
        let settings = [("group.id", group.as_str()), ("isolation.level", "read_committed")];
        let consumer: BaseConsumer<BrokerContext> = self.client("probe", &settings, identity)?;
        let name = format!("{instance}-probe");
        let earlier = self.probe_producer(&name)?;
        let transactions = |source| BrokerError::Transactions { source };
        // Other instances may probe at the same moment, in the same group. No two of them write the same number.
        let aborted = fastrand::i64(0..i64::MAX);
        stage(&earlier, &consumer, &config.requests_topic, aborted).map_err(transactions)?;
        earlier.abort_transaction(PATIENCE).map_err(transactions)?;
        if committed(&consumer, &config.requests_topic).map_err(transactions)? == Some(aborted) {
            return Err(BrokerError::FalseTransactions { finding: "an aborted one was kept" });
        }
        let mut tries = 0..KEPT_TRIES;
        let is_kept = || -> Result<bool, KafkaError> {
            let kept = fastrand::i64(0..i64::MAX);
            stage(&earlier, &consumer, &config.requests_topic, kept)?;
            earlier.commit_transaction(PATIENCE)?;
            Ok(committed(&consumer, &config.requests_topic)? == Some(kept))
        };
        while !is_kept().map_err(transactions)? {
            if tries.next().is_none() {
                return Err(BrokerError::FalseTransactions { finding: "a committed one was not kept" });
            }
            thread::sleep(PAUSE.mul_f64(fastrand::f64()));
        }
        let later = self.probe_producer(&name)?;
        let beside = stage(&earlier, &consumer, &config.requests_topic, aborted)
            .and_then(|()| earlier.commit_transaction(PATIENCE));
        drop(later);
        match beside {
            Ok(()) => Err(BrokerError::FalseTransactions { finding: "two of one name were let in side by side" }),
            Err(_) => Ok(()),
        }
    }

    fn probe_producer(&self, name: &str) -> Result<ProbeProducer, BrokerError> {
        let settings = [("transactional.id", name), ("enable.idempotence", "true"), ("acks", "all")];
        // The earlier producer is meant to be shut out, so its complaint is no warning.
        let producer: ProbeProducer = self.client("probe", &settings, BrokerContext::quiet)?;
        producer.init_transactions(PATIENCE).map_err(|source| BrokerError::Transactions { source })?;
        Ok(producer)
    }
}

/// Begins a transaction with one offset in it.
fn stage(
    producer: &ProbeProducer,
    consumer: &BaseConsumer<BrokerContext>,
    topic: &str,
    offset: i64,
) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, 0, Offset::Offset(offset))?;
    // A consumer that has not joined stands for any of its group.
    let group = consumer.group_metadata().ok_or(KafkaError::Canceled)?;
    producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)
}

fn committed(consumer: &BaseConsumer<BrokerContext>, topic: &str) -> Result<Option<i64>, KafkaError> {
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition(topic, 0);
    let committed = consumer.committed_offsets(partitions, PATIENCE)?;
    let element = committed.find_partition(topic, 0);
    Ok(element.and_then(|element| match element.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }))
}

//! The transactional producer that sends letters back.

use parking_lot::Mutex;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::error::RedriveError;
use crate::broker::{BrokerContext, BrokerError, Cluster, Deliveries, is_fenced, is_for_want_of_time};

/// Longest time of one attempt at a step of a transaction. With [`ATTEMPTS`], a step fails after half a minute.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at one step before its error ends the run.
const ATTEMPTS: usize = 3;

const SETTINGS: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // The longest time for which a run that is gone can hold up readers of the requests topic, unless the next run
    // comes first and fences it.
    ("transaction.timeout.ms", "10000"),
    // The partitioner of Java's clients, so that a key comes to the partition where they put it.
    ("partitioner", "murmur2_random"),
];

type TransactionalProducer = ThreadedProducer<BrokerContext<RefusedRecord>>;

/// Produces letters in transactions. Its id is the group's, so a later run fences an earlier one.
pub(super) struct TransactionalSender {
    producer: TransactionalProducer,
}

/// Keeps the error of the first record of the transaction that the broker did not take.
#[derive(Default)]
struct RefusedRecord(Mutex<Option<KafkaError>>);

impl TransactionalSender {
    pub(super) fn open(cluster: &Cluster, name: &str) -> Result<Self, BrokerError> {
        let context = |broker: BrokerContext| broker.with(RefusedRecord::default());
        let settings: Vec<_> = SETTINGS.into_iter().chain([("transactional.id", name)]).collect();
        let producer: TransactionalProducer = cluster.client("redrive", &settings, context)?;
        let sender = Self { producer };
        let opened = sender.step(|producer| producer.init_transactions(ATTEMPT_TIMEOUT));
        opened.map_err(|source| BrokerError::Transactions { source })?;
        Ok(sender)
    }

    /// Sends records and commits offsets in one transaction: both or neither.
    ///
    /// # Errors
    /// When the transaction was aborted, or a later run has fenced this one.
    pub(super) fn send<'a>(
        &self,
        records: impl Iterator<Item = BaseRecord<'a, [u8], [u8]>>,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), RedriveError> {
        let failed = |error: KafkaError| {
            // A transaction that cannot be aborted here is aborted by the next run.
            let _ = self.producer.abort_transaction(ATTEMPT_TIMEOUT);
            let refused = self.producer.context().deliveries().0.lock().take();
            match is_fenced(&error) {
                true => RedriveError::Replaced,
                false => RedriveError::Sending(refused.unwrap_or(error)),
            }
        };
        // Offsets are added after the flush: by then every record is known to be with the broker or to have failed.
        self.producer.begin_transaction().map_err(failed)?;
        for record in records {
            self.producer.send(record).map_err(|(error, _)| failed(error))?;
        }
        self.step(|producer| producer.flush(ATTEMPT_TIMEOUT)).map_err(failed)?;
        self.step(|producer| producer.send_offsets_to_transaction(offsets, group, ATTEMPT_TIMEOUT)).map_err(failed)?;
        self.step(|producer| producer.commit_transaction(ATTEMPT_TIMEOUT)).map_err(failed)
    }

    /// Takes a step, and repeats it after a timeout: librdkafka then goes on with the same step.
    fn step(&self, step: impl Fn(&TransactionalProducer) -> Result<(), KafkaError>) -> Result<(), KafkaError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match step(&self.producer) {
                Err(error) if attempts < ATTEMPTS && is_timeout(&error) => {}
                result => return result,
            }
        }
    }
}

fn is_timeout(error: &KafkaError) -> bool {
    is_for_want_of_time(error) || matches!(error, KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut))
}

impl Deliveries for RefusedRecord {
    type Record = ();

    fn delivered(&self, result: Result<(), &KafkaError>, (): ()) {
        if let Err(error) = result {
            self.0.lock().get_or_insert_with(|| error.clone());
        }
    }
}

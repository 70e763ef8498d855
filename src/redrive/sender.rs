//! The transactions in which letters are sent back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::error::RedriveError;
use super::letter::Restored;
use crate::broker::{BrokerContext, BrokerError, Cluster};

/// How long one step may take, and how often it is tried.
const TRY: Duration = Duration::from_secs(10);
const TRIES: usize = 3;

const SETTINGS: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // So long may a run that is gone hold up readers of the requests topic, unless the next one comes first.
    ("transaction.timeout.ms", "10000"),
    // As Java's clients partition.
    ("partitioner", "murmur2_random"),
];

/// A transactional producer, of which there is one for each group: a later one shuts the earlier out.
pub(super) struct Sender {
    producer: ThreadedProducer<SenderContext>,
}

/// The producer's callbacks.
struct SenderContext {
    broker: BrokerContext,
    /// Why the broker did not take a record of the transaction.
    refused: Mutex<Option<KafkaError>>,
}

impl Sender {
    pub(super) fn open(cluster: &Cluster, name: &str) -> Result<Self, BrokerError> {
        let context = |broker| SenderContext { broker, refused: Mutex::new(None) };
        let settings: Vec<_> = SETTINGS.into_iter().chain([("transactional.id", name)]).collect();
        let producer: ThreadedProducer<SenderContext> = cluster.client("redrive", &settings, context)?;
        let sender = Self { producer };
        let opened = sender.step(|producer| producer.init_transactions(TRY));
        opened.map_err(|source| BrokerError::Transactions { source })?;
        Ok(sender)
    }

    /// Sends records and commits offsets, or neither.
    pub(super) fn send<'a>(
        &self,
        records: impl Iterator<Item = Restored<'a>>,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), RedriveError> {
        let failed = |error: KafkaError| {
            // Whatever cannot be ended here is ended by the next run.
            let _ = self.producer.abort_transaction(TRY);
            let refused = self.producer.context().refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            match is_replaced(&error) {
                true => RedriveError::Replaced,
                false => RedriveError::Sending(refused.unwrap_or(error)),
            }
        };
        self.producer.begin_transaction().map_err(failed)?;
        for record in records {
            self.produce(&record).map_err(failed)?;
        }
        self.step(|producer| producer.flush(TRY)).map_err(failed)?;
        self.step(|producer| producer.send_offsets_to_transaction(offsets, group, TRY)).map_err(failed)?;
        self.step(|producer| producer.commit_transaction(TRY)).map_err(failed)
    }

    fn produce(&self, record: &Restored<'_>) -> Result<(), KafkaError> {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record
            .headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
        let base = BaseRecord::<[u8], [u8]>::to(record.topic).headers(headers);
        let (key, payload) = (record.key.map(|key| &**key), record.payload.map(|payload| &**payload));
        let record = BaseRecord { partition: record.partition, key, payload, ..base };
        self.producer.send(record).map_err(|(error, _)| error)
    }

    /// Takes a step, and again while only time is lacking: librdkafka goes on with the same step.
    fn step(
        &self,
        step: impl Fn(&ThreadedProducer<SenderContext>) -> Result<(), KafkaError>,
    ) -> Result<(), KafkaError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match step(&self.producer) {
                Err(error) if tries < TRIES && is_for_want_of_time(&error) => {}
                result => return result,
            }
        }
    }
}

fn is_for_want_of_time(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

fn is_replaced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
    )
}

impl ClientContext for SenderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.broker.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.broker.stats_raw(statistics);
    }
}

impl ProducerContext for SenderContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert_with(|| error.clone());
        }
    }
}

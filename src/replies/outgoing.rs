//! Kafka records of a finished request, ready for a producer.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::util::IntoOpaque;

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

/// Producer that takes a record.
pub(super) trait RecordProducer {
    /// Value that comes back with the broker's acknowledgement.
    type Opaque: IntoOpaque;

    #[expect(clippy::result_large_err, reason = "librdkafka's binding gives the record back with its refusal")]
    fn take<'a>(
        &self,
        record: BorrowedRecord<'a, Self::Opaque>,
    ) -> Result<(), (KafkaError, BorrowedRecord<'a, Self::Opaque>)>;
}

pub(super) type BorrowedRecord<'a, O> = BaseRecord<'a, [u8], [u8], O>;

impl<C: ProducerContext + 'static> RecordProducer for ThreadedProducer<C> {
    type Opaque = C::DeliveryOpaque;

    fn take<'a>(
        &self,
        record: BorrowedRecord<'a, Self::Opaque>,
    ) -> Result<(), (KafkaError, BorrowedRecord<'a, Self::Opaque>)> {
        self.send(record)
    }
}

impl<C: ProducerContext> RecordProducer for BaseProducer<C> {
    type Opaque = C::DeliveryOpaque;

    fn take<'a>(
        &self,
        record: BorrowedRecord<'a, Self::Opaque>,
    ) -> Result<(), (KafkaError, BorrowedRecord<'a, Self::Opaque>)> {
        self.send(record)
    }
}

impl OutgoingRecord {
    /// Creates a record of this many bytes that has no target yet.
    pub(super) fn new(payload: Option<Bytes>, headers: OwnedHeaders, bytes: usize) -> Self {
        Self { topic: Arc::from(""), partition: None, key: None, payload, headers, bytes }
    }

    /// Gives the record its target. `overhead` is added to its bytes.
    pub(super) fn addressed(self, target: RecordTarget<'_>, overhead: usize) -> Self {
        let bytes = self.bytes + target.key.as_ref().map_or(0, Bytes::len) + overhead;
        Self { topic: target.topic.clone(), partition: target.partition, key: target.key, bytes, ..self }
    }

    /// Gives the record to librdkafka, which copies it.
    ///
    /// # Errors
    /// When librdkafka has no room for the record, or knows already that it cannot be delivered; with the opaque value.
    pub(super) fn send<S: RecordProducer>(self, sink: &S, opaque: S::Opaque) -> Result<(), (KafkaError, S::Opaque)> {
        let base = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, opaque).headers(self.headers);
        let record = BaseRecord {
            partition: self.partition,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            ..base
        };
        sink.take(record).map_err(|(error, record)| (error, record.delivery_opaque))
    }
}

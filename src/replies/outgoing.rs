//! The records that end a request, ready for a producer.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::util::IntoOpaque;

use super::dead_letter::dead_letter_headers;
use super::job::{DeadLetter, Job, Parking};
use super::parked::parked_headers;
use super::record::reply_record;

/// One record.
pub(super) struct Outgoing {
    topic: Arc<str>,
    partition: Option<i32>,
    key: Option<Bytes>,
    payload: Option<Bytes>,
    headers: OwnedHeaders,
}

/// Where dead letters go, and which group they are said to come from.
#[derive(Debug, Clone)]
pub(super) struct Graveyard {
    pub(super) topic: Arc<str>,
    pub(super) group: String,
}

impl Job {
    /// The reply or fault, to its caller; or the request, if it is put aside instead.
    pub(super) fn reply(&self) -> Outgoing {
        if let Some(parking) = self.parking() {
            return self.parked(parking);
        }
        let address = self.address();
        let record = reply_record(&self.ending.request, &self.correlation, &self.ending.outcome);
        Outgoing {
            topic: address.topic.clone(),
            partition: address.partition,
            key: Some(self.correlation.id.clone()),
            payload: Some(record.payload),
            headers: record.headers,
        }
    }

    /// The request as it came, with what has become of it so far.
    fn parked(&self, parking: &Parking) -> Outgoing {
        let request = &self.ending.request;
        Outgoing {
            topic: parking.topic.name.clone(),
            // Whoever has that one of the requests topic reads this one, too.
            partition: Some(self.ending.ticket.claim().assignment().0.partition),
            key: request.key.clone(),
            payload: request.payload.clone(),
            headers: parked_headers(request, parking, self.ending.outcome.served_by.attempts),
        }
    }

    /// The request as it came, with what was wrong with it.
    pub(super) fn dead_letter(&self, letter: &DeadLetter, graveyard: &Graveyard) -> Outgoing {
        let request = &self.ending.request;
        let attempts = self.ending.outcome.served_by.attempts;
        Outgoing {
            topic: graveyard.topic.clone(),
            partition: (!letter.any_partition).then_some(request.source.partition),
            key: request.key.clone(),
            payload: request.payload.clone().filter(|_| letter.whole),
            headers: dead_letter_headers(request, &graveyard.group, &letter.fault, attempts),
        }
    }
}

/// What a record is given to.
pub(super) trait Sink {
    /// What comes back with the broker's word.
    type Opaque: IntoOpaque;

    #[expect(clippy::result_large_err, reason = "librdkafka's binding gives the record back with its refusal")]
    fn take<'a>(&self, record: Borrowed<'a, Self::Opaque>) -> Result<(), (KafkaError, Borrowed<'a, Self::Opaque>)>;
}

pub(super) type Borrowed<'a, O> = BaseRecord<'a, [u8], [u8], O>;

impl<C: ProducerContext + 'static> Sink for ThreadedProducer<C> {
    type Opaque = C::DeliveryOpaque;

    fn take<'a>(&self, record: Borrowed<'a, Self::Opaque>) -> Result<(), (KafkaError, Borrowed<'a, Self::Opaque>)> {
        self.send(record)
    }
}

impl<C: ProducerContext> Sink for BaseProducer<C> {
    type Opaque = C::DeliveryOpaque;

    fn take<'a>(&self, record: Borrowed<'a, Self::Opaque>) -> Result<(), (KafkaError, Borrowed<'a, Self::Opaque>)> {
        self.send(record)
    }
}

impl Outgoing {
    /// Gives it to librdkafka, which copies it.
    ///
    /// # Errors
    /// When librdkafka has no room for it, or knows already that it cannot be delivered; with what came along.
    pub(super) fn send<S: Sink>(self, sink: &S, opaque: S::Opaque) -> Result<(), (KafkaError, S::Opaque)> {
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

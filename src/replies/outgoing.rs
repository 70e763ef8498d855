//! The records that end a request, ready for a producer.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};

use super::dead_letter::dead_letter_headers;
use super::job::{DeadLetter, Job};
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
    /// The reply or fault, to its caller.
    pub(super) fn reply(&self) -> Outgoing {
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

impl Outgoing {
    /// Gives it to librdkafka, which copies it.
    ///
    /// # Errors
    /// When librdkafka has no room for it, or knows already that it cannot be delivered; with what came along.
    pub(super) fn send<C: ProducerContext + 'static>(
        self,
        producer: &ThreadedProducer<C>,
        opaque: C::DeliveryOpaque,
    ) -> Result<(), (KafkaError, C::DeliveryOpaque)> {
        let base = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, opaque).headers(self.headers);
        let record = BaseRecord {
            partition: self.partition,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            ..base
        };
        producer.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
    }
}

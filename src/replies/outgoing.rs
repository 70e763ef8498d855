//! The records that end a request, ready for a producer.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::util::IntoOpaque;

use super::dead_letter::dead_letter_headers;
use super::job::{Job, Parking};
use super::parked::parked_headers;
use super::record::{HEADER_OVERHEAD, record_in};
use super::recourse::{Form, Letter, Part};
use crate::message::{Fault, Request};

/// What a record and a batch around it take beside key, value and headers, at most.
const RECORD_OVERHEAD: usize = 128;
/// What our own headers of a dead letter or a parked request take at most, but for the texts in them.
const OWN_HEADERS: usize = 768;

/// One record.
pub(super) struct Outgoing {
    pub(super) topic: Arc<str>,
    partition: Option<i32>,
    key: Option<Bytes>,
    payload: Option<Bytes>,
    headers: OwnedHeaders,
    /// What it takes on the broker, at most.
    pub(super) bytes: usize,
}

/// Where dead letters go, and which group they are said to come from.
#[derive(Debug, Clone)]
pub(super) struct Graveyard {
    pub(super) topic: Arc<str>,
    pub(super) group: String,
}

/// Where one of a job's records goes.
pub(super) struct Target<'a> {
    pub(super) topic: &'a Arc<str>,
    /// None: by the key.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Bytes>,
}

impl Job {
    /// Where a record goes, if it is still to be tried.
    pub(super) fn target<'a>(&'a self, part: Part, graveyard: &'a Graveyard) -> Option<Target<'a>> {
        let (request, course) = (&self.ending.request, &self.course);
        match (self.parking(), part) {
            (Some(_), Part::Letter) => None,
            // Whoever has that partition of the requests topic reads this one, too.
            (Some(parking), Part::Reply) => Some(Target {
                topic: &parking.topic.name,
                partition: course.same_partition.then(|| self.ending.ticket.claim().assignment().0.partition),
                key: request.key.clone(),
            }),
            (None, Part::Letter) => course.letter.is_written().then(|| Target {
                topic: &graveyard.topic,
                partition: course.same_partition.then_some(request.source.partition),
                key: request.key.clone().filter(|_| course.letter > Letter::Bare),
            }),
            (None, Part::Reply) => (course.reply > Form::Dropped).then(|| Target {
                topic: &self.address.topic,
                partition: self.address.partition,
                key: Some(match course.reply {
                    Form::Short => self.correlation.short().id,
                    _ => self.correlation.id.clone(),
                }),
            }),
        }
    }

    /// A record, if it is still to be tried.
    pub(super) fn record(&self, part: Part, graveyard: &Graveyard) -> Option<Outgoing> {
        let target = self.target(part, graveyard)?;
        let mut outgoing = match (self.parking(), part, self.letter()) {
            (Some(parking), ..) => self.parked_record(parking),
            (None, Part::Letter, Some(fault)) => self.dead_letter(fault, graveyard),
            (None, ..) => self.reply(),
        };
        outgoing.bytes += target.key.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD;
        Some(Outgoing { topic: target.topic.clone(), partition: target.partition, key: target.key, ..outgoing })
    }

    /// What a record takes on the broker at most, without writing it. What is not large itself is far less than that.
    pub(super) fn bytes_at_most(&self, part: Part, graveyard: &Graveyard) -> usize {
        let (request, outcome) = (&self.ending.request, &self.ending.outcome);
        let served_by = &outcome.served_by;
        let names = [
            &served_by.endpoint,
            &served_by.route,
            &served_by.model_uri,
            &served_by.model_version,
            &served_by.fallback_from,
        ];
        let named: usize = names.into_iter().flatten().map(|name| name.len()).sum();
        let key = request.key.as_ref().map_or(0, Bytes::len);
        let texts = key + request.source.topic.len() + graveyard.group.len() + named;
        let (id, fixed) = (self.correlation.id.len(), RECORD_OVERHEAD + 2 * OWN_HEADERS);
        let value = match &outcome.result {
            Ok(reply) => reply.body.len() + reply.content_type.len(),
            // A character has six at most in JSON, and NestJS has the value in a header as well.
            Err(fault) => 2 * 6 * (fault.message.len() + id),
        };
        match part {
            Part::Reply if self.parking().is_none() => headers_size(request) + 2 * id + value + texts + fixed,
            Part::Letter | Part::Reply => size(request) + value + texts + fixed,
        }
    }

    /// The reply or fault, without its target.
    fn reply(&self) -> Outgoing {
        let (request, outcome) = (&self.ending.request, &self.ending.outcome);
        let record = match self.course.reply {
            Form::Short => record_in(Form::Short, request, &self.correlation.short(), outcome),
            form => record_in(form, request, &self.correlation, outcome),
        };
        Outgoing::new(Some(record.payload), record.headers, record.bytes)
    }

    /// The request as it came, with what has become of it so far.
    fn parked_record(&self, parking: &Parking) -> Outgoing {
        let request = &self.ending.request;
        let headers = parked_headers(request, parking, self.ending.outcome.served_by.attempts);
        let bytes = size(request) + OWN_HEADERS + request.source.topic.len();
        Outgoing::new(request.payload.clone(), headers, bytes)
    }

    /// The request as it came, or what can be kept of it, with what was wrong with it.
    fn dead_letter(&self, fault: &Fault, graveyard: &Graveyard) -> Outgoing {
        let (request, letter) = (&self.ending.request, self.course.letter);
        let attempts = self.ending.outcome.served_by.attempts;
        let (headers, texts) = dead_letter_headers(request, letter, &graveyard.group, fault, attempts);
        let payload = request.payload.clone().filter(|_| letter >= Letter::Whole);
        let own = if letter > Letter::Bare { headers_size(request) } else { 0 };
        let bytes = own + payload.as_ref().map_or(0, Bytes::len) + OWN_HEADERS + texts;
        Outgoing::new(payload, headers, bytes)
    }
}

fn headers_size(request: &Request) -> usize {
    request.headers.bytes() + request.headers.len() * HEADER_OVERHEAD
}

fn size(request: &Request) -> usize {
    headers_size(request) + request.payload.as_ref().map_or(0, Bytes::len)
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
    /// A record of so many bytes that has no target yet.
    fn new(payload: Option<Bytes>, headers: OwnedHeaders, bytes: usize) -> Self {
        Self { topic: Arc::from(""), partition: None, key: None, payload, headers, bytes }
    }

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

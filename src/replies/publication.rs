//! Publication of a finished request: its records, and their way down the ladder of recovery when they are rejected.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use tracing::{debug, error, warn};

use super::address::{AllowedTopics, ReplyAddress};
use super::dead_letter::dead_letter_headers;
use super::order::{OrderPlace, ReplyOrder};
use super::outgoing::{DeadLetterTopic, OutgoingRecord, RECORD_OVERHEAD, RecordTarget};
use super::parked::{Parking, parked_headers};
use super::record::{HEADER_OVERHEAD, record_in};
use super::recourse::{Cause, Course, Form, Letter, RecordKind, recourse};
use crate::intake::Ticket;
use crate::message::{Code, Correlation, Fault, Outcome, Request, Stage};
use crate::telemetry::{PendingWork, RouteMetrics};

/// Time for which a topic that a caller has named, or a retry topic, may be without a leader before the publication
/// goes elsewhere. A broker that is gone is replaced within this time.
pub(super) const AWAY_FOR: Duration = Duration::from_secs(15);

/// Bytes that our own headers of a dead letter or a parked request take at most, but for the texts in them.
const OWN_HEADERS: usize = 768;

/// Finished request, ready to be published.
pub struct FinishedRequest {
    /// The request.
    pub request: Arc<Request>,
    /// Reply or fault of the request.
    pub outcome: Outcome,
    /// Ticket that is finished when the broker has the record.
    pub ticket: Ticket,
    /// Metrics of the route, when a route was chosen.
    pub metrics: Option<Arc<RouteMetrics>>,
    /// Place among the replies that leave in order, until the record has left.
    pub place: Option<OrderPlace>,
}

/// Finished request on its way to the broker.
pub(super) struct Publication {
    pub(super) ending: FinishedRequest,
    pub(super) correlation: Correlation,
    /// Address of the reply or fault.
    pub(super) address: ReplyAddress,
    /// Partition of the default topic, in case the reply has to go there instead.
    pub(super) fallback_partition: Option<i32>,
    parking: Option<Parking>,
    /// Records that are still to be tried.
    pub(super) course: Course,
    /// Record that is on its way, where each record goes by itself.
    pub(super) kind: RecordKind,
    /// True if the caller has the answer already.
    pub(super) answered: bool,
    /// True if one of its records was rejected, so that it had better not share a transaction with others.
    pub(super) was_refused: bool,
    /// Time at which the latest of its records was sent; before that, at which the request was read.
    pub(super) sent: Instant,
    /// Counts the publication among those that wait for the broker, from its turn on.
    pub(super) pending: Option<PendingWork>,
}

impl Publication {
    /// Plans to publish the reply or fault to the address.
    pub(super) fn new(
        ending: FinishedRequest,
        correlation: Correlation,
        address: ReplyAddress,
        allowed: &AllowedTopics,
    ) -> Self {
        let course = Course {
            parked: false,
            named: address.topic != allowed.default_address().topic,
            letter: Letter::Unwritten,
            same_partition: true,
            reply: if ending.outcome.result.is_ok() { Form::Answer } else { Form::Fault },
            partition: address.partition.is_some(),
        };
        let sent = ending.ticket.received();
        Self {
            ending,
            correlation,
            address,
            fallback_partition: None,
            parking: None,
            course,
            kind: RecordKind::Reply,
            answered: false,
            was_refused: false,
            sent,
            pending: None,
        }
    }

    /// Parks the request in a retry topic instead. The reply or fault is published only if the retry topic does not
    /// take the request.
    pub(super) fn parked(mut self, parking: Parking) -> Self {
        self.parking = Some(parking);
        self.course.parked = true;
        self
    }

    /// Makes the request a dead letter, and publishes the fault beside it.
    pub(super) fn dead(mut self, fault: Fault) -> Self {
        self.ending.outcome.result = Err(fault);
        self.course.letter = Letter::Whole;
        self.course.reply = Form::Fault;
        self.kind = RecordKind::DeadLetter;
        self
    }

    /// Takes the partition in which the request's order can be seen, then waits for the request's turn.
    pub(super) async fn wait_for_turn(&mut self, order: &ReplyOrder) {
        let Some(place) = self.ending.place.take() else { return };
        let request = &self.ending.request;
        let partition = order.partition(request, &self.address, || self.ending.ticket.is_revoked()).await;
        self.fallback_partition = order.default_partition(request);
        self.address.partition = partition;
        self.course.partition = partition.is_some();
        place.turn().await;
        self.ending.place = Some(place);
    }

    /// Returns the fault of a dead letter, if the request is one.
    pub(super) fn letter(&self) -> Option<&Fault> {
        self.ending.outcome.result.as_ref().err().filter(|_| !self.course.parked && self.course.letter.is_written())
    }

    /// Returns the retry topic, if the request is parked.
    pub(super) fn parking(&self) -> Option<&Parking> {
        self.parking.as_ref().filter(|_| self.course.parked)
    }

    /// Goes one rung down the ladder of recovery, since a record of this kind was rejected, and `why`. False when the
    /// same record is to be tried again.
    pub(super) fn refused(
        &mut self,
        kind: RecordKind,
        cause: Cause,
        why: &dyn Display,
        allowed: &AllowedTopics,
    ) -> bool {
        let source = &self.ending.request.source;
        let before = self.course;
        let Some(next) = recourse(cause, kind, before, self.fallback_partition.is_some()) else {
            debug!(%source, %why, "a record was not taken; it is tried again");
            return false;
        };
        debug!(%source, %why, ?kind, ?next, "a record was not taken; another goes in its place");
        // Say what is lost, and turn to the record that is sent next.
        if before.parked && !next.parked {
            warn!(%source, %why, "a request cannot be parked in its retry topic; its caller gets the answer or fault");
        }
        if next.letter == Letter::Spent && before.letter != Letter::Spent {
            error!(%source, %why, "a dead letter cannot be published; its fault goes out alone");
            self.kind = RecordKind::Reply;
        }
        // An answer that cannot be published becomes a fault that says why.
        let outcome = &mut self.ending.outcome;
        if next.letter == Letter::Whole && before.letter == Letter::Unwritten {
            warn!(%source, %why, "a reply cannot be published; the request is a dead letter");
            self.kind = RecordKind::DeadLetter;
            if cause != Cause::Size || outcome.result.is_ok() {
                outcome.result = Err(unpublishable(&self.address, cause, why));
            }
        } else if outcome.result.is_ok() && next.reply < Form::Answer {
            outcome.result =
                Err(if cause == Cause::Size { too_large(outcome) } else { unpublishable(&self.address, cause, why) });
        }
        // Without the named topic, or its partition, the record goes where it can.
        if before.named && !next.named {
            self.address = ReplyAddress { partition: self.fallback_partition, ..allowed.default_address() };
        } else if !next.partition {
            self.address.partition = None;
        }
        self.course = next;
        true
    }

    /// Returns whether the publication has waited long enough for a partition that has had no leader since then. A
    /// record for a topic of our own waits for as long as that takes.
    pub(super) fn waits_no_longer(&self, since: Instant) -> bool {
        self.has_waited(since, AWAY_FOR)
    }

    /// Returns whether so long has passed since then, and the record is not for a topic of our own.
    pub(super) fn has_waited(&self, since: Instant, longest: Duration) -> bool {
        (self.course.parked || self.course.named) && since.elapsed() > longest
    }

    /// Returns whether no record is left to be sent, now that the dead letter, if there is one, is written.
    pub(super) fn is_done(&self) -> bool {
        !self.course.parked && self.kind == RecordKind::Reply && self.course.reply == Form::Dropped
    }

    /// Returns the destination of a record, if the record is still to be tried.
    pub(super) fn target<'a>(
        &'a self,
        kind: RecordKind,
        dead_letters: &'a DeadLetterTopic,
    ) -> Option<RecordTarget<'a>> {
        let (request, course) = (&self.ending.request, &self.course);
        match (self.parking(), kind) {
            (Some(_), RecordKind::DeadLetter) => None,
            // The owner of that partition of the requests topic reads this partition of the retry topic, too.
            (Some(parking), RecordKind::Reply) => Some(RecordTarget {
                topic: &parking.topic.name,
                partition: course.same_partition.then(|| self.ending.ticket.position().assignment().0.partition),
                key: request.key.clone(),
            }),
            (None, RecordKind::DeadLetter) => course.letter.is_written().then(|| RecordTarget {
                topic: &dead_letters.topic,
                partition: course.same_partition.then_some(request.source.partition),
                key: request.key.clone().filter(|_| course.letter > Letter::Bare),
            }),
            (None, RecordKind::Reply) => (course.reply > Form::Dropped).then(|| RecordTarget {
                topic: &self.address.topic,
                partition: self.address.partition,
                key: Some(match course.reply {
                    Form::Short => self.correlation.short().id,
                    _ => self.correlation.id.clone(),
                }),
            }),
        }
    }

    /// Builds a record, if the record is still to be tried.
    pub(super) fn record(&self, kind: RecordKind, dead_letters: &DeadLetterTopic) -> Option<OutgoingRecord> {
        let target = self.target(kind, dead_letters)?;
        Some(match (self.parking(), kind, self.letter()) {
            (Some(parking), ..) => self.parked_record(target, parking),
            (None, RecordKind::DeadLetter, Some(fault)) => self.dead_letter(target, fault, dead_letters),
            (None, ..) => self.reply(target),
        })
    }

    /// Estimates the most bytes that a record takes on the broker, without building it. A record that is not large
    /// itself is far below the limits.
    pub(super) fn bytes_at_most(&self, kind: RecordKind, dead_letters: &DeadLetterTopic) -> usize {
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
        let texts = key + request.source.topic.len() + dead_letters.group.len() + named;
        let (id, fixed) = (self.correlation.id.len(), RECORD_OVERHEAD + 2 * OWN_HEADERS);
        let value = match &outcome.result {
            Ok(reply) => reply.body.len() + reply.content_type.len(),
            // JSON takes at most six bytes for a byte of text, and NestJS has the value in a header as well.
            Err(fault) => 2 * 6 * (fault.message.len() + id),
        };
        match kind {
            RecordKind::Reply if self.parking().is_none() => headers_size(request) + 2 * id + value + texts + fixed,
            RecordKind::DeadLetter | RecordKind::Reply => size(request) + value + texts + fixed,
        }
    }

    /// Builds the reply or fault.
    fn reply(&self, target: RecordTarget<'_>) -> OutgoingRecord {
        let (request, outcome) = (&self.ending.request, &self.ending.outcome);
        let record = match self.course.reply {
            Form::Short => record_in(Form::Short, request, &self.correlation.short(), outcome),
            form => record_in(form, request, &self.correlation, outcome),
        };
        OutgoingRecord::new(target, Some(record.payload), record.headers, record.bytes)
    }

    /// Builds the parked request: the request as it came, with its failures so far.
    fn parked_record(&self, target: RecordTarget<'_>, parking: &Parking) -> OutgoingRecord {
        let request = &self.ending.request;
        let headers = parked_headers(request, parking, self.ending.outcome.served_by.attempts);
        let bytes = size(request) + OWN_HEADERS + request.source.topic.len();
        OutgoingRecord::new(target, request.payload.clone(), headers, bytes)
    }

    /// Builds the dead letter: the request as it came, or what can be kept of it, with what was wrong with it.
    fn dead_letter(&self, target: RecordTarget<'_>, fault: &Fault, dead_letters: &DeadLetterTopic) -> OutgoingRecord {
        let (request, letter) = (&self.ending.request, self.course.letter);
        let attempts = self.ending.outcome.served_by.attempts;
        let (headers, texts) = dead_letter_headers(request, letter, &dead_letters.group, fault, attempts);
        let payload = request.payload.clone().filter(|_| letter >= Letter::Whole);
        let own = if letter > Letter::Bare { headers_size(request) } else { 0 };
        let bytes = own + payload.as_ref().map_or(0, Bytes::len) + OWN_HEADERS + texts;
        OutgoingRecord::new(target, payload, headers, bytes)
    }
}

fn headers_size(request: &Request) -> usize {
    request.headers.bytes() + request.headers.len() * HEADER_OVERHEAD
}

fn size(request: &Request) -> usize {
    headers_size(request) + request.payload.as_ref().map_or(0, Bytes::len)
}

fn too_large(outcome: &Outcome) -> Fault {
    let bytes = outcome.result.as_ref().map_or(0, |reply| reply.body.len());
    let message = format!(
        "the model's answer of {bytes} bytes is larger than the broker takes; ask for fewer rows, or raise \
         message.max.bytes of the broker and of kafka.properties",
    );
    Fault::permanent(Code::PayloadTooLarge, Stage::Publish, message)
}

fn unpublishable(address: &ReplyAddress, cause: Cause, why: &dyn Display) -> Fault {
    let code = match cause {
        Cause::Size => Code::PayloadTooLarge,
        Cause::Topic | Cause::Partition | Cause::Passing => Code::PermissionDenied,
        Cause::Record => Code::InternalError,
    };
    let message = format!("the reply cannot be written to topic '{}': {why}", address.topic);
    Fault::permanent(code, Stage::Publish, message)
}

/// Names an error code, as the label of a metric.
pub(super) fn reason(code: Option<RDKafkaErrorCode>) -> String {
    code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}"))
}

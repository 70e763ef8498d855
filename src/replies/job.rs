//! An ending on its way out, and its way down the ladder of recovery when its records are not taken.

use std::fmt::Display;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use tracing::{debug, error, warn};

use super::address::{Address, AllowedTopics};
use super::publisher::Ending;
use super::recourse::{Cause, Course, Form, Letter, Part, recourse};
use crate::config::RetryTopic;
use crate::message::{Code, Correlation, Fault, Outcome, Stage};
use crate::telemetry::Pending;

/// How long a place that a caller has named, or that a request could be put aside in, may be away until the ending goes
/// another way. A broker that is gone is replaced within this time.
pub(super) const AWAY_FOR: Duration = Duration::from_secs(15);

/// One ending on its way.
pub(super) struct Job {
    pub(super) ending: Ending,
    pub(super) correlation: Correlation,
    /// Where the reply or fault goes.
    pub(super) address: Address,
    /// Which partition of the default topic it goes to when it cannot go where it should.
    pub(super) fallback_partition: Option<i32>,
    parking: Option<Parking>,
    /// Which of its records are still to be tried.
    pub(super) course: Course,
    /// Which of them is on its way, where each goes by itself.
    pub(super) part: Part,
    /// Whether its caller has the answer already.
    pub(super) answered: bool,
    /// Whether one of its records was refused, so that it had better not share a transaction with others.
    pub(super) was_refused: bool,
    /// When the latest of its records was sent; before that, when the request was read.
    pub(super) sent: Instant,
    /// Counts it among those that wait for the broker, from its turn on.
    pub(super) pending: Option<Pending>,
}

/// In which retry topic a request is put aside, and why.
#[derive(Debug, Clone)]
pub struct Parking {
    /// The topic.
    pub topic: RetryTopic,
    /// How often the request has failed for a passing reason, this time included.
    pub failures: u32,
    /// As the label of a metric: `failed` or `behind`.
    pub reason: &'static str,
}

impl Job {
    /// Publishes the reply or fault to the address.
    pub(super) fn new(ending: Ending, correlation: Correlation, address: Address, allowed: &AllowedTopics) -> Self {
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
            part: Part::Reply,
            answered: false,
            was_refused: false,
            sent,
            pending: None,
        }
    }

    /// Puts the request aside in a retry topic. What it has ended in is published only if the topic does not take it.
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
        self.part = Part::Letter;
        self
    }

    /// Sends the reply or fault to this partition of its topic.
    pub(super) fn set_partition(&mut self, partition: Option<i32>) {
        self.address.partition = partition;
        self.course.partition = partition.is_some();
    }

    /// Why it is a dead letter, if it is.
    pub(super) fn letter(&self) -> Option<&Fault> {
        self.ending.outcome.result.as_ref().err().filter(|_| !self.course.parked && self.course.letter.is_written())
    }

    /// Where it is put aside, if it is.
    pub(super) fn parking(&self) -> Option<&Parking> {
        self.parking.as_ref().filter(|_| self.course.parked)
    }

    /// Goes the next step of the ladder, since one of its records was not taken, and `why`. False when the same record is
    /// to be tried again.
    pub(super) fn refused(&mut self, part: Part, cause: Cause, why: &dyn Display, allowed: &AllowedTopics) -> bool {
        let source = &self.ending.request.source;
        let before = self.course;
        let Some(next) = recourse(cause, part, before, self.fallback_partition.is_some()) else {
            debug!(%source, %why, "a record was not taken; it is tried again");
            return false;
        };
        debug!(%source, %why, ?part, ?next, "a record was not taken; another goes in its place");
        if before.parked && !next.parked {
            warn!(%source, %why, "a request cannot be put aside in its retry topic; its caller gets the answer or fault");
        }
        if next.letter == Letter::Spent && before.letter != Letter::Spent {
            error!(%source, %why, "a dead letter cannot be published; its fault goes out alone");
            self.part = Part::Reply;
        }
        let outcome = &mut self.ending.outcome;
        if next.letter == Letter::Whole && before.letter == Letter::Unwritten {
            warn!(%source, %why, "a reply cannot be published; the request is a dead letter");
            self.part = Part::Letter;
            if cause != Cause::Size || outcome.result.is_ok() {
                outcome.result = Err(unpublishable(&self.address, cause, why));
            }
        } else if outcome.result.is_ok() && next.reply < Form::Answer {
            outcome.result =
                Err(if cause == Cause::Size { too_large(outcome) } else { unpublishable(&self.address, cause, why) });
        }
        if before.named && !next.named {
            self.address = Address { partition: self.fallback_partition, ..allowed.default_address() };
        } else if !next.partition {
            self.address.partition = None;
        }
        self.course = next;
        true
    }

    /// Whether it has waited long enough for a place that has been away since then. What goes to a topic of our own waits
    /// for as long as it takes.
    pub(super) fn waits_no_longer(&self, since: Instant) -> bool {
        (self.course.parked || self.course.named) && since.elapsed() > AWAY_FOR
    }

    /// Whether nothing of it is left to be sent, now that its letter, if it has one, is there.
    pub(super) fn is_done(&self) -> bool {
        !self.course.parked && self.part == Part::Reply && self.course.reply == Form::Dropped
    }
}

fn too_large(outcome: &Outcome) -> Fault {
    let bytes = outcome.result.as_ref().map_or(0, |reply| reply.body.len());
    let message = format!(
        "the model's answer of {bytes} bytes is larger than the broker takes; ask for fewer rows, or raise \
         message.max.bytes of the broker and of kafka.properties",
    );
    Fault::permanent(Code::PayloadTooLarge, Stage::Publish, message)
}

fn unpublishable(address: &Address, cause: Cause, why: &dyn Display) -> Fault {
    let code = match cause {
        Cause::Size => Code::PayloadTooLarge,
        Cause::Topic | Cause::Partition | Cause::Passing => Code::PermissionDenied,
        Cause::Record => Code::InternalError,
    };
    let message = format!("the reply cannot be written to topic '{}': {why}", address.topic);
    Fault::permanent(code, Stage::Publish, message)
}

/// As the label of a metric.
pub(super) fn reason(code: Option<RDKafkaErrorCode>) -> String {
    code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}"))
}

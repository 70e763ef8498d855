//! What a request ends in, on its way out, and the other way that it takes when the first is barred.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, warn};

use super::address::{Address, AllowedTopics};
use super::publisher::Ending;
use super::recourse::{Attempted, Recourse, recourse};
use crate::config::RetryTopic;
use crate::message::{Code, Correlation, Fault, Outcome, Stage};
use crate::telemetry::Pending;

/// How long a record that was not taken waits before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// One ending on its way.
pub(super) struct Job {
    pub(super) ending: Ending,
    pub(super) correlation: Correlation,
    pub(super) destination: Destination,
    /// Which partition of the default topic it goes to when it cannot go where it should.
    pub(super) fallback_partition: Option<i32>,
    /// Which of its records is on its way.
    pub(super) part: Part,
    /// Whether its caller has the answer already.
    pub(super) answered: bool,
    /// When the latest of them was; before that, when the request was read.
    pub(super) sent: Instant,
    /// Counts it among those that wait for the broker, from its turn on.
    pub(super) pending: Option<Pending>,
}

/// Which records it takes.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// The reply or fault, to where the caller wants it.
    Caller(Address),
    /// The dead letter, and then its fault to this address.
    DeadLetter(DeadLetter, Address),
    /// A retry topic. If that does not take it, the reply or fault goes to this address after all.
    Parked(Parking, Address),
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

/// A request that cannot be answered as its caller wants it.
#[derive(Debug, Clone)]
pub(super) struct DeadLetter {
    pub(super) fault: Fault,
    /// Whether it carries the request's value.
    pub(super) whole: bool,
    /// Whether it may go to another partition than the request's.
    pub(super) any_partition: bool,
}

/// Which of a job's records it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Letter,
    Reply,
}

impl Part {
    fn first_of(destination: &Destination) -> Self {
        match destination {
            Destination::Caller(_) | Destination::Parked(..) => Self::Reply,
            Destination::DeadLetter(..) => Self::Letter,
        }
    }
}

impl DeadLetter {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault, whole: true, any_partition: false }
    }
}

impl Job {
    pub(super) fn new(mut ending: Ending, correlation: Correlation, destination: Destination) -> Self {
        if let Destination::DeadLetter(letter, _) = &destination {
            ending.outcome.result = Err(letter.fault.clone());
        }
        let part = Part::first_of(&destination);
        let sent = ending.ticket.received();
        Self { ending, correlation, destination, fallback_partition: None, part, answered: false, sent, pending: None }
    }

    /// Where the reply or fault goes.
    pub(super) fn address(&self) -> &Address {
        match &self.destination {
            Destination::Caller(address) | Destination::DeadLetter(_, address) | Destination::Parked(_, address) => {
                address
            }
        }
    }

    pub(super) fn address_mut(&mut self) -> &mut Address {
        match &mut self.destination {
            Destination::Caller(address) | Destination::DeadLetter(_, address) | Destination::Parked(_, address) => {
                address
            }
        }
    }

    fn fallback_address(&self, allowed: &AllowedTopics) -> Address {
        Address { partition: self.fallback_partition, ..allowed.default_address() }
    }

    /// The dead letter, if there has to be one.
    pub(super) fn letter(&self) -> Option<&DeadLetter> {
        match &self.destination {
            Destination::Caller(_) | Destination::Parked(..) => None,
            Destination::DeadLetter(letter, _) => Some(letter),
        }
    }

    /// Where it is put aside, if it is.
    pub(super) fn parking(&self) -> Option<&Parking> {
        match &self.destination {
            Destination::Parked(parking, _) => Some(parking),
            Destination::Caller(_) | Destination::DeadLetter(..) => None,
        }
    }

    /// One of its records was not taken: changes it into what should go in its place, and says how long to wait.
    pub(super) fn reroute(&mut self, part: Part, error: &KafkaError, allowed: &AllowedTopics) -> Duration {
        self.part = part;
        let code = error.rdkafka_error_code();
        let source = &self.ending.request.source;
        match recourse(code, self.attempted(part, allowed)) {
            Recourse::Again => {
                debug!(%source, %error, "a record was not taken; trying again");
                return AGAIN_AFTER;
            }
            Recourse::AnyPartition => match (&mut self.destination, part) {
                (Destination::DeadLetter(letter, _), Part::Letter) => letter.any_partition = true,
                (Destination::Caller(address) | Destination::DeadLetter(_, address), _) => address.partition = None,
                (Destination::Parked(..), _) => {}
            },
            Recourse::NotParked => {
                warn!(%source, %error, "a request cannot be put aside in its retry topic; its caller gets the fault");
                self.destination = Destination::Caller(self.address().clone());
            }
            Recourse::TooLarge => self.ending.outcome.result = Err(too_large(&self.ending.outcome)),
            Recourse::DeadLetter => {
                warn!(%source, %error, "a reply cannot be published; the request is a dead letter");
                let fault = unreachable_topic(self.address(), error);
                self.ending.outcome.result = Err(fault.clone());
                self.destination = Destination::DeadLetter(DeadLetter::new(fault), self.fallback_address(allowed));
                self.part = Part::Letter;
            }
            Recourse::DefaultAddress => {
                *self.address_mut() = self.fallback_address(allowed);
            }
            Recourse::Stripped => {
                warn!(%source, "a dead letter is too large and goes without its value");
                if let Destination::DeadLetter(letter, _) = &mut self.destination {
                    letter.whole = false;
                }
            }
            Recourse::GiveUp => {
                error!(%source, %error, "a dead letter cannot be published; its fault goes out alone");
                self.destination = Destination::Caller(self.address().clone());
                self.part = Part::Reply;
            }
        }
        Duration::ZERO
    }

    fn attempted(&self, part: Part, allowed: &AllowedTopics) -> Attempted {
        match (&self.destination, part) {
            (Destination::Parked(..), _) => Attempted::Parked,
            (Destination::DeadLetter(letter, _), Part::Letter) => Attempted::DeadLetter { whole: letter.whole },
            (Destination::Caller(address) | Destination::DeadLetter(_, address), _) => Attempted::Caller {
                partition: address.partition.is_some(),
                default_topic: address.topic == allowed.default_address().topic,
                after_letter: self.letter().is_some(),
            },
        }
    }
}

fn too_large(outcome: &Outcome) -> Fault {
    match &outcome.result {
        Ok(reply) => Fault::permanent(
            Code::PayloadTooLarge,
            Stage::Publish,
            format!(
                "the model's answer of {} bytes is larger than the broker takes; ask for fewer rows, or raise \
                 message.max.bytes of the broker and of kafka.properties",
                reply.body.len()
            ),
        ),
        Err(fault) => Fault { message: "the fault is larger than the broker takes".to_owned(), ..fault.clone() },
    }
}

fn unreachable_topic(address: &Address, error: &KafkaError) -> Fault {
    let message = format!("the reply cannot be written to topic '{}': {error}", address.topic);
    Fault::permanent(Code::PermissionDenied, Stage::Publish, message)
}

/// As the label of a metric.
pub(super) fn reason(code: Option<RDKafkaErrorCode>) -> String {
    code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}"))
}

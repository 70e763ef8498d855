//! Admission to transactions: publications whose records are known to be taken share one. A publication of which that
//! is not known goes alone, in a transaction of its own, and one that cannot be written now is deferred, so that
//! neither decides over others.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::super::address::AllowedTopics;
use super::super::counts::Counts;
use super::super::directory::{TopicDirectory, WriteStatus};
use super::super::outgoing::DeadLetterTopic;
use super::super::publication::Publication;
use super::super::recourse::{Cause, RecordKind};
use super::pool::SessionPool;
use crate::invocation::Backoff;

/// Pauses between attempts at a destination that took nothing in time.
const STALLED: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) };
/// Time for which a publication waits while a transaction with its destination is undecided though the partition has a
/// leader, which can then be expected to write the end of the transaction down at once.
const UNDECIDED_FOR: Duration = Duration::from_secs(3);
/// Time for which a publication waits once more that has waited for [`UNDECIDED_FOR`] already, since one transaction
/// after another with its destination was undecided.
const UNDECIDED_AGAIN_FOR: Duration = Duration::from_millis(500);
/// Most topics named by callers that are remembered. Each that is forgotten has to prove itself again.
const MAX_PROVEN: usize = 1_000;

/// Partition of a topic; without a number whichever the producer takes.
pub(super) type Destination = (Arc<str>, Option<i32>);

/// Judges publications by their destinations: by the directory, and by what became of records before.
pub(super) struct TransactionAdmission {
    pub(super) directory: TopicDirectory,
    pub(super) allowed: Arc<AllowedTopics>,
    pub(super) dead_letters: DeadLetterTopic,
    counts: Counts,
    /// Topics named by callers, to which something was committed.
    proven: HashSet<Arc<str>>,
    stalled: HashMap<Destination, StalledDestination>,
    /// Destinations that an aborted transaction has failed at, until they are taken.
    blamed: HashSet<Destination>,
    /// Time of the last committed transaction.
    committed: Instant,
}

/// Destination that has taken nothing in time.
struct StalledDestination {
    since: Instant,
    /// Time at which the destination is tried again.
    until: Instant,
    /// The number of attempts that came to nothing since the first.
    again: u32,
    /// True if others were served while this one was tried, so that the brokers as a whole are not at fault.
    others_were_served: bool,
}

/// Degree to which a publication is kept apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// The publication shares a transaction with others.
    Shared,
    /// The publication goes in a transaction of its own.
    Alone,
    /// The publication cannot go now.
    Deferred,
}

impl TransactionAdmission {
    pub(super) fn new(
        directory: TopicDirectory,
        allowed: Arc<AllowedTopics>,
        dead_letters: DeadLetterTopic,
        counts: Counts,
    ) -> Self {
        Self {
            directory,
            allowed,
            dead_letters,
            counts,
            proven: HashSet::new(),
            stalled: HashMap::new(),
            blamed: HashSet::new(),
            committed: Instant::now(),
        }
    }

    /// Judges a publication, on the first rung of its ladder that is not known to be barred.
    pub(super) fn isolation(&self, publication: &mut Publication, pool: &SessionPool) -> Isolation {
        loop {
            let mut isolation = if publication.was_refused { Isolation::Alone } else { Isolation::Shared };
            let mut barred = None;
            for kind in [RecordKind::DeadLetter, RecordKind::Reply] {
                match self.look(publication, kind, pool) {
                    Ok(found) => isolation = isolation.max(found),
                    Err((cause, code)) => barred = Some((kind, cause, code)),
                }
            }
            let Some((kind, cause, code)) = barred else { return isolation };
            self.counts.refused(Some(code));
            if !publication.refused(kind, cause, &code, &self.allowed) {
                return Isolation::Deferred;
            }
        }
    }

    /// Judges one record of a publication, or says why the record is barred.
    fn look(
        &self,
        publication: &Publication,
        kind: RecordKind,
        pool: &SessionPool,
    ) -> Result<Isolation, (Cause, RDKafkaErrorCode)> {
        let Some(target) = publication.target(kind, &self.dead_letters) else { return Ok(Isolation::Shared) };
        let is_own = self.directory.is_own(target.topic);
        match self.directory.write_status(target.topic, target.partition, target.key.as_deref()) {
            WriteStatus::Writable => {}
            WriteStatus::Unknown => return Ok(Isolation::Deferred),
            // A missing topic of our own is an operator's to mend, and librdkafka finds out when that is done.
            WriteStatus::NoTopic(_) if is_own => return Ok(Isolation::Alone),
            WriteStatus::NoTopic(code) => return Err((Cause::Topic, code)),
            WriteStatus::NoPartition => return Err((Cause::Partition, RDKafkaErrorCode::UnknownPartition)),
            WriteStatus::NoLeader(since) if kind == RecordKind::Reply && publication.waits_no_longer(since) => {
                return Err((Cause::Topic, RDKafkaErrorCode::LeaderNotAvailable));
            }
            WriteStatus::NoLeader(_) => return Ok(Isolation::Deferred),
        }
        // Building a record costs far more than estimating its size, so only large ones are built here.
        if publication.bytes_at_most(kind, &self.dead_letters) > self.directory.largest_record(target.topic) {
            let record = publication.record(kind, &self.dead_letters);
            if record.is_some_and(|record| record.bytes > self.directory.largest_record(&record.topic)) {
                return Err((Cause::Size, RDKafkaErrorCode::MessageSizeTooLarge));
            }
        }
        let is_reply = kind == RecordKind::Reply;
        let longest = match publication.has_waited(publication.sent, UNDECIDED_FOR) {
            true => UNDECIDED_AGAIN_FOR,
            false => UNDECIDED_FOR,
        };
        let given_up = |since| is_reply && publication.has_waited(since, longest);
        let timed_out = (Cause::Topic, RDKafkaErrorCode::MessageTimedOut);
        // Most of the time nothing is stalled, and then the partition need not be found out.
        let destination = (!self.stalled.is_empty() || pool.has_undecided()).then(|| {
            let partition = self.directory.partition(target.topic, target.partition, target.key.as_deref());
            (target.topic.clone(), partition)
        });
        // Another transaction with the same destination would be undecided as well, and take another session.
        if let Some(since) = destination.as_ref().and_then(|destination| pool.undecided_since(destination)) {
            return if given_up(since) { Err(timed_out) } else { Ok(Isolation::Deferred) };
        }
        match destination.and_then(|destination| self.stalled.get(&destination)) {
            // One publication after another probes the destination, and those between them wait.
            Some(stall) if Instant::now() >= stall.until => Ok(Isolation::Alone),
            Some(stall) if is_reply && stall.others_were_served && publication.waits_no_longer(stall.since) => {
                Err(timed_out)
            }
            Some(_) => Ok(Isolation::Deferred),
            None if is_own || self.proven.contains(target.topic) => Ok(Isolation::Shared),
            None => match pool.full_since() {
                Some(since) if given_up(since) => Err(timed_out),
                Some(_) => Ok(Isolation::Deferred),
                None => Ok(Isolation::Alone),
            },
        }
    }

    /// Lists the destination of each of a publication's records.
    pub(super) fn destinations(&self, publication: &Publication) -> impl Iterator<Item = (RecordKind, Destination)> {
        [RecordKind::DeadLetter, RecordKind::Reply].into_iter().filter_map(|kind| {
            let target = publication.target(kind, &self.dead_letters)?;
            let partition = self.directory.partition(target.topic, target.partition, target.key.as_deref());
            Some((kind, (target.topic.clone(), partition)))
        })
    }

    /// Takes in that these publications are committed: their destinations have room for others.
    pub(super) fn committed(&mut self, publications: &[Publication]) {
        self.committed = Instant::now();
        for publication in publications {
            if !self.stalled.is_empty() {
                let destinations: Vec<_> = self.destinations(publication).map(|(_, destination)| destination).collect();
                self.stalled.retain(|destination, _| !destinations.contains(destination));
            }
            if publication.course.named
                && !publication.course.parked
                && !self.proven.contains(&publication.address.topic)
            {
                if self.proven.len() >= MAX_PROVEN {
                    self.proven.clear();
                }
                self.proven.insert(publication.address.topic.clone());
            }
        }
    }

    /// Takes the destinations that an aborted transaction has failed at.
    pub(super) fn take_blamed(&mut self) -> HashSet<Destination> {
        std::mem::take(&mut self.blamed)
    }

    /// Lists the destinations of a publication in topics that callers have named.
    pub(super) fn named_destinations(&self, publication: &Publication) -> impl Iterator<Item = Destination> {
        let destinations = self.destinations(publication).map(|(_, destination)| destination);
        destinations.filter(|(topic, _)| !self.directory.is_own(topic))
    }

    /// Marks a destination as stalled: it has taken nothing in time, or not now.
    pub(super) fn stall(&mut self, destination: &Destination) {
        self.blamed.insert(destination.clone());
        let (now, committed) = (Instant::now(), self.committed);
        self.directory.look_up(&destination.0);
        if self.stalled.len() >= MAX_PROVEN {
            self.stalled.clear();
        }
        self.stalled
            .entry(destination.clone())
            .and_modify(|stall| {
                stall.others_were_served |= committed > stall.since;
                stall.again = stall.again.saturating_add(1);
                stall.until = now + STALLED.pause(stall.again);
            })
            // The first probe follows at once and alone: perhaps the stall was not this destination's fault.
            .or_insert(StalledDestination { since: now, until: now, again: 0, others_were_served: false });
    }

    /// Takes in that a record was rejected: another goes in its place, apart from others.
    pub(super) fn refused(&mut self, publication: &mut Publication, kind: RecordKind, cause: Cause, why: &dyn Display) {
        let place = self.destinations(publication).find_map(|(of, destination)| (of == kind).then_some(destination));
        if cause == Cause::Passing {
            place.iter().for_each(|place| self.stall(place));
            return;
        }
        self.blamed.extend(place.iter().filter(|(topic, _)| !self.directory.is_own(topic)).cloned());
        self.proven.remove(&publication.address.topic);
        self.directory.look_up(&publication.address.topic);
        // The broker rejects a batch as a whole; a record that seems to fit is sent once more by itself.
        let seems_to_fit = || {
            let record = publication.record(kind, &self.dead_letters);
            record.is_some_and(|record| record.bytes <= self.directory.largest_record(&record.topic))
        };
        if cause == Cause::Size && !publication.was_refused && seems_to_fit() {
            publication.was_refused = true;
            return;
        }
        if publication.refused(kind, cause, why, &self.allowed) {
            publication.was_refused = true;
        } else if let Some(place) = place {
            // The topic is one of our own, which an operator has to mend.
            self.stall(&place);
        }
    }
}

impl Isolation {
    /// Returns the more careful of two.
    fn max(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deferred, _) | (_, Self::Deferred) => Self::Deferred,
            (Self::Alone, _) | (_, Self::Alone) => Self::Alone,
            (Self::Shared, Self::Shared) => Self::Shared,
        }
    }
}

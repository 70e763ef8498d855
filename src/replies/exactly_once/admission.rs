//! Admission to transactions: publications whose records are known to be taken share one. A publication of which that
//! is not known goes alone, in a transaction of its own, and one that cannot be written now is deferred, so that
//! neither decides over others.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::sessions::Sessions;
use crate::invocation::Backoff;
use crate::replies::directory::Destination;
use crate::replies::parts::{Parts, Prospect};
use crate::replies::publication::Publication;
use crate::replies::recourse::{Cause, RecordKind};

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

/// Judges publications by their destinations: by the directory, and by what became of records before.
pub(super) struct TransactionAdmission {
    pub(super) parts: Arc<Parts>,
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

/// Degree to which a publication is kept apart from others, the more careful after the less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grouping {
    /// The publication shares a transaction with others.
    Shared,
    /// The publication goes in a transaction of its own.
    Alone,
    /// The publication cannot go now.
    Deferred,
}

impl TransactionAdmission {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self {
            parts,
            proven: HashSet::new(),
            stalled: HashMap::new(),
            blamed: HashSet::new(),
            committed: Instant::now(),
        }
    }

    /// Judges a publication, on the first rung of its ladder that is not known to be barred.
    pub(super) fn grouping(&self, publication: &mut Publication, sessions: &Sessions) -> Grouping {
        loop {
            let mut grouping = if publication.was_refused { Grouping::Alone } else { Grouping::Shared };
            let mut barred = None;
            for kind in RecordKind::ALL {
                match self.look(publication, kind, sessions) {
                    Ok(found) => grouping = grouping.max(found),
                    Err((cause, code)) => barred = Some((kind, cause, code)),
                }
            }
            let Some((kind, cause, code)) = barred else { return grouping };
            self.parts.counts.refused(Some(code));
            if !publication.refused(kind, cause, &code, &self.parts.allowed) {
                return Grouping::Deferred;
            }
        }
    }

    /// Judges one record of a publication, or says why the record is barred.
    fn look(
        &self,
        publication: &Publication,
        kind: RecordKind,
        sessions: &Sessions,
    ) -> Result<Grouping, (Cause, RDKafkaErrorCode)> {
        match self.parts.prospect(publication, kind)? {
            Prospect::Good => {}
            Prospect::Doubtful => return Ok(Grouping::Alone),
            Prospect::Unknown | Prospect::Away => return Ok(Grouping::Deferred),
        }
        let Parts { directory, dead_letters, .. } = &*self.parts;
        let Some(target) = publication.target(kind, dead_letters) else { return Ok(Grouping::Shared) };
        let is_reply = kind == RecordKind::Reply;
        let longest = match publication.has_waited(publication.sent, UNDECIDED_FOR) {
            true => UNDECIDED_AGAIN_FOR,
            false => UNDECIDED_FOR,
        };
        let given_up = |since| is_reply && publication.has_waited(since, longest);
        let timed_out = (Cause::Topic, RDKafkaErrorCode::MessageTimedOut);
        // Most of the time nothing is stalled, and then the partition need not be found out.
        let destination = match self.stalled.is_empty() && !sessions.has_undecided() {
            true => None,
            false => self.destination(publication, kind),
        };
        // Another transaction with the same destination would be undecided as well, and take another session.
        if let Some(since) = destination.as_ref().and_then(|destination| sessions.undecided_since(destination)) {
            return if given_up(since) { Err(timed_out) } else { Ok(Grouping::Deferred) };
        }
        match destination.and_then(|destination| self.stalled.get(&destination)) {
            // One publication after another probes the destination, and those between them wait.
            Some(stall) if Instant::now() >= stall.until => Ok(Grouping::Alone),
            Some(stall) if is_reply && stall.others_were_served && publication.waits_no_longer(stall.since) => {
                Err(timed_out)
            }
            Some(_) => Ok(Grouping::Deferred),
            None if directory.is_own(target.topic) || self.proven.contains(target.topic) => Ok(Grouping::Shared),
            None => match sessions.full_since() {
                Some(since) if given_up(since) => Err(timed_out),
                Some(_) => Ok(Grouping::Deferred),
                None => Ok(Grouping::Alone),
            },
        }
    }

    /// Returns the destination of one of a publication's records, if the record is still to be tried.
    pub(super) fn destination(&self, publication: &Publication, kind: RecordKind) -> Option<Destination> {
        let target = publication.target(kind, &self.parts.dead_letters)?;
        let partition = self.parts.directory.partition(target.topic, target.partition, target.key.as_deref());
        Some((target.topic.clone(), partition))
    }

    /// Lists the destinations of a publication's records.
    pub(super) fn destinations(&self, publication: &Publication) -> impl Iterator<Item = Destination> {
        RecordKind::ALL.into_iter().filter_map(|kind| self.destination(publication, kind))
    }

    /// Returns whether a publication goes to one of these destinations.
    pub(super) fn goes_to(&self, publication: &Publication, destinations: &HashSet<Destination>) -> bool {
        !destinations.is_empty() && self.destinations(publication).any(|it| destinations.contains(&it))
    }

    /// Takes in that these publications are committed: their destinations have room for others.
    pub(super) fn committed(&mut self, publications: &[Publication]) {
        self.committed = Instant::now();
        for publication in publications {
            if !self.stalled.is_empty() {
                let destinations: Vec<_> = self.destinations(publication).collect();
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
        self.destinations(publication).filter(|(topic, _)| !self.parts.directory.is_own(topic))
    }

    /// Marks a destination as stalled: it has taken nothing in time, or not now.
    pub(super) fn stall(&mut self, destination: &Destination) {
        self.blamed.insert(destination.clone());
        let (now, committed) = (Instant::now(), self.committed);
        self.parts.directory.look_up(&destination.0);
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
        let place = self.destination(publication, kind);
        if cause == Cause::Passing {
            place.iter().for_each(|place| self.stall(place));
            return;
        }
        self.blamed.extend(place.iter().filter(|(topic, _)| !self.parts.directory.is_own(topic)).cloned());
        self.proven.remove(&publication.address.topic);
        self.parts.directory.look_up(&publication.address.topic);
        // The broker rejects a batch as a whole; a record that seems to fit is sent once more by itself.
        if cause == Cause::Size && !publication.was_refused && self.parts.seems_to_fit(publication, kind) {
            publication.was_refused = true;
            return;
        }
        if publication.refused(kind, cause, why, &self.parts.allowed) {
            publication.was_refused = true;
        } else if let Some(place) = place {
            // The topic is one of our own, which an operator has to mend.
            self.stall(&place);
        }
    }
}

//! Which jobs may share a transaction: those of which it is known that their records will be taken. One of which it is
//! not known has a transaction of its own, and one that cannot be written now waits, so that neither decides over others.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::super::address::AllowedTopics;
use super::super::counts::Counts;
use super::super::directory::{Directory, Standing};
use super::super::job::Job;
use super::super::outgoing::Graveyard;
use super::super::recourse::{Cause, Part};

/// Between two attempts at a place that took nothing in time, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// So many topics are remembered that callers have named. Each that is forgotten has to prove itself again.
const MAX_PROVEN: usize = 1_000;

/// A partition of a topic; without a number whichever it is.
pub(super) type Spot = (Arc<str>, Option<i32>);

/// What is known of the places that records go to, from the directory and from what became of records before.
pub(super) struct Admission {
    pub(super) directory: Directory,
    pub(super) allowed: Arc<AllowedTopics>,
    pub(super) graveyard: Graveyard,
    counts: Counts,
    /// Topics named by callers, to which something was committed.
    proven: HashSet<Arc<str>>,
    doubts: HashMap<Spot, Doubt>,
    /// When a transaction was committed last.
    committed: Instant,
}

/// A place that has taken nothing in time.
struct Doubt {
    since: Instant,
    /// When it is tried again.
    until: Instant,
    pause: Duration,
    /// Whether others were served while it was tried, so that it is not the brokers as a whole.
    is_alone: bool,
}

/// With whom a job travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// With all others.
    Together,
    /// In a transaction of its own.
    Apart,
    /// With nobody now.
    Wait,
}

impl Admission {
    pub(super) fn new(directory: Directory, allowed: Arc<AllowedTopics>, graveyard: Graveyard, counts: Counts) -> Self {
        Self {
            directory,
            allowed,
            graveyard,
            counts,
            proven: HashSet::new(),
            doubts: HashMap::new(),
            committed: Instant::now(),
        }
    }

    /// With whom a job travels, on the first way of its ladder that is not known to be barred.
    pub(super) fn verdict(&self, job: &mut Job) -> Verdict {
        loop {
            let mut verdict = if job.was_refused { Verdict::Apart } else { Verdict::Together };
            let mut barred = None;
            for part in [Part::Letter, Part::Reply] {
                match self.look(job, part) {
                    Ok(found) => verdict = verdict.max(found),
                    Err((cause, code)) => barred = Some((part, cause, code)),
                }
            }
            let Some((part, cause, code)) = barred else { return verdict };
            self.counts.refused(Some(code));
            if !job.refused(part, cause, &code, &self.allowed) {
                return Verdict::Wait;
            }
        }
    }

    /// How it stands with one of its records, or why that is barred.
    fn look(&self, job: &Job, part: Part) -> Result<Verdict, (Cause, RDKafkaErrorCode)> {
        let Some(target) = job.target(part, &self.graveyard) else { return Ok(Verdict::Together) };
        let is_own = self.directory.is_own(target.topic);
        match self.directory.standing(target.topic, target.partition, target.key.as_deref()) {
            Standing::Open => {}
            Standing::Unknown => return Ok(Verdict::Wait),
            // It is an operator's to mend, and librdkafka finds out when that is done.
            Standing::NoTopic(_) if is_own => return Ok(Verdict::Apart),
            Standing::NoTopic(code) => return Err((Cause::Topic, code)),
            Standing::NoPartition => return Err((Cause::Partition, RDKafkaErrorCode::UnknownPartition)),
            Standing::Away(since) if part == Part::Reply && job.waits_no_longer(since) => {
                return Err((Cause::Topic, RDKafkaErrorCode::LeaderNotAvailable));
            }
            Standing::Away(_) => return Ok(Verdict::Wait),
        }
        if job.bytes_at_most(part, &self.graveyard) > self.directory.largest_record(target.topic) {
            let record = job.record(part, &self.graveyard);
            if record.is_some_and(|record| record.bytes > self.directory.largest_record(&record.topic)) {
                return Err((Cause::Size, RDKafkaErrorCode::MessageSizeTooLarge));
            }
        }
        let doubt = match self.doubts.is_empty() {
            true => None,
            false => {
                let partition = self.directory.partition(target.topic, target.partition, target.key.as_deref());
                self.doubts.get(&(target.topic.clone(), partition))
            }
        };
        match doubt {
            // One after another tries, and those between them need not.
            Some(doubt) if Instant::now() >= doubt.until => Ok(Verdict::Apart),
            Some(doubt) if part == Part::Reply && doubt.is_alone && job.waits_no_longer(doubt.since) => {
                Err((Cause::Topic, RDKafkaErrorCode::MessageTimedOut))
            }
            Some(_) => Ok(Verdict::Wait),
            None if is_own || self.proven.contains(target.topic) => Ok(Verdict::Together),
            None => Ok(Verdict::Apart),
        }
    }

    /// Where each of a job's records goes.
    pub(super) fn spots(&self, job: &Job) -> impl Iterator<Item = (Part, Spot)> {
        [Part::Letter, Part::Reply].into_iter().filter_map(|part| {
            let target = job.target(part, &self.graveyard)?;
            let partition = self.directory.partition(target.topic, target.partition, target.key.as_deref());
            Some((part, (target.topic.clone(), partition)))
        })
    }

    /// The records of these jobs are there: where they went there is room for others.
    pub(super) fn committed(&mut self, jobs: &[Job]) {
        self.committed = Instant::now();
        for job in jobs {
            if !self.doubts.is_empty() {
                let spots: Vec<_> = self.spots(job).map(|(_, spot)| spot).collect();
                self.doubts.retain(|spot, _| !spots.contains(spot));
            }
            if job.course.named && !job.course.parked && !self.proven.contains(&job.address.topic) {
                if self.proven.len() >= MAX_PROVEN {
                    self.proven.clear();
                }
                self.proven.insert(job.address.topic.clone());
            }
        }
    }

    /// A place has taken nothing in time, or not now.
    pub(super) fn doubt(&mut self, spot: &Spot) {
        let (now, committed) = (Instant::now(), self.committed);
        self.directory.look_up(&spot.0);
        if self.doubts.len() >= MAX_PROVEN {
            self.doubts.clear();
        }
        self.doubts
            .entry(spot.clone())
            .and_modify(|doubt| {
                doubt.is_alone |= committed > doubt.since;
                doubt.until = now + doubt.pause;
                doubt.pause = (doubt.pause * 2).min(LONGEST_PAUSE);
            })
            // Once at once, by itself: perhaps it was not its fault.
            .or_insert(Doubt { since: now, until: now, pause: FIRST_PAUSE, is_alone: false });
    }

    /// A record was refused: another goes in its place, apart from others.
    pub(super) fn refused(&mut self, job: &mut Job, part: Part, cause: Cause, why: &dyn Display) {
        let place = self.spots(job).find_map(|(of, spot)| (of == part).then_some(spot));
        if cause == Cause::Passing {
            place.iter().for_each(|place| self.doubt(place));
            return;
        }
        self.proven.remove(&job.address.topic);
        self.directory.look_up(&job.address.topic);
        // A batch is refused as a whole; what seems to fit is sent once more by itself.
        let seems_to_fit = || {
            let record = job.record(part, &self.graveyard);
            record.is_some_and(|record| record.bytes <= self.directory.largest_record(&record.topic))
        };
        if cause == Cause::Size && !job.was_refused && seems_to_fit() {
            job.was_refused = true;
            return;
        }
        if job.refused(part, cause, why, &self.allowed) {
            job.was_refused = true;
        } else if let Some(place) = place {
            // A topic of our own that an operator has to mend.
            self.doubt(&place);
        }
    }
}

impl Verdict {
    /// The more careful of two.
    fn max(self, other: Self) -> Self {
        match (self, other) {
            (Self::Wait, _) | (_, Self::Wait) => Self::Wait,
            (Self::Apart, _) | (_, Self::Apart) => Self::Apart,
            (Self::Together, Self::Together) => Self::Together,
        }
    }
}

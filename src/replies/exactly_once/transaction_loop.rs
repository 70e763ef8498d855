//! Thread that writes finished requests in transactions, one transaction after another.
//!
//! One session gathers records while another one's transaction is committed. A publication of which it is not known
//! whether its records will be taken goes alone, in a transaction of its own between two others, so that it spoils no
//! other's.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::LoopParts;
use super::admission::{Grouping, TransactionAdmission};
use super::allowance::Allowance;
use super::batch::TransactionBatch;
use super::committer::{FinishedTransaction, TransactionCommitter, TransactionOutcome};
use super::deferred::DeferredQueue;
use super::fencing::FencingAction;
use super::session::{FlushOutcome, Session, StepError};
use super::sessions::Sessions;
use crate::broker::BrokerError;
use crate::intake::Offsets;
use crate::replies::directory::Destination;
use crate::replies::parts::Parts;
use crate::replies::publication::Publication;
use crate::telemetry::Metrics;

/// Wait for a first publication before looking whether the loop is to end.
const POLL: Duration = Duration::from_millis(100);
/// Time without a publication after which an early commit is considered; also the interval at which the end of the
/// transaction before is looked for.
const IDLE: Duration = Duration::from_millis(2);
/// Interval at which deferred publications are judged again while nothing has changed.
const RECHECK: Duration = Duration::from_millis(200);
/// Pause after a transaction that was aborted though no record was refused; without it the loop would spin.
const AFTER_ABORT: Duration = Duration::from_millis(100);
/// Longest wait for a session once the process is to end; its publications are answered again by the next owner.
const LAST_SESSION: Duration = Duration::from_secs(5);
/// Most publications in one transaction.
const MAX_PUBLICATIONS: usize = 10_000;

/// Gathers the publications of one transaction while the one before is committed, by several sessions in turn.
pub(super) struct TransactionLoop {
    publications: Receiver<Publication>,
    interval: Duration,
    ordered: bool,
    parts: Arc<Parts>,
    stop: Arc<AtomicBool>,
    sessions: Sessions,
    committer: TransactionCommitter,
    offsets: Offsets,
    admission: TransactionAdmission,
    allowance: Allowance,
    /// Publications for the next transaction.
    ready: VecDeque<Publication>,
    /// Publications that go alone, or cannot go now.
    deferred: DeferredQueue,
    /// Transaction of a publication that goes alone, while its record is not written yet. It is committed between two
    /// others, so nothing waits for it, however long the broker takes.
    alone: Option<(Session, TransactionBatch)>,
    /// True if the outcome of a transaction will never be known, so that none after it may be committed.
    is_over: bool,
    metrics: Metrics,
}

impl TransactionLoop {
    pub(super) fn new(given: LoopParts, offsets: Offsets) -> Result<Self, BrokerError> {
        let LoopParts { publications, factory, opened, interval, ordered, parts, stop, metrics } = given;
        // Their series exist from the first.
        let [_, _, _, fenced] = ["committed", "aborted", "unknown", "fenced"]
            .map(|result| metrics.transactions.with_label_values(&[result]));
        Ok(Self {
            publications,
            interval,
            ordered,
            sessions: Sessions::new(factory, opened, parts.clone(), fenced, stop.clone()),
            committer: TransactionCommitter::start(offsets.clone())?,
            offsets,
            admission: TransactionAdmission::new(parts.clone()),
            allowance: Allowance::default(),
            ready: VecDeque::new(),
            deferred: DeferredQueue::new(),
            alone: None,
            is_over: false,
            metrics,
            parts,
            stop,
        })
    }

    /// Runs transactions until everything that was handed over is committed and the process is to end.
    pub(super) fn run(mut self) {
        while self.wait() {
            match self.sessions.fencing_action() {
                FencingAction::Continue => {}
                FencingAction::Yield(time) => {
                    if let Some(finished) = self.committer.wait() {
                        self.settle(finished);
                    }
                    if self.sessions.yield_name(time).is_none() {
                        return;
                    }
                    continue;
                }
                FencingAction::Stop => return self.sessions.stop_for_namesake(),
            }
            let Some(session) = self.session() else { return };
            self.gather(session);
        }
    }

    /// Waits until there is something for a transaction. False when the loop is to end.
    fn wait(&mut self) -> bool {
        loop {
            self.recheck_deferred();
            if let Some(finished) = self.committer.take() {
                self.settle(finished);
            }
            self.advance_alone(None);
            if self.is_over {
                return false;
            }
            if !self.ready.is_empty() {
                return true;
            }
            let none_deferred = self.deferred.publications.is_empty() && self.alone.is_none();
            let is_idle = self.committer.session().is_none() && none_deferred;
            if is_idle && self.is_stopping() {
                return false;
            }
            match self.publications.recv_timeout(if is_idle { POLL } else { IDLE }) {
                Ok(publication) => self.admit(publication),
                Err(RecvTimeoutError::Timeout) => self.sessions.poll(),
                Err(RecvTimeoutError::Disconnected) if none_deferred => return false,
                Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
            }
        }
    }

    /// Decides whether a publication shares the next transaction, goes alone, or is deferred.
    fn admit(&mut self, mut publication: Publication) {
        // In order, nothing may overtake a deferred publication that goes to the same place.
        let is_behind = self.ordered && self.admission.goes_to(&publication, &self.deferred.destinations);
        let grouping = match is_behind {
            true => Grouping::Deferred,
            false => self.admission.grouping(&mut publication, &self.sessions),
        };
        match grouping {
            Grouping::Shared => self.ready.push_back(publication),
            Grouping::Alone | Grouping::Deferred => {
                if self.ordered {
                    self.deferred.destinations.extend(self.admission.destinations(&publication));
                }
                self.deferred.publications.push_back((publication, grouping));
            }
        }
    }

    /// Judges deferred publications again, if something may have changed.
    fn recheck_deferred(&mut self) {
        let version = self.parts.directory.version();
        let is_fresh = version == self.deferred.version && self.deferred.checked.elapsed() < RECHECK;
        if self.deferred.publications.is_empty() || is_fresh {
            return;
        }
        (self.deferred.version, self.deferred.checked) = (version, Instant::now());
        self.reset_destinations();
        let revoked = |publication: &Publication| publication.ending.ticket.is_revoked();
        let deferred = std::mem::take(&mut self.deferred.publications);
        let left = deferred.into_iter().map(|(publication, _)| publication).filter(|publication| !revoked(publication));
        left.for_each(|publication| self.admit(publication));
    }

    /// Admits publications once more whose transaction was aborted. They were there before all others.
    fn readmit(&mut self, publications: Vec<Publication>) {
        if publications.is_empty() {
            return;
        }
        let ready = std::mem::take(&mut self.ready);
        let deferred = std::mem::take(&mut self.deferred.publications);
        self.reset_destinations();
        let deferred = deferred.into_iter().map(|(publication, _)| publication);
        publications.into_iter().chain(ready).chain(deferred).for_each(|publication| self.admit(publication));
    }

    /// Forgets the destinations of deferred publications, but for the one that is on its way alone.
    fn reset_destinations(&mut self) {
        self.deferred.destinations.clear();
        if let Some((_, batch)) = self.alone.as_ref().filter(|_| self.ordered) {
            let destinations = batch.publications.iter().flat_map(|alone| self.admission.destinations(alone));
            self.deferred.destinations.extend(destinations);
        }
    }

    /// Advances the publication that is on its way alone, or starts the next. `gathered` is committed next.
    fn advance_alone(&mut self, gathered: Option<(&Session, &TransactionBatch)>) {
        let Some((session, batch)) = self.alone.take() else { return self.start_alone(gathered) };
        let index = session.index();
        let (outcome, session, refused) = match session.written(batch.began()).filter(|_| !batch.is_spoilt()) {
            // Still being written: look again later.
            None if !batch.is_spoilt() => return self.alone = Some((session, batch)),
            // Written, but the committer is busy with another transaction.
            Some(FlushOutcome::Complete) if self.committer.session().is_some() => {
                return self.alone = Some((session, batch));
            }
            Some(FlushOutcome::Complete) => return self.committer.commit(session, batch),
            Some(FlushOutcome::Late) => (TransactionOutcome::Late, None, session.leave()),
            None | Some(FlushOutcome::Rejected) => match session.abort() {
                Ok(()) => {
                    let refused = session.take_refused();
                    (TransactionOutcome::Aborted, Some(session), refused)
                }
                Err(_) => (TransactionOutcome::Aborted, None, session.leave()),
            },
        };
        self.settle(FinishedTransaction::aborted(batch, outcome, index, Ok(session), refused));
    }

    /// Starts the next publication that goes alone, if there is a session that nobody else needs.
    fn start_alone(&mut self, gathered: Option<(&Session, &TransactionBatch)>) {
        if !self.deferred.is_due() || self.is_over || self.ordered && self.is_preceded(gathered.map(|(_, batch)| batch))
        {
            return;
        }
        let busy = [self.committer.session(), gathered.map(|(session, _)| session.index())];
        let Some(session) = self.sessions.take(&busy) else { return };
        let Some(publication) = self.deferred.next() else { return self.sessions.rest(session) };
        match session.begin() {
            Ok(()) => {
                let mut batch = TransactionBatch::new(true);
                batch.send(&session, &self.parts.dead_letters, publication);
                self.alone = Some((session, batch));
            }
            Err(error) => {
                session.discard();
                self.sessions.lost(&error);
                self.readmit(vec![publication]);
            }
        }
    }

    /// Returns whether others must leave before the publication that goes alone next: those that go to the same place
    /// and came before it. Those that come after it are deferred, so it does not wait for long.
    fn is_preceded(&self, gathered: Option<&TransactionBatch>) -> bool {
        let Some(next) = self.deferred.peek() else { return false };
        let destinations: HashSet<Destination> = self.admission.destinations(next).collect();
        let leaves_before = |other: &Publication| self.admission.goes_to(other, &destinations);
        // A transaction that is being committed may come to nothing, and its publications come back.
        self.committer.session().is_some()
            || self.ready.iter().any(leaves_before)
            || gathered.is_some_and(|batch| batch.publications.iter().any(leaves_before))
    }

    /// Gathers one transaction and has it committed.
    fn gather(&mut self, session: Session) {
        if let Err(error) = session.begin() {
            session.discard();
            return self.sessions.lost(&error);
        }
        let mut batch = TransactionBatch::new(false);
        let until = Instant::now() + self.interval;
        loop {
            // Produce what is ready at once, so that readers of uncommitted records have it.
            let mut full = self.is_full(&batch);
            while let Some(publication) = if full { None } else { self.ready.pop_front() } {
                batch.send(&session, &self.parts.dead_letters, publication);
                full = self.is_full(&batch);
            }
            // Wait a moment for the next publication.
            let left = until.saturating_duration_since(Instant::now());
            let idle = full
                || match self.publications.recv_timeout(left.clamp(Duration::from_millis(1), IDLE)) {
                    Ok(publication) => {
                        self.admit(publication);
                        false
                    }
                    Err(_) => true,
                };
            // Take in the end of the transaction before; a full batch cannot go on without it.
            let before = if full { self.committer.wait() } else { self.committer.take() };
            if let Some(finished) = before {
                let mut earlier = self.unfinished(finished);
                // In order, later records must not leave before those that have come back.
                if self.is_over || !earlier.is_empty() && self.ordered {
                    let index = session.index();
                    let (refused, session) = session.roll_back();
                    let (outcome, session) = (TransactionOutcome::Aborted, session.map(Some));
                    let aborted = FinishedTransaction::aborted(batch, outcome, index, session, refused);
                    earlier.extend(self.unfinished(aborted));
                    return self.readmit(earlier);
                }
                self.readmit(earlier);
            }
            self.recheck_deferred();
            self.advance_alone(Some((&session, &batch)));
            // Commit when the batch is full, its interval is over, or nothing else is under way that could join it.
            let is_awaited = || batch.is_awaited() || self.is_stopping();
            let elsewhere = self.deferred.publications.len() + usize::from(self.alone.is_some());
            let others = || self.offsets.under_way() > batch.len() + elsewhere;
            let nothing_comes = || idle && self.ready.is_empty() && !others() && is_awaited();
            if self.committer.session().is_none() && (full || left.is_zero() || nothing_comes()) {
                // The next transaction's records take another connection, and must not arrive before these.
                let waits = self.ordered && session.flush(batch.began()) != FlushOutcome::Complete;
                self.committer.commit(session, batch);
                if let Some(finished) = if waits { self.committer.wait() } else { None } {
                    self.settle(finished);
                }
                return;
            }
        }
    }

    fn is_full(&self, batch: &TransactionBatch) -> bool {
        batch.len() >= MAX_PUBLICATIONS
            || batch.is_spoilt()
            || !batch.is_empty() && batch.bytes() >= self.allowance.bytes()
    }

    /// Takes in the end of a transaction, and admits the publications once more that it did not finish.
    fn settle(&mut self, finished: FinishedTransaction) {
        let publications = self.unfinished(finished);
        self.readmit(publications);
    }

    /// Takes in the end of a transaction, and returns the publications that it did not finish.
    fn unfinished(&mut self, finished: FinishedTransaction) -> Vec<Publication> {
        let FinishedTransaction { mut batch, outcome, index, session, refused, reason, written, took } = finished;
        let (requests, is_alone) = (batch.requests(), batch.is_alone());
        // A destination in doubt may take a record and refuse the marker that ends the transaction.
        let alone = batch.publications.iter().filter(|_| is_alone);
        let in_doubt: HashSet<_> = alone.flat_map(|alone| self.admission.named_destinations(alone)).collect();
        // Committed: all requests are finished.
        if outcome == TransactionOutcome::Committed {
            self.count("committed");
            self.metrics.transaction_requests.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            self.metrics.transaction_commit.observe(took.as_secs_f64());
            self.parts.flow.passed();
            self.allowance.written(batch.bytes(), written);
            batch.finish(&mut self.admission);
            self.sessions.leave_undecided(index, session.ok().flatten(), in_doubt);
            if is_alone {
                self.deferred.alone_committed();
            }
            return Vec::new();
        }
        // Not committed: count and report why.
        let is_refused = batch.has_rejected_record(&refused);
        match is_alone {
            true if is_refused => self.deferred.alone_refused(batch.began().elapsed()),
            true => self.deferred.alone_failed(),
            false => {}
        }
        let code = reason.as_ref().or_else(|| session.as_ref().err().map(StepError::error)).map(|error| {
            self.parts.flow.failed(error);
            error.rdkafka_error_code()
        });
        code.into_iter().for_each(|code| self.parts.counts.refused(code));
        let session = session.inspect_err(|error| self.sessions.lost(error)).ok().flatten();
        // Unknown: only the broker can say which requests the commit has finished.
        if outcome == TransactionOutcome::Unknown {
            self.count("unknown");
            let Some(finished) = self.sessions.recall(index, &requests, &self.offsets) else {
                self.is_over = true;
                return Vec::new();
            };
            batch.finish_committed(&finished, &self.parts.counts);
            self.offsets.unstage(&batch.requests());
            return batch.into_retries(Vec::new(), false, &mut self.admission);
        }
        // Aborted: the requests are under way again, and a late batch makes the next one smaller.
        self.count("aborted");
        self.offsets.unstage(&requests);
        let is_late = outcome == TransactionOutcome::Late;
        if is_late && !is_alone {
            self.allowance.late(batch.bytes());
        }
        let publications = batch.into_retries(refused, is_late, &mut self.admission);
        let blamed = in_doubt.into_iter().chain(self.admission.take_blamed()).collect();
        self.sessions.leave_undecided(index, session, blamed);
        if !is_refused && !is_alone {
            thread::sleep(AFTER_ABORT);
        }
        publications
    }

    /// Takes a session for the next transaction. None when the loop is to end.
    fn session(&mut self) -> Option<Session> {
        let began = Instant::now();
        loop {
            let alone = self.alone.as_ref().map(|(session, _)| session.index());
            if let Some(session) = self.sessions.take(&[self.committer.session(), alone]) {
                return Some(session);
            }
            if let Some(finished) = self.committer.take() {
                self.settle(finished);
            } else {
                self.sessions.wait(IDLE);
            }
            if self.sessions.fencing_action() == FencingAction::Stop {
                self.sessions.stop_for_namesake();
                return None;
            }
            if self.is_over || self.is_stopping() && began.elapsed() > LAST_SESSION {
                return None;
            }
        }
    }

    /// Counts a transaction by its end.
    fn count(&self, result: &str) {
        self.metrics.transactions.with_label_values(&[result]).inc();
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

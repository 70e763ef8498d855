//! The thread that puts what requests end in into transactions.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};
use tracing::{error, info, warn};

use super::Prepared;
use super::admission::{Admission, Spot, Verdict};
use super::allowance::Allowance;
use super::batch::Batch;
use super::concluder::{Concluded, Concluder, Outcome};
use super::held::Held;
use super::pool::Pool;
use super::session::{Broken, Maker, SESSIONS, Session, Written};
use super::twins::{self, Twins};
use crate::broker::BrokerError;
use crate::intake::{Claim, Offsets};
use crate::replies::job::Job;

/// How long to wait for a first job before looking whether to end.
const POLL: Duration = Duration::from_millis(100);
/// So long nothing may come before it is asked whether anything can; and how soon the end of the transaction before is
/// seen.
const IDLE: Duration = Duration::from_millis(2);
/// How often those that are held back are looked at, unless something has changed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Between a transaction that came to nothing, though no record was refused, and the next.
const AFTER_ABORT: Duration = Duration::from_millis(100);
/// Between two attempts to make a session.
const AFTER_SESSION: Duration = Duration::from_millis(500);
/// How long the broker may take to say what it has committed.
const RECALL: Duration = Duration::from_secs(5);
/// How long a session is waited for once everything is to end.
const LAST_SESSION: Duration = Duration::from_secs(5);
/// Jobs in one transaction.
const MAX_JOBS: usize = 10_000;

/// Gathers the jobs of one transaction while the one before is concluded, by several sessions in turn.
pub(super) struct Transactor<S> {
    parts: Prepared,
    maker: Arc<Maker>,
    pool: Pool,
    concluder: Concluder,
    offsets: Offsets,
    stopping: S,
    twins: Twins,
    admission: Admission,
    allowance: Allowance,
    /// Jobs for the next transaction.
    ready: VecDeque<Job>,
    /// Jobs that travel apart, or not now.
    held: Held,
    /// A transaction of one of these whose record is not written yet. It is concluded between two others, so however long
    /// that takes nobody waits for it.
    apart: Option<(Session, Batch)>,
    /// Which session gathers.
    gathering: Option<usize>,
    /// Nobody will know what became of a transaction, so none of those after it may be committed.
    is_over: bool,
    tally: Tally,
}

/// Handles with their labels bound.
struct Tally {
    committed: IntCounter,
    aborted: IntCounter,
    unknown: IntCounter,
    fenced: IntCounter,
    requests: Histogram,
    commit: Histogram,
}

impl<S: Fn() -> bool> Transactor<S> {
    pub(super) fn new(mut parts: Prepared, offsets: Offsets, stopping: S) -> Result<Self, BrokerError> {
        let results = &parts.metrics.transactions;
        let tally = Tally {
            committed: results.with_label_values(&["committed"]),
            aborted: results.with_label_values(&["aborted"]),
            unknown: results.with_label_values(&["unknown"]),
            fenced: results.with_label_values(&["fenced"]),
            requests: parts.metrics.transaction_requests.clone(),
            commit: parts.metrics.transaction_commit.clone(),
        };
        let opened = std::mem::take(&mut parts.opened);
        let pool = Pool::new(parts.maker.clone(), opened, parts.stop.clone(), parts.flow.clone());
        let (directory, allowed) = (parts.directory.clone(), parts.allowed.clone());
        Ok(Self {
            maker: parts.maker.clone(),
            pool,
            concluder: Concluder::start(offsets.clone())?,
            offsets,
            stopping,
            twins: Twins::default(),
            admission: Admission::new(directory, allowed, parts.graveyard.clone(), parts.counts.clone()),
            allowance: Allowance::default(),
            ready: VecDeque::new(),
            held: Held::new(),
            apart: None,
            gathering: None,
            is_over: false,
            tally,
            parts,
        })
    }

    pub(super) fn run(mut self) {
        while self.wait() {
            match self.verdict() {
                twins::Verdict::GoOn => {}
                twins::Verdict::GiveWay(time) => {
                    if let Some(concluded) = self.concluder.wait() {
                        let jobs = self.settle(concluded);
                        self.again(jobs);
                    }
                    if self.give_way(time).is_none() {
                        return;
                    }
                    continue;
                }
                twins::Verdict::End => return self.end_for_twin(),
            }
            let Some(session) = self.session() else { return };
            self.gathering = Some(session.index());
            self.transact(session);
            self.gathering = None;
        }
    }

    /// Waits until there is something for a transaction. False when it is over.
    fn wait(&mut self) -> bool {
        loop {
            self.look_again();
            if let Some(concluded) = self.concluder.take() {
                let jobs = self.settle(concluded);
                self.again(jobs);
            }
            self.travel_apart(None);
            if self.is_over {
                return false;
            }
            if !self.ready.is_empty() {
                return true;
            }
            let none_held = self.held.jobs.is_empty() && self.apart.is_none();
            let is_idle = self.concluder.session().is_none() && none_held;
            if is_idle && (self.stopping)() {
                return false;
            }
            match self.parts.jobs.recv_timeout(if is_idle { POLL } else { IDLE }) {
                Ok(job) => self.admit(job),
                Err(RecvTimeoutError::Timeout) => self.pool.poll(),
                Err(RecvTimeoutError::Disconnected) if none_held => return false,
                Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
            }
        }
    }

    /// Says with whom a job travels.
    fn admit(&mut self, mut job: Job) {
        let is_behind = self.parts.ordered
            && !self.held.spots.is_empty()
            && self.admission.spots(&job).any(|(_, spot)| self.held.spots.contains(&spot));
        let verdict = if is_behind { Verdict::Wait } else { self.admission.verdict(&mut job) };
        match verdict {
            Verdict::Together => self.ready.push_back(job),
            Verdict::Apart | Verdict::Wait => {
                if self.parts.ordered {
                    self.held.spots.extend(self.admission.spots(&job).map(|(_, spot)| spot));
                }
                self.held.jobs.push_back((job, verdict));
            }
        }
    }

    /// Looks at those that are held back, if something may have changed.
    fn look_again(&mut self) {
        let version = self.admission.directory.version();
        if self.held.jobs.is_empty() || version == self.held.version && self.held.looked.elapsed() < LOOK_AGAIN {
            return;
        }
        (self.held.version, self.held.looked) = (version, Instant::now());
        self.clear_spots();
        let revoked = |job: &Job| job.ending.ticket.is_revoked();
        let held = std::mem::take(&mut self.held.jobs);
        held.into_iter().map(|(job, _)| job).filter(|job| !revoked(job)).for_each(|job| self.admit(job));
    }

    /// Takes jobs back whose transaction came to nothing. They were there before all others.
    fn again(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let ready = std::mem::take(&mut self.ready);
        let held = std::mem::take(&mut self.held.jobs);
        self.clear_spots();
        let held = held.into_iter().map(|(job, _)| job);
        jobs.into_iter().chain(ready).chain(held).for_each(|job| self.admit(job));
    }

    /// Forgets where those go that are held back, but for the one that is on its way.
    fn clear_spots(&mut self) {
        self.held.spots.clear();
        if let Some((_, batch)) = self.apart.as_ref().filter(|_| self.parts.ordered) {
            self.held.spots.extend(batch.spots(&self.admission));
        }
    }

    /// Sends the next of those that travel apart, or sees to the one that is on its way. `gathered`: what is to be concluded
    /// next.
    fn travel_apart(&mut self, gathered: Option<&Batch>) {
        let Some((session, batch)) = self.apart.take() else { return self.set_out(gathered) };
        let (index, reason) = (session.index(), None);
        let concluded = |batch, outcome, session, refused| Concluded {
            batch,
            outcome,
            index,
            session,
            refused,
            reason,
            written: Duration::ZERO,
            took: Duration::ZERO,
        };
        let concluded = match session.written(batch.began()).filter(|_| !batch.is_spoilt()) {
            None if !batch.is_spoilt() => return self.apart = Some((session, batch)),
            Some(Written::All) if self.concluder.session().is_some() => return self.apart = Some((session, batch)),
            Some(Written::All) => return self.concluder.conclude(session, batch),
            Some(Written::Late) => concluded(batch, Outcome::Late, Ok(None), session.leave()),
            None | Some(Written::Refused) => match session.abort() {
                Ok(()) => {
                    let refused = session.take_refused();
                    concluded(batch, Outcome::Aborted, Ok(Some(session)), refused)
                }
                Err(_) => concluded(batch, Outcome::Aborted, Ok(None), session.leave()),
            },
        };
        let jobs = self.settle(concluded);
        self.again(jobs);
    }

    /// Sends the next of those that travel apart, if there is a session that nobody else needs.
    fn set_out(&mut self, gathered: Option<&Batch>) {
        if !self.held.is_due() || self.is_over || self.parts.ordered && self.is_preceded(gathered) {
            return;
        }
        let Some(session) = self.pool.take(&[self.concluder.session(), self.gathering]) else { return };
        let Some(job) = self.held.next() else { return self.pool.rest(session) };
        match session.begin() {
            Ok(()) => {
                let mut batch = Batch::new(true);
                batch.send(&session, &self.parts.graveyard, job);
                self.apart = Some((session, batch));
            }
            Err(broken) => {
                session.discard();
                self.ended(&broken);
                self.again(vec![job]);
            }
        }
    }

    /// Whether others must leave before the one that travels apart next: those that go where it goes, and came before it.
    /// What comes after it is held back, so it does not wait for long.
    fn is_preceded(&self, gathered: Option<&Batch>) -> bool {
        let Some(job) = self.held.peek() else { return false };
        let spots: HashSet<Spot> = self.admission.spots(job).map(|(_, spot)| spot).collect();
        let leaves_before = |other: &Job| self.admission.spots(other).any(|(_, spot)| spots.contains(&spot));
        // What is being concluded may come back.
        self.concluder.session().is_some()
            || self.ready.iter().any(leaves_before)
            || gathered.is_some_and(|batch| batch.spots(&self.admission).iter().any(|spot| spots.contains(spot)))
    }

    /// Gathers one transaction and has it concluded.
    fn transact(&mut self, session: Session) {
        if let Err(broken) = session.begin() {
            session.discard();
            return self.ended(&broken);
        }
        let mut batch = Batch::new(false);
        let until = Instant::now() + self.parts.interval;
        loop {
            let mut full = self.is_full(&batch);
            while let Some(job) = if full { None } else { self.ready.pop_front() } {
                batch.send(&session, &self.parts.graveyard, job);
                full = self.is_full(&batch);
            }
            let left = until.saturating_duration_since(Instant::now());
            let idle = full
                || match self.parts.jobs.recv_timeout(left.clamp(Duration::from_millis(1), IDLE)) {
                    Ok(job) => {
                        self.admit(job);
                        false
                    }
                    Err(_) => true,
                };
            let before = if full { self.concluder.wait() } else { self.concluder.take() };
            if let Some(concluded) = before {
                let mut earlier = self.settle(concluded);
                // In order, what comes later must not leave before.
                if self.is_over || !earlier.is_empty() && self.parts.ordered {
                    earlier.extend(self.give_up(session, batch));
                    return self.again(earlier);
                }
                self.again(earlier);
            }
            self.look_again();
            self.travel_apart(Some(&batch));
            let is_awaited = || batch.is_awaited() || (self.stopping)();
            let others =
                || self.offsets.under_way() > batch.len() + self.held.jobs.len() + usize::from(self.apart.is_some());
            let nothing_comes = || idle && self.ready.is_empty() && !others() && is_awaited();
            if self.concluder.session().is_none() && (full || left.is_zero() || nothing_comes()) {
                // The next transaction's records take another way, and must not come before these.
                let waits = self.parts.ordered && session.flush(batch.began()) != Written::All;
                self.concluder.conclude(session, batch);
                if let Some(concluded) = if waits { self.concluder.wait() } else { None } {
                    let jobs = self.settle(concluded);
                    self.again(jobs);
                }
                return;
            }
        }
    }

    fn is_full(&self, batch: &Batch) -> bool {
        batch.len() >= MAX_JOBS || batch.is_spoilt() || !batch.is_empty() && batch.bytes() >= self.allowance.bytes()
    }

    /// Aborts a transaction that is being gathered; its jobs.
    fn give_up(&mut self, session: Session, batch: Batch) -> Vec<Job> {
        self.tally.aborted.inc();
        let aborted = session.abort();
        let refused = session.take_refused();
        match aborted {
            Ok(()) => self.pool.rest(session),
            Err(broken) => {
                session.discard();
                self.ended(&broken);
            }
        }
        batch.again(refused, false, &mut self.admission, &self.parts.counts)
    }

    /// Takes in what became of a transaction. What it could not end comes back.
    fn settle(&mut self, concluded: Concluded) -> Vec<Job> {
        let Concluded { mut batch, outcome, index, session, refused, reason, written, took } = concluded;
        let (claims, is_apart) = (batch.claims(), batch.is_apart());
        if outcome == Outcome::Committed {
            self.tally.committed.inc();
            self.parts.flow.passed();
            self.tally.requests.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            self.tally.commit.observe(took.as_secs_f64());
            self.allowance.written(batch.bytes(), written);
            batch.finish(&self.parts.counts, &mut self.admission);
            session.into_iter().flatten().for_each(|session| self.pool.rest(session));
            if is_apart {
                self.held.went_well();
            }
            return Vec::new();
        }
        if is_apart {
            self.held.came_to_nothing();
        }
        let is_refused = batch.has_met_a_refusal(&refused);
        let code = reason.as_ref().or_else(|| session.as_ref().err().map(Broken::error)).map(|error| {
            self.parts.flow.failed(error);
            error.rdkafka_error_code()
        });
        code.into_iter().for_each(|code| self.parts.counts.refused(code));
        let session = match session {
            Ok(session) => session,
            Err(broken) => {
                self.ended(&broken);
                None
            }
        };
        if outcome == Outcome::Unknown {
            self.tally.unknown.inc();
            let Some(finished) = self.recall(index, &claims) else {
                self.is_over = true;
                return Vec::new();
            };
            batch.settle(&finished, &self.parts.counts);
            self.offsets.unstage(&batch.claims());
            return batch.again(Vec::new(), false, &mut self.admission, &self.parts.counts);
        }
        self.tally.aborted.inc();
        self.offsets.unstage(&claims);
        let is_late = outcome == Outcome::Late;
        if is_late && !is_apart {
            self.allowance.late(batch.bytes());
        }
        let jobs = batch.again(refused, is_late, &mut self.admission, &self.parts.counts);
        session.into_iter().for_each(|session| self.pool.rest(session));
        if !is_refused && !is_apart {
            thread::sleep(AFTER_ABORT);
        }
        jobs
    }

    /// A session is of no use any more.
    fn ended(&mut self, broken: &Broken) {
        if broken.is_fenced() {
            self.twins.fenced(Instant::now());
            self.tally.fenced.inc();
        }
        if broken.is_stuck() {
            // The others look for the coordinator where this one did.
            self.pool.clear();
        }
        self.parts.flow.failed(broken.error());
        warn!(error = %broken.error(), "a transaction came to nothing, and with it its producer; another is made");
    }

    /// A session for the next transaction. None when that is over.
    fn session(&mut self) -> Option<Session> {
        let began = Instant::now();
        loop {
            let apart = self.apart.as_ref().map(|(session, _)| session.index());
            if let Some(session) = self.pool.take(&[self.concluder.session(), apart]) {
                return Some(session);
            }
            if let Some(concluded) = self.concluder.take() {
                let jobs = self.settle(concluded);
                self.again(jobs);
            } else {
                self.pool.wait(IDLE);
            }
            if self.verdict() == twins::Verdict::End {
                self.end_for_twin();
                return None;
            }
            if self.is_over || (self.stopping)() && began.elapsed() > LAST_SESSION {
                return None;
            }
        }
    }

    fn verdict(&mut self) -> twins::Verdict {
        self.twins.verdict(Instant::now(), fastrand::f64())
    }

    fn end_for_twin(&self) {
        error!(
            instance = self.maker.name(),
            "another instance has the same name and takes this one's transactions; give each a kafka.instance_id of its own"
        );
        self.parts.failed.cancel();
    }

    /// Leaves everything to a twin, if there is one, and makes all sessions anew. None when that is over.
    fn give_way(&mut self, time: Duration) -> Option<()> {
        warn!(
            instance = self.maker.name(),
            "producers of the same name take each other's transactions; perhaps another instance has this name as well: \
             waiting for it to end"
        );
        self.pool.end();
        let until = Instant::now() + time;
        while Instant::now() < until && !(self.stopping)() {
            thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        for index in 0..SESSIONS {
            let session = self.open(index)?;
            self.pool.rest(session);
        }
        self.twins.came_back(Instant::now());
        Some(())
    }

    /// Makes a session. None when that is over.
    fn open(&mut self, index: usize) -> Option<Session> {
        loop {
            if self.verdict() == twins::Verdict::End {
                self.end_for_twin();
                return None;
            }
            match self.maker.open(index) {
                Ok(session) => return Some(session),
                Err(error) => {
                    self.parts.flow.failed(&error);
                    warn!(%error, "transactions cannot go on yet");
                }
            }
            if (self.stopping)() {
                return None;
            }
            thread::sleep(AFTER_SESSION);
        }
    }

    /// Which requests the broker has as finished, once a new session has had the transaction decided. None when that
    /// is over before it is known.
    fn recall(&mut self, index: usize, claims: &[Claim]) -> Option<Vec<bool>> {
        let session = self.open(index)?;
        self.pool.rest(session);
        loop {
            match self.offsets.recall(claims, RECALL) {
                Ok(finished) => {
                    let committed = finished.iter().filter(|finished| **finished).count();
                    info!(
                        requests = claims.len(),
                        committed, "the broker has said what became of the last transaction"
                    );
                    return Some(finished);
                }
                Err(error) => warn!(%error, "it is not known yet what became of the last transaction"),
            }
            if (self.stopping)() {
                return None;
            }
            thread::sleep(AFTER_SESSION);
        }
    }
}

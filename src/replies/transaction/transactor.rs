//! The thread that puts what requests end in into transactions.

use std::collections::VecDeque;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};
use tracing::{error, info, warn};

use super::Prepared;
use super::batch::Batch;
use super::concluder::{Concluded, Concluder, Outcome};
use super::session::{Broken, SESSIONS, Session};
use super::twins::{Twins, Verdict};
use crate::broker::BrokerError;
use crate::intake::{Claim, Offsets};
use crate::replies::job::Job;

/// How long to wait for a first job before looking whether to end.
const POLL: Duration = Duration::from_millis(100);
/// So long nothing may come before it is asked whether anything can; and how soon the end of the transaction before is
/// seen.
const IDLE: Duration = Duration::from_millis(2);
/// Between a transaction that came to nothing and the next.
const AFTER_ABORT: Duration = Duration::from_millis(100);
/// Between two attempts to make a session.
const AFTER_SESSION: Duration = Duration::from_millis(500);
/// How long the broker may take to say what it has committed.
const RECALL: Duration = Duration::from_secs(5);
/// Jobs in one transaction.
const MAX_JOBS: usize = 10_000;

/// Gathers the jobs of one transaction while the one before is concluded, by several sessions in turn.
pub(super) struct Transactor<S> {
    parts: Prepared,
    /// Those that are at rest, the longest first: the broker may still write down what became of their transactions.
    resting: VecDeque<Session>,
    concluder: Concluder,
    offsets: Offsets,
    stopping: S,
    twins: Twins,
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
        let resting = std::mem::take(&mut parts.opened).into();
        let concluder = Concluder::start(offsets.clone())?;
        Ok(Self { parts, resting, concluder, offsets, stopping, twins: Twins::default(), is_over: false, tally })
    }

    pub(super) fn run(mut self) {
        let mut jobs = Vec::new();
        loop {
            while jobs.is_empty() {
                let waits = if self.concluder.session().is_some() { IDLE } else { POLL };
                match self.parts.jobs.recv_timeout(waits) {
                    Ok(job) => jobs.push(job),
                    Err(RecvTimeoutError::Timeout) => self.resting.iter().for_each(Session::poll),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if let Some(concluded) = self.concluder.take() {
                    jobs.splice(0..0, self.settle(concluded));
                }
                if jobs.is_empty() && self.concluder.session().is_none() && (self.stopping)() {
                    return;
                }
            }
            if self.is_over {
                return;
            }
            if let Verdict::GiveWay(time) = self.verdict() {
                if let Some(concluded) = self.concluder.wait() {
                    jobs.splice(0..0, self.settle(concluded));
                }
                if self.give_way(time).is_none() {
                    return;
                }
            }
            let Some(session) = self.session() else { return };
            jobs = self.transact(session, jobs);
        }
    }

    /// Gathers one transaction and has it concluded. What has to go into another comes back.
    fn transact(&mut self, session: Session, jobs: Vec<Job>) -> Vec<Job> {
        if let Err(broken) = session.begin() {
            session.discard();
            self.ended(&broken);
            return jobs;
        }
        let mut batch = Batch::default();
        for job in jobs {
            batch.send(&session, &self.parts.graveyard, job);
        }
        let until = Instant::now() + self.parts.interval;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let full = batch.len() >= MAX_JOBS || batch.is_spoilt();
            let idle = match full {
                true => true,
                false => match self.parts.jobs.recv_timeout(left.clamp(Duration::from_millis(1), IDLE)) {
                    Ok(job) => {
                        batch.send(&session, &self.parts.graveyard, job);
                        false
                    }
                    Err(_) => true,
                },
            };
            let before = if full { self.concluder.wait() } else { self.concluder.take() };
            if let Some(concluded) = before {
                let mut earlier = self.settle(concluded);
                if !earlier.is_empty() || self.is_over {
                    // What comes later must not leave before.
                    earlier.extend(self.give_up(session, batch));
                    return earlier;
                }
            }
            let is_awaited = || batch.is_awaited() || (self.stopping)();
            let nothing_comes = || idle && self.offsets.under_way() <= batch.len() && is_awaited();
            if self.concluder.session().is_none() && (full || left.is_zero() || nothing_comes()) {
                // The next transaction's records take another way, and must not come before these.
                let is_written = !self.parts.ordered || session.flush().is_ok();
                self.concluder.conclude(session, batch);
                if is_written {
                    return Vec::new();
                }
                return self.concluder.wait().map(|concluded| self.settle(concluded)).unwrap_or_default();
            }
        }
    }

    /// Aborts a transaction that is being gathered; its jobs.
    fn give_up(&mut self, session: Session, batch: Batch) -> Vec<Job> {
        self.tally.aborted.inc();
        let aborted = session.abort();
        let (jobs, _) = batch.again(Some(&session), &self.parts.allowed, &self.parts.counts);
        match aborted {
            Ok(()) => self.resting.push_back(session),
            Err(broken) => {
                session.discard();
                self.ended(&broken);
            }
        }
        jobs
    }

    /// Takes in what became of a transaction. What it could not end comes back.
    fn settle(&mut self, concluded: Concluded) -> Vec<Job> {
        let Concluded { mut batch, outcome, index, session, took } = concluded;
        let claims = batch.claims();
        match outcome {
            Outcome::Committed => {
                self.tally.committed.inc();
                self.parts.health.published();
                self.tally.requests.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
                self.tally.commit.observe(took.as_secs_f64());
                batch.finish(&self.parts.counts);
                session.into_iter().for_each(|session| self.resting.push_back(session));
                return Vec::new();
            }
            Outcome::Aborted => self.tally.aborted.inc(),
            Outcome::Unknown => {
                self.tally.unknown.inc();
                session.as_ref().err().into_iter().for_each(|broken| self.ended(broken));
                let Some(finished) = self.recall(index, &claims) else {
                    self.is_over = true;
                    return Vec::new();
                };
                batch.settle(&finished, &self.parts.counts);
                self.offsets.unstage(&batch.claims());
                return batch.again(None, &self.parts.allowed, &self.parts.counts).0;
            }
        }
        self.offsets.unstage(&claims);
        let (jobs, pause) = batch.again(session.as_ref().ok(), &self.parts.allowed, &self.parts.counts);
        match session {
            Ok(session) => self.resting.push_back(session),
            Err(broken) => self.ended(&broken),
        }
        thread::sleep(pause.max(AFTER_ABORT));
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
            self.resting.drain(..).for_each(Session::discard);
        }
        self.parts.health.failed(broken.error());
        warn!(error = %broken.error(), "a transaction came to nothing, and with it its producer; another is made");
    }

    /// A session for the next transaction. None when that is over.
    fn session(&mut self) -> Option<Session> {
        let busy = self.concluder.session();
        let is_there = |index: &usize| Some(*index) == busy || self.resting.iter().any(|it| it.index() == *index);
        match (0..SESSIONS).find(|index| !is_there(index)) {
            Some(missing) => self.open(missing),
            None => self.resting.pop_front(),
        }
    }

    fn verdict(&mut self) -> Verdict {
        self.twins.verdict(Instant::now(), fastrand::f64())
    }

    /// Leaves everything to a twin, if there is one, and makes all sessions anew. None when that is over.
    fn give_way(&mut self, time: Duration) -> Option<()> {
        warn!(
            instance = self.parts.maker.name(),
            "producers of the same name take each other's transactions; perhaps another instance has this name as well: \
             waiting for it to end"
        );
        self.resting.drain(..).for_each(Session::discard);
        let until = Instant::now() + time;
        while Instant::now() < until && !(self.stopping)() {
            thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        for index in 0..SESSIONS {
            let session = self.open(index)?;
            self.resting.push_back(session);
        }
        self.twins.came_back(Instant::now());
        Some(())
    }

    /// Makes a session. None when that is over.
    fn open(&mut self, index: usize) -> Option<Session> {
        loop {
            if self.verdict() == Verdict::End {
                error!(
                    instance = self.parts.maker.name(),
                    "another instance has the same name and takes this one's transactions; give each a kafka.instance_id \
                     of its own"
                );
                self.parts.failed.cancel();
                return None;
            }
            match self.parts.maker.open(index) {
                Ok(session) => return Some(session),
                Err(error) => {
                    self.parts.health.failed(&error);
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
        self.resting.push_back(session);
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

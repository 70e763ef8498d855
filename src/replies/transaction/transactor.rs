//! The thread that puts what requests end in into transactions.

use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};
use rdkafka::error::KafkaError;
use tracing::{debug, error, info, warn};

use super::Prepared;
use super::batch::Batch;
use super::session::{Broken, Session};
use crate::intake::{Claim, Offsets};
use crate::replies::job::Job;

/// How long to wait for a first job before looking whether to end.
const POLL: Duration = Duration::from_millis(100);
/// So long nothing may come before it is asked whether anything can.
const IDLE: Duration = Duration::from_millis(2);
/// Between a transaction that came to nothing and the next.
const AFTER_ABORT: Duration = Duration::from_millis(100);
/// Between two attempts to make a session.
const AFTER_SESSION: Duration = Duration::from_millis(500);
/// How long the broker may take to say what it has committed.
const RECALL: Duration = Duration::from_secs(5);
/// Jobs in one transaction.
const MAX_JOBS: usize = 10_000;
/// A session that is fenced this often in [`FENCED_WITHIN`] has a twin.
const MAX_FENCED: usize = 3;
const FENCED_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Transactor<S> {
    parts: Prepared,
    session: Option<Session>,
    offsets: Offsets,
    stopping: S,
    fenced: Vec<Instant>,
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

/// What became of a transaction.
enum Outcome {
    Committed,
    /// It came to nothing.
    Aborted,
    /// Its commit was under way when the session broke.
    Unknown,
}

impl<S: Fn() -> bool> Transactor<S> {
    pub(super) fn new(mut parts: Prepared, offsets: Offsets, stopping: S) -> Self {
        let results = &parts.metrics.transactions;
        let tally = Tally {
            committed: results.with_label_values(&["committed"]),
            aborted: results.with_label_values(&["aborted"]),
            unknown: results.with_label_values(&["unknown"]),
            fenced: results.with_label_values(&["fenced"]),
            requests: parts.metrics.transaction_requests.clone(),
            commit: parts.metrics.transaction_commit.clone(),
        };
        let session = parts.session.take();
        Self { parts, session, offsets, stopping, fenced: Vec::new(), tally }
    }

    pub(super) fn run(mut self) {
        let mut jobs = Vec::new();
        loop {
            if jobs.is_empty() {
                match self.parts.jobs.recv_timeout(POLL) {
                    Ok(job) => jobs.push(job),
                    Err(RecvTimeoutError::Timeout) if !(self.stopping)() => continue,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
                }
            }
            if !self.has_session() {
                return;
            }
            jobs = self.transact(jobs);
        }
    }

    /// One transaction. What it could not end comes back.
    fn transact(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let Some(session) = &self.session else { return jobs };
        if let Err(broken) = session.begin() {
            self.end_session(&broken);
            return jobs;
        }
        let mut batch = self.gather(jobs);
        let claims = batch.claims();
        let outcome = self.conclude(&batch, &claims);
        match outcome {
            Outcome::Committed => {
                self.tally.committed.inc();
                self.tally.requests.observe(batch.len() as f64);
                batch.finish(&self.parts.counts);
                return Vec::new();
            }
            Outcome::Aborted => self.tally.aborted.inc(),
            Outcome::Unknown => {
                self.tally.unknown.inc();
                let Some(finished) = self.recall(&claims) else { return Vec::new() };
                batch.settle(&finished, &self.parts.counts);
            }
        }
        self.offsets.unstage(&batch.claims());
        let (jobs, pause) = batch.again(self.session.as_ref(), &self.parts.allowed, &self.parts.counts);
        thread::sleep(pause.max(AFTER_ABORT));
        jobs
    }

    /// Sends records until the interval is over, or nothing is under way that could bring another.
    fn gather(&self, jobs: Vec<Job>) -> Batch {
        let mut batch = Batch::default();
        let Some(session) = &self.session else { return batch };
        let until = Instant::now() + self.parts.interval;
        for job in jobs {
            batch.send(session, &self.parts.graveyard, job);
        }
        while batch.len() < MAX_JOBS && !batch.is_spoilt() {
            let left = until.saturating_duration_since(Instant::now());
            match self.parts.jobs.recv_timeout(left.min(IDLE)) {
                Ok(job) => batch.send(session, &self.parts.graveyard, job),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => break,
                Err(RecvTimeoutError::Timeout) if self.offsets.under_way() <= batch.len() => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        batch
    }

    /// Commits the transaction, or aborts it.
    fn conclude(&mut self, batch: &Batch, claims: &[Claim]) -> Outcome {
        let Some(session) = &self.session else { return Outcome::Aborted };
        let began = Instant::now();
        let broken = match self.commit(session, batch, claims) {
            Ok(true) => {
                self.tally.commit.observe(began.elapsed().as_secs_f64());
                return Outcome::Committed;
            }
            Ok(false) => None,
            Err((broken, committing)) => Some((broken, committing)),
        };
        match broken {
            Some((broken @ Broken::Session(_), committing)) => {
                self.end_session(&broken);
                return if committing { Outcome::Unknown } else { Outcome::Aborted };
            }
            Some((Broken::Transaction(error), _)) => {
                info!(%error, "a transaction is aborted; its replies go into the next")
            }
            None => debug!("a transaction is aborted; its replies go into the next"),
        }
        if let Err(broken) = session.abort() {
            self.end_session(&broken);
        }
        Outcome::Aborted
    }

    /// True when it is committed, false when it has to be aborted. An error tells whether the commit was under way.
    fn commit(&self, session: &Session, batch: &Batch, claims: &[Claim]) -> Result<bool, (Broken, bool)> {
        if batch.is_empty() || batch.is_spoilt() {
            return Ok(false);
        }
        session.flush().map_err(|broken| (broken, false))?;
        if session.has_refused() {
            return Ok(false);
        }
        let Ok(staged) = self.offsets.stage(claims) else { return Ok(false) };
        session.add_offsets(&staged).map_err(|broken| (broken, false))?;
        if self.offsets.are_lost() {
            return Ok(false);
        }
        session.commit().map_err(|broken| (broken, true))?;
        Ok(true)
    }

    /// The session is of no use any more.
    fn end_session(&mut self, broken: &Broken) {
        if broken.is_fenced() {
            let now = Instant::now();
            self.fenced.retain(|then| now.duration_since(*then) < FENCED_WITHIN);
            self.fenced.push(now);
            self.tally.fenced.inc();
        }
        warn!(error = %broken.error(), "the producer of replies is replaced by another of its name");
        self.session = None;
    }

    /// Makes a session if there is none. False when that is over.
    fn has_session(&mut self) -> bool {
        while self.session.is_none() {
            if self.fenced.len() >= MAX_FENCED {
                error!(
                    instance = self.parts.sessions.name(),
                    "another instance has the same name and takes this one's transactions; give each a kafka.instance_id \
                     of its own"
                );
                self.parts.failed.cancel();
                return false;
            }
            match self.parts.sessions.open() {
                Ok(session) => self.session = Some(session),
                Err(error) => {
                    warn!(%error, "transactions cannot go on yet");
                    if (self.stopping)() {
                        return false;
                    }
                    thread::sleep(AFTER_SESSION);
                }
            }
        }
        true
    }

    /// Which requests the broker has as finished, once a new session has had the transaction decided. None when that
    /// is over before it is known.
    fn recall(&mut self, claims: &[Claim]) -> Option<Vec<bool>> {
        loop {
            if !self.has_session() {
                return None;
            }
            match self.offsets.recall(claims, RECALL) {
                Ok(finished) => {
                    let committed = finished.iter().filter(|finished| **finished).count();
                    info!(
                        requests = claims.len(),
                        committed, "the broker has said what became of the last transaction"
                    );
                    return Some(finished);
                }
                Err(error) => self.recall_failed(&error)?,
            }
        }
    }

    fn recall_failed(&self, error: &KafkaError) -> Option<()> {
        warn!(%error, "it is not known yet what became of the last transaction");
        thread::sleep(AFTER_SESSION);
        (!(self.stopping)()).then_some(())
    }
}

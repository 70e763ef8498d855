//! Sessions of the transaction loop: their replacement after errors, and what fencing means for the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tracing::{error, info, warn};

use super::fencing::{FencingAction, FencingDetector};
use super::pool::SessionPool;
use super::session::{SESSIONS, Session, SessionFactory, StepError};
use crate::intake::{Offsets, RequestPosition};
use crate::replies::parts::Parts;

/// Longest sleep between two looks whether the process is to end, while another instance has the name.
const POLL: Duration = Duration::from_millis(100);
/// Pause between two attempts to open a session.
const AFTER_SESSION: Duration = Duration::from_millis(500);

/// Pause between two questions what the broker has committed.
const AFTER_RECALL: Duration = Duration::from_millis(500);
/// Longest wait for the broker's answer to that question.
const RECALL: Duration = Duration::from_secs(5);

/// Opens sessions, replaces lost ones, and ends the process when another instance has its name.
pub(super) struct Sessions {
    pub(super) pool: SessionPool,
    factory: Arc<SessionFactory>,
    parts: Arc<Parts>,
    fencing: FencingDetector,
    fenced: IntCounter,
    stop: Arc<AtomicBool>,
}

impl Sessions {
    pub(super) fn new(
        factory: Arc<SessionFactory>,
        opened: Vec<Session>,
        parts: Arc<Parts>,
        fenced: IntCounter,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let pool = SessionPool::new(factory.clone(), opened, stop.clone(), parts.flow.clone());
        Self { pool, factory, parts, fencing: FencingDetector::default(), fenced, stop }
    }

    /// Notes that a session was lost to an error.
    pub(super) fn lost(&mut self, error: &StepError) {
        if error.is_fenced() {
            self.fencing.fenced(Instant::now());
            self.fenced.inc();
        }
        if error.is_stuck() {
            // The other sessions look for the coordinator where this one did, so they would be stuck as well.
            self.pool.clear();
        }
        self.parts.flow.failed(error.error());
        warn!(error = %error.error(), "a transaction and its producer are lost; a new producer is made");
    }

    /// Decides what the latest fencings mean.
    pub(super) fn fencing_action(&mut self) -> FencingAction {
        self.fencing.action(Instant::now(), fastrand::f64())
    }

    /// Has the process end, since another instance has its name.
    pub(super) fn stop_for_namesake(&self) {
        error!(
            instance = self.factory.name(),
            "another instance has the same name and takes this one's transactions; give each a kafka.instance_id of its own"
        );
        self.parts.failed.cancel();
    }

    /// Leaves the name to another instance for a time, then opens all sessions anew. None when the loop is to end.
    pub(super) fn yield_name(&mut self, time: Duration) -> Option<()> {
        warn!(
            instance = self.factory.name(),
            "producers of the same name take each other's transactions; perhaps another instance has this name as well: \
             waiting for it to end"
        );
        self.pool.end();
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_stopping() {
            thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        for index in 0..SESSIONS {
            let session = self.open(index)?;
            self.pool.rest(session);
        }
        self.fencing.resumed(Instant::now());
        Some(())
    }

    /// Opens a session, however many attempts that takes. None when the loop is to end.
    pub(super) fn open(&mut self, index: usize) -> Option<Session> {
        loop {
            if self.fencing_action() == FencingAction::Stop {
                self.stop_for_namesake();
                return None;
            }
            match self.factory.open(index) {
                Ok(session) => return Some(session),
                Err(error) => {
                    self.parts.flow.failed(&error);
                    warn!(%error, "transactions cannot go on yet");
                }
            }
            if self.is_stopping() {
                return None;
            }
            thread::sleep(AFTER_SESSION);
        }
    }

    /// Asks the broker which requests of a transaction are finished, once a new session of the same name has had the
    /// transaction decided. None when the loop is to end before that is known.
    pub(super) fn recall(
        &mut self,
        index: usize,
        requests: &[RequestPosition],
        offsets: &Offsets,
    ) -> Option<Vec<bool>> {
        let session = self.open(index)?;
        self.pool.rest(session);
        loop {
            match offsets.recall(requests, RECALL) {
                Ok(finished) => {
                    let committed = finished.iter().filter(|finished| **finished).count();
                    info!(
                        requests = requests.len(),
                        committed, "the broker has said what became of the last transaction"
                    );
                    return Some(finished);
                }
                Err(error) => warn!(%error, "the outcome of the last transaction is not known yet"),
            }
            if self.is_stopping() {
                return None;
            }
            thread::sleep(AFTER_RECALL);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

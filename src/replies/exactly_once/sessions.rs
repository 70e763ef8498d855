//! Sessions of the transaction loop: those at rest, those that are being opened in the background, the replacement of
//! those that are lost, and what fencing means for the process.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tracing::{error, info, warn};

use super::fencing::{FencingAction, FencingDetector};
use super::session::{MAX_SESSIONS, SESSIONS, Session, SessionFactory, StepError};
use crate::intake::{Offsets, RequestPosition};
use crate::replies::directory::Destination;
use crate::replies::parts::Parts;

/// Longest wait between two looks whether the process is to end, while another instance has the name.
const POLL: Duration = Duration::from_millis(100);
/// Pause between two attempts to open a session.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Time that the opening of a session may take before a spare session takes its place: the coordinator may wait for a
/// broker that is away until it has written down the outcome of the transaction before.
const SPARE_AFTER: Duration = Duration::from_secs(1);
/// Most sessions that may be undecided before nothing more is tried whose outcome is in doubt; the others are left to
/// the transactions that are not.
const MAX_UNDECIDED: usize = MAX_SESSIONS - SESSIONS;
/// Pause between two questions what the broker has committed.
const AFTER_RECALL: Duration = Duration::from_millis(500);
/// Longest wait for the broker's answer to that question.
const RECALL: Duration = Duration::from_secs(5);

/// Opens sessions, replaces lost ones, and ends the process when another instance has its name.
pub(super) struct Sessions {
    factory: Arc<SessionFactory>,
    parts: Arc<Parts>,
    /// Resting sessions, the longest first: the broker may still write down the outcomes of their transactions.
    resting: VecDeque<Session>,
    /// Sessions that are being opened, by their index, and since when.
    opening: BTreeMap<usize, Instant>,
    /// Sessions whose last transaction the brokers may be unable to write down, by their index: the destinations that
    /// are to blame, and since when.
    undecided: BTreeMap<usize, (HashSet<Destination>, Instant)>,
    opened: Receiver<OpenedSession>,
    opener: Sender<OpenedSession>,
    fencing: FencingDetector,
    fenced: IntCounter,
    stop: Arc<AtomicBool>,
}

/// Index of a session, and the session unless it was given up, since the process is to end.
type OpenedSession = (usize, Option<Session>);

impl Sessions {
    pub(super) fn new(
        factory: Arc<SessionFactory>,
        opened: Vec<Session>,
        parts: Arc<Parts>,
        fenced: IntCounter,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let (opener, receiver) = channel();
        Self {
            factory,
            parts,
            resting: opened.into(),
            opening: BTreeMap::new(),
            undecided: BTreeMap::new(),
            opened: receiver,
            opener,
            fencing: FencingDetector::default(),
            fenced,
            stop,
        }
    }

    /// Takes a session that is at rest. The sessions of these indices are at work.
    pub(super) fn take(&mut self, busy: &[Option<usize>]) -> Option<Session> {
        self.admit_opened();
        for index in 0..SESSIONS {
            self.open(index, busy);
        }
        // One spare at a time, once each session that is being opened is slow.
        if self.resting.is_empty() && self.opening.values().all(|since| since.elapsed() > SPARE_AFTER) {
            (SESSIONS..MAX_SESSIONS).find(|index| self.open(*index, busy));
        }
        self.resting.pop_front()
    }

    /// Waits for a session that is being opened.
    pub(super) fn wait(&mut self, timeout: Duration) {
        if let Ok(opened) = self.opened.recv_timeout(timeout) {
            self.admit(opened);
        }
    }

    /// Puts a session back.
    pub(super) fn rest(&mut self, session: Session) {
        self.undecided.remove(&session.index());
        self.resting.push_back(session);
    }

    /// Notes that the brokers may be unable to write down the outcome of a session's last transaction, because of these
    /// destinations: a partition may take a record and refuse the marker that ends the transaction, or the record and
    /// the marker. The coordinator tries for ever, and keeps the session's name until then. So the session is opened
    /// anew, which waits for the coordinator, rather than handed to others whose transaction would wait instead.
    pub(super) fn leave_undecided(
        &mut self,
        index: usize,
        session: Option<Session>,
        destinations: HashSet<Destination>,
    ) {
        match session {
            Some(session) if destinations.is_empty() => return self.rest(session),
            session => session.into_iter().for_each(Session::discard),
        }
        if !destinations.is_empty() {
            self.undecided.insert(index, (destinations, Instant::now()));
            self.open(index, &[]);
        }
    }

    /// Returns since when a transaction with this destination has been undecided.
    pub(super) fn undecided_since(&self, destination: &Destination) -> Option<Instant> {
        let of_it = self.undecided.values().filter(|(destinations, _)| destinations.contains(destination));
        of_it.map(|(_, since)| *since).min()
    }

    /// Returns since when so many sessions have been undecided that nothing more is tried whose outcome is in doubt.
    pub(super) fn full_since(&self) -> Option<Instant> {
        let latest = self.undecided.values().map(|(_, since)| *since).max();
        latest.filter(|_| self.undecided.len() >= MAX_UNDECIDED)
    }

    pub(super) fn has_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// Takes in what has been opened, and librdkafka's events for the sessions at rest.
    pub(super) fn poll(&mut self) {
        self.admit_opened();
        self.resting.iter().for_each(Session::poll);
    }

    /// Drops all sessions at rest.
    fn clear(&mut self) {
        self.resting.drain(..).for_each(Session::discard);
    }

    /// Notes that a session was lost to an error.
    pub(super) fn lost(&mut self, error: &StepError) {
        if error.is_fenced() {
            self.fencing.fenced(Instant::now());
            self.fenced.inc();
        }
        if error.is_stuck() {
            // The other sessions look for the coordinator where this one did, so they would be stuck as well.
            self.clear();
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
        while !self.opening.is_empty() && !self.is_stopping() {
            self.wait(AGAIN_AFTER);
        }
        self.clear();
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_stopping() {
            thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        (0..SESSIONS).try_for_each(|index| self.open_now(index))?;
        self.fencing.resumed(Instant::now());
        Some(())
    }

    /// Opens a session, and waits for it, however many attempts that takes. None when the loop is to end.
    fn open_now(&mut self, index: usize) -> Option<()> {
        loop {
            if self.fencing_action() == FencingAction::Stop {
                self.stop_for_namesake();
                return None;
            }
            self.open(index, &[]);
            self.wait(POLL);
            if self.rests(index) {
                return Some(());
            }
            if self.is_stopping() && !self.opening.contains_key(&index) {
                return None;
            }
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
        self.open_now(index)?;
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

    fn admit_opened(&mut self) {
        while let Ok(opened) = self.opened.try_recv() {
            self.admit(opened);
        }
    }

    fn admit(&mut self, (index, session): OpenedSession) {
        self.opening.remove(&index);
        session.into_iter().for_each(|session| self.rest(session));
    }

    fn rests(&self, index: usize) -> bool {
        self.resting.iter().any(|session| session.index() == index)
    }

    /// Begins to open a session, if it neither rests, works nor is being opened. Returns whether it did.
    fn open(&mut self, index: usize, busy: &[Option<usize>]) -> bool {
        if self.rests(index) || busy.contains(&Some(index)) || self.opening.contains_key(&index) {
            return false;
        }
        let (factory, opener) = (self.factory.clone(), self.opener.clone());
        let (stop, flow) = (self.stop.clone(), self.parts.flow.clone());
        let make = move || loop {
            match factory.open(index) {
                // The receiver is gone once the loop has ended, and then the session is of no use.
                Ok(session) => return drop(opener.send((index, Some(session)))),
                Err(error) => {
                    flow.failed(&error);
                    warn!(%error, "transactions cannot go on yet");
                }
            }
            if stop.load(Ordering::Acquire) {
                return drop(opener.send((index, None)));
            }
            thread::sleep(AGAIN_AFTER);
        };
        // Without a thread the session is opened when the next one is wanted.
        if thread::Builder::new().name(format!("session {index}")).spawn(make).is_ok() {
            self.opening.insert(index, Instant::now());
        }
        true
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

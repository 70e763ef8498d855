//! Pool of sessions: those at rest, and those that are being opened in the background.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::admission::Destination;
use super::session::{MAX_SESSIONS, SESSIONS, Session, SessionFactory};
use crate::telemetry::ProgressWatch;

/// Pause between two attempts to open a session.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Time that the opening of a session may take before a spare session takes its place: the coordinator may wait for a
/// broker that is away until it has written down the outcome of the transaction before.
const SPARE_AFTER: Duration = Duration::from_secs(1);
/// Most sessions that may be undecided before nothing more is tried whose outcome is in doubt; the others are left to
/// the transactions that are not.
const MAX_UNDECIDED: usize = MAX_SESSIONS - SESSIONS;

/// Sessions that are not at work.
pub(super) struct SessionPool {
    factory: Arc<SessionFactory>,
    /// Resting sessions, the longest first: the broker may still write down the outcomes of their transactions.
    resting: VecDeque<Session>,
    /// Sessions that are being opened, by their index, and since when.
    opening: BTreeMap<usize, Instant>,
    /// Sessions whose last transaction the brokers may be unable to write down, by their index: the destinations that
    /// are to blame, and since when.
    undecided: BTreeMap<usize, (HashSet<Destination>, Instant)>,
    opened: Receiver<Session>,
    opener: Sender<Session>,
    stop: Arc<AtomicBool>,
    flow: ProgressWatch,
}

impl SessionPool {
    pub(super) fn new(
        factory: Arc<SessionFactory>,
        opened: Vec<Session>,
        stop: Arc<AtomicBool>,
        flow: ProgressWatch,
    ) -> Self {
        let (opener, receiver) = channel();
        let (opening, undecided) = (BTreeMap::new(), BTreeMap::new());
        Self { factory, resting: opened.into(), opening, undecided, opened: receiver, opener, stop, flow }
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
        if let Ok(session) = self.opened.recv_timeout(timeout) {
            self.admit(session);
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
    pub(super) fn clear(&mut self) {
        self.resting.drain(..).for_each(Session::discard);
    }

    /// Drops all sessions, and waits for those that are being opened, unless the process ends before.
    pub(super) fn end(&mut self) {
        while !self.opening.is_empty() && !self.stop.load(Ordering::Acquire) {
            self.wait(AGAIN_AFTER);
        }
        self.clear();
    }

    fn admit_opened(&mut self) {
        while let Ok(session) = self.opened.try_recv() {
            self.admit(session);
        }
    }

    fn admit(&mut self, session: Session) {
        self.opening.remove(&session.index());
        self.undecided.remove(&session.index());
        self.resting.push_back(session);
    }

    /// Begins to open a session, if it neither rests, works nor is being opened. Returns whether it did.
    fn open(&mut self, index: usize, busy: &[Option<usize>]) -> bool {
        let rests = self.resting.iter().any(|session| session.index() == index);
        if rests || busy.contains(&Some(index)) || self.opening.contains_key(&index) {
            return false;
        }
        let (factory, opener) = (self.factory.clone(), self.opener.clone());
        let (stop, flow) = (self.stop.clone(), self.flow.clone());
        let make = move || loop {
            match factory.open(index) {
                // The receiver is gone once the loop has ended, and then the session is of no use.
                Ok(session) => return drop(opener.send(session)),
                Err(error) => {
                    flow.failed(&error);
                    warn!(%error, "transactions cannot go on yet");
                }
            }
            if stop.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(AGAIN_AFTER);
        };
        // Without a thread the session is opened when the next one is wanted.
        if thread::Builder::new().name(format!("session {index}")).spawn(make).is_ok() {
            self.opening.insert(index, Instant::now());
        }
        true
    }
}

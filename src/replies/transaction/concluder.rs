//! Commits or aborts one transaction while the next is gathered.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::info;

use super::batch::Batch;
use super::session::{Broken, Session};
use crate::broker::BrokerError;
use crate::intake::Offsets;

/// The thread. One transaction is concluded at a time: what the next commits depends on what became of this one.
pub(super) struct Concluder {
    transactions: Sender<(Session, Batch)>,
    concluded: Receiver<Concluded>,
    /// Which session is with the thread.
    busy: Option<usize>,
}

/// A transaction that is over.
pub(super) struct Concluded {
    pub(super) batch: Batch,
    pub(super) outcome: Outcome,
    /// Which session it was.
    pub(super) index: usize,
    /// The session, or why it is of no use any more.
    pub(super) session: Result<Session, Broken>,
    /// How long that took.
    pub(super) took: Duration,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed,
    /// It came to nothing.
    Aborted,
    /// Its commit was under way when the session broke.
    Unknown,
}

impl Concluder {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start(offsets: Offsets) -> Result<Self, BrokerError> {
        let (transactions, receiver) = channel::<(Session, Batch)>();
        let (sender, concluded) = channel();
        let run = move || {
            while let Ok((session, batch)) = receiver.recv() {
                if sender.send(conclude(session, batch, &offsets)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("commits".to_owned()).spawn(run);
        thread.map_err(|_| BrokerError::Interrupted)?;
        Ok(Self { transactions, concluded, busy: None })
    }

    /// Has a transaction concluded. Not while another is.
    pub(super) fn conclude(&mut self, session: Session, batch: Batch) {
        self.busy = Some(session.index());
        // The thread ends only with us.
        let _ = self.transactions.send((session, batch));
    }

    /// Which session is with the thread.
    pub(super) fn session(&self) -> Option<usize> {
        self.busy
    }

    /// The transaction, if it is over.
    pub(super) fn take(&mut self) -> Option<Concluded> {
        self.concluded.try_recv().ok().inspect(|_| self.busy = None)
    }

    /// Waits until the transaction is over. None when there is none.
    pub(super) fn wait(&mut self) -> Option<Concluded> {
        self.busy.take().and_then(|_| self.concluded.recv().ok())
    }
}

fn conclude(session: Session, batch: Batch, offsets: &Offsets) -> Concluded {
    let began = Instant::now();
    let index = session.index();
    let (outcome, broken) = match commit(&session, &batch, offsets) {
        Ok(None) => (Outcome::Committed, None),
        Ok(Some(reason)) => {
            info!(reason, "a transaction is aborted; its replies go into the next");
            (Outcome::Aborted, session.abort().err())
        }
        Err((Broken::Transaction(error), _)) => {
            info!(%error, "a transaction is aborted; its replies go into the next");
            (Outcome::Aborted, session.abort().err())
        }
        Err((broken, true)) => (Outcome::Unknown, Some(broken)),
        Err((broken, false)) => (Outcome::Aborted, Some(broken)),
    };
    let session = match broken {
        None => Ok(session),
        Some(broken) => {
            session.discard();
            Err(broken)
        }
    };
    Concluded { batch, outcome, index, session, took: began.elapsed() }
}

/// Why it has to be aborted, or nothing when it is committed. An error tells whether the commit was under way.
fn commit(session: &Session, batch: &Batch, offsets: &Offsets) -> Result<Option<&'static str>, (Broken, bool)> {
    if batch.is_empty() {
        return Ok(Some("its requests have gone to another owner"));
    }
    if batch.is_spoilt() {
        return Ok(Some("a record was refused"));
    }
    session.flush().map_err(|broken| (broken, false))?;
    if session.has_refused() {
        return Ok(Some("the broker has refused a record"));
    }
    let Ok(staged) = offsets.stage(&batch.claims()) else {
        return Ok(Some("a partition has gone to another owner"));
    };
    session.add_offsets(staged).map_err(|broken| (broken, false))?;
    if offsets.are_lost() {
        return Ok(Some("the partitions are lost"));
    }
    session.commit().map_err(|broken| (broken, true))?;
    Ok(None)
}

//! Commits or aborts one transaction while the next is gathered.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::info;

use super::batch::TransactionBatch;
use super::session::{FlushOutcome, RejectedRecord, Session, StepError};
use crate::broker::BrokerError;
use crate::intake::Offsets;

/// The thread. One transaction is concluded at a time: what the next commits depends on what became of this one.
pub(super) struct TransactionCommitter {
    transactions: Sender<(Session, TransactionBatch)>,
    finished: Receiver<FinishedTransaction>,
    /// Which session is with the thread.
    busy: Option<usize>,
}

/// A transaction that is over.
pub(super) struct FinishedTransaction {
    pub(super) batch: TransactionBatch,
    pub(super) outcome: TransactionOutcome,
    /// Which session it was.
    pub(super) index: usize,
    /// The session; nothing when its transaction is left to the next of its name; or why it is of no use any more.
    pub(super) session: Result<Option<Session>, StepError>,
    /// The records that were not taken, or not in time.
    pub(super) refused: Vec<RejectedRecord>,
    /// Why nothing is committed.
    pub(super) reason: Option<KafkaError>,
    /// How long its records took to be written, from the first on.
    pub(super) written: Duration,
    /// How long its end took.
    pub(super) took: Duration,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransactionOutcome {
    Committed,
    /// It came to nothing.
    Aborted,
    /// It came to nothing for want of time.
    Late,
    /// Its commit was under way when the session broke.
    Unknown,
}

impl TransactionCommitter {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start(offsets: Offsets) -> Result<Self, BrokerError> {
        let (transactions, receiver) = channel::<(Session, TransactionBatch)>();
        let (sender, finished) = channel();
        let run = move || {
            while let Ok((session, batch)) = receiver.recv() {
                if sender.send(conclude(session, batch, &offsets)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("commits".to_owned()).spawn(run);
        thread.map_err(|_| BrokerError::Interrupted)?;
        Ok(Self { transactions, finished, busy: None })
    }

    /// Has a transaction concluded. Not while another is.
    pub(super) fn commit(&mut self, session: Session, batch: TransactionBatch) {
        self.busy = Some(session.index());
        // The thread ends only with us.
        let _ = self.transactions.send((session, batch));
    }

    /// Which session is with the thread.
    pub(super) fn session(&self) -> Option<usize> {
        self.busy
    }

    /// The transaction, if it is over.
    pub(super) fn take(&mut self) -> Option<FinishedTransaction> {
        self.finished.try_recv().ok().inspect(|_| self.busy = None)
    }

    /// Waits until the transaction is over. None when there is none.
    pub(super) fn wait(&mut self) -> Option<FinishedTransaction> {
        self.busy.take().and_then(|_| self.finished.recv().ok())
    }
}

fn conclude(session: Session, batch: TransactionBatch, offsets: &Offsets) -> FinishedTransaction {
    let (began, index) = (Instant::now(), session.index());
    let (end, written) = attempt_commit(&session, &batch, offsets);
    let (mut reason, mut refused) = (None, Vec::new());
    let (outcome, session) = match end {
        CommitAttempt::Committed => (TransactionOutcome::Committed, Ok(Some(session))),
        CommitAttempt::Late => {
            info!(
                bytes = batch.bytes(),
                requests = batch.len(),
                "a transaction was not written in time; it is aborted"
            );
            reason = Some(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            refused = session.leave();
            (TransactionOutcome::Late, Ok(None))
        }
        CommitAttempt::Abort { because, error } => {
            let error_text = error.as_ref().map(ToString::to_string);
            info!(because, error = error_text, "a transaction is aborted; its replies go into others");
            reason = error;
            let aborted = session.abort();
            refused = session.take_refused();
            let session = match aborted {
                Ok(()) => Ok(Some(session)),
                Err(broken) => {
                    session.discard();
                    Err(broken)
                }
            };
            (TransactionOutcome::Aborted, session)
        }
        CommitAttempt::SessionLost { broken, is_unknown } => {
            refused = session.take_refused();
            session.discard();
            (if is_unknown { TransactionOutcome::Unknown } else { TransactionOutcome::Aborted }, Err(broken))
        }
    };
    FinishedTransaction { batch, outcome, index, session, refused, reason, written, took: began.elapsed() }
}

/// How an attempt to commit has ended.
enum CommitAttempt {
    Committed,
    /// Its records were not there in time.
    Late,
    /// It has to be aborted.
    Abort {
        because: &'static str,
        error: Option<KafkaError>,
    },
    /// The session is of no use any more; whether the commit was under way.
    SessionLost {
        broken: StepError,
        is_unknown: bool,
    },
}

impl CommitAttempt {
    fn void(because: &'static str) -> Self {
        Self::Abort { because, error: None }
    }

    fn of(broken: StepError, is_unknown: bool) -> Self {
        match broken {
            StepError::Abortable(error) => {
                Self::Abort { because: "the coordinator does not take it", error: Some(error) }
            }
            broken @ StepError::Fatal(_) => Self::SessionLost { broken, is_unknown },
        }
    }
}

/// The end, and how long after the first of its records the last was written.
fn attempt_commit(session: &Session, batch: &TransactionBatch, offsets: &Offsets) -> (CommitAttempt, Duration) {
    let flushed = flush(session, batch);
    let written = batch.began().elapsed();
    (flushed.map_or_else(|end| end, |()| commit_written(session, batch, offsets)), written)
}

/// Waits until all records are written.
fn flush(session: &Session, batch: &TransactionBatch) -> Result<(), CommitAttempt> {
    if batch.is_empty() {
        return Err(CommitAttempt::void("its requests have gone to another owner"));
    }
    if batch.is_spoilt() {
        return Err(CommitAttempt::void("a record was refused"));
    }
    match session.flush(batch.began()) {
        FlushOutcome::Complete => Ok(()),
        FlushOutcome::Rejected => Err(CommitAttempt::void("the broker has refused a record")),
        FlushOutcome::Late => Err(CommitAttempt::Late),
    }
}

fn commit_written(session: &Session, batch: &TransactionBatch, offsets: &Offsets) -> CommitAttempt {
    let Ok(staged) = offsets.stage(&batch.requests()) else {
        return CommitAttempt::void("a partition has gone to another owner");
    };
    if let Err(broken) = session.add_offsets(staged) {
        return CommitAttempt::of(broken, false);
    }
    if offsets.are_lost() {
        return CommitAttempt::void("the partitions are lost");
    }
    match session.commit() {
        Ok(()) => CommitAttempt::Committed,
        Err(broken) => CommitAttempt::of(broken, true),
    }
}

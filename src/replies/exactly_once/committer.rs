//! Thread that commits or aborts one transaction while the next is gathered.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::info;

use super::batch::TransactionBatch;
use super::session::{FlushOutcome, RejectedRecord, Session, StepError};
use crate::broker::BrokerError;
use crate::intake::Offsets;

/// Commits one transaction at a time on its own thread: what the next commits depends on the outcome of this one.
pub(super) struct TransactionCommitter {
    transactions: Sender<(Session, TransactionBatch)>,
    finished: Receiver<FinishedTransaction>,
    /// Index of the session that is with the thread.
    busy: Option<usize>,
}

/// Transaction that is over.
pub(super) struct FinishedTransaction {
    pub(super) batch: TransactionBatch,
    pub(super) outcome: TransactionOutcome,
    /// Index of its session.
    pub(super) index: usize,
    /// The session; None when its transaction is left to the next session of its name; the error when the session is
    /// lost.
    pub(super) session: Result<Option<Session>, StepError>,
    /// Records that were rejected, or not written in time.
    pub(super) refused: Vec<RejectedRecord>,
    /// Reason why nothing is committed.
    pub(super) reason: Option<KafkaError>,
    /// Time from the first of its records until the last was written.
    pub(super) written: Duration,
    /// Time that its end took.
    pub(super) took: Duration,
}

/// Outcome of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransactionOutcome {
    Committed,
    /// The transaction was aborted.
    Aborted,
    /// The transaction was aborted for want of time.
    Late,
    /// The session was lost while its commit was under way.
    Unknown,
}

impl FinishedTransaction {
    /// Describes the end of a transaction that was aborted before its commit began.
    pub(super) fn aborted(
        batch: TransactionBatch,
        outcome: TransactionOutcome,
        index: usize,
        session: Result<Option<Session>, StepError>,
        refused: Vec<RejectedRecord>,
    ) -> Self {
        let (written, took) = (Duration::ZERO, Duration::ZERO);
        Self { batch, outcome, index, session, refused, reason: None, written, took }
    }
}

impl TransactionCommitter {
    /// Starts the thread, which ends when the committer is dropped.
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

    /// Begins to commit a transaction. Not while another one is with the thread.
    pub(super) fn commit(&mut self, session: Session, batch: TransactionBatch) {
        self.busy = Some(session.index());
        // The thread ends only with the committer.
        let _ = self.transactions.send((session, batch));
    }

    /// Returns the index of the session that is with the thread.
    pub(super) fn session(&self) -> Option<usize> {
        self.busy
    }

    /// Returns the transaction, if it is over.
    pub(super) fn take(&mut self) -> Option<FinishedTransaction> {
        self.finished.try_recv().ok().inspect(|_| self.busy = None)
    }

    /// Waits until the transaction is over. None when there is none.
    pub(super) fn wait(&mut self) -> Option<FinishedTransaction> {
        self.busy.take().and_then(|_| self.finished.recv().ok())
    }
}

/// Commits or aborts a transaction, and keeps its session if that is still of use.
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
            let (rejected, session) = session.roll_back();
            refused = rejected;
            (TransactionOutcome::Aborted, session.map(Some))
        }
        CommitAttempt::SessionLost { error, is_unknown } => {
            refused = session.take_refused();
            session.discard();
            (if is_unknown { TransactionOutcome::Unknown } else { TransactionOutcome::Aborted }, Err(error))
        }
    };
    FinishedTransaction { batch, outcome, index, session, refused, reason, written, took: began.elapsed() }
}

/// End of an attempt to commit.
enum CommitAttempt {
    Committed,
    /// The records were not written in time.
    Late,
    /// The transaction has to be aborted.
    Abort {
        because: &'static str,
        error: Option<KafkaError>,
    },
    /// The session is lost; whether the commit was under way.
    SessionLost {
        error: StepError,
        is_unknown: bool,
    },
}

impl CommitAttempt {
    fn void(because: &'static str) -> Self {
        Self::Abort { because, error: None }
    }

    fn of(error: StepError, is_unknown: bool) -> Self {
        match error {
            StepError::Abortable(error) => {
                Self::Abort { because: "the coordinator does not take it", error: Some(error) }
            }
            error @ StepError::Fatal(_) => Self::SessionLost { error, is_unknown },
        }
    }
}

/// Attempts to commit. Returns the end, and the time from the first of its records until the last was written.
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

/// Commits a transaction whose records are written, with the offsets of their requests.
fn commit_written(session: &Session, batch: &TransactionBatch, offsets: &Offsets) -> CommitAttempt {
    let Some(staged) = offsets.stage(&batch.requests()) else {
        return CommitAttempt::void("a partition has gone to another owner");
    };
    if let Err(error) = session.add_offsets(staged) {
        return CommitAttempt::of(error, false);
    }
    if offsets.are_lost() {
        return CommitAttempt::void("the partitions are lost");
    }
    match session.commit() {
        Ok(()) => CommitAttempt::Committed,
        Err(error) => CommitAttempt::of(error, true),
    }
}

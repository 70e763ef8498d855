//! Commits of offsets in the background, so that polling never waits for them.
//!
//! librdkafka can commit without waiting, but then the caller does not learn when the broker refuses, as it does for
//! any commit that was on its way when the group was rebalanced. So a thread waits for each commit, and reports its
//! result.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::debug;

use super::context::IntakeContext;
use super::position::Position;
use super::ticket::LaneId;
use crate::broker::BrokerError;

/// Commits offsets, one commit at a time.
#[derive(Debug)]
pub(super) struct OffsetCommitter {
    due: Sender<Vec<(LaneId, Position)>>,
    done: Receiver<CommitResult>,
    is_busy: bool,
}

/// Result of a commit.
#[derive(Debug)]
pub(super) struct CommitResult {
    pub(super) lanes: Vec<LaneId>,
    pub(super) succeeded: bool,
}

impl OffsetCommitter {
    /// Starts the thread, which ends when the committer is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(consumer: &Arc<BaseConsumer<IntakeContext>>) -> Result<Self, BrokerError> {
        let (due, commits) = channel();
        let (results, done) = channel();
        // The polling thread closes the consumer, so it is not kept alive from here.
        let consumer = Arc::downgrade(consumer);
        thread::Builder::new()
            .name("commits".to_owned())
            .spawn(move || run(&consumer, &commits, &results))
            .map_err(|_| BrokerError::Interrupted)?;
        Ok(Self { due, done, is_busy: false })
    }

    /// Takes the result of the last commit, once that is known.
    pub(super) fn take_done(&mut self) -> Option<CommitResult> {
        let done = self.done.try_recv().ok()?;
        self.is_busy = false;
        Some(done)
    }

    /// Returns whether a commit is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    pub(super) fn commit(&mut self, due: Vec<(LaneId, Position)>) {
        self.is_busy = self.due.send(due).is_ok();
    }
}

fn run(
    consumer: &Weak<BaseConsumer<IntakeContext>>,
    commits: &Receiver<Vec<(LaneId, Position)>>,
    results: &Sender<CommitResult>,
) {
    while let Ok(due) = commits.recv() {
        let Some(consumer) = consumer.upgrade() else { return };
        let offsets = consumer.context().topics.offsets(&due);
        let succeeded = match consumer.commit(&offsets, CommitMode::Sync) {
            // All that was to be committed has been already.
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => true,
            Err(error) => {
                debug!(%error, "a commit failed and will be made again");
                false
            }
        };
        let lanes = due.into_iter().map(|(lane, _)| lane).collect();
        if results.send(CommitResult { lanes, succeeded }).is_err() {
            return;
        }
    }
}

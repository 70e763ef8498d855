//! A partition that has come goes on from where its last owner committed.
//!
//! Its first record waits until that is known, and until it is committed that one more owner has begun. So a request
//! that is the end of each of its owners is found out: it is run alone after three of them, and when two have ended by
//! that as well, it is a dead letter.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use tracing::{debug, error, warn};

use super::Refusal;
use super::lanes::{Held, Trial};
use super::poller::Poller;
use super::position::Position;
use super::ticket::{LaneId, Ticket};
use super::window::Begun;

/// How long the broker is waited for. Polling stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// When the broker may be asked again.
#[derive(Debug, Default)]
pub(super) struct Opening {
    not_before: Option<Instant>,
}

impl Poller {
    /// Opens the lanes whose first record has come.
    pub(super) fn open(&mut self) {
        let waiting = self.consumer.context().state().lanes.unopened(Instant::now());
        if waiting.is_empty() || !self.may_ask() {
            return;
        }
        let list = self.topics.list(waiting.iter().map(|(lane, _)| *lane));
        let committed = match self.consumer.committed_offsets(list, PATIENCE) {
            Ok(committed) => committed,
            Err(error) => {
                debug!(%error, "it is not known yet how far a partition is answered");
                return self.ask_later();
            }
        };
        let mut opened = Vec::with_capacity(waiting.len());
        for (lane, first) in waiting {
            let Some(element) = committed.find_partition(self.topics.name(lane), lane.partition) else { continue };
            if element.error().is_err() {
                return self.ask_later();
            }
            let Some(left) = self.left_behind(lane, first, &element) else { return self.ask_later() };
            opened.push((lane, Position { lives: left.lives.saturating_add(1), ..left }));
        }
        if let Err(error) = self.consumer.commit(&self.topics.offsets(&opened), CommitMode::Sync) {
            debug!(%error, "a partition's new owner could not be noted");
            return self.ask_later();
        }
        let mut state = self.consumer.context().state();
        for (lane, position) in opened {
            debug!(
                topic = %self.topics.name(lane),
                partition = lane.partition,
                offset = position.offset,
                finished = position.finished.iter().filter(|finished| **finished).count(),
                lives = position.lives,
                "a partition goes on from its commit"
            );
            state.lanes.open(lane, position);
        }
    }

    /// What the last owner has left, for the one whose first record is `first`. None when the broker has to be asked
    /// and does not answer.
    fn left_behind(&self, lane: LaneId, first: i64, element: &TopicPartitionListElem<'_>) -> Option<Position> {
        let (topic, partition) = (self.topics.name(lane), lane.partition);
        let Offset::Offset(offset) = element.offset() else {
            return Some(Position { offset: first, ..Position::default() });
        };
        if first < offset {
            // Either another record of ours has been committed meanwhile, or the topic was made anew.
            let (_, end) = self.consumer.fetch_watermarks(topic, partition, PATIENCE).ok()?;
            if offset > end {
                warn!(%topic, partition, committed = offset, end, "the topic is shorter than what was answered of it, so it is another one; it is read from its beginning");
                return Some(Position { offset: first, ..Position::default() });
            }
        }
        Some(Position::of(offset, element).unwrap_or_else(|reason| {
            warn!(%topic, partition, offset, %reason, "the commit's metadata cannot be relied on; requests after the committed offset may be answered a second time");
            Position { offset, ..Position::default() }
        }))
    }

    /// Runs alone what was the end of too many owners.
    pub(super) fn try_suspects(&mut self) {
        let Some(lane) = self.consumer.context().state().lanes.next_trial() else { return };
        if !self.may_ask() {
            return;
        }
        let context = self.consumer.context();
        let Some((trial, due)) = context.state().lanes.begin_trial(lane, context.commits()) else { return };
        if let Err(error) = self.consumer.commit(&self.topics.offsets(&due), CommitMode::Sync) {
            debug!(%error, "a request that runs alone could not be noted");
            let mut state = self.consumer.context().state();
            state.lanes.revoke_trial(lane);
            due.iter().for_each(|(lane, _)| state.lanes.commit_failed(*lane));
            drop(state);
            return self.ask_later();
        }
        let Some(held) = self.consumer.context().state().lanes.release(lane) else { return };
        self.run_alone(lane, held, trial);
        if !self.consumer.context().state().lanes.is_held(lane) {
            self.resume(vec![lane]);
        }
    }

    fn run_alone(&self, id: LaneId, held: Held, trial: Trial) {
        let Held { request, offset, refusal, .. } = held;
        let (bytes, now) = (request.size(), Instant::now());
        let mut state = self.consumer.context().state();
        let Some(lane) = state.lanes.tried(id) else { return };
        if lane.window.begin(offset, now) != Begun::New {
            return state.lanes.acquit(id);
        }
        let assignment = lane.assignment.clone();
        state.take(id, bytes);
        let memory = state.budget.memory().clone();
        drop(state);
        let ticket = Ticket::new(assignment, offset, bytes, now, self.completions.clone(), memory);
        match trial {
            Trial::Never => {
                error!(source = %request.source, "a request was the end of each process that ran it; it becomes a dead letter");
                self.handler.refuse(request, ticket, Refusal::Deadly);
            }
            Trial::Alone => {
                warn!(source = %request.source, "several processes have ended without an answer to this request; it is run alone");
                match refusal {
                    Some(refusal) => self.handler.refuse(request, ticket, refusal),
                    None => self.handler.accept(request, ticket),
                }
            }
        }
    }

    fn may_ask(&self) -> bool {
        self.opening.not_before.is_none_or(|time| time <= Instant::now())
    }

    fn ask_later(&mut self) {
        self.opening.not_before = Some(Instant::now() + PAUSE);
    }
}

//! A partition that has come goes on from where its last owner committed.
//!
//! Its first record waits until that is known, and until it is committed that it has one more owner. So a request that is
//! the end of each of its owners is found out: see [`caution`](super::caution). What is committed is believed only if it is
//! of the topic that is there now: of one that was made anew, every request is read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use tracing::{debug, error, info, warn};

use super::Refusal;
use super::caution::{Caution, Trial};
use super::lanes::{Held, Lane};
use super::poller::Poller;
use super::position::Position;
use super::ticket::{LaneId, Ticket};
use super::window::Begun;
use crate::broker::TopicId;

/// How long the broker is waited for. Polling stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a record is waited for that is read again. It may be gone.
const LONGEST_REREAD: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// The same of what nobody waits for.
const CHECK_PATIENCE: Duration = Duration::from_millis(500);
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// When the broker may be asked again, and what librdkafka is still to be told.
#[derive(Debug, Default)]
pub(super) struct Opening {
    not_before: Option<Instant>,
    /// Whether lanes have not been [checked](Poller::check) yet, and when the broker may be asked again about them.
    checks: bool,
    no_check_before: Option<Instant>,
    /// From where lanes are to be read that do not go on from their commit. Whatever else comes of them is dropped.
    seeks: BTreeMap<LaneId, Offset>,
    /// The record that is to be run alone when it has been read again, and since when.
    trial: Option<(LaneId, i64, Instant)>,
}

/// What is found of a lane before anything of it is run.
enum Found {
    /// It goes on from here.
    Position(Position),
    /// What is committed is of a topic of that name before.
    OtherTopic,
}

impl Opening {
    /// Whether something is left to be done.
    pub(super) fn is_busy(&self) -> bool {
        self.checks || !self.seeks.is_empty()
    }

    /// Whether this record has been read again to be run alone. It is asked once.
    pub(super) fn take_trial(&mut self, lane: LaneId, offset: i64) -> bool {
        self.trial.take_if(|trial| (trial.0, trial.1) == (lane, offset)).is_some()
    }

    /// Whether a record is on its way that is to be run alone.
    fn is_trying(&mut self) -> bool {
        self.trial.take_if(|(.., since)| since.elapsed() > LONGEST_REREAD);
        self.trial.is_some()
    }

    /// Whether what comes of a lane is not what it is to be read from.
    pub(super) fn is_sought(&self, lane: LaneId) -> bool {
        self.seeks.contains_key(&lane)
    }
}

impl Poller {
    /// Opens the lanes whose first record has come.
    pub(super) fn open(&mut self) {
        let waiting = {
            let state = self.consumer.context().state();
            // Of these it has to be seen first whether they are for us.
            let is_for_us = |lane| !self.topics.is_shared(lane) || state.lanes.get(lane).is_some_and(Lane::is_checked);
            let waiting = state.lanes.unopened(Instant::now()).into_iter();
            waiting.filter(|(lane, _)| is_for_us(*lane)).collect::<Vec<_>>()
        };
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
        let (mut opened, mut anew) = (Vec::with_capacity(waiting.len()), Vec::new());
        for (lane, first) in waiting {
            let Some(element) = committed.find_partition(self.topics.name(lane), lane.partition) else { continue };
            if element.error().is_err() {
                return self.ask_later();
            }
            match self.left_behind(lane, first, &element) {
                None => return self.ask_later(),
                Some(Found::OtherTopic) => anew.push(lane),
                Some(Found::Position(left)) => opened.push((lane, left, first)),
            }
        }
        self.begin_anew(&anew);
        let note = |(lane, left, _): &(LaneId, Position, i64)| (*lane, Caution::after(left).note(left.clone(), false));
        let noted: Vec<_> = opened.iter().map(note).collect();
        if noted.is_empty() {
            return;
        }
        if let Err(error) = self.consumer.commit(&self.topics.offsets(&noted), CommitMode::Sync) {
            debug!(%error, "a partition's new owner could not be noted");
            return self.ask_later();
        }
        let mut state = self.consumer.context().state();
        for (lane, left, first) in opened {
            debug!(
                topic = %self.topics.name(lane),
                partition = lane.partition,
                offset = left.offset,
                finished = left.finished.iter().filter(|finished| **finished).count(),
                lives = left.lives,
                "a partition goes on from its commit"
            );
            state.lanes.open(lane, &left, first);
        }
    }

    /// What the last owner has left, for the one whose first record is `first`. None when the broker has to be asked
    /// and does not answer.
    fn left_behind(&self, lane: LaneId, first: i64, element: &TopicPartitionListElem<'_>) -> Option<Found> {
        let context = self.consumer.context();
        let topic_id = context.topic_id(lane);
        let beginning = Position { offset: first, topic: topic_id, ..Position::default() };
        let Offset::Offset(offset) = element.offset() else { return Some(Found::Position(beginning)) };
        if context.state().lanes.get(lane).is_some_and(|lane| lane.is_anew()) {
            return Some(Found::Position(beginning));
        }
        let (topic, partition) = (self.topics.name(lane), lane.partition);
        let left = Position::of(offset, element).unwrap_or_else(|reason| {
            warn!(%topic, partition, offset, %reason, "the commit's metadata cannot be relied on; requests after the committed offset may be answered a second time");
            Position { offset, ..Position::default() }
        });
        if is_of_another(&left, topic_id) {
            return Some(Found::OtherTopic);
        }
        if first < offset {
            // Either another record of ours has been committed meanwhile, or the topic has lost records or is another.
            let (_, end) = self.consumer.fetch_watermarks(topic, partition, PATIENCE).ok()?;
            if offset > end {
                warn!(%topic, partition, committed = offset, end, "the topic is shorter than what was answered of it, so it is another one; it is read from its beginning");
                return Some(Found::Position(beginning));
            }
        }
        Some(Found::Position(Position { topic: topic_id.or(left.topic), ..left }))
    }

    /// Looks at what is committed of the partitions that have come, before any record of theirs has to come: if it is of
    /// a topic of that name before, none may.
    pub(super) fn check(&mut self) {
        let unchecked = self.consumer.context().state().lanes.unchecked();
        self.opening.checks = !unchecked.is_empty();
        let now = Instant::now();
        if unchecked.is_empty() || self.opening.no_check_before.is_some_and(|time| time > now) {
            return;
        }
        self.opening.no_check_before = Some(now + CHECK_PAUSE);
        let requests = unchecked.iter().map(|lane| LaneId { topic: 0, ..*lane });
        let all: BTreeSet<LaneId> = unchecked.iter().copied().chain(requests).collect();
        let committed = match self.consumer.committed_offsets(self.topics.list(all), CHECK_PATIENCE) {
            Ok(committed) => committed,
            Err(error) => return debug!(%error, "it is not known yet which topic a position is of"),
        };
        let topics = self.topics.clone();
        // Not known, none, or the position.
        let position = |lane: LaneId| {
            let element = committed.find_partition(topics.name(lane), lane.partition)?;
            element.error().ok()?;
            let Offset::Offset(offset) = element.offset() else { return Some(None) };
            Some(Some(Position::of(offset, &element).unwrap_or(Position { offset, ..Position::default() })))
        };
        let (mut anew, mut left_alone) = (Vec::new(), Vec::new());
        for lane in unchecked {
            let context = self.consumer.context();
            match (position(lane), position(LaneId { topic: 0, ..lane })) {
                (Some(Some(position)), _) => match context.topic_id(lane) {
                    None if position.topic.is_some() => continue,
                    topic_id if is_of_another(&position, topic_id) => anew.push(lane),
                    _ => {}
                },
                // What waits there was parked by groups that have read these requests before us.
                (Some(None), Some(None)) if self.topics.is_shared(lane) => left_alone.push(lane),
                (Some(None), Some(_)) => {}
                _ => continue,
            }
            context.state().lanes.checked(lane);
        }
        self.begin_anew(&anew);
        left_alone.into_iter().for_each(|lane| self.leave_alone(lane));
    }

    /// Reads nothing of what is in a retry topic that other groups have used.
    fn leave_alone(&mut self, lane: LaneId) {
        let (topic, partition) = (self.topics.name(lane), lane.partition);
        let Ok((first, end)) = self.consumer.fetch_watermarks(topic, partition, PATIENCE) else { return };
        if first < end {
            info!(%topic, partition, "what is parked there is of another group, and is left alone");
        }
        let topic_id = self.consumer.context().topic_id(lane);
        let position = Position { offset: end, topic: topic_id, ..Position::default() };
        if let Err(error) = self.consumer.commit(&self.topics.offsets(&[(lane, position)]), CommitMode::Sync) {
            debug!(%error, "it could not be noted that a partition is left alone");
        }
        self.consumer.context().state().lanes.begin_anew(lane);
        self.opening.seeks.insert(lane, Offset::Offset(end));
    }

    /// Begins with the topics that were deleted and made again, which librdkafka has just told us; their lanes.
    pub(super) fn begin_topics_anew(&mut self) -> Vec<LaneId> {
        let context = self.consumer.context();
        let topics = context.broker().topic_ids().take_anew();
        let is_of_them = |lane: &LaneId| topics.iter().any(|topic| **topic == **self.topics.name(*lane));
        let lanes: Vec<LaneId> = context.state().lanes.ids().into_iter().filter(is_of_them).collect();
        self.begin_anew(&lanes);
        lanes
    }

    /// Reads these partitions from their beginning, whatever was known of them.
    fn begin_anew(&mut self, lanes: &[LaneId]) {
        for lane in lanes {
            let under_way = {
                let mut state = self.consumer.context().state();
                let under_way = state.lanes.in_flight(&[*lane]);
                state.lanes.begin_anew(*lane);
                state.has_new_lanes = true;
                under_way
            };
            let (topic, partition) = (self.topics.name(*lane), lane.partition);
            warn!(%topic, partition, under_way, "the topic was deleted and made again since it was last read; it is read from its beginning, and what is under way of the one before is answered");
            self.opening.seeks.insert(*lane, Offset::Beginning);
        }
        self.seek();
    }

    /// Has librdkafka read from where it is to be read. What it cannot do yet is done later.
    pub(super) fn seek(&mut self) {
        if self.opening.seeks.is_empty() || !self.may_ask() {
            return;
        }
        let owned = self.consumer.context().state().lanes.ids();
        self.opening.seeks.retain(|lane, _| owned.contains(lane));
        let mut list = self.topics.list([]);
        for (lane, offset) in &self.opening.seeks {
            // Only an offset below zero is refused, and there are none.
            let _ = list.add_partition_offset(self.topics.name(*lane), lane.partition, *offset);
        }
        match self.consumer.seek_partitions(list, PATIENCE) {
            Ok(sought) => {
                for element in sought.elements().iter().filter(|element| element.error().is_ok()) {
                    if let Some(lane) = self.topics.lane(element.topic(), element.partition()) {
                        self.opening.seeks.remove(&lane);
                    }
                }
            }
            Err(error) => debug!(%error, "a partition cannot be read from another place yet"),
        }
        if !self.opening.seeks.is_empty() {
            self.ask_later();
        }
    }

    /// A record has come with an offset that was read before, so the broker has lost what was there.
    pub(super) fn begin_again(&mut self, id: LaneId, held: Held, now: Instant) {
        let (topic, partition, offset) = (self.topics.name(id), id.partition, held.offset);
        let context = self.consumer.context();
        let read = context.state().lanes.get(id).and_then(|lane| lane.window.read());
        warn!(%topic, partition, offset, read, "the partition's offsets have gone back: it has lost records, or is another one; it is read from there on");
        context.state().lanes.begin_anew(id);
        self.hold(id, held, now);
    }

    /// Runs alone what was the end of too many owners.
    pub(super) fn try_suspects(&mut self, now: Instant) {
        if self.opening.is_trying() {
            return;
        }
        let Some(lane) = self.consumer.context().state().lanes.next_trial(now) else { return };
        if !self.may_ask() {
            return;
        }
        let context = self.consumer.context();
        let is_over = context.state().lanes.get(lane).is_some_and(|lane| lane.is_first_held_finished());
        let begun = if is_over { None } else { context.state().lanes.begin_trial(lane, context.commits()) };
        if let Some((_, due)) = &begun
            && let Err(error) = self.consumer.commit(&self.topics.offsets(due), CommitMode::Sync)
        {
            debug!(%error, "a request that runs alone could not be noted");
            let mut state = self.consumer.context().state();
            state.lanes.revoke_trial(lane);
            due.iter().for_each(|(lane, _)| state.lanes.commit_failed(*lane));
            drop(state);
            return self.ask_later();
        }
        let mut state = self.consumer.context().state();
        // What it says of the other lanes holds as well: some may have nothing else to commit, and wait for that.
        begun.iter().flat_map(|(_, due)| due).for_each(|(lane, _)| state.lanes.committed(*lane));
        let Some(held) = state.lanes.release(lane) else { return };
        drop(state);
        match begun {
            Some((Trial::Alone, _)) if !held.is_whole => {
                self.opening.trial = Some((lane, held.offset, Instant::now()));
                self.read_again(lane, held.offset);
            }
            Some((trial, _)) => self.run_alone(lane, held, trial),
            None => {}
        }
        if !self.consumer.context().state().lanes.is_held(lane) {
            self.resume(vec![lane]);
        }
    }

    /// Reads a record again whose value was not copied, and with it what comes after.
    pub(super) fn read_again(&mut self, lane: LaneId, offset: i64) {
        self.consumer.context().state().lanes.drop_held(lane);
        self.opening.seeks.insert(lane, Offset::Offset(offset));
    }

    pub(super) fn run_alone(&self, id: LaneId, held: Held, trial: Trial) {
        let Held { request, offset, refusal, .. } = held;
        let (bytes, now) = (request.size(), Instant::now());
        let mut state = self.consumer.context().state();
        let Some(lane) = state.lanes.tried(id) else { return };
        if lane.window.begin(offset, now) != Begun::New {
            return state.lanes.look_at_suspect(id);
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
                warn!(source = %request.source, "several processes have ended while this request was under way; it is run alone");
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

/// Whether a position is of another topic than this one, as far as both are known.
fn is_of_another(position: &Position, topic: Option<TopicId>) -> bool {
    matches!((position.topic, topic), (Some(position), Some(topic)) if position != topic)
}

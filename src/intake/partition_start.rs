//! Start of a partition that has come: reading goes on from where its last owner committed.
//!
//! The partition's first record waits until that commit is known, and until it is committed that the partition has one
//! more owner. So a request that is the end of each of its owners is found out: see
//! [`poison_pill`](super::poison_pill). A commit is believed only if it is of the topic that is there now: of a topic
//! that was made anew, every request is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use tracing::{debug, info, warn};

use super::context::IntakeContext;
use super::lane::HeldRecord;
use super::poison_pill::{CrashHistory, IsolatedRun};
use super::position::Position;
use super::ticket::{LaneId, REQUESTS};
use super::topics::Topics;
use crate::broker::TopicId;

/// Longest wait for the broker's answer. Polling stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for a record that is read again. The record may be gone, so its lane must not wait for ever.
const LONGEST_REREAD: Duration = Duration::from_secs(30);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for the answer to a check of commits. No record waits for a check, so polling stands still for less.
const CHECK_PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two checks of commits.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// Starts partitions: finds where each goes on, has librdkafka read from there, and gives suspects their isolated runs.
pub(super) struct PartitionStart {
    consumer: Arc<BaseConsumer<IntakeContext>>,
    topics: Topics,
    /// Earliest time of the next question to the broker.
    not_before: Option<Instant>,
    /// True if lanes have not been [checked](Self::check) yet.
    checks: bool,
    /// Earliest time of the next check.
    no_check_before: Option<Instant>,
    /// Offsets from where lanes are to be read that do not go on from their commit. Other records of these lanes are
    /// dropped.
    seeks: BTreeMap<LaneId, Offset>,
    /// The record that runs alone when it has been read again, and since when it is waited for.
    reread: Option<(LaneId, i64, Instant)>,
}

/// Commit of a lane, as found before any of its requests runs.
enum CommitFound {
    /// The lane goes on from this position.
    Position(Position),
    /// The commit is of an earlier topic of the same name.
    OtherTopic,
}

impl PartitionStart {
    pub(super) fn new(consumer: Arc<BaseConsumer<IntakeContext>>, topics: Topics) -> Self {
        Self {
            consumer,
            topics,
            not_before: None,
            checks: false,
            no_check_before: None,
            seeks: BTreeMap::new(),
            reread: None,
        }
    }

    /// Returns whether checks or seeks are left to be done.
    pub(super) fn is_busy(&self) -> bool {
        self.checks || !self.seeks.is_empty()
    }

    /// Returns whether a record has been read again to run alone. Says so once.
    pub(super) fn take_reread(&mut self, lane: LaneId, offset: i64) -> bool {
        self.reread.take_if(|reread| (reread.0, reread.1) == (lane, offset)).is_some()
    }

    /// Returns whether a record that is to run alone is being read again.
    fn is_rereading(&mut self) -> bool {
        self.reread.take_if(|(.., since)| since.elapsed() > LONGEST_REREAD);
        self.reread.is_some()
    }

    /// Returns whether librdkafka still has to seek in a lane, so that records which come of it are dropped.
    pub(super) fn is_sought(&self, lane: LaneId) -> bool {
        self.seeks.contains_key(&lane)
    }

    /// Opens the lanes whose first record has come.
    pub(super) fn open(&mut self) {
        let waiting = {
            let state = self.consumer.context().state();
            // Shared retry topics are checked first: their records may be of another group.
            let is_for_us =
                |lane| !self.topics.is_shared(lane) || state.lanes.get(lane).is_some_and(|lane| lane.is_checked);
            let waiting = state.lanes.unopened(Instant::now()).into_iter();
            waiting.filter(|(lane, _)| is_for_us(*lane)).collect::<Vec<_>>()
        };
        if waiting.is_empty() || !self.may_ask() {
            return;
        }
        // Read what the last owner committed.
        let list = self.topics.list(waiting.iter().map(|(lane, _)| *lane));
        let committed = match self.consumer.committed_offsets(list, PATIENCE) {
            Ok(committed) => committed,
            Err(error) => {
                debug!(%error, "the commit of a partition is not known yet");
                return self.ask_later();
            }
        };
        let (mut opened, mut recreated) = (Vec::with_capacity(waiting.len()), Vec::new());
        for (lane, first) in waiting {
            let Some(element) = committed.find_partition(self.topics.name(lane), lane.partition) else { continue };
            if element.error().is_err() {
                return self.ask_later();
            }
            match self.left_behind(lane, first, &element) {
                None => return self.ask_later(),
                Some(CommitFound::OtherTopic) => recreated.push(lane),
                Some(CommitFound::Position(left)) => opened.push((lane, left, first)),
            }
        }
        self.restart(&recreated);
        // Commit that there is one more owner before any request runs: if one ends this process, the next owner knows.
        let note =
            |(lane, left, _): &(LaneId, Position, i64)| (*lane, CrashHistory::after(left).note(left.clone(), false));
        let noted: Vec<_> = opened.iter().map(note).collect();
        if noted.is_empty() {
            return;
        }
        if let Err(error) = self.consumer.commit(&self.topics.offsets(&noted), CommitMode::Sync) {
            debug!(%error, "a partition's new owner could not be noted");
            return self.ask_later();
        }
        // Let the requests run.
        let mut state = self.consumer.context().state();
        for (lane, left, first) in opened {
            debug!(
                topic = %self.topics.name(lane),
                partition = lane.partition,
                offset = left.offset,
                finished = left.finished.iter().filter(|finished| **finished).count(),
                crash_count = left.crash_count,
                "a partition goes on from its commit"
            );
            state.lanes.open(lane, &left, first);
        }
    }

    /// Reads what the last owner has left, for a lane whose first record is `first`. None when the broker has to be
    /// asked and does not answer.
    fn left_behind(&self, lane: LaneId, first: i64, element: &TopicPartitionListElem<'_>) -> Option<CommitFound> {
        let context = self.consumer.context();
        let topic_id = context.topic_id(lane);
        let beginning = Position { offset: first, topic: topic_id, ..Position::default() };
        let Offset::Offset(offset) = element.offset() else { return Some(CommitFound::Position(beginning)) };
        if context.state().lanes.get(lane).is_some_and(|lane| lane.was_restarted) {
            return Some(CommitFound::Position(beginning));
        }
        let (topic, partition) = (self.topics.name(lane), lane.partition);
        let left = Position::of(offset, element).unwrap_or_else(|reason| {
            warn!(%topic, partition, offset, %reason, "the commit's metadata cannot be relied on; requests after the committed offset may be answered a second time");
            Position { offset, ..Position::default() }
        });
        if is_of_another(&left, topic_id) {
            return Some(CommitFound::OtherTopic);
        }
        if first < offset {
            // Either another record of ours has been committed meanwhile, or the topic has lost records or is another.
            let (_, end) = self.consumer.fetch_watermarks(topic, partition, PATIENCE).ok()?;
            if offset > end {
                warn!(%topic, partition, committed = offset, end, "the topic is shorter than what was answered of it, so it is another one; it is read from its beginning");
                return Some(CommitFound::Position(beginning));
            }
        }
        Some(CommitFound::Position(Position { topic: topic_id.or(left.topic), ..left }))
    }

    /// Checks the commits of partitions that have come, before any of their records has to come: if a commit is of an
    /// earlier topic of the same name, none may ever come.
    pub(super) fn check(&mut self) {
        let unchecked = self.consumer.context().state().lanes.unchecked();
        self.checks = !unchecked.is_empty();
        let now = Instant::now();
        if unchecked.is_empty() || self.no_check_before.is_some_and(|time| time > now) {
            return;
        }
        self.no_check_before = Some(now + CHECK_PAUSE);
        // A retry topic's partition is judged together with the partition of the requests topic that it goes with.
        let requests = unchecked.iter().map(|lane| LaneId { topic: REQUESTS, ..*lane });
        let all: BTreeSet<LaneId> = unchecked.iter().copied().chain(requests).collect();
        let committed = match self.consumer.committed_offsets(self.topics.list(all), CHECK_PATIENCE) {
            Ok(committed) => committed,
            Err(error) => return debug!(%error, "the topic of a commit is not known yet"),
        };
        let topics = self.topics.clone();
        let position = |lane: LaneId| topics.committed(&committed, lane);
        let (mut recreated, mut left_alone) = (Vec::new(), Vec::new());
        for lane in unchecked {
            let context = self.consumer.context();
            match (position(lane), position(LaneId { topic: REQUESTS, ..lane })) {
                (Ok(Some(position)), _) => match context.topic_id(lane) {
                    None if position.topic.is_some() => continue,
                    topic_id if is_of_another(&position, topic_id) => recreated.push(lane),
                    _ => {}
                },
                // The requests that wait there were parked by groups that have read the requests topic before us.
                (Ok(None), Ok(None)) if self.topics.is_shared(lane) => left_alone.push(lane),
                (Ok(None), Ok(_)) => {}
                _ => continue,
            }
            context.state().lanes.checked(lane);
        }
        self.restart(&recreated);
        left_alone.into_iter().for_each(|lane| self.leave_alone(lane));
    }

    /// Skips all records of a retry topic that other groups have used.
    fn leave_alone(&mut self, lane: LaneId) {
        let (topic, partition) = (self.topics.name(lane), lane.partition);
        let Ok((first, end)) = self.consumer.fetch_watermarks(topic, partition, PATIENCE) else { return };
        if first < end {
            info!(%topic, partition, "requests parked there belong to another group and are left alone");
        }
        let topic_id = self.consumer.context().topic_id(lane);
        let position = Position { offset: end, topic: topic_id, ..Position::default() };
        if let Err(error) = self.consumer.commit(&self.topics.offsets(&[(lane, position)]), CommitMode::Sync) {
            debug!(%error, "it could not be noted that a partition is left alone");
        }
        self.consumer.context().state().lanes.restart(lane);
        self.seeks.insert(lane, Offset::Offset(end));
    }

    /// Restarts the lanes of topics that were deleted and made again, which librdkafka has just told us. Returns them.
    pub(super) fn restart_recreated_topics(&mut self) -> Vec<LaneId> {
        let context = self.consumer.context();
        let topics = context.broker.topic_ids().take_anew();
        let is_of_them = |lane: &LaneId| topics.iter().any(|topic| **topic == **self.topics.name(*lane));
        let lanes: Vec<LaneId> = context.state().lanes.ids().into_iter().filter(is_of_them).collect();
        self.restart(&lanes);
        lanes
    }

    /// Reads these partitions from their beginning, whatever was known of them.
    fn restart(&mut self, lanes: &[LaneId]) {
        for lane in lanes {
            let under_way = {
                let mut state = self.consumer.context().state();
                let under_way = state.lanes.in_flight(&[*lane]);
                state.lanes.restart(*lane);
                state.has_new_lanes = true;
                under_way
            };
            let (topic, partition) = (self.topics.name(*lane), lane.partition);
            warn!(%topic, partition, under_way, "the topic was deleted and made again since it was last read; it is read from its beginning, and what is under way of the one before is answered");
            self.seeks.insert(*lane, Offset::Beginning);
        }
        self.seek();
    }

    /// Has librdkafka seek to the offsets that lanes are to be read from. Seeks that it cannot make yet are made later.
    pub(super) fn seek(&mut self) {
        if self.seeks.is_empty() || !self.may_ask() {
            return;
        }
        let owned = self.consumer.context().state().lanes.ids();
        self.seeks.retain(|lane, _| owned.contains(lane));
        let mut list = self.topics.list([]);
        for (lane, offset) in &self.seeks {
            // Only an offset below zero is refused, and there are none.
            let _ = list.add_partition_offset(self.topics.name(*lane), lane.partition, *offset);
        }
        match self.consumer.seek_partitions(list, PATIENCE) {
            Ok(sought) => {
                for element in sought.elements().iter().filter(|element| element.error().is_ok()) {
                    if let Some(lane) = self.topics.lane(element.topic(), element.partition()) {
                        self.seeks.remove(&lane);
                    }
                }
            }
            Err(error) => debug!(%error, "a partition cannot be read from another place yet"),
        }
        if !self.seeks.is_empty() {
            self.ask_later();
        }
    }

    /// Restarts a lane of which a record has come with an offset that was read before: the broker has lost records.
    pub(super) fn restart_gone_back(&self, id: LaneId, offset: i64) {
        let (topic, partition) = (self.topics.name(id), id.partition);
        let context = self.consumer.context();
        let read = context.state().lanes.get(id).and_then(|lane| lane.window.read());
        warn!(%topic, partition, offset, read, "the partition's offsets have gone back: it has lost records, or is another one; it is read from there on");
        context.state().lanes.restart(id);
    }

    /// Prepares the next isolated run of a request that may have ended too many owners. Returns its lane, and the
    /// record with the verdict if it can run at once.
    pub(super) fn next_isolated_run(&mut self, now: Instant) -> Option<(LaneId, Option<(HeldRecord, IsolatedRun)>)> {
        if self.is_rereading() {
            return None;
        }
        let lane = self.consumer.context().state().lanes.next_isolated_run(now)?;
        if !self.may_ask() {
            return None;
        }
        let context = self.consumer.context();
        // Commit the run before it begins: if it ends this process, the next owner counts it.
        let is_over = context.state().lanes.get(lane).is_some_and(|lane| lane.is_first_held_finished());
        let begun = if is_over { None } else { context.state().lanes.begin_isolated_run(lane, context.commits) };
        if let Some((_, due)) = &begun
            && let Err(error) = self.consumer.commit(&self.topics.offsets(due), CommitMode::Sync)
        {
            debug!(%error, "a request that runs alone could not be noted");
            let mut state = self.consumer.context().state();
            state.lanes.revoke_isolated_run(lane);
            state.lanes.committed(due.iter().map(|(lane, _)| *lane), false);
            drop(state);
            self.ask_later();
            return None;
        }
        let mut state = self.consumer.context().state();
        // The commit holds for the other lanes as well: some may have nothing else to commit, and wait for that.
        state.lanes.committed(begun.iter().flat_map(|(_, due)| due).map(|(lane, _)| *lane), true);
        let held = state.lanes.release(lane)?;
        drop(state);
        let run = match begun {
            Some((IsolatedRun::Alone, _)) if !held.is_whole => {
                // The value was not copied before it was noted that the request runs; now it is read again.
                self.reread = Some((lane, held.offset, Instant::now()));
                self.read_again(lane, held.offset);
                None
            }
            Some((run, _)) => Some((held, run)),
            None => None,
        };
        Some((lane, run))
    }

    /// Reads a record again whose value was not copied, and with it the records after it.
    pub(super) fn read_again(&mut self, lane: LaneId, offset: i64) {
        self.consumer.context().state().lanes.drop_held(lane);
        self.seeks.insert(lane, Offset::Offset(offset));
    }

    fn may_ask(&self) -> bool {
        self.not_before.is_none_or(|time| time <= Instant::now())
    }

    fn ask_later(&mut self) {
        self.not_before = Some(Instant::now() + PAUSE);
    }
}

/// Returns whether a position is of another topic than this one, as far as both are known.
fn is_of_another(position: &Position, topic: Option<TopicId>) -> bool {
    matches!((position.topic, topic), (Some(position), Some(topic)) if position != topic)
}

//! Polling thread: reads, hands over, commits, and never stops polling.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tracing::{debug, error, info, warn};

use super::committer::{CommitResult, OffsetCommitter};
use super::context::IntakeContext;
use super::error::IntakeError;
use super::error_streak::ErrorStreak;
use super::handoff::{Handoff, Offer};
use super::lane::HeldRecord;
use super::partition_start::PartitionStart;
use super::poison_pill::IsolatedRun;
use super::pressure::{BackPressure, ReadStep};
use super::record::{is_bulky, read};
use super::ticket::{LaneId, REQUESTS};
use super::topics::Topics;
use crate::config::Limits;
use crate::telemetry::{Metrics, ReadinessPart};

/// Time that one poll waits for a record. Ends of requests are taken in between polls.
const POLL: Duration = Duration::from_millis(20);
/// Longest wait for the broker to say whether it can be read from. Polling stands still meanwhile.
const PROBE: Duration = Duration::from_millis(500);
/// Silence of all brokers after which they count as gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// Time for which the last commit is attempted, once no request is waited for any more.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// Longest wait for the broker to say which partitions a topic has.
const LOOK: Duration = Duration::from_secs(1);
/// Interval of that question while a retry topic lacks partitions.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Interval at which gauges are brought up to date.
const OBSERVE: Duration = Duration::from_secs(1);

/// State of the polling thread.
pub(super) struct Poller {
    pub(super) topics: Topics,
    pub(super) limits: Limits,
    pub(super) consumer: Arc<BaseConsumer<IntakeContext>>,
    pub(super) start: PartitionStart,
    pub(super) handoff: Handoff,
    /// Set once the thread is to stop: how long it may wait for the requests under way.
    pub(super) stop: Arc<OnceLock<Duration>>,
    pub(super) pressure: BackPressure,
    pub(super) committer: OffsetCommitter,
    pub(super) commit_interval: Duration,
    pub(super) metrics: Metrics,
    pub(super) readiness: ReadinessPart,
    pub(super) errors: ErrorStreak,
    /// Retry topic whose partitions were counted last.
    pub(super) looked_at: usize,
}

impl Poller {
    /// Runs until it is told to stop, or cannot go on.
    pub(super) fn run(mut self) -> Result<(), IntakeError> {
        info!(topic = %self.topics.requests(), "reading requests");
        let (mut committed, mut observed, mut looked) = (Instant::now(), Instant::now(), Instant::now());
        // A polled message borrows the consumer, while handling it changes the poller: so the loop has its own handle.
        let consumer = self.consumer.clone();
        let patience = loop {
            if let Some(patience) = self.stop.get() {
                break *patience;
            }
            let now = Instant::now();
            self.read(&consumer, now)?;
            if now.duration_since(committed) >= self.commit_interval {
                committed = now;
                self.commit();
            }
            if now.duration_since(observed) >= OBSERVE {
                observed = now;
                self.observe(now);
            }
            if now.duration_since(looked) >= LOOK_EVERY {
                looked = now;
                self.look_for_partitions();
            }
        };
        drop(consumer);
        self.drain(patience);
        Ok(())
    }

    /// Makes one step: takes in the ends of requests, then reads a record if there is room for it.
    fn read(&mut self, consumer: &BaseConsumer<IntakeContext>, now: Instant) -> Result<(), IntakeError> {
        let context = self.consumer.context();
        context.settle();
        let step = {
            let state = context.state();
            // The embedded broker loses records that are not read, so on it everything is read, and refused if need be.
            let full = state.budget.is_full() && !self.handoff.embedded;
            self.pressure.step(full, state.budget.is_relieved(), now)
        };
        // Under back-pressure either wait, or pause all partitions and poll on.
        match step {
            ReadStep::Wait => {
                context.settle_within(POLL);
                return Ok(());
            }
            ReadStep::Pause => self.pause_all(true),
            ReadStep::Resume => self.pause_all(false),
            ReadStep::Read | ReadStep::Idle => {}
        }
        // Attend to lanes that have come or wait, before another record adds to them.
        let (has_new_lanes, has_unchecked_lanes, is_any_due) = {
            let mut state = context.state();
            let has_new_lanes = std::mem::take(&mut state.has_new_lanes);
            let is_any_due = state.lanes.is_any_due(now) || state.lanes.has_quarantined();
            (has_new_lanes, std::mem::take(&mut state.has_unchecked_lanes), is_any_due)
        };
        if has_new_lanes {
            self.set_paused(self.pressure.is_paused());
        }
        if matches!(step, ReadStep::Read | ReadStep::Resume) && is_any_due {
            self.release(now);
        }
        if has_unchecked_lanes || self.start.is_busy() {
            self.start.check();
            self.start.seek();
        }
        // The log line of a recreated topic comes before its first record, so its lanes are restarted before dispatch.
        let polled = consumer.poll(POLL);
        let restarted = match consumer.context().broker.topic_ids().is_any_anew() {
            true => self.start.restart_recreated_topics(),
            false => Vec::new(),
        };
        match polled {
            None => Ok(()),
            Some(Ok(message)) => {
                self.dispatch(&message, &restarted);
                self.errors.passed();
                Ok(())
            }
            Some(Err(error)) => self.survive(error),
        }
    }

    /// Takes in a record, unless its lane has just been `restarted`: of such a lane everything that is still there is
    /// read again.
    fn dispatch(&mut self, message: &BorrowedMessage<'_>, restarted: &[LaneId]) {
        let context = self.consumer.context();
        context.broker.health().answered();
        let Some(lane) = self.topics.lane(message.topic(), message.partition()) else { return };
        if restarted.contains(&lane) || self.start.is_sought(lane) {
            return;
        }
        let now = Instant::now();
        let offset = message.offset();
        // The value of a bulky record is copied only when it runs: the copy alone could end the process.
        let is_isolated = self.start.take_reread(lane, offset) && context.state().lanes.quarantined(lane).is_some();
        let may_run = || {
            let mut state = context.state();
            !state.lanes.is_held(lane) && state.lanes.runnable(lane, offset).is_some()
        };
        let is_whole = is_isolated || !is_bulky(message) || may_run();
        let held = read(message, lane, &self.topics, &self.limits, is_whole, now);
        if is_isolated {
            return self.handoff.run_alone(context, lane, held, IsolatedRun::Alone);
        }
        if context.state().lanes.is_held(lane) {
            // The record was on its way when the partition was paused.
            return context.state().lanes.hold(lane, held, now);
        }
        match self.handoff.offer(self.consumer.context(), lane, held, now) {
            Offer::Done => {}
            Offer::Wait(held) => self.hold(lane, held, now),
            Offer::Back(held) => self.go_back(lane, held, now),
            Offer::Unread(offset) => self.start.read_again(lane, offset),
        }
    }

    /// Keeps a record until its lane may run it, and pauses that partition.
    fn hold(&self, lane: LaneId, held: HeldRecord, now: Instant) {
        debug!(source = %held.request.source, "a record waits for its lane");
        self.consumer.context().state().lanes.hold(lane, held, now);
        if let Err(error) = self.consumer.pause(&self.topics.list([lane])) {
            warn!(%error, "a partition could not be paused");
        }
    }

    /// Gives the records that wait for their lanes to the pipeline, as far as they may run now.
    fn release(&mut self, now: Instant) {
        self.start.open();
        self.run_suspect(now);
        let lanes = self.consumer.context().state().lanes.take_due(now);
        let mut resumed = Vec::new();
        for lane in lanes {
            while let Some(held) = { self.consumer.context().state().lanes.release(lane) } {
                match self.handoff.offer(self.consumer.context(), lane, held, now) {
                    Offer::Done => {}
                    Offer::Wait(held) => {
                        self.consumer.context().state().lanes.put_back(lane, held, now);
                        break;
                    }
                    Offer::Back(held) => {
                        self.go_back(lane, held, now);
                        break;
                    }
                    Offer::Unread(offset) => {
                        self.start.read_again(lane, offset);
                        break;
                    }
                }
            }
            if !self.consumer.context().state().lanes.is_held(lane) {
                resumed.push(lane);
            }
        }
        self.resume(resumed);
    }

    /// Runs the next suspected request alone, if its turn has come.
    fn run_suspect(&mut self, now: Instant) {
        let Some((lane, run)) = self.start.next_isolated_run(now) else { return };
        if let Some((held, run)) = run {
            self.handoff.run_alone(self.consumer.context(), lane, held, run);
        }
        if !self.consumer.context().state().lanes.is_held(lane) {
            self.resume(vec![lane]);
        }
    }

    /// Restarts a lane with this record, whose offset was read before.
    fn go_back(&self, lane: LaneId, held: HeldRecord, now: Instant) {
        self.start.restart_gone_back(lane, held.offset);
        self.hold(lane, held, now);
    }

    /// Resumes partitions that were paused for a held record.
    fn resume(&self, lanes: Vec<LaneId>) {
        if !lanes.is_empty()
            && let Err(error) = self.consumer.resume(&self.topics.list(lanes))
        {
            warn!(%error, "a partition could not be resumed");
        }
    }

    /// Survives an error of reading, unless the error is fatal. Most errors pass; a streak of them is logged once.
    fn survive(&mut self, error: KafkaError) -> Result<(), IntakeError> {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            error!(%error, "the consumer cannot go on");
            self.readiness.waits_for(format!("a restart: {error}"));
            return Err(IntakeError::Fatal { topic: self.topics.requests().clone(), source: error });
        }
        let code = error.rdkafka_error_code();
        if code.is_some_and(crate::broker::is_connection_error) {
            return Ok(());
        }
        if self.errors.came(&error, Instant::now()) {
            warn!(topic = %self.topics.requests(), %error, advice = advice(code), "requests cannot be read for now");
        }
        Ok(())
    }

    /// Begins to commit the positions that are due, unless the last commit is still under way.
    fn commit(&mut self) {
        let context = self.consumer.context();
        if let Some(CommitResult { lanes, succeeded }) = self.committer.take_done() {
            self.metrics.commits.with_label_values(&[if succeeded { "ok" } else { "error" }]).inc();
            if succeeded {
                context.broker.health().answered();
            }
            context.state().lanes.committed(lanes, succeeded);
        }
        if !context.commits || self.committer.is_busy() {
            return;
        }
        let due = context.state().lanes.take_commits(None, false);
        if !due.is_empty() {
            self.committer.commit(due);
        }
    }

    /// Brings gauges and readiness up to date.
    fn observe(&mut self, now: Instant) {
        if self.errors.is_doubtful(now) && self.can_read() {
            self.errors.passed();
        }
        let context = self.consumer.context();
        let state = context.state();
        self.metrics.in_flight_requests.set(gauge(state.budget.requests()));
        self.metrics.in_flight_bytes.set(gauge(state.budget.memory().taken()));
        self.metrics.intake_paused.set(i64::from(self.pressure.is_paused()));
        let age = state.lanes.oldest().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.metrics.oldest_in_flight.set(age.as_secs_f64());
        let (silent_since, is_any_ours) = (state.silent_since, !state.lanes.is_empty());
        drop(state);
        let silence = silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if context.broker.health().is_unreachable() {
            self.readiness.waits_for("the broker, which cannot be reached");
        } else if silence >= LONGEST_SILENCE {
            self.readiness.waits_for(format!("the broker, which has said nothing for {} s", silence.as_secs()));
        } else if let Some(why) = self.errors.reason(now) {
            self.readiness.waits_for(format!("requests to be read: {why}"));
        } else if is_any_ours {
            // Before the first assignment the part says so itself; afterwards an instance may well own nothing.
            self.readiness.ready();
        }
    }

    /// Returns whether the broker lets this group read.
    fn can_read(&self) -> bool {
        let lane = LaneId { topic: REQUESTS, partition: 0 };
        let committed = self.consumer.committed_offsets(self.topics.list([lane]), PROBE);
        committed.is_ok_and(|list| list.elements().iter().all(|element| element.error().is_ok()))
            && self.consumer.fetch_watermarks(self.topics.requests(), lane.partition, PROBE).is_ok()
    }

    /// Looks whether a retry topic has got the partitions that go with ours of the requests topic, where it had none
    /// before; one topic after the other. The group itself notices new partitions of the requests topic.
    fn look_for_partitions(&mut self) {
        let context = self.consumer.context();
        let Some(topic) = context.incomplete(self.looked_at) else { return };
        if context.broker.health().is_unreachable() {
            return;
        }
        self.looked_at = topic;
        let name = &self.topics.names()[topic];
        let Ok(metadata) = self.consumer.fetch_metadata(Some(name), LOOK) else { return };
        let count =
            metadata.topics().iter().find(|found| *found.name() == **name).map_or(0, |it| it.partitions().len());
        if self.topics.grows(topic, i32::try_from(count).unwrap_or(i32::MAX)) {
            info!(topic = %name, partitions = count, "a retry topic has more partitions than before");
            context.assign_companions(&self.consumer);
        }
    }

    fn pause_all(&self, pause: bool) {
        if self.set_paused(pause) {
            info!("{}", if pause { "partitions are paused" } else { "partitions are read again" });
        }
    }

    /// Pauses or resumes every partition but those where a record is held. True when that went well.
    fn set_paused(&self, pause: bool) -> bool {
        let list = {
            let state = self.consumer.context().state();
            self.topics.list(state.lanes.ids().into_iter().filter(|lane| !state.lanes.is_held(*lane)))
        };
        let result = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = &result {
            warn!(%error, "partitions could not be paused or resumed");
        }
        self.metrics.intake_paused.set(i64::from(pause));
        result.is_ok()
    }

    /// Stops reading, goes on polling while requests end, commits, and leaves the group.
    fn drain(self, patience: Duration) {
        self.readiness.waits_for("nothing any more: it is shutting down");
        self.pause_all(true);
        let context = self.consumer.context();
        let lanes = context.state().lanes.ids();
        let in_flight = || {
            let state = context.state();
            state.lanes.in_flight(&lanes) + state.lanes.orphans()
        };
        let until = Instant::now() + patience;
        let mut left = in_flight();
        info!(in_flight = left, "no more requests are read; those under way are waited for");
        while left > 0 && Instant::now() < until {
            // A record that was fetched before the pause is dropped here: nothing commits past it, so it is read again.
            drop(self.consumer.poll(Duration::ZERO));
            context.settle_within(POLL);
            left = in_flight();
        }
        if left > 0 {
            warn!(in_flight = left, "not all requests have ended in time; they will be read again");
        }
        // While the group is being rebalanced the broker refuses a commit; polling lets the rebalance go on.
        let until = until.max(Instant::now() + LAST_COMMIT);
        let poll = || {
            drop(self.consumer.poll(Duration::ZERO));
            context.settle_within(POLL);
        };
        loop {
            match context.give_back(&self.consumer, &lanes, poll) {
                Some(true) => break,
                Some(false) if Instant::now() < until => poll(),
                Some(false) => {
                    warn!("offsets could not be committed in time; their requests will be answered again");
                    break;
                }
                None => {
                    warn!("the last transaction is not decided; the next owner of its partitions waits for that");
                    break;
                }
            }
        }
        // Lanes that are left would be waited for once more when the consumer leaves.
        let mut state = context.state();
        lanes.iter().for_each(|lane| state.lanes.remove(*lane));
        // Dropping the consumer leaves the group.
    }
}

/// Advises a person about an error of reading.
fn advice(code: Option<RDKafkaErrorCode>) -> &'static str {
    match code {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => "create the requests topic, or correct kafka.requests_topic",
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => "let this client read the requests topic",
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => "let this client join kafka.group_id",
        _ => "it is tried again",
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

//! Partitions of this instance, as operators see them.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::IntakeContext;
use super::whereabouts::Mark;

/// View of the partitions that this instance owns. Cheap to clone.
#[derive(Clone)]
pub struct Partitions {
    /// The polling thread closes the consumer, so it is not kept alive from here.
    consumer: Weak<BaseConsumer<IntakeContext>>,
}

/// State of one partition.
#[derive(Debug)]
pub struct PartitionReport {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// True if the topic is the requests topic, and no retry topic.
    pub is_of_requests: bool,
    /// The number of requests under way.
    pub in_flight: usize,
    /// The number of records that were read and may not run yet.
    pub held: usize,
    /// The request that no commit can pass, if one is under way.
    pub oldest: Option<OldestRequest>,
}

/// First unfinished request of a partition.
#[derive(Debug)]
pub struct OldestRequest {
    /// The request's offset.
    pub offset: i64,
    /// Time since it was read.
    pub age: Duration,
    /// The step that it is at.
    pub mark: Mark,
}

impl Partitions {
    pub(super) fn new(consumer: &Arc<BaseConsumer<IntakeContext>>) -> Self {
        Self { consumer: Arc::downgrade(consumer) }
    }

    /// Lists the partitions in their order; those of retry topics only where they have requests.
    pub fn report(&self) -> Vec<PartitionReport> {
        let Some(consumer) = self.consumer.upgrade() else { return Vec::new() };
        let (context, now) = (consumer.context(), Instant::now());
        let state = context.state();
        let reports = state.lanes.iter().map(|(id, lane)| PartitionReport {
            topic: Arc::clone(context.topics.name(id)),
            partition: id.partition,
            is_of_requests: id.is_of_requests(),
            in_flight: lane.window.in_flight(),
            held: lane.held.len(),
            oldest: lane.window.oldest().zip(lane.window.first_unfinished()).map(|(since, offset)| OldestRequest {
                offset,
                age: now.saturating_duration_since(since),
                mark: lane.assignment.whereabouts.get(offset),
            }),
        });
        reports.filter(|report| report.is_of_requests || report.in_flight + report.held > 0).collect()
    }
}

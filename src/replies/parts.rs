//! Shared parts of the two delivery modes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::address::AllowedTopics;
use super::counts::Counts;
use super::directory::TopicDirectory;
use super::limits::TopicLimits;
use super::outgoing::DeadLetterTopic;
use super::throttle::Throttle;
use crate::broker::Cluster;
use crate::telemetry::ProgressWatch;

/// Parts that either delivery mode needs.
pub(super) struct Parts {
    pub(super) cluster: Arc<Cluster>,
    pub(super) allowed: Arc<AllowedTopics>,
    pub(super) dead_letters: DeadLetterTopic,
    pub(super) counts: Counts,
    pub(super) limits: TopicLimits,
    pub(super) directory: TopicDirectory,
    pub(super) throttle: Throttle,
    /// True if any record gets through.
    pub(super) flow: ProgressWatch,
    /// Cancelled when the producer cannot go on, so that the process ends rather than stand still.
    pub(super) failed: CancellationToken,
}

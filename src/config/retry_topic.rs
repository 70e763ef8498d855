//! The topics that follow from `kafka.retry_delays`.

use std::sync::Arc;
use std::time::Duration;

use super::{Kafka, Ordering};

/// A topic in which requests are parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryTopic {
    /// `<requests_topic>-retry-<milliseconds>`
    pub name: Arc<str>,
    /// How long each request waits there.
    pub delay: Duration,
}

impl Kafka {
    /// Whether requests are parked: they lose their order by it, and the embedded broker drops what waits.
    pub fn parks(&self) -> bool {
        !self.retry_delays.is_empty() && self.ordering == Ordering::Unordered && !self.is_embedded()
    }

    /// The topics in which requests are parked: the first for those whose route has too much to do, and then one for
    /// each delay.
    pub fn retry_topics(&self) -> Vec<RetryTopic> {
        let delays = [Duration::ZERO].into_iter().chain(self.retry_delays.iter().copied()).filter(|_| self.parks());
        let topic = |delay: Duration| RetryTopic {
            name: format!("{}-retry-{}", self.requests_topic, delay.as_millis()).into(),
            delay,
        };
        delays.map(topic).collect()
    }
}

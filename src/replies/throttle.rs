//! Quotas: the time for which brokers throttle our producers, from librdkafka's statistics.

use parking_lot::Mutex;
use std::sync::Arc;

use prometheus::Gauge;
use rdkafka::statistics::Statistics;

/// Shows the longest throttle time of all producers of replies. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Throttle {
    gauge: Gauge,
    /// Throttle time of each producer, by its number, in seconds.
    waits: Arc<Mutex<Vec<f64>>>,
}

impl Throttle {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { gauge, waits: Arc::default() }
    }

    /// Takes in the statistics of one producer's client.
    pub(super) fn take(&self, producer: usize, statistics: &Statistics) {
        // They are in milliseconds there.
        let throttles = statistics.brokers.values().filter_map(|broker| broker.throttle.as_ref());
        let longest = throttles.map(|throttle| throttle.max as f64 / 1000.0).fold(0.0, f64::max);
        let mut waits = self.waits.lock();
        if waits.len() <= producer {
            waits.resize(producer + 1, 0.0);
        }
        waits[producer] = longest;
        self.gauge.set(waits.iter().copied().fold(0.0, f64::max));
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Broker, Window};

    use super::*;

    fn statistics(milliseconds: &[Option<i64>]) -> Statistics {
        let window = |max: i64| Window { min: 0, max, avg: 9, ..Window::default() };
        let broker = |max: &Option<i64>| Broker { throttle: max.map(window), ..Broker::default() };
        let brokers = milliseconds.iter().enumerate().map(|(id, max)| (format!("b/{id}"), broker(max))).collect();
        Statistics { brokers, ..Statistics::default() }
    }

    #[test]
    fn throttle_shows_longest_wait_of_all_producers() {
        let gauge = Gauge::new("throttle", "seconds").unwrap();
        let throttle = Throttle::new(gauge.clone());
        throttle.take(1, &statistics(&[Some(250), None]));
        assert!((gauge.get() - 0.25).abs() < 1e-9, "{}", gauge.get());
        throttle.take(0, &statistics(&[Some(40)]));
        assert!((gauge.get() - 0.25).abs() < 1e-9, "{}", gauge.get());
        throttle.take(1, &statistics(&[]));
        assert!((gauge.get() - 0.04).abs() < 1e-9, "{}", gauge.get());
    }
}

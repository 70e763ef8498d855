//! Quotas: the time for which brokers throttle our producers, from librdkafka's statistics.

use parking_lot::Mutex;
use std::sync::Arc;

use prometheus::Gauge;
use serde_json::Value;

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
    pub(super) fn take(&self, producer: usize, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Value>(statistics) else { return };
        let brokers = statistics["brokers"].as_object().into_iter().flatten();
        let milliseconds = brokers.filter_map(|(_, broker)| broker["throttle"]["max"].as_f64());
        let longest = milliseconds.fold(0.0, f64::max) / 1000.0;
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
    use super::*;

    #[test]
    fn throttle_shows_longest_wait_of_all_producers() {
        let gauge = Gauge::new("throttle", "seconds").unwrap();
        let throttle = Throttle::new(gauge.clone());
        throttle.take(
            1,
            br#"{"name": "a", "brokers": {"b/1": {"throttle": {"min": 0, "max": 250, "avg": 9}}, "b/2": {}}}"#,
        );
        assert!((gauge.get() - 0.25).abs() < 1e-9, "{}", gauge.get());
        throttle.take(0, br#"{"brokers": {"b/1": {"throttle": {"max": 40}}}}"#);
        throttle.take(0, b"no JSON");
        assert!((gauge.get() - 0.25).abs() < 1e-9, "{}", gauge.get());
        throttle.take(1, br#"{"brokers": {}}"#);
        assert!((gauge.get() - 0.04).abs() < 1e-9, "{}", gauge.get());
    }
}

//! Series: the traffic of one route, or of an endpoint, over the last quarter of an hour. Pure: readings and times are
//! given in.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::time::Duration;

use super::quantile::quantile;

/// Time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// Samples that are kept: a quarter of an hour.
const SAMPLES: usize = 180;

/// Samples over which present rates and quantiles are taken: half a minute.
const RECENT: usize = 6;

/// Quantiles that are shown.
const SHOWN: [f64; 2] = [0.5, 0.95];

/// Counters at one moment. They only rise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Requests that have ended.
    pub(super) requests: u64,
    /// Requests that have ended with a fault.
    pub(super) faults: u64,
    /// Requests that took no longer than each bound of the histogram, and at last all.
    pub(super) counts: Vec<u64>,
}

/// Requests between two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) requests: u64,
    pub(super) faults: u64,
    /// 95th percentile of their times, in seconds.
    pub(super) p95: Option<f64>,
}

/// Traffic of late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Recent {
    pub(super) elapsed: Duration,
    pub(super) requests: u64,
    pub(super) faults: u64,
    /// Quantiles of the requests' times, in seconds, as [`SHOWN`].
    pub(super) quantiles: [Option<f64>; SHOWN.len()],
}

/// The samples of a quarter of an hour, and the last readings in full.
#[derive(Debug)]
pub(super) struct Series {
    samples: VecDeque<Sample>,
    /// Readings and their times, the oldest first; never empty.
    readings: VecDeque<(Duration, Reading)>,
}

impl Series {
    /// Begins with a reading, from which the first sample counts.
    pub(super) fn new(reading: Reading, now: Duration) -> Self {
        Self { samples: VecDeque::new(), readings: VecDeque::from([(now, reading)]) }
    }

    /// Adds a sample.
    pub(super) fn push(&mut self, bounds: &[f64], reading: Reading, now: Duration) {
        let since = self.readings.back().map(|(_, last)| reading.since(last)).unwrap_or_default();
        let Reading { requests, faults, .. } = since;
        self.samples.push_back(Sample { requests, faults, p95: quantile(0.95, bounds, &since.counts) });
        self.readings.push_back((now, reading));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        if self.readings.len() > RECENT + 1 {
            self.readings.pop_front();
        }
    }

    /// Computes the traffic from the oldest reading until this one.
    pub(super) fn recent(&self, bounds: &[f64], reading: &Reading, now: Duration) -> Recent {
        let (begun, since) = match self.readings.front() {
            Some((begun, oldest)) => (*begun, reading.since(oldest)),
            None => (now, Reading::default()),
        };
        Recent {
            elapsed: now.saturating_sub(begun),
            requests: since.requests,
            faults: since.faults,
            quantiles: SHOWN.map(|part| quantile(part, bounds, &since.counts)),
        }
    }

    /// Returns the last samples, so many at most.
    pub(super) fn last(&self, samples: usize) -> impl Iterator<Item = &Sample> {
        self.samples.iter().skip(self.samples.len().saturating_sub(samples))
    }
}

impl Reading {
    /// Returns what has been counted since an earlier reading.
    fn since(&self, earlier: &Self) -> Self {
        let before = |index| earlier.counts.get(index).copied().unwrap_or_default();
        let counts = self.counts.iter().enumerate().map(|(index, count)| count.saturating_sub(before(index)));
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            faults: self.faults.saturating_sub(earlier.faults),
            counts: counts.collect(),
        }
    }
}

impl AddAssign<&Self> for Reading {
    fn add_assign(&mut self, other: &Self) {
        self.requests += other.requests;
        self.faults += other.faults;
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 2] = [0.1, 1.0];

    fn reading(fast: u64, slow: u64, faults: u64) -> Reading {
        Reading { requests: fast + slow, faults, counts: vec![fast, fast + slow, fast + slow] }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn samples_count_from_one_to_the_next() {
        let mut series = Series::new(reading(5, 0, 0), seconds(0));
        series.push(&BOUNDS, reading(15, 0, 1), seconds(5));
        series.push(&BOUNDS, reading(15, 0, 1), seconds(10));
        let shown: Vec<_> = series.last(9).map(|sample| (sample.requests, sample.faults, sample.p95)).collect();
        assert_eq!(shown[1], (0, 0, None));
        assert_eq!((shown[0].0, shown[0].1), (10, 1));
        assert!(shown[0].2.is_some_and(|p95| (p95 - 0.095).abs() < 1e-9), "{shown:?}");
        assert_eq!(series.last(1).count(), 1);
    }

    #[test]
    fn recent_forgets_what_is_older_than_half_a_minute() {
        let mut series = Series::new(Reading::default(), seconds(0));
        for second in (5..=60).step_by(5) {
            series.push(&BOUNDS, reading(second, 0, 0), seconds(second));
        }
        let recent = series.recent(&BOUNDS, &reading(60, 4, 2), seconds(62));
        assert_eq!((recent.elapsed, recent.requests, recent.faults), (seconds(32), 34, 2));
        assert!(recent.quantiles[0].is_some_and(|p50| p50 < 0.1) && recent.quantiles[1].is_some_and(|p95| p95 > 0.1));
    }

    #[test]
    fn samples_are_bounded() {
        let mut series = Series::new(Reading::default(), seconds(0));
        (1..=500).for_each(|second| series.push(&BOUNDS, reading(second, 0, 0), seconds(second)));
        assert_eq!((series.last(usize::MAX).count(), series.readings.len()), (SAMPLES, RECENT + 1));
    }
}

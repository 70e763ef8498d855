//! The making of a metric's handle from its row of the table.

use prometheus::core::{Collector, Desc};
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

/// A row of the table of metrics.
#[derive(Debug, Clone, Copy)]
pub struct MetricRow {
    /// Name of the metric, without the prefix `signalbox_`.
    pub name: &'static str,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Text that explains the metric in the exposition.
    pub help: &'static str,
    /// Upper bounds of the buckets, if the metric is a histogram.
    pub buckets: &'static [f64],
}

/// The handle of a metric, which counts.
pub(super) trait Handle: Collector + Clone + Sized + 'static {
    /// Makes the handle.
    fn make(row: &MetricRow) -> Result<Self, Error>;

    /// Makes the handle and registers its metric.
    fn register(row: &MetricRow, registry: &Registry) -> Result<Self, Error> {
        let metric = Self::make(row)?;
        debug_assert!(metric.desc().iter().all(|desc: &&Desc| !desc.help.is_empty()));
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

impl MetricRow {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn histogram(&self) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help).buckets(self.buckets.to_vec())
    }
}

/// Implements [`Handle`] for a type of handle.
macro_rules! handle {
    ($handle:ident, $row:ident => $make:expr) => {
        impl Handle for $handle {
            fn make($row: &MetricRow) -> Result<Self, Error> {
                $make
            }
        }
    };
}

handle!(IntCounter, row => Self::with_opts(row.opts()));
handle!(IntCounterVec, row => Self::new(row.opts(), row.labels));
handle!(IntGauge, row => Self::with_opts(row.opts()));
handle!(IntGaugeVec, row => Self::new(row.opts(), row.labels));
handle!(Gauge, row => Self::with_opts(row.opts()));
handle!(GaugeVec, row => Self::new(row.opts(), row.labels));
handle!(Histogram, row => Self::with_opts(row.histogram()));
handle!(HistogramVec, row => Self::new(row.histogram(), row.labels));

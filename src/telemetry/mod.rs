//! The view of operators: metrics, logs, and the readiness of the process.

mod flow;
mod log_gate;
mod logging;
mod metrics;
mod printable;
mod readiness;
mod recent_faults;

pub use flow::{PendingWork, ProgressWatch};
pub(crate) use log_gate::LogGate;
pub use logging::{LogFormat, init_logging};
pub use metrics::{BatchMetrics, MetricRow, Metrics, RouteMetrics, ShadowMetrics};
pub(crate) use printable::printable;
pub use readiness::{Readiness, ReadinessPart};
pub use recent_faults::{FaultKind, RecentFault, RecentFaults};

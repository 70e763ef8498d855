//! The trace of one request: how far it has come, and by which route.

use std::sync::Arc;
use std::time::Duration;

use crate::message::{Request, ServedBy};
use crate::telemetry::RouteMetrics;

/// Records how far a request has come, for the headers of its reply or fault.
#[derive(Default)]
pub(super) struct RequestTrace {
    pub(super) served_by: ServedBy,
    /// Route that was chosen, once the request is admitted there. A fallback may answer in its place.
    pub(super) chosen: Option<ChosenRoute>,
    /// Place of the route that has the request, for its [mark](crate::intake::Mark); 0 before one has.
    pub(super) place: u32,
    /// Duration of the request's last call of a model.
    pub(super) took: Option<Duration>,
    pub(super) metrics: Option<Arc<RouteMetrics>>,
    /// Tells whether its route had too much to do to begin with it, so that it goes to the overflow topic.
    pub(super) overflows: bool,
}

/// Names a route by its indices in the snapshot.
#[derive(Clone, Copy)]
pub(super) struct ChosenRoute {
    pub(super) endpoint: usize,
    pub(super) route: usize,
}

impl RequestTrace {
    /// Starts the trace of a request; one that comes back from a retry topic goes on from its earlier calls.
    pub(super) fn of(request: &Request) -> Self {
        let attempts = request.parked.map_or(0, |parked| parked.calls);
        Self { served_by: ServedBy { attempts, ..ServedBy::default() }, ..Self::default() }
    }
}

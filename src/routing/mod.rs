//! Which route: the endpoint a request names, and the first of its routes whose condition holds.

pub mod condition;
mod decide;
mod explain;
mod table;

pub use decide::{Decision, Reason};
pub use explain::{ConditionReport, Explanation};
pub use table::{Endpoint, Route, RouteCondition, RoutingProblem, RoutingTable};

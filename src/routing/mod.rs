//! The choice of a route: the endpoint that a request names, the first of its conditions that holds, and the split
//! between routes that share.

mod canary;
pub mod condition;
mod decide;
mod explain;
mod decision_service;
mod split;
mod sticky;
mod table;

pub use canary::CanaryShare;
pub use condition::{Answers, ConditionError, Parts, PythonExpression, Question, ResultKind, Value};
pub use decide::{Reason, RouteDecision};
pub use decision_service::{DecisionError, DecisionService};
pub use explain::{ConditionReport, DecisionReport, Draw, Explanation, MemberReport, PartReport, SplitReport};
pub use split::LoadReading;
pub use table::{Endpoint, Route, RoutingProblem, RoutingTable};

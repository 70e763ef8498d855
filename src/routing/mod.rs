//! Which route: the endpoint a request names, the first of its conditions that holds, and how routes share.

mod canary;
pub mod condition;
mod decide;
mod explain;
mod outside;
mod split;
mod sticky;
mod table;

pub use canary::CanaryShare;
pub use decide::{Decision, Reason};
pub use explain::{ConditionReport, Draw, Explanation, OutsideReport, Share, Shares};
pub use outside::{Outside, Trouble};
pub use split::{Idle, Load, Loads};
pub use table::{Endpoint, Route, RoutingProblem, RoutingTable};

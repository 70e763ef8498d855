//! Results out: replies, faults and dead letters, each acknowledged by the broker before its request counts as done.

mod address;
mod dead_letter;
mod delivery;
mod publisher;
mod record;
mod recourse;
mod shadow;

pub(crate) use address::topic_pattern;
pub use address::{Address, AllowedTopics};
pub use publisher::{Ending, Publisher};
pub use shadow::{Primary, ShadowAnswer, ShadowPublisher};

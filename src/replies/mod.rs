//! Results out: replies, faults and dead letters, each acknowledged by the broker before its request counts as done. A
//! caller who waits in this process has his before that.

mod acknowledged;
mod address;
mod counts;
mod dead_letter;
mod direct;
mod directory;
mod job;
mod limits;
mod order;
mod outgoing;
mod parked;
mod publisher;
mod record;
mod recourse;
mod shadow;
mod throttle;
mod transaction;

pub(crate) use address::topic_pattern;
pub use address::{Address, AllowedTopics};
pub use job::Parking;
pub use order::Place;
pub use publisher::{Ending, Publisher};
pub use shadow::{Primary, ShadowAnswer, ShadowPublisher};

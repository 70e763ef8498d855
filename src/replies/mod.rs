//! Publishing of replies, faults and dead letters. A request counts as done once the broker has acknowledged them; a
//! caller who waits in this process gets the reply before that.

mod address;
mod at_least_once;
mod counts;
mod dead_letter;
mod directory;
mod exactly_once;
mod limits;
mod local_reply;
mod order;
mod outgoing;
mod parked;
mod partitioner;
mod parts;
mod publication;
mod publisher;
mod record;
mod recourse;
mod shadow;
mod throttle;

pub(crate) use address::topic_pattern;
pub use address::{AllowedTopics, ReplyAddress};
pub use order::OrderPlace;
pub use parked::Parking;
pub use publication::FinishedRequest;
pub use publisher::Publisher;
pub use shadow::{PrimaryAnswer, ShadowAnswer, ShadowPublisher};

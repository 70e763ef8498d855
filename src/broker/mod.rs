//! Kafka itself: the brokers, the set-up of clients, and the topics that there must be.

mod bootstrap;
mod cluster;
mod context;
mod embedded;
mod error;
mod examination;
mod foreign_text;
mod identity;
mod lookup;
mod probe;
mod thread;
mod topic_id;
mod topics;

pub use cluster::Cluster;
pub(crate) use context::is_connection_error;
pub use context::{BrokerContext, BrokerHealth, Deliveries};
pub use error::BrokerError;
pub(crate) use error::{is_fenced, is_for_want_of_time};
pub(crate) use examination::{ClusterReport, NoAnswer, TopicReport, missing_right};
pub(crate) use foreign_text::read_foreign;
pub use identity::Identity;
pub(crate) use lookup::{TopicLookup, TopicState};
pub use thread::ClientThread;
pub use topic_id::{TOPIC_IDS, TopicId, TopicIds};
pub(crate) use topics::form as topic_form;

//! The keys of a configuration that cannot change without a restart.

use super::{Conditions, Config, Kafka, Models, Registry, Server};

/// Lists the keys whose values differ. Every key of the struct has to be named, or this does not compile.
macro_rules! differing {
    ($new:expr, $in_use:expr; $($section:ident: $type:ident { $($key:ident),* })*) => {{
        let mut keys = Vec::new();
        $(
            let $type { $($key),* } = &$in_use.$section;
            $(if *$key != $new.$section.$key {
                keys.push(concat!(stringify!($section), ".", stringify!($key)));
            })*
        )*
        keys
    }};
}

impl Config {
    /// Lists the keys that differ from those of a configuration in use and take a restart: connections, processes and
    /// ports are made of them. Everything else belongs to routes, which can change at any time.
    pub fn waits_for_restart(&self, in_use: &Self) -> Vec<&'static str> {
        differing! {
            self, in_use;
            kafka: Kafka {
                bootstrap_servers, requests_topic, replies_topic, dead_letter_topic, shadow_topic, state_topic,
                allowed_reply_topics, group_id, delivery, transaction_interval, instance_id, ordering, retry_delays,
                create_topics, partitions, replication_factor, max_in_flight, max_in_flight_bytes, limits,
                commit_interval, drain_timeout, properties
            }
            server: Server { host, port, max_body, max_pending, reply_partition, auth, tls }
            registry: Registry { tracking_uri, refresh }
            models: Models {
                python, template, load_timeout, concurrent_loads, memory_limit, idle_timeout, minimum_stay, preload,
                pin, cache
            }
            conditions: Conditions { evaluators, timeout, max_memory }
        }
    }
}

//! Checks of `kafka.properties`: properties of librdkafka on which a promise rests are forbidden.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::validator::{KeyPath, Validator};
use crate::config::Kafka;

/// A property that is forbidden, with its other names: what would break, and what to do instead.
struct ForbiddenProperty {
    names: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
}

/// All forbidden properties: those that decide when a record counts as written, read or answered, and in which order.
/// The list was made by going through librdkafka's CONFIGURATION.md. Properties that only tune speed, memory, security
/// and names are the user's.
const FORBIDDEN: &[ForbiddenProperty] = &[
    ForbiddenProperty {
        names: &["bootstrap.servers", "metadata.broker.list"],
        why: "which brokers there are is a key of its own",
        instead: "use kafka.bootstrap_servers",
    },
    ForbiddenProperty {
        names: &["group.id"],
        why: "several groups are named after Signalbox's own",
        instead: "use kafka.group_id",
    },
    ForbiddenProperty {
        names: &["transactional.id"],
        why: "two producers of one name shut each other out, and an instance has several",
        instead: "use kafka.instance_id, or kafka.delivery: at_least_once for none",
    },
    ForbiddenProperty {
        names: &["acks", "request.required.acks"],
        why: "an offset is committed once all replicas in sync have the reply; with fewer a broker's end loses it",
        instead: "leave it out; how many replicas must be in sync is the topic's min.insync.replicas",
    },
    ForbiddenProperty {
        names: &["enable.idempotence"],
        why: "without it a reply that is sent again may be there twice, or after later ones",
        instead: "leave it out: it is on",
    },
    ForbiddenProperty {
        names: &["retries", "message.send.max.retries", "message.timeout.ms", "delivery.timeout.ms"],
        why: "a reply that is given up while a broker is away would be lost",
        instead: "leave it out; how long a caller waits is the endpoint's timeout",
    },
    ForbiddenProperty {
        names: &["max.in.flight.requests.per.connection", "max.in.flight"],
        why: "it is chosen by how many partitions a broker leads, and never so that replies could overtake each other",
        instead: "leave it out; how many requests are under way at once is kafka.max_in_flight",
    },
    ForbiddenProperty {
        names: &["queuing.strategy"],
        why: "replies that overtake each other are out of order",
        instead: "leave it out",
    },
    ForbiddenProperty {
        names: &["partitioner"],
        why: "replies of one key keep their order in the partition that Java's clients choose for it",
        instead: "leave it out; a request may name its partition in kafka_replyPartition",
    },
    ForbiddenProperty {
        names: &["delivery.report.only.error"],
        why: "an offset is committed once its reply is reported as written",
        instead: "leave it out",
    },
    ForbiddenProperty {
        names: &["enable.gapless.guarantee"],
        why: "one reply that cannot be written would end the producer of all",
        instead: "leave it out",
    },
    ForbiddenProperty {
        names: &["enable.auto.commit", "auto.commit.enable"],
        why: "an offset is committed once its reply is acknowledged",
        instead: "leave it out; how often that is done is kafka.commit_interval or kafka.transaction_interval",
    },
    ForbiddenProperty {
        names: &["enable.auto.offset.store"],
        why: "an offset is committed once its reply is acknowledged",
        instead: "leave it out",
    },
    ForbiddenProperty {
        names: &["offset.store.method", "offset.store.path", "offset.store.sync.interval.ms"],
        why: "offsets are kept by the broker, where another instance finds them",
        instead: "leave it out",
    },
    ForbiddenProperty {
        names: &["auto.offset.reset"],
        why: "requests that were there before the first start, or while offsets were lost, would never be answered",
        instead: "leave it out; to pass over requests, set the group's offsets with Kafka's own tools while it is stopped",
    },
    ForbiddenProperty {
        names: &["isolation.level"],
        why: "requests are read once they are committed; else those that their producer takes back are answered too",
        instead: "leave it out",
    },
    ForbiddenProperty {
        names: &["enable.partition.eof"],
        why: "some readers need to know where a partition ends, and others take it for an error",
        instead: "leave it out",
    },
    ForbiddenProperty {
        names: &["topic.blacklist"],
        why: "a topic that is on it would be neither read nor written, in silence",
        instead: "leave it out; replies go where kafka.allowed_reply_topics says",
    },
    ForbiddenProperty {
        names: &["enabled_events"],
        why: "which events a client hears of decides whether offsets and replies are followed up",
        instead: "leave it out",
    },
];

impl Validator<'_> {
    /// Checks each property below `kafka.properties`.
    pub(super) fn properties(&mut self, kafka: &Kafka, at: &KeyPath) {
        for (name, value) in &kafka.properties {
            let at = at.key(name);
            if let Some(ForbiddenProperty { why, instead, .. }) = forbidden(name) {
                self.error(&at, format!("this is not to be set, since {why}"), instead);
            } else if let Err(error) = ClientConfig::new().set(name, value).create_native_config() {
                let words = match &error {
                    KafkaError::ClientConfig(_, words, _, _) => words.clone(),
                    other => other.to_string(),
                };
                let words = self.words(&at, &words);
                self.error(&at, format!("librdkafka does not take this property: {words}"), "");
            }
        }
    }
}

fn forbidden(name: &str) -> Option<&'static ForbiddenProperty> {
    FORBIDDEN.iter().find(|property| property.names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(set: (&str, &str), read: &str) -> Option<String> {
        let native = ClientConfig::new().set(set.0, set.1).create_native_config().ok()?;
        native.get(read).ok()
    }

    /// Other names of a forbidden property are forbidden as well, and all of these are names that librdkafka knows.
    #[test]
    fn forbidden_property_is_refused_under_every_name() {
        for ([one, other], values) in [
            (["acks", "request.required.acks"], ["1", "0"]),
            (["retries", "message.send.max.retries"], ["3", "4"]),
            (["message.timeout.ms", "delivery.timeout.ms"], ["1000", "2000"]),
            (["max.in.flight", "max.in.flight.requests.per.connection"], ["3", "4"]),
            (["bootstrap.servers", "metadata.broker.list"], ["a", "b"]),
        ] {
            for value in values {
                assert_eq!(value_of((one, value), other).as_deref(), Some(value), "{one}");
            }
            assert!(forbidden(one).is_some() && forbidden(other).is_some(), "{one}, {other}");
        }
        for name in FORBIDDEN.iter().flat_map(|property| property.names) {
            let error = ClientConfig::new().set(*name, "\u{1}").create_native_config().err();
            assert!(!error.is_some_and(|error| error.to_string().contains("No such configuration property")), "{name}");
        }
    }

    #[test]
    fn property_is_allowed_when_it_only_tunes() {
        for name in [
            "client.id",
            "client.rack",
            "message.max.bytes",
            "linger.ms",
            "batch.size",
            "compression.type",
            "security.protocol",
            "sasl.password",
            "ssl.ca.location",
            "session.timeout.ms",
            "group.protocol",
            "group.instance.id",
            "transaction.timeout.ms",
            "fetch.max.bytes",
            "queued.max.messages.kbytes",
            "statistics.interval.ms",
            "debug",
        ] {
            assert!(forbidden(name).is_none(), "{name}");
        }
    }
}

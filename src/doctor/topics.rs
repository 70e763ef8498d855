//! The topics: whether they are there or may be created, and whether their settings go with the configuration.

use std::sync::Arc;
use std::time::Duration;

use super::finding::{Finding, count};
use crate::broker::{BrokerError, Cluster, ClusterReport, TopicReport, topic_form};
use crate::config::{Config, Kafka};
use crate::message::Fault;
use crate::shim::ShimError;

/// Bytes that a record of the HTTP side has beside its body, and some more.
const AROUND_BODY: i64 = 16 * 1024;

/// Longest time for which a retry topic should keep its records: a broker forgets the commits of such a topic after a week.
const LONGEST_RETENTION: i64 = 7 * 24 * 60 * 60 * 1000;

/// Makes a finding of each topic, and one of each setting that does not fit. Blocks; not for the runtime's workers.
pub(super) fn examine(cluster: &Cluster, config: &Config, wanted: &[Arc<str>], report: &ClusterReport) -> Vec<Finding> {
    let mut findings = Vec::new();
    for topic in wanted {
        let what = format!("topic {topic}");
        match report.topics.get(&**topic) {
            Some(found) => {
                findings.push(described(&what, found));
                findings.extend(objections(config, topic, found, report).into_iter().map(
                    |objection| match objection {
                        Objection::Warning(words) => Finding::warning(&*what, words),
                        Objection::Failed(words) => Finding::failed(&*what, words),
                    },
                ));
            }
            None => findings.push(missing(cluster, &config.kafka, topic, report)),
        }
    }
    findings
}

fn described(what: &str, found: &TopicReport) -> Finding {
    let partitions = count(usize::try_from(found.partitions).unwrap_or_default(), "partition");
    let replicas = count(found.replicas, "replica");
    let limit = found.number("max.message.bytes").map(|bytes| format!(", max.message.bytes {bytes}"));
    let retention = found.number("retention.ms").map(|milliseconds| match u64::try_from(milliseconds) {
        Ok(milliseconds) => format!(", kept for {}", humantime::format_duration(Duration::from_millis(milliseconds))),
        Err(_) => ", kept for ever".to_owned(),
    });
    let unread = if found.settings.is_empty() { "; its settings may not be read by this client" } else { "" };
    let (limit, retention) = (limit.unwrap_or_default(), retention.unwrap_or_default());
    Finding::ok(what, format_args!("{partitions}, {replicas}{limit}{retention}{unread}"))
}

/// Finds out what the start would do about a topic that is missing.
fn missing(cluster: &Cluster, kafka: &Kafka, topic: &str, report: &ClusterReport) -> Finding {
    let of_requests = report.topics.get(&kafka.requests_topic).map(|found| found.partitions);
    let (partitions, settings) = topic_form(kafka, topic, of_requests);
    let what = format!("topic {topic}");
    if !kafka.create_topics {
        return Finding::failed(what, BrokerError::not_to_be_created(topic, partitions));
    }
    match cluster.would_create(kafka, topic, partitions, settings) {
        Ok(()) => {
            let partitions = count(usize::try_from(partitions).unwrap_or_default(), "partition");
            Finding::ok(what, format_args!("not there yet; the start may create it, with {partitions}"))
        }
        Err(error) => Finding::failed(what, error),
    }
}

/// A setting that does not fit, with the cure.
#[derive(Debug, PartialEq, Eq)]
enum Objection {
    Warning(String),
    Failed(String),
}

/// Lists what is wrong with a topic that is there.
fn objections(config: &Config, topic: &str, found: &TopicReport, report: &ClusterReport) -> Vec<Objection> {
    let kafka = &config.kafka;
    let mut objections = Vec::new();
    let mut warn = |words: String| objections.push(Objection::Warning(words));
    let limit = found.number("max.message.bytes");
    let of_requests = report.topics.get(&kafka.requests_topic);
    let is_compacted = found.settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
    if topic == kafka.state_topic {
        if !is_compacted && !found.settings.is_empty() {
            warn("decisions of canaries are forgotten with time; set its cleanup.policy to compact".to_owned());
        }
    } else if is_compacted {
        warn("of the records with one key only the last is kept; set its cleanup.policy to delete".to_owned());
    }
    if topic == kafka.requests_topic {
        let body = i64::try_from(config.server.max_body.as_u64()).unwrap_or(i64::MAX);
        if let Some(limit) = limit.filter(|limit| body.saturating_add(AROUND_BODY) > *limit) {
            warn(format!(
                "max.message.bytes is {limit}, and a body of server.max_body ({body} bytes) does not fit with its \
                 headers; lower server.max_body, or raise the topic's limit"
            ));
        }
    } else if topic != kafka.state_topic
        && let (Some(limit), Some(of_requests)) = (limit, of_requests.and_then(|it| it.number("max.message.bytes")))
        && limit < of_requests
        && topic != kafka.replies_topic
    {
        warn(format!(
            "max.message.bytes is {limit}, less than the {of_requests} of '{}', so that a large request does not fit \
             here; raise it to as much",
            kafka.requests_topic
        ));
    }
    let fault = i64::try_from(kafka.limits.largest_fault(Fault::LONGEST_MESSAGE as u64)).unwrap_or(i64::MAX);
    if topic == kafka.replies_topic
        && let Some(limit) = limit.filter(|limit| fault > *limit)
    {
        warn(format!(
            "max.message.bytes is {limit}, and a fault may have {fault} bytes; raise it, or lower \
             kafka.limits.correlation_id or header_bytes"
        ));
    }
    if let Some(retry) = kafka.retry_topics().iter().find(|retry| *retry.name == *topic) {
        let delay = i64::try_from(retry.delay.as_millis()).unwrap_or(i64::MAX);
        match found.number("retention.ms") {
            Some(kept) if kept >= 0 && kept < delay.saturating_mul(2) => warn(format!(
                "retention.ms is {kept}, and requests wait there for {delay} ms: some would be gone before their turn; \
                 set it to 518400000 (six days)"
            )),
            Some(kept) if !(0..=LONGEST_RETENTION).contains(&kept) => warn(format!(
                "retention.ms is {kept}, longer than a broker remembers what was committed there; set it to 518400000 \
                 (six days)"
            )),
            _ => {}
        }
        if let Some(of_requests) = of_requests.filter(|it| it.partitions > found.partitions) {
            warn(format!(
                "it has {} partitions, and '{}' has {}: requests of the others are answered with their fault; add \
                 partitions up to as many",
                found.partitions, kafka.requests_topic, of_requests.partitions
            ));
        }
    }
    if let Some(least) = found.number("min.insync.replicas")
        && usize::try_from(least).is_ok_and(|least| found.replicas < least)
    {
        objections.push(Objection::Failed(format!(
            "min.insync.replicas is {least}, and it has {}: no record is taken; add replicas, or lower that setting",
            count(found.replicas, "replica")
        )));
    }
    if !found.leaderless.is_empty() {
        let numbers = found.leaderless.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        objections.push(Objection::Failed(format!(
            "no broker leads {} {numbers}; start the brokers that have them",
            if found.leaderless.len() == 1 { "partition" } else { "partitions" }
        )));
    }
    if topic == kafka.replies_topic
        && let Some(partition) = config.server.reply_partition.filter(|partition| *partition >= found.partitions)
    {
        let error = ShimError::ReplyPartition { partition, topic: topic.to_owned(), count: found.partitions };
        objections.push(Objection::Failed(error.to_string()));
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(partitions: i32, settings: &[(&str, &str)]) -> TopicReport {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TopicReport { partitions, replicas: 1, settings, leaderless: Vec::new() }
    }

    /// Returns the objections to one topic of a cluster.
    fn found(name: &str, topics: &[(&str, TopicReport)]) -> String {
        let text = "model_endpoints: [{name: a, routes: [{model_uri: builtin:noop, alias: b}]}]\n\
                    kafka: {bootstrap_servers: 'a:9092', requests_topic: requests, replies_topic: replies}\n\
                    server: {reply_partition: 2}\n";
        let config = crate::check::parse(text, "gateway.yaml", &|_| None).unwrap().config;
        let topics = topics.iter().map(|(name, topic)| ((*name).to_owned(), topic.clone())).collect();
        let report = ClusterReport { topics, ..ClusterReport::default() };
        format!("{:?}", objections(&config, name, &report.topics[name], &report))
    }

    #[test]
    fn objections_name_each_setting_that_does_not_fit() {
        let requests = ("requests", topic(4, &[("max.message.bytes", "1048588"), ("cleanup.policy", "delete")]));
        let retry = "requests-retry-signalbox-60000";
        assert_eq!(found("requests", std::slice::from_ref(&requests)), "[]");
        for (name, topic, words) in [
            ("requests", topic(4, &[("max.message.bytes", "900000")]), "server.max_body"),
            ("requests", topic(4, &[("cleanup.policy", "compact")]), "cleanup.policy to delete"),
            ("requests", topic(4, &[("min.insync.replicas", "2")]), "min.insync.replicas is 2"),
            ("requests", TopicReport { leaderless: vec![1], ..topic(4, &[]) }, "no broker leads partition 1"),
            ("replies", topic(2, &[]), "server.reply_partition 2 does not exist"),
            ("replies", topic(4, &[("max.message.bytes", "1000")]), "correlation_id"),
            ("inference-dead-letters", topic(4, &[("max.message.bytes", "1000000")]), "less than the 1048588"),
            (retry, topic(4, &[("retention.ms", "1000")]), "gone before their turn"),
            (retry, topic(4, &[("retention.ms", "-1")]), "longer than a broker remembers"),
            (retry, topic(1, &[("retention.ms", "518400000")]), "add partitions"),
        ] {
            let topics = [requests.clone(), (name, topic)];
            let found = found(name, &topics);
            assert!(found.contains(words) && found.matches("(\"").count() == 1, "{name}: {words}: {found}");
        }
    }
}

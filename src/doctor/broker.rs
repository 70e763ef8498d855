//! The broker: whether it answers, and what it lets this client do.

use std::sync::Arc;
use std::thread::scope;

use rdkafka::error::KafkaError;

use super::finding::{Finding, count};
use super::topics;
use crate::broker::{Cluster, ClusterReport, NoAnswer, missing_right};
use crate::config::{Config, Delivery, Kafka};

/// Asks the broker. Blocks; not for the runtime's workers.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    if config.kafka.is_embedded() {
        let found = "embedded: a broker inside the process, for trying things out; it makes its topics itself, and keeps \
                     nothing on disk";
        return vec![Finding::ok("broker", found)];
    }
    let mut wanted = config.topics();
    if config.model_endpoints.iter().any(crate::config::Endpoint::has_canary) {
        wanted.push(Arc::from(&*config.kafka.state_topic));
    }
    let cluster = match Cluster::new(&config.kafka) {
        Ok(cluster) => cluster,
        Err(error) => return vec![Finding::failed("broker", error)],
    };
    let report = match cluster.examine(&wanted) {
        Ok(report) => report,
        Err(silence) => {
            let not_tried = Finding::warning("topics", "not tried, since no broker answers");
            return vec![Finding::failed("broker", words(&cluster, &silence, &config.kafka)), not_tried];
        }
    };
    let mut findings = vec![answers(&cluster, &report)];
    // Each of these waits for the broker, so they run side by side.
    let (of_topics, of_rights) = scope(|scope| {
        let rights = scope.spawn(|| rights(&cluster, &config.kafka));
        (topics::examine(&cluster, config, &wanted, &report), rights.join().unwrap_or_default())
    });
    findings.extend(of_topics);
    findings.extend(of_rights);
    findings
}

fn answers(cluster: &Cluster, report: &ClusterReport) -> Finding {
    let (servers, brokers) = (cluster.bootstrap_servers(), count(report.brokers, "broker"));
    Finding::ok("broker", format_args!("{servers} answers, after {} ms; {brokers}", report.took.as_millis()))
}

/// Says why no broker answers, in librdkafka's words, and what cures that.
fn words(cluster: &Cluster, silence: &NoAnswer, kafka: &Kafka) -> String {
    if silence.reasons.is_empty() {
        return silence.error.clone();
    }
    let (servers, reasons) = (cluster.bootstrap_servers(), silence.reasons.join(", "));
    format!("no Kafka broker has answered at {servers}: {reasons}; {}", cure(&reasons, kafka))
}

/// Finds the key to look at in what librdkafka says about a lost connection.
fn cure(reasons: &str, kafka: &Kafka) -> &'static str {
    let is_about = |words: &[&str]| words.iter().any(|word| reasons.contains(word));
    let protocol = kafka.properties.get("security.protocol").map(|value| value.to_ascii_lowercase());
    let is_plain = protocol.as_deref().is_none_or(|protocol| protocol == "plaintext" || protocol == "sasl_plaintext");
    if is_about(&["SASL authentication", "Authentication failed", "SaslAuthenticate"]) {
        "check sasl.mechanism, sasl.username and sasl.password in kafka.properties"
    } else if is_about(&["SSL", "certificate"]) {
        "check ssl.ca.location in kafka.properties, and that security.protocol is what this port speaks"
    } else if is_about(&["Failed to resolve", "Host resolution"]) {
        "this machine knows no such name: check kafka.bootstrap_servers, and the network"
    } else if is_plain && is_about(&["Disconnected", "ApiVersion", "during or before"]) {
        "a broker that wants TLS or SASL hangs up like this: check security.protocol in kafka.properties"
    } else {
        "check kafka.bootstrap_servers and that the broker runs"
    }
}

/// Tries what takes rights of this client that topics do not show.
fn rights(cluster: &Cluster, kafka: &Kafka) -> Vec<Finding> {
    let group = kafka.group_id.as_str();
    let what = format!("group {group}");
    let mut findings = vec![match cluster.may_use_group(group, &kafka.requests_topic) {
        Ok(()) => Finding::ok(what, "its offsets can be read"),
        Err(error) => Finding::failed(what, refusal(&error, &format!("let this client read as group '{group}'"))),
    }];
    if kafka.delivery() == Delivery::ExactlyOnce {
        let instance = kafka.instance_id.as_deref().unwrap_or("doctor");
        // A name of its own: that of a running instance would shut it out.
        let name = format!("{group}-{instance}-doctor");
        findings.push(match cluster.may_use_transactions(&name) {
            Ok(()) => Finding::ok("transactions", format_args!("the broker gives them to names such as '{name}'")),
            Err(error) => Finding::failed("transactions", error),
        });
    }
    findings
}

fn refusal(error: &KafkaError, cure: &str) -> String {
    match missing_right(error) {
        Some(code) => format!("the broker refuses: {code}; {cure}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cure_names_the_key_that_librdkafka_complains_of() {
        let mut kafka = Kafka::default();
        for (reasons, key) in [
            ("sasl_ssl://a:9093/bootstrap: SASL authentication error: Authentication failed", "sasl.password"),
            ("ssl://a:9093/bootstrap: SSL handshake failed: certificate verify failed", "ssl.ca.location"),
            ("a:9092/bootstrap: Failed to resolve 'a:9092': Name or service not known", "the network"),
            ("a:9092/bootstrap: Disconnected while requesting ApiVersion", "security.protocol"),
        ] {
            assert!(cure(reasons, &kafka).contains(key), "{reasons}: {}", cure(reasons, &kafka));
        }
        let usual = "check kafka.bootstrap_servers and that the broker runs";
        assert_eq!(cure("Connect to ipv4#127.0.0.1:9 failed: Connection refused", &kafka), usual);
        kafka.properties.insert("security.protocol".to_owned(), "SASL_SSL".to_owned());
        assert_eq!(cure("a:9092/bootstrap: Disconnected", &kafka), usual);
    }
}

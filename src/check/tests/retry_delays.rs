//! Delays of retry topics.

use super::*;

const ENDPOINT: &str = "model_endpoints: [{name: a, routes: [{model_uri: 'models:/m/1', alias: b}]}]\n";

#[test]
fn retry_delays_are_refused_when_not_rising_or_topics_clash() {
    let text = format!(
        "{ENDPOINT}kafka:
  bootstrap_servers: kafka:9092
  requests_topic: requests
  dead_letter_topic: requests-retry-signalbox-500
  allowed_reply_topics: ['requests-.*']
  retry_delays: [0s, 500ms, 500ms, 2days]
"
    );
    insta::assert_snapshot!(report(&text), @r"
    gateway.yaml:5:22: kafka.dead_letter_topic: 'requests-retry-signalbox-500' is the name of a retry topic; each of the topics needs a name of its own
    gateway.yaml:6:26: warning: kafka.allowed_reply_topics[0]: this also allows the retry topics, where a reply would be read as a request; narrow the pattern
    gateway.yaml:7:18: kafka.retry_delays[0]: must be from 1ms to 1day
    gateway.yaml:7:29: kafka.retry_delays[2]: must be longer than the one before
    gateway.yaml:7:36: kafka.retry_delays[3]: must be from 1ms to 1day
    ");
    let text = format!("{ENDPOINT}kafka: {{bootstrap_servers: 'kafka:9092', requests_topic: {}}}", "a".repeat(240));
    assert!(report(&text).contains("too long: its retry topics are named after it"), "{}", report(&text));
}

#[test]
fn retry_topics_exist_only_when_requests_can_be_parked() {
    let topics = |keys: &str| -> Vec<String> {
        let kafka = loaded(&format!("{ENDPOINT}kafka: {{requests_topic: requests, {keys}}}")).config.kafka;
        kafka.retry_topics().into_iter().map(|topic| topic.name.to_string()).collect()
    };
    let real = "bootstrap_servers: 'kafka:9092'";
    assert_eq!(
        topics(real),
        [
            "requests-retry-signalbox-0",
            "requests-retry-signalbox-1000",
            "requests-retry-signalbox-10000",
            "requests-retry-signalbox-60000"
        ]
    );
    assert_eq!(
        topics(&format!("{real}, retry_delays: [250ms]")),
        ["requests-retry-signalbox-0", "requests-retry-signalbox-250"]
    );
    assert_eq!(topics(&format!("{real}, retry_delays: []")), [""; 0]);
    assert_eq!(topics("retry_delays: [1s]"), [""; 0], "the embedded broker drops what waits");
}

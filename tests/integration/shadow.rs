//! Covers routes that get a copy of each request, and that nobody waits for.

use std::time::{Duration, Instant};

use crate::support::{Caller, Kafka, Reply, Setup, Signalbox, http_model, unique, wait_until};

const BODY: &[u8] = br#"{"inputs": [1]}"#;
const LIMIT: Duration = Duration::from_secs(120);
const NO_REGISTRY: &str = "http://127.0.0.1:9";

/// Writes an endpoint whose primary is `primary` and whose shadow is `shadow`.
fn endpoints(primary: &str, shadow: &str) -> String {
    format!(
        "
  - name: shadowed
    timeout: 20s
    routes:
      - {{model_uri: \"{primary}\", alias: primary, shadow: candidate}}
      - {{model_uri: \"{shadow}\", alias: candidate}}
"
    )
}

fn shadow_topic() -> (String, String) {
    let topic = unique("shadow");
    (format!("  shadow_topic: {topic}\n  partitions: 2\n"), topic)
}

fn records(kafka: &Kafka, topic: &str, count: usize) -> Vec<Reply> {
    let records = kafka.consume(topic, count, LIMIT);
    assert_eq!(records.len(), count);
    records.iter().map(Reply::of).collect()
}

#[tokio::test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
async fn slow_shadow_delays_no_answer_and_is_compared() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let ((_quick, quick), (_slow, slow)) = (http_model(0), http_model(5_000));
    let (keys, topic) = shadow_topic();
    let mut signalbox = Signalbox::start(&setup.config(&endpoints(&quick, &slow), &keys, NO_REGISTRY));
    let caller = Caller::of(&signalbox);

    let begun = Instant::now();
    for _ in 0..20 {
        let answer = caller.send("shadowed", "application/json", BODY.to_vec()).await.unwrap();
        assert_eq!((answer.status, answer.header("x-route")), (200, "primary"), "{}", answer.text());
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "20 calls took {:?}", begun.elapsed());

    for record in records(kafka, &topic, 20) {
        assert_eq!((record.status(), record.header("route")), (200, "candidate"), "{record:?}");
        assert_eq!((record.header("shadow-of"), record.header("primary-status")), ("primary", "200"), "{record:?}");
        // Both models say the same, and one of them late.
        assert_eq!(record.header("hash"), record.header("primary-hash"));
        assert_eq!(record.header("hash").len(), 16);
        assert_eq!(record.header("kafka_correlationId"), record.key);
        let milliseconds = |name: &str| record.header(name).parse::<f64>().unwrap();
        assert!(milliseconds("latency-ms") >= 5_000.0 && milliseconds("primary-latency-ms") < 2_000.0, "{record:?}");
    }
    wait_until("all copies counted", LIMIT, || (signalbox.metric(&counter("answered")) == Some(20.0)).then_some(()));
    assert_eq!(signalbox.metric(&counter("dropped")), Some(0.0));

    // A copy that is under way holds up neither the request's offset nor the end.
    kafka.produce(&setup.requests, None, &[("kafka_correlationId", "last")], BODY);
    wait_until("another copy to be sent", LIMIT, || (signalbox.metric(&counter("sent")) == Some(21.0)).then_some(()));
    let begun = Instant::now();
    assert!(signalbox.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?} to stop", begun.elapsed());
    assert_eq!(setup.replies(21, LIMIT).len(), 21);
    signalbox.start_again();
    assert_eq!(setup.replies(22, Duration::from_secs(3)).len(), 21, "a request was answered twice");
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn failing_shadow_is_logged_and_changes_no_answer() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let (keys, topic) = shadow_topic();
    // No process listens at the shadow's address.
    let config = setup.config(&endpoints("builtin:noop", "http://127.0.0.1:9"), &keys, NO_REGISTRY);
    let signalbox = Signalbox::start(&config);
    kafka.send_orders(&setup.requests, 5, |_| BODY.to_vec());
    let replies = setup.replies(5, LIMIT);
    assert!(replies.iter().all(|reply| reply.status() == 200 && reply.header("route") == "primary"), "{replies:?}");
    for record in records(kafka, &topic, 5) {
        assert_eq!((record.status(), record.header("primary-status")), (503, "200"), "{record:?}");
        assert_eq!(record.json()["correlation_id"], record.key.as_str());
        assert_ne!(record.header("hash"), record.header("primary-hash"));
    }
    wait_until("all copies counted", LIMIT, || (signalbox.metric(&counter("failed")) == Some(5.0)).then_some(()));
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn shadow_drops_excess_requests_when_flooded() {
    const REQUESTS: usize = 5_000;
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let (_model, slow) = http_model(1_000);
    let (keys, topic) = shadow_topic();
    let signalbox = Signalbox::start(&setup.config(&endpoints("builtin:noop", &slow), &keys, NO_REGISTRY));
    kafka.send_orders(&setup.requests, REQUESTS, |_| BODY.to_vec());
    let replies = setup.replies(REQUESTS, LIMIT);
    assert_eq!(replies.len(), REQUESTS, "{}", signalbox.log());
    assert!(replies.iter().all(|reply| reply.status() == 200 && reply.header("route") == "primary"));
    let ended = wait_until("every copy to be counted", LIMIT, || {
        let of = |result: &str| signalbox.metric(&counter(result)).unwrap_or_default();
        let (answered, failed, dropped) = (of("answered"), of("failed"), of("dropped"));
        (answered + failed + dropped == REQUESTS as f64).then_some((answered, failed, dropped))
    });
    // The shadow answered at least as many copies as may be under way at once.
    assert!(ended.0 >= 64.0 && ended.1 == 0.0 && ended.2 > 0.0, "{ended:?}");
    assert_eq!(records(kafka, &topic, ended.0 as usize).len(), ended.0 as usize);
}

fn counter(result: &str) -> String {
    format!("signalbox_shadows_total{{endpoint=\"shadowed\",result=\"{result}\",route=\"candidate\"}}")
}

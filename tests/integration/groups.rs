//! Covers the owners of parked requests: groups, a group that is changed, an order that is changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Kafka, Reaction, Setup, Signalbox, StubModel, unique, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const PAYLOAD: &[u8] = b"{\"inputs\": [1]}";
const REQUESTS: usize = 30;

fn config(setup: &Setup<'_>, url: &str, keys: &str) -> String {
    let route = format!(
        "\n  - {{name: only, routes: [{{model_uri: \"{url}\", alias: only, max_concurrency: 64, \
         breaker: {{minimum_calls: 100000}}}}]}}\n"
    );
    setup.config(&route, keys, "http://127.0.0.1:9")
}

/// Starts a model that does not answer before it is told to.
fn model_that_is_down() -> (StubModel, Arc<AtomicBool>) {
    let is_up = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_up);
    let react =
        move |_: usize, _: &_| if told.load(Ordering::SeqCst) { Reaction::Answer } else { Reaction::Status(503) };
    (StubModel::start(react), is_up)
}

/// Waits for an answer to each request, and then for more of them.
fn assert_each_once(setup: &Setup<'_>, signalbox: &Signalbox, then: Duration) {
    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    wait_until("a reply to every request", LIMIT, || {
        reader.count_into(&mut answered);
        (answered.len() >= REQUESTS).then_some(())
    });
    std::thread::sleep(then);
    reader.count_rest_into(&mut answered);
    assert!(answered.values().all(|times| *times == 1), "{answered:?}\n{}", signalbox.log());
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn groups_do_not_run_parked_requests_of_each_other() {
    let kafka = Kafka::shared();
    let one = Setup::new(kafka);
    let mut other = Setup::new(kafka);
    other.requests.clone_from(&one.requests);
    let (model, _) = model_that_is_down();
    let keys = "  retry_delays: [300ms, 600ms]";
    let signalboxes = [&one, &other].map(|setup| Signalbox::start(&config(setup, model.url(), keys)));
    kafka.send_orders(&one.requests, REQUESTS, |_| PAYLOAD.to_vec());
    for (setup, signalbox) in [&one, &other].into_iter().zip(&signalboxes) {
        assert_each_once(setup, signalbox, Duration::from_secs(3));
        let letters = kafka.consume(&setup.dead_letters, REQUESTS + 1, Duration::from_secs(2));
        assert_eq!(letters.len(), REQUESTS, "{}", signalbox.log());
    }
    assert_eq!(model.calls(), 2 * 3 * REQUESTS, "each group has run each request once, and again after each delay");
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn renamed_group_answers_requests_parked_by_old_group_once() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let (model, is_up) = model_that_is_down();
    let config = config(&setup, model.url(), "  retry_delays: [4s]");
    let mut before = Signalbox::start(&config);
    kafka.send_orders(&setup.requests, REQUESTS, |_| PAYLOAD.to_vec());
    wait_until("all to be parked", LIMIT, || {
        (before.metric("signalbox_parked_total{reason=\"failed\"}") == Some(REQUESTS as f64)).then_some(())
    });
    assert!(before.terminate().success(), "{}", before.log());
    is_up.store(true, Ordering::SeqCst);
    let mut after = Signalbox::start(&config.replace(setup.group(), &unique("another")));
    assert_each_once(&setup, &after, Duration::from_secs(8));
    // Requests that the group has left alone are left alone for good.
    assert!(after.terminate().success(), "{}", after.log());
    after.start_again();
    assert_each_once(&setup, &after, Duration::from_secs(3));
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn parked_requests_run_when_parking_is_switched_off() {
    let kafka = Kafka::shared();
    for then in ["  ordering: key", "  ordering: partition", "  retry_delays: []", "  retry_delays: [100ms]"] {
        let setup = Setup::new(kafka);
        let (model, is_up) = model_that_is_down();
        let mut signalbox = Signalbox::start(&config(&setup, model.url(), "  retry_delays: [3s]"));
        kafka.send_orders(&setup.requests, REQUESTS, |_| PAYLOAD.to_vec());
        wait_until("all to be parked", LIMIT, || {
            (signalbox.metric("signalbox_parked_total{reason=\"failed\"}") == Some(REQUESTS as f64)).then_some(())
        });
        assert!(signalbox.terminate().success(), "{}", signalbox.log());
        is_up.store(true, Ordering::SeqCst);
        let signalbox = Signalbox::start(&config(&setup, model.url(), then));
        println!("{then}");
        assert_each_once(&setup, &signalbox, Duration::ZERO);
    }
}

/// Parks requests as earlier versions named the retry topics, and wrote to them.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn requests_parked_by_older_version_run_only_in_their_group() {
    let kafka = Kafka::shared();
    let setup = Setup::with_partitions(kafka, 1);
    let model = StubModel::start(|_, _| Reaction::Answer);
    let config = config(&setup, model.url(), "  retry_delays: [500ms]");
    let mut signalbox = Signalbox::start(&config);
    kafka.send_orders(&setup.requests, 5, |_| PAYLOAD.to_vec());
    assert_eq!(setup.replies(5, LIMIT).len(), 5);
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    let before = format!("{}-retry-500", setup.requests);
    kafka.create_exactly(&before, 1);
    for n in 5..REQUESTS {
        let headers = [
            ("kafka_correlationId", &*format!("order-{n}")),
            ("kafka_original-topic", &*setup.requests),
            ("kafka_original-partition", "\0\0\0\0"),
            ("kafka_original-offset", "\0\0\0\0\0\0\0\u{3}"),
            ("retry_topic-attempts", "\0\0\0\u{2}"),
            ("retry_topic-backoff-timestamp", "\u{1}"),
            ("attempts", "1"),
        ];
        kafka.send(&before, None, &headers, PAYLOAD);
    }
    kafka.flush();
    // The other group reads the requests from their beginning, and nothing of what others have parked.
    let mut other = Setup::with_partitions(kafka, 1);
    other.requests.clone_from(&setup.requests);
    let another = Signalbox::start(&self::config(&other, model.url(), "  retry_delays: [500ms]"));
    signalbox.start_again();
    assert_each_once(&setup, &signalbox, Duration::from_secs(2));
    let replies = setup.replies(REQUESTS, LIMIT);
    let source = format!("{}/0/3", setup.requests);
    assert!(replies.iter().filter(|reply| reply.header("source") == source).count() > 20, "{replies:?}");
    let replies = other.replies(REQUESTS, Duration::from_secs(3));
    assert_eq!(replies.len(), 5, "{}", another.log());
}

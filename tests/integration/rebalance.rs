//! Covers instances that come and go while requests run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::disturbance::{Disturbance, Matching, OFFSET_COMMIT};
use crate::support::{Dice, Kafka, Proxy, Reaction, Setup, Signalbox, StubModel, http_model, wait_until};

const REQUESTS: usize = 3_000;
const MAX_IN_FLIGHT: usize = 16;

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn requests_are_kept_when_one_instance_joins_and_another_leaves() {
    let repeats = come_and_go("");
    assert!(repeats <= 2 * MAX_IN_FLIGHT, "{repeats} repeats");
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn requests_are_answered_once_under_consumer_group_protocol() {
    let repeats = come_and_go("\n  delivery: exactly_once\n  properties: {group.protocol: consumer}");
    assert_eq!(repeats, 0);
}

/// Covers partitions that are given back: they are committed while their last transaction may be under way, and each
/// must know of the other.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn revoked_partitions_repeat_nothing_when_commits_are_late_or_lost() {
    const COMINGS: usize = 8;
    let proxy = Proxy::start();
    let kafka = Kafka::start_behind(&proxy);
    let setup = Setup::new(&kafka);
    let dice = std::sync::Mutex::new(Dice::new(7));
    let model = StubModel::start(move |_, _| Reaction::Late(dice.lock().unwrap().moment(Duration::from_secs(3))));
    let config = setup
        .single_config(model.url(), "  delivery: exactly_once\n  drain_timeout: 500ms")
        .replace(&kafka.bootstrap(), &format!("127.0.0.1:{}", proxy.port()));
    let mut instances = vec![Signalbox::start(&config), Signalbox::start(&config)];
    let commits = Matching { api: OFFSET_COMMIT, client: "signalbox-intake" };
    proxy.disturb(commits.clone(), Disturbance::Cut(0.3));
    proxy.disturb(commits, Disturbance::Delay(Duration::from_millis(30)..Duration::from_millis(200)));
    let mut sent = 0;
    for coming in 0..COMINGS {
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            kafka.send(
                &setup.requests,
                None,
                &[("kafka_correlationId", &format!("order-{sent}"))],
                b"{\"inputs\": [1]}",
            );
            sent += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        match coming % 2 {
            0 => instances.push(Signalbox::start(&config)),
            _ => assert!(instances.remove(0).terminate().success()),
        }
    }
    kafka.flush();
    proxy.heal();
    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    wait_until("a reply to every request", Duration::from_secs(120), || {
        reader.count_into(&mut answered);
        (answered.len() == sent).then_some(())
    });
    reader.count_rest_into(&mut answered);
    let repeated = answered.values().filter(|times| **times > 1).count();
    assert_eq!(repeated, 0, "of {sent} requests so many were answered twice");
}

/// Lets instances come and go, and counts the replies that are repeats.
fn come_and_go(keys: &str) -> usize {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let (_model, url) = http_model(20);
    let config = setup.single_config(&url, &format!("  max_in_flight: {MAX_IN_FLIGHT}{keys}"));
    let mut first = Signalbox::start(&config);
    kafka.send_orders(&setup.requests, REQUESTS, |_| b"{\"inputs\": [1]}".to_vec());
    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    wait_until("the first replies", Duration::from_secs(60), || {
        reader.count_into(&mut answered);
        (answered.len() >= 100).then_some(())
    });
    let second = Signalbox::start(&config);
    assert!(first.terminate().success(), "{}", first.log());
    wait_until("a reply to every request", Duration::from_secs(180), || {
        reader.count_into(&mut answered);
        (answered.len() == REQUESTS).then_some(())
    });
    reader.count_rest_into(&mut answered);
    let repeats: usize = answered.values().map(|times| times - 1).sum();
    drop(second);
    repeats
}

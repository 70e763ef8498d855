//! Instances come and go while requests run.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::{Kafka, Setup, Signalbox, http_model, wait_until};

const REQUESTS: usize = 3_000;
const MAX_IN_FLIGHT: usize = 16;

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn an_instance_joins_and_another_leaves_and_nothing_is_lost() {
    let repeats = come_and_go("");
    assert!(repeats <= 2 * MAX_IN_FLIGHT, "{repeats} repeats");
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn by_the_brokers_own_group_protocol_each_request_is_answered_once() {
    let repeats = come_and_go("\n  delivery: exactly_once\n  properties: {group.protocol: consumer}");
    assert_eq!(repeats, 0);
}

/// How many replies are repeats.
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

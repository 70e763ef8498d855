//! `delivery: exactly_once`: replies and offsets in one transaction.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::{Kafka, Setup, Signalbox, http_model, wait_until};

const REQUESTS: usize = 3_000;
const KILLS: usize = 3;
const KEYS: &str = "  max_in_flight: 64\n  delivery: exactly_once";

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn killed_again_and_again_each_request_has_one_reply() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    // It takes its time, so that requests are in flight whenever the kill comes.
    let (_model, url) = http_model(20);
    let mut signalbox = Signalbox::start(&setup.single_config(&url, KEYS));
    kafka.send_orders(&setup.requests, REQUESTS, |_| b"{\"inputs\": [1]}".to_vec());

    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    for kill in 1..=KILLS {
        wait_until("a share of the replies", Duration::from_secs(120), || {
            reader.count_into(&mut answered);
            (answered.len() >= kill * REQUESTS / (KILLS + 2)).then_some(())
        });
        signalbox.kill();
        signalbox.start_again();
        assert!(answered.len() < REQUESTS, "all was answered before the kill, which proves nothing");
    }
    wait_until("a reply to every request", Duration::from_secs(180), || {
        reader.count_into(&mut answered);
        (answered.len() == REQUESTS).then_some(())
    });
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    reader.count_rest_into(&mut answered);
    let repeated: Vec<_> = answered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}\n{}", signalbox.log());
}

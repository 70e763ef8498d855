//! Stops the broker and starts it again while requests run.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::{Kafka, Reply, Setup, Signalbox, http_model, wait_until};

const REQUESTS: usize = 4_000;

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn requests_survive_broker_outage_and_log_stays_short() {
    let mut kafka = Kafka::start();
    let (_model, url) = http_model(40);
    // The clients are not kept: the broker is going to be stopped.
    let (requests, replies, config) = {
        let setup = Setup::new(&kafka);
        let config = setup.single_config(&url, "  max_in_flight: 16");
        (setup.requests, setup.replies, config)
    };
    let signalbox = Signalbox::start(&config);
    kafka.send_orders(&requests, REQUESTS, |_| b"{\"inputs\": [1]}".to_vec());
    wait_until("the first replies", Duration::from_secs(60), || {
        (kafka.consume(&replies, 100, Duration::from_secs(2)).len() >= 100).then_some(())
    });
    let lines_before = signalbox.log().lines().count();
    kafka.stop();
    kafka.start_again();
    let answered_before = kafka.consume(&replies, REQUESTS, Duration::from_millis(500)).len();
    assert!(answered_before < REQUESTS, "all was answered before the broker stopped, which proves nothing");

    // Some requests are answered twice when the outage costs the group membership.
    let (reader, mut answered) = (kafka.reader(&replies), HashSet::new());
    let give_up = Instant::now() + Duration::from_secs(180);
    while answered.len() < REQUESTS && Instant::now() < give_up {
        if let Some(Ok(record)) = reader.poll(Duration::from_millis(100)) {
            answered.insert(Reply::of(&record.detach()).key);
        }
    }
    assert_eq!(answered.len(), REQUESTS, "{}", signalbox.log());
    let log = signalbox.log();
    let said: Vec<_> = log.lines().skip(lines_before).collect();
    assert!(said.len() < 30, "{} lines:\n{}", said.len(), said.join("\n"));
    assert!(log.contains("the broker cannot be reached") && log.contains("the broker answers again"), "{log}");
}

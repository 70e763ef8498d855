//! Measures the cost of a crash: nothing is lost, and no more is repeated than was under way.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::{Kafka, Setup, Signalbox, http_model, wait_until};

const REQUESTS: usize = 4_000;
const MAX_IN_FLIGHT: usize = 16;
const KILLS: usize = 2;

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn requests_all_get_replies_when_instance_is_killed_and_restarted() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    // The model takes its time, so that requests are in flight whenever the kill comes.
    let (_model, url) = http_model(20);
    let keys = format!("  max_in_flight: {MAX_IN_FLIGHT}\n  commit_interval: 50ms");
    let mut signalbox = Signalbox::start(&setup.single_config(&url, &keys));
    kafka.send_orders(&setup.requests, REQUESTS, |_| b"{\"inputs\": [1]}".to_vec());

    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    for kill in 1..=KILLS {
        wait_until("a share of the replies", Duration::from_secs(120), || {
            reader.count_into(&mut answered);
            (answered.len() >= kill * REQUESTS / (KILLS + 2)).then_some(())
        });
        signalbox.kill();
        reader.count_rest_into(&mut answered);
        assert!(answered.len() < REQUESTS, "all was answered before the kill, which proves nothing");
        signalbox.start_again();
    }
    wait_until("a reply to every request", Duration::from_secs(180), || {
        reader.count_into(&mut answered);
        (answered.len() == REQUESTS).then_some(())
    });
    signalbox.terminate();
    reader.count_rest_into(&mut answered);

    let repeats: usize = answered.values().map(|times| times - 1).sum();
    println!("{REQUESTS} requests, {KILLS} kills, {repeats} answered twice");
    // Repeated requests are those in flight, and those finished since the last commit: the calls of 20 ms that 50 ms
    // have room for, and as many again for the commit's own way and a busy machine.
    assert!(repeats <= KILLS * MAX_IN_FLIGHT * 6, "{repeats}");
}

//! Covers brokers that take little, or nothing for a while: what waits is published in the end, and exactly once.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Kafka, Proxy, Setup, Signalbox, http_model_of_size, signal, wait_until};

/// Rate of the link, by far too low to write all that waits in a transaction that has to be over in ten seconds.
const BYTES_PER_SECOND: u32 = 600_000;
const REQUESTS: usize = 600;
const CHARACTERS: usize = 30_000;
const KEYS: &str = "  delivery: exactly_once";

fn each_is_answered_once(setup: &Setup<'_>, signalbox: &mut Signalbox, within: Duration) -> Duration {
    let began = Instant::now();
    wait_until("all replies", within, || {
        (signalbox.metric("signalbox_published_total{kind=\"reply\"}")? >= REQUESTS as f64).then_some(())
    });
    let took = began.elapsed();
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    // A reader from before may have lost its broker for good: nobody looks after it.
    let (reader, mut answered) = (setup.reply_reader(), HashMap::<String, usize>::new());
    reader.count_rest_into(&mut answered);
    assert_eq!(answered.len(), REQUESTS, "{}", signalbox.log());
    assert!(answered.values().all(|times| *times == 1), "{answered:?}");
    took
}

/// Drains 18 MB over 600 kB/s, which takes half a minute if nothing is written in vain.
#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn backlog_drains_when_it_exceeds_link_capacity_of_one_transaction() {
    let proxy = Proxy::start();
    let kafka = Kafka::start_behind(&proxy);
    let setup = Setup::new(&kafka);
    let (_model, url) = http_model_of_size(CHARACTERS);
    let config = setup.single_config(&url, KEYS);
    let config = config.replace(&kafka.bootstrap(), &format!("127.0.0.1:{}", proxy.port()));
    let mut signalbox = Signalbox::start(&config);
    proxy.throttle(Some(BYTES_PER_SECOND));
    kafka.send_orders(&setup.requests, REQUESTS, |_| b"{\"inputs\": [1]}".to_vec());
    let took = each_is_answered_once(&setup, &mut signalbox, Duration::from_secs(150));
    println!("{REQUESTS} were answered after {took:?}");
}

/// Suspends the broker for longer than a transaction may last, and than anybody waits for a record's acknowledgement.
#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn broker_gets_every_reply_when_it_resumes_after_hang() {
    let kafka = Kafka::start();
    let setup = Setup::new(&kafka);
    let (_model, url) = http_model_of_size(100);
    let mut signalbox = Signalbox::start(&setup.single_config(&url, KEYS));
    kafka.send_orders(&setup.requests, REQUESTS, |_| b"{\"inputs\": [1]}".to_vec());
    let (reader, mut answered) = (setup.reply_reader(), HashMap::<String, usize>::new());
    wait_until("the first replies", Duration::from_secs(60), || {
        reader.count_into(&mut answered);
        (!answered.is_empty()).then_some(())
    });
    signal("STOP", kafka.pid());
    thread::sleep(Duration::from_secs(25));
    signal("CONT", kafka.pid());
    let took = each_is_answered_once(&setup, &mut signalbox, Duration::from_secs(60));
    println!("{REQUESTS} were answered {took:?} after it went on");
}

//! Covers the consumer lag, which is nothing when nothing is left to do.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{Kafka, Scrape, Setup, Signalbox, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// Covers requests in transactions: the marker that ends a transaction has an offset, and so have the records of one
/// that was aborted.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn lag_reaches_zero_when_requests_are_transactional() {
    let kafka = Kafka::shared();
    for delivery in ["at_least_once", "exactly_once"] {
        let setup = Setup::new(kafka);
        let mut signalbox = Signalbox::start(&setup.single_config("builtin:noop", &format!("  delivery: {delivery}")));
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("transactional.id", &setup.requests)
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        for transaction in 0..12 {
            producer.begin_transaction().unwrap();
            for n in 0..10 {
                let id = format!("order-{transaction}-{n}");
                producer.send(BaseRecord::to(&setup.requests).key(&id).payload("{\"inputs\": [1]}")).unwrap();
            }
            producer.flush(PATIENCE).unwrap();
            // The last transactions are aborted.
            let commits = transaction % 3 == 0;
            if commits { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) }.unwrap();
        }
        assert_eq!(setup.replies(40, PATIENCE).len(), 40, "{}", signalbox.log());
        let is_told = |partition: usize| {
            signalbox.metric(&format!("signalbox_consumer_lag{{partition=\"{partition}\"}}")).is_some()
        };
        wait_until("word of the lag", PATIENCE, || (0..4).all(is_told).then_some(()));
        let mut seen = Vec::new();
        let lag = |seen: &mut Vec<f64>| {
            seen.push(Scrape::of(&signalbox).sum("consumer_lag", &[]));
            seen.last() == Some(&0.0)
        };
        let began = std::time::Instant::now();
        while !lag(&mut seen) {
            assert!(began.elapsed() < PATIENCE, "the lag was {seen:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
        assert!(signalbox.terminate().success());
        signalbox.start_again();
        // A request that comes now waits, and is counted until it is answered.
        kafka.send_orders(&setup.requests, 10, |_| b"{\"inputs\": [1]}".to_vec());
        wait_until("the lag to be nothing again", PATIENCE, || {
            (setup.replies(50, Duration::from_secs(1)).len() == 50
                && Scrape::of(&signalbox).sum("consumer_lag", &[]) == 0.0)
                .then_some(())
        });
    }
}

//! Sends more and larger answers than there is memory for, which wait for their turn.

use std::time::Duration;

use tokio::sync::Notify;

use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::{Conduct, Kind};
use crate::support::{Kafka, Reaction, StubModel, resident_peak};

/// Limit of resident memory in bytes with 16 MiB of requests and answers: the program itself, the calls under way, and
/// what the client library holds.
const BEARABLE: u64 = 160 << 20;
const ANSWER: usize = 300 << 10;

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn memory_stays_bounded_when_large_answers_wait_behind_slow_request() {
    let kafka = Kafka::shared();
    at_each_delivery(|delivery| {
        let go: &'static Notify = Box::leak(Box::default());
        let slow = StubModel::start(move |_, _| Reaction::When(go));
        let topics = ["requests", "replies", "dead-letters"].map(|name| kafka.create_topic(name, 1));
        let ground = Ground::over(kafka.bootstrap(), topics)
            .key("ordering: partition")
            .key("max_in_flight_bytes: 16MiB")
            .endpoint("slow", slow.url(), "max_concurrency: 1")
            .plan(|plan| {
                (plan.computed_per_mille, plan.answer_bytes, plan.reply_partitions) = (1_000, ANSWER, 1);
            });
        let length = Length::without_blows(60, 10);
        let mut run = Run::prepare("large answers, slow head", delivery, length, ground, 1, Conduct::Steady);
        run.judge(Kind::Reordered, true);
        run.judge(Kind::Foreign, false); // the slow one's reply
        let head = [("endpoint", "slow"), ("kafka_correlationId", "slow")];
        kafka.produce(run.ground.requests(), None, &head, b"{\"inputs\": [1]}");
        run.send(0..length.requests());
        run.all_are_sent();
        // The test waits until all requests are answered that are taken from the broker.
        std::thread::sleep(Duration::from_secs(3));
        go.notify_one();
        run.await_answers(length.requests());
        let peak = resident_peak(run.instances[0].pid());
        run.figure(format!("{} MiB resident at most", peak >> 20));
        run.expect(peak < BEARABLE, || format!("{} MiB were resident", peak >> 20));
        run.topic_holds(length.requests() + 1);
        run.finish()
    });
}

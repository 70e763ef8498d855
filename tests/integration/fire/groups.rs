//! Runs two groups on the same requests: each answers each of them once, and nothing of the other's.

use std::time::Duration;

use super::{Ground, Length, Run, at_each_delivery};
use crate::support::Kafka;
use crate::support::fire::{Conduct, Kind};

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_two_groups_share_requests_and_park_some() {
    at_each_delivery(|delivery| {
        let kafka = Kafka::shared();
        let ground = Ground::on(kafka).key("retry_delays: [500ms, 1s]").plan(|plan| plan.names_partition = false);
        let length = Length::without_blows(100, 8);
        let mut first = Run::prepare("two groups: the first", delivery, length, ground, 1, Conduct::Failing);
        let [replies, dead_letters] = ["replies", "dead-letters"].map(|name| kafka.create_topic(name, 6));
        let mut second = first.beside("two groups: the second", replies, dead_letters, Conduct::Failing);
        for run in [&mut first, &mut second] {
            // No instance is killed.
            run.judge(Kind::Repeated, true);
            run.expect_dead_letters();
        }
        first.send(0..length.requests());
        first.all_are_sent();
        [&first, &second].iter().for_each(|run| {
            run.await_answers(length.requests());
        });
        // A second answer would come within both delays; the test waits that long again.
        std::thread::sleep(Duration::from_secs(3));
        first.finish_with(second)
    });
}

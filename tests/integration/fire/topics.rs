//! Deletes the requests topic and creates it anew while Signalbox runs.

use std::time::Duration;

use super::ground::PARTITIONS;
use super::{Ground, Length, Run, at_each_delivery};
use crate::support::Kafka;
use crate::support::fire::Conduct;

/// Numbers of records that each topic of that name has had when it is deleted, relative to each other: the next has as
/// many, fewer, more.
const SHARES: [u64; 5] = [2, 2, 1, 4, 3];

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_requests_topic_is_recreated() {
    at_each_delivery(|delivery| {
        let kafka = Kafka::shared();
        let length = Length::without_blows(300, 8);
        let mut run = Run::prepare("topic made anew", delivery, length, Ground::on(kafka), 2, Conduct::Steady);
        run.be_patient_for(Duration::from_secs(20));
        let mut end = 0;
        for (round, share) in SHARES.into_iter().enumerate() {
            if round > 0 {
                // Requests of the deleted topic that are not answered yet are nobody's any more.
                run.all_are_sent();
                run.reader.excuse(0..end);
                let gap = Duration::from_secs(if round.is_multiple_of(2) { 3 } else { 0 });
                kafka.make_anew(&run.ground.topics[0], PARTITIONS, gap);
            }
            let requests = match round + 1 == SHARES.len() {
                true => length.requests() - end,
                false => length.requests() * share / SHARES.iter().sum::<u64>(),
            };
            run.send(end..end + requests);
            end += requests;
            run.topic_holds(requests);
            run.all_are_sent();
            run.await_answers(end);
        }
        run.finish()
    });
}

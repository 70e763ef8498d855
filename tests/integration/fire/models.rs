//! Runs a model that fails and hangs: each request still ends, and once.

use super::{Ground, Length, Run, at_each_delivery};
use crate::support::Kafka;
use crate::support::fire::Conduct;

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_model_fails_and_hangs() {
    at_each_delivery(|delivery| {
        let (ground, length) = (Ground::on(Kafka::shared()), Length::of(10, 1, 20));
        let mut run = Run::start("model in trouble, kill -9", delivery, length, ground, 2, Conduct::Troubled);
        // Calls that hang are under way whenever the blow comes.
        run.strike(|run, blow| {
            let victim = &mut run.instances[usize::try_from(blow % 2).unwrap()];
            victim.kill();
            victim.start_again();
        });
        run.finish()
    });
}

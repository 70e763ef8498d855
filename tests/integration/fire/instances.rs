//! Strikes at instances of Signalbox, which are killed, stand still, come and go.

use std::time::Duration;

use super::run::SESSION;
use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::Conduct;
use crate::support::{Kafka, signal, wait_until};

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_instance_is_killed_every_few_seconds() {
    at_each_delivery(|delivery| {
        // The instance is alone and known by name, so that it need not wait after each kill until the group has given
        // up its former self.
        let ground = Ground::on(Kafka::shared()).property("group.instance.id: alone");
        let length = Length::of_the_main_one(12, 3, 5);
        let mut run = Run::start("kill -9", delivery, length, ground, 1, Conduct::Steady);
        run.strike(|run, _| {
            run.instances[0].kill();
            run.instances[0].start_again();
        });
        run.finish()
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_one_of_three_instances_is_killed() {
    at_each_delivery(|delivery| {
        let (ground, length) = (Ground::on(Kafka::shared()), Length::of(12, 3, 5));
        let mut run = Run::start("kill -9, one of three", delivery, length, ground, 3, Conduct::Steady);
        run.strike(|run, blow| {
            let victim = &mut run.instances[usize::try_from(blow % 3).unwrap()];
            victim.kill();
            victim.start_again();
        });
        run.finish()
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_instance_hangs_past_its_session() {
    at_each_delivery(|delivery| {
        let (ground, length) = (Ground::on(Kafka::shared()), Length::of(12, 1, 15));
        let mut run = Run::start("SIGSTOP, SIGCONT", delivery, length, ground, 2, Conduct::Steady);
        run.strike(|run, blow| {
            let at = usize::try_from(blow % 2).unwrap();
            let (sleeper, heir) = (&run.instances[at], &run.instances[1 - at]);
            let (pid, inherited) = (sleeper.pid(), assignments_of_all(&heir.log()));
            signal("STOP", pid);
            // The suspended instance's partitions have another owner when it wakes up.
            wait_until("the heir to have all partitions", SESSION + Duration::from_secs(60), || {
                (assignments_of_all(&heir.log()) > inherited).then_some(())
            });
            run.flows();
            signal("CONT", pid);
        });
        run.finish()
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_instances_keep_joining_and_leaving() {
    at_each_delivery(|delivery| {
        let (ground, length) = (Ground::on(Kafka::shared()), Length::of(12, 6, 2));
        let mut run = Run::start("rebalance storm", delivery, length, ground, 2, Conduct::Steady);
        run.strike(|run, blow| match blow % 6 {
            // The youngest instance may not even have joined when the next leaves.
            0 | 1 | 3 => run.join(),
            5 => run.instances.remove(0).kill(),
            _ => assert!(run.instances.remove(0).terminate().success()),
        });
        run.finish()
    });
}

/// Counts how often an instance was given its last missing partition.
fn assignments_of_all(log: &str) -> usize {
    log.lines().filter(|line| line.contains("partitions assigned") && line.contains("owned=6")).count()
}

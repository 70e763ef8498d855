//! Brokers that are killed, are away, or have no space left.

use std::time::Duration;

use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::Conduct;
use crate::support::{Cluster, Disk, Kafka, wait_until};

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn the_broker_is_killed_and_started_again() {
    at_each_delivery(|delivery| {
        let mut kafka = Kafka::start();
        let (ground, length) = (Ground::on(&kafka), Length::of(12, 1, 20));
        let mut run = Run::start("broker kill -9", delivery, length, ground, 1, Conduct::Steady);
        run.strike(|_, _| {
            kafka.kill();
            kafka.start_again();
        });
        run.finish()
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn one_of_three_brokers_is_away() {
    at_each_delivery(|delivery| {
        let mut cluster = Cluster::start();
        let (ground, length) = (Ground::on_cluster(&cluster), Length::of(12, 2, 20));
        let mut run = Run::start("broker away, one of three", delivery, length, ground, 2, Conduct::Steady);
        run.strike(|run, blow| {
            let broker = usize::try_from(blow % 3).unwrap();
            match blow.is_multiple_of(2) {
                true => cluster.kill(broker),
                false => cluster.stop(broker),
            }
            // The other two go on alone.
            run.flows();
            cluster.start_again(broker);
        });
        run.finish()
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn the_brokers_disk_is_full() {
    at_each_delivery(|delivery| {
        let disk = Disk::mount(400);
        let mut kafka = Kafka::start_on(&disk);
        let (ground, length) = (Ground::on(&kafka), Length::of(10, 1, 30));
        let mut run = Run::start("broker's disk full", delivery, length, ground, 1, Conduct::Steady);
        run.strike(|_, _| {
            disk.fill(kafka.pid());
            // It gives up its only directory of records, and with it itself.
            wait_until("the broker to give up", Duration::from_secs(60), || kafka.ended());
            disk.empty();
            kafka.kill();
            kafka.start_again();
        });
        run.finish()
    });
}

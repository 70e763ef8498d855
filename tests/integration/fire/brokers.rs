//! Strikes at brokers, which are killed, are away, stand still, or have no space left.

use std::time::Duration;

use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::{Conduct, Endings, Extra, Extras, Kind as Wrong, Recipe};
use crate::support::{Cluster, Disk, Kafka, signal, wait_until};

/// Spans in one of which replies have to flow while a broker is absent.
const WINDOWS: usize = 8;

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_broker_is_killed_and_restarted() {
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
fn delivery_holds_when_one_of_three_brokers_is_down() {
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
            // The other two brokers go on alone.
            run.flows();
            cluster.start_again(broker);
        });
        run.finish()
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_broker_disk_is_full() {
    at_each_delivery(|delivery| {
        let disk = Disk::mount(400);
        let mut kafka = Kafka::start_on(&disk);
        let (ground, length) = (Ground::on(&kafka), Length::of(10, 1, 30));
        let mut run = Run::start("broker's disk full", delivery, length, ground, 1, Conduct::Steady);
        run.strike(|_, _| {
            disk.fill(kafka.pid());
            // The broker gives up its only directory of records, and with that itself.
            wait_until("the broker to give up", Duration::from_secs(60), || kafka.ended());
            disk.empty();
            kafka.kill();
            kafka.start_again();
        });
        run.finish()
    });
}

/// Suspends the broker, which goes on after longer than a transaction may take.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_broker_hangs() {
    // The broker never takes itself for away, which would be the end of the checker's own clients: nobody looks after
    // them.
    let kafka = Kafka::start_with("broker.session.timeout.ms=120000");
    at_each_delivery(|delivery| {
        let ground = Ground::on(&kafka).plan(|plan| {
            plan.computed_per_mille = 1_000;
            plan.answer_bytes = 100 << 10;
        });
        let length = Length::of(8, 1, 80).per_second(100);
        let mut run = Run::start("broker stands still", delivery, length, ground, 1, Conduct::Slow);
        run.strike(|_, _| {
            signal("STOP", kafka.pid());
            std::thread::sleep(Duration::from_secs(if Length::is_long() { 40 } else { 12 }));
            signal("CONT", kafka.pid());
        });
        run.finish()
    });
}

/// Takes a broker away that alone has some partitions of the replies topic, and a topic that requests name.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_some_reply_partitions_have_no_leader() {
    let mut cluster = Cluster::start();
    at_each_delivery(|delivery| {
        let [requests, _, dead_letters] = Ground::on_cluster(&cluster).topics;
        let replies = cluster.create_topic_without_copies("replies", super::ground::PARTITIONS);
        let elsewhere = cluster.create_topic_without_copies("team-elsewhere", 1);
        let victim = cluster.leaders(&elsewhere)[0];
        let leaders = cluster.leaders(&replies);
        let offline = leaders.iter().filter(|leader| **leader == victim).count();
        assert!(offline > 0 && offline < leaders.len(), "{leaders:?}");

        let ground = Ground::over(cluster.bootstrap(), [requests, replies, dead_letters])
            .key("allowed_reply_topics: [\"team-.*\"]")
            .plan(|plan| plan.names_partition = false);
        let [requests, replies, dead_letters] = &ground.topics.clone();
        let endings = Endings::start(&ground.checkers, requests, &[replies, dead_letters, &elsewhere]);
        let recipe: Recipe<'_> = Box::new(|_| Extra::at("north").reply_to(&elsewhere));
        let mut extras = Extras::start(&ground.checkers, requests, vec![("to a topic that is away", recipe)]);
        // Requests come until the broker is back.
        let length = Length::without_blows(60, 300);
        let mut run = Run::start("replies' broker away", delivery, length, ground, 1, Conduct::Steady);
        run.judge(Wrong::Foreign, false); // replies to the other topic, if they end here
        run.wait_until_sent(600);
        assert!(run.flows(), "no answers before the broker goes away");
        cluster.kill(victim);
        // The other brokers need a while to have the records that were on all of them, to give up transactions begun with
        // the absent one, and to lead the group, whose members may have to join anew. Then replies go on.
        let length = Duration::from_secs(if Length::is_long() { 30 } else { 6 });
        let go_on = (0..WINDOWS).any(|_| {
            let (sent, answered) = (run.sent(), run.reader.answered());
            extras.send_for(length, 5);
            let (sent, answered) = (run.sent() - sent, run.reader.answered() - answered);
            let due = sent * (leaders.len() - offline) as u64 / leaders.len() as u64;
            run.figure(format!("{answered} of {sent} answered meanwhile, {due} due"));
            sent > 0 && answered * 2 > due
        });
        cluster.start_again(victim);
        run.expect(go_on, || "others' replies stopped".into());
        let requests = run.stop_sending();
        let fates = extras.finish(&endings, Duration::from_secs(60));
        run.figure(format!("{} of {} to the other topic ended", fates.sent() - fates.never(), fates.sent()));
        run.expect(fates.never() == 0, || format!("not all ended whose topic was away:\n{fates}"));
        run.topic_holds(requests + fates.sent() as u64);
        run.finish()
    });
}

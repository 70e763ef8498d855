//! Strikes at the wire between Signalbox and the broker, which is cut, narrow, or loses commits. The checker has
//! another wire.

use std::time::Duration;

use super::run::SESSION;
use super::{Ground, Length, Run, at_each_delivery};
use crate::support::disturbance::{Disturbance, Matching, OFFSET_COMMIT};
use crate::support::fire::Conduct;
use crate::support::{Kafka, Proxy, Way};

/// Outages of which one is long enough to cost the membership of the group, and one short enough not to.
const OUTAGES: [Duration; 2] = [Duration::from_millis(8_000), Duration::from_millis(1_500)];

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_network_is_cut_both_ways() {
    cut("network cut", |proxy, blow| match blow.is_multiple_of(2) {
        true => proxy.cut(),
        false => proxy.stall(&[Way::Requests, Way::Responses]),
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_network_loses_requests() {
    cut("network cut, requests only", |proxy, _| proxy.stall(&[Way::Requests]));
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_network_loses_responses() {
    cut("network cut, responses only", |proxy, _| proxy.stall(&[Way::Responses]));
}

/// Delays or loses commits: a drain that runs out gives back what is under way, while its last commit has not arrived
/// yet.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_commits_are_late_or_lost_in_rebalances() {
    at_each_delivery(|delivery| {
        let proxy = Proxy::start();
        let kafka = Kafka::start_behind(&proxy);
        let ground =
            Ground::behind(&kafka, &proxy).key("drain_timeout: 500ms").plan(|plan| plan.computed_per_mille = 1_000);
        let length = Length::of(20, 8, 4).per_second(100);
        let mut run = Run::start("given back, commits lost", delivery, length, ground, 2, Conduct::Slow);
        let commits = Matching { api: OFFSET_COMMIT, client: "signalbox-intake" };
        proxy.disturb(commits.clone(), Disturbance::Cut(0.5));
        proxy.disturb(commits, Disturbance::Delay(Duration::from_millis(30)..Duration::from_millis(150)));
        run.strike(|run, blow| match blow.is_multiple_of(2) {
            true => run.join(),
            false => assert!(run.instances.remove(0).terminate().success()),
        });
        proxy.heal();
        run.finish()
    });
}

/// Narrows the wire: the answers under way take longer to write than a transaction may.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_answers_exceed_bandwidth() {
    const ANSWER: usize = 100 << 10;
    // Answers come at twice the rate that the wire takes, for so long that the rest takes a quarter of a minute.
    const RATE: u32 = 20;
    at_each_delivery(|delivery| {
        let proxy = Proxy::start();
        let kafka = Kafka::start_behind(&proxy);
        let ground = Ground::behind(&kafka, &proxy).plan(|plan| {
            plan.computed_per_mille = 1_000;
            plan.answer_bytes = ANSWER;
        });
        let length = Length::without_blows(RATE.into(), 15);
        let mut run = Run::prepare("narrow wire", delivery, length, ground, 1, Conduct::Steady);
        proxy.throttle(Some(RATE * ANSWER as u32 / 2));
        run.send(0..length.requests());
        run.be_patient_for(Duration::from_secs(60));
        run.finish()
    });
}

/// Cuts off both of two instances, which find out when their connections end, with what was on its way in them.
fn cut(name: &'static str, blow: impl Fn(&Proxy, u64)) {
    at_each_delivery(|delivery| {
        assert!(OUTAGES[0] > SESSION && OUTAGES[1] < SESSION);
        let proxy = Proxy::start();
        let kafka = Kafka::start_behind(&proxy);
        let (ground, length) = (Ground::behind(&kafka, &proxy), Length::of(12, 2, 12));
        let mut run = Run::start(name, delivery, length, ground, 2, Conduct::Steady);
        run.strike(|_, number| {
            blow(&proxy, number);
            std::thread::sleep(OUTAGES[usize::from(!number.is_multiple_of(2))]);
            proxy.sever();
            proxy.heal();
        });
        run.finish()
    });
}

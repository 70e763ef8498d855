//! The wire between Signalbox and the broker is cut. The checker has another.

use std::time::Duration;

use super::run::SESSION;
use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::Conduct;
use crate::support::{Kafka, Proxy, Way};

/// Long enough to cost the membership of the group, and short enough not to.
const OUTAGES: [Duration; 2] = [Duration::from_millis(8_000), Duration::from_millis(1_500)];

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn the_network_is_cut_both_ways() {
    cut("network cut", |proxy, blow| match blow.is_multiple_of(2) {
        true => proxy.cut(),
        false => proxy.stall(&[Way::Requests, Way::Responses]),
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn the_network_loses_requests_only() {
    cut("network cut, requests only", |proxy, _| proxy.stall(&[Way::Requests]));
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn the_network_loses_responses_only() {
    cut("network cut, responses only", |proxy, _| proxy.stall(&[Way::Responses]));
}

/// Of two instances both are cut off, and find out when their connections end, with what was on its way in them.
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

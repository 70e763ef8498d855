//! Covers poison pills, several at once: each is isolated, and no innocent request with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::{Conduct, Endings, Extra, Extras, Kind as Wrong, Recipe};
use crate::support::{Kafka, Reaction, StubModel};

/// Number of deaths after which a request is given up, as the README has it.
const DEATHS: u32 = 5;
const FOUND_OUT_WITHIN: Duration = Duration::from_secs(150);
const DEADLY: [&str; 2] = ["one", "two"];

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn delivery_holds_when_two_poison_pills_are_in_flight() {
    at_each_delivery(|delivery| {
        let kafka = Kafka::shared();
        // The set holds the requests that are under way in this life of the process.
        let under_way = Arc::new(Mutex::new(BTreeSet::new()));
        let model = {
            let under_way = Arc::clone(&under_way);
            StubModel::start(move |_, headers| {
                let name = headers["x-deadly"].to_str().unwrap().to_owned();
                under_way.lock().unwrap().insert(name);
                Reaction::Late(Duration::from_secs(60))
            })
        };
        let ground = Ground::on(kafka).property("group.instance.id: alone").endpoint(
            "deadly",
            model.url(),
            "max_concurrency: 8",
        );
        let [requests, replies, dead_letters] = &ground.topics.clone();
        let endings = Endings::start(&ground.checkers, requests, &[replies, dead_letters]);
        let kinds = DEADLY.map(|name| -> (_, Recipe<'_>) {
            (name, Box::new(move |_| Extra::at("deadly").header("x-deadly", name.as_bytes())))
        });
        let mut extras = Extras::start(&ground.checkers, requests, kinds.into());

        let length = Length::of(10, 1, 60).per_second(100);
        let mut run = Run::start("two deadly requests", delivery, length, ground, 1, Conduct::Steady);
        run.judge(Wrong::Foreign, false); // replies to the poison pills
        let (mut deaths, mut lives) = (BTreeMap::new(), 0);
        run.strike(|run, _| {
            extras.send_each();
            let begun = Instant::now();
            while begun.elapsed() < FOUND_OUT_WITHIN && !extras.all_ended(&endings) {
                std::thread::sleep(Duration::from_millis(20));
                if !under_way.lock().unwrap().is_empty() {
                    run.instances[0].kill();
                    lives += 1;
                    for name in std::mem::take(&mut *under_way.lock().unwrap()) {
                        *deaths.entry(name).or_insert(0) += 1;
                    }
                    run.instances[0].start_again();
                }
            }
        });
        let fates = extras.finish(&endings, Duration::ZERO);
        run.figure(format!("{lives} deaths: {deaths:?}"));
        run.expect(fates.never() == 0, || format!("not all deadly ones are found out:\n{fates}"));
        run.expect(deaths.values().all(|deaths| *deaths <= DEATHS), || format!("{deaths:?}"));
        run.topic_holds(length.requests() + fates.sent() as u64);
        run.finish()
    });
}

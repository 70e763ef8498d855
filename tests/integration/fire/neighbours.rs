//! Bad requests, answers and reply topics beside innocent callers, who must not notice.

mod kinds; // every kind of bad request

use std::time::Duration;

use kinds::{ABSENT, ALLOWED, KINDS, Kind, Places};

use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::{Conduct, Endings, Extras, Kind as Wrong, Recipe};
use crate::support::{Kafka, Reaction, StubModel};

/// Innocent requests a second.
const INNOCENTS: u64 = 100;
/// Bad requests a second.
const BAD: u32 = 10;
/// How many times the innocents' 99th percentile may be what it is without bad ones.
const BEARABLE: u32 = 2;
/// What is less than this is not noticed, however much longer than usual it is.
const UNNOTICED: Duration = Duration::from_millis(100);
/// Before the first turn, in seconds.
const WARM_UP: u64 = 2;
/// Quiet and noisy ones, each.
const TURNS: u64 = 3;
/// For so long it is looked whether those end that have not in time.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15);

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn nobody_notices_bad_neighbours() {
    at_each_delivery(|delivery| match Length::is_long() {
        true => each(KINDS.iter().map(|kind| beside(kind.name, delivery, Kafka::shared(), std::slice::from_ref(kind)))),
        false => beside("all kinds", delivery, Kafka::shared(), KINDS),
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn nobody_notices_reply_topics_that_the_broker_would_make() {
    let kafka = Kafka::start_with("auto.create.topics.enable=true");
    let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.name.contains("there")).copied().collect();
    at_each_delivery(|delivery| {
        let verdict = beside("topics, made on demand", delivery, &kafka, &kinds);
        let made = kafka.topics(ABSENT);
        let made = made.is_empty().then_some(()).ok_or_else(|| format!("topics were made: {made:?}"));
        each([verdict, made].into_iter())
    });
}

/// All that is wrong.
fn each(verdicts: impl Iterator<Item = Result<(), String>>) -> Result<(), String> {
    let wrong: Vec<_> = verdicts.filter_map(Result::err).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Quiet and noisy turns one after the other, since whatever else the machine does changes all the time.
fn beside(name: &str, delivery: &'static str, kafka: &Kafka, kinds: &[Kind]) -> Result<(), String> {
    let turn = if Length::is_long() { 8 } else { 4 };
    let length = Length { per_second: INNOCENTS, seconds: WARM_UP + 2 * TURNS * turn, blows: 0 };
    let large = StubModel::start(|_, _| Reaction::Large(2 << 20));
    let brimful = StubModel::start(|_, _| Reaction::Large(1_048_400));
    let ground = Ground::on(kafka)
        .plan(|plan| plan.computed_per_mille = 0)
        .key(&format!("allowed_reply_topics: [\"{ALLOWED}\"]"))
        .endpoint("large", large.url(), "max_concurrency: 8")
        .endpoint("brimful", brimful.url(), "max_concurrency: 8")
        .endpoint("picky", "builtin:noop", "model_request_condition: \"request.json()['a'][0] == 1\"");
    let places = Places::on(kafka);
    let [requests, replies, dead_letters] = &ground.topics.clone();
    let topics = [replies, dead_letters, &places.fine, &places.tight, &places.stale].map(String::as_str);
    let endings = Endings::start(&ground.checkers, requests, &topics);
    let bound = |kind: &Kind| {
        let (request, places) = (kind.request, &places);
        (kind.name, Box::new(move |n| request(n, places)) as Recipe<'_>)
    };
    let mut bad_ones = Extras::start(&ground.checkers, requests, kinds.iter().map(bound).collect());

    let mut run = Run::start(&format!("neighbours: {name}"), delivery, length, ground, 1, Conduct::Steady);
    run.judge(Wrong::Foreign, false); // the bad ones' replies
    run.be_patient_for(GIVEN_UP_AFTER);
    run.wait_until_sent(WARM_UP * INNOCENTS);
    let turns: Vec<_> = (0..TURNS)
        .map(|_| {
            let begun = run.sent();
            std::thread::sleep(Duration::from_secs(turn));
            let quiet = begun..run.sent();
            bad_ones.send_for(Duration::from_secs(turn), BAD);
            (quiet.clone(), quiet.end..run.sent())
        })
        .collect();
    let fates = bad_ones.finish(&endings, GIVEN_UP_AFTER);
    run.all_are_sent();
    run.await_answers(length.requests());
    let percentiles: Vec<_> = turns
        .into_iter()
        .map(|(quiet, noisy)| [quiet, noisy].map(|numbers| percentile(run.reader.latencies(numbers))))
        .collect();
    run.figure(format!("p99 quiet, noisy: {}", shown(&percentiles)));
    run.figure(format!("{} of {} bad ones ended in time, slowest {:?}", fates.ended(), fates.sent(), fates.slowest()));
    // What else the machine does makes a turn worse and never better, so in one of them at least nothing is noticed. Where
    // nothing else is done, that is so in most of them.
    let usual = percentiles.iter().map(|[quiet, _]| *quiet).min().unwrap_or_default();
    let limit = usual.saturating_mul(BEARABLE).max(UNNOTICED);
    let bearable = percentiles.iter().filter(|[_, noisy]| *noisy <= limit).count();
    let needed = if Length::is_long() { TURNS.div_ceil(2) } else { 1 };
    run.expect(bearable as u64 >= needed, || format!("bad neighbours are noticed: {}", shown(&percentiles)));
    run.expect(fates.ended() == fates.sent(), || format!("not all bad ones have ended in time:\n{fates}"));
    run.topic_holds(length.requests() + fates.sent() as u64);
    run.finish()
}

/// The 99th.
fn percentile(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

fn shown(percentiles: &[[Duration; 2]]) -> String {
    let milliseconds = |percentile: &Duration| match *percentile {
        Duration::MAX => "never".to_owned(),
        percentile => format!("{} ms", percentile.as_millis()),
    };
    let pair = |[quiet, noisy]: &[Duration; 2]| format!("{} {}", milliseconds(quiet), milliseconds(noisy));
    percentiles.iter().map(pair).collect::<Vec<_>>().join("; ")
}

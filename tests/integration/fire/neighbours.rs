//! Sends bad requests, answers and reply topics beside innocent callers, who must not notice.

mod kinds; // every kind of bad request

use std::time::Duration;

use kinds::{ABSENT, ALLOWED, KINDS, Kind, Places};

use super::run::write_part;
use super::{Ground, Length, Run, at_each_delivery};
use crate::support::fire::{Conduct, Endings, Extras, Kind as Wrong, Recipe};
use crate::support::{Kafka, Reaction, StubModel};

/// Innocent requests a second.
const INNOCENTS: u64 = 100;
/// Bad requests a second.
const BAD: u32 = 10;
/// Factor by which the innocents' 99th percentile may exceed what it is without bad requests.
const BEARABLE: u32 = 2;
/// Latency below which nothing is noticed, however much longer than usual it is.
const UNNOTICED: Duration = Duration::from_millis(200);
const WARM_UP: Duration = Duration::from_secs(2);
/// Quiet time before each noisy turn.
const QUIET: Duration = Duration::from_secs(3);
/// Number of turns, as a course is tried again while it is noticed: the machine's other work makes a turn worse and
/// never better, so that in one of them at least nothing is noticed of a neighbour who does no harm.
const TURNS: usize = 3;
/// Time for which the test looks for late ends of requests that have not ended in time, and for answers that do not
/// come.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15);
/// Number of wrong courses after which the others need not be tried any more.
const ENOUGH_IS_WRONG: usize = 5;

/// Groups bad requests that come together.
struct Course<'a> {
    name: &'a str,
    kinds: &'a [Kind],
    noisy: Duration,
}

/// Holds the latency of the innocents in quiet, and beside the bad requests.
struct Turn {
    quiet: Duration,
    noisy: Duration,
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn latency_of_good_requests_holds_beside_bad_ones() {
    let courses: Vec<_> = match Length::is_long() {
        true => KINDS.chunks(1).map(|kind| Course::of(kind[0].name, kind, 50)).collect(),
        false => vec![Course::of("all kinds", KINDS, KINDS.len())],
    };
    at_each_delivery(|delivery| beside("neighbours", delivery, Kafka::shared(), &courses));
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn latency_holds_when_broker_would_create_reply_topics() {
    let kafka = Kafka::start_with("auto.create.topics.enable=true");
    let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.name.contains("there")).copied().collect();
    at_each_delivery(|delivery| {
        let courses = [Course::of("topics that there are not", &kinds, 50)];
        let verdict = beside("neighbours, topics on demand", delivery, &kafka, &courses);
        let made = kafka.topics(ABSENT);
        let made = made.is_empty().then_some(()).ok_or_else(|| format!("topics were made: {made:?}"));
        verdict.and(made)
    });
}

/// Runs innocent callers all the time, and the courses one after the other.
fn beside(name: &str, delivery: &'static str, kafka: &Kafka, courses: &[Course<'_>]) -> Result<(), String> {
    let longest = courses.iter().map(|course| (QUIET + course.noisy + 2 * GIVEN_UP_AFTER) * TURNS as u32).sum();
    let length = Length { per_second: INNOCENTS, seconds: (WARM_UP + longest).as_secs(), blows: 0 };
    let large = StubModel::start(|_, _| Reaction::Large(2 << 20));
    let brimful = StubModel::start(|_, _| Reaction::Large(1_048_400));
    let busy = StubModel::start(|_, _| Reaction::Status(503));
    let ground = Ground::on(kafka)
        .plan(|plan| plan.computed_per_mille = 0)
        .key("retry_delays: [300ms]")
        .key(&format!("allowed_reply_topics: [\"{ALLOWED}\"]"))
        .endpoint("large", large.url(), "max_concurrency: 8")
        .endpoint("brimful", brimful.url(), "max_concurrency: 8")
        .endpoint("busy", busy.url(), "max_concurrency: 8")
        .endpoint("picky", "builtin:noop", "model_request_condition: \"request.json()['a'][0] == 1\"");
    let places = Places::on(kafka);
    let [requests, replies, dead_letters] = &ground.topics.clone();
    let topics =
        [replies, dead_letters, &places.fine, &places.tight, &places.stale, &places.bereft].map(String::as_str);
    let endings = Endings::start(&ground.checkers, requests, &topics);

    let mut run = Run::start(name, delivery, length, ground, 1, Conduct::Steady);
    run.judge(Wrong::Foreign, false); // the bad ones' replies
    run.be_patient_for(GIVEN_UP_AFTER);
    std::thread::sleep(WARM_UP);
    let (mut usual, mut wrong, mut sent) = (Duration::MAX, 0, 0);
    for course in courses {
        let bound = |kind: &Kind| {
            let (request, places) = (kind.request, &places);
            (kind.name, Box::new(move |n| request(n, places)) as Recipe<'_>)
        };
        let recipes = course.kinds.iter().map(bound).collect();
        let mut bad_ones = Extras::start(&run.ground.checkers, requests, recipes);
        let mut turns: Vec<Turn> = Vec::new();
        let mut noticed = true;
        while noticed && turns.len() < TURNS {
            let turn = turn(&run, || bad_ones.send_for(course.noisy, BAD));
            usual = usual.min(turn.quiet);
            noticed = turn.noisy > usual.saturating_mul(BEARABLE).max(UNNOTICED);
            turns.push(turn);
        }
        let fates = bad_ones.finish(&endings, GIVEN_UP_AFTER);
        sent += fates.sent();
        let turns: Vec<_> = turns.iter().map(Turn::shown).collect();
        let figures = format!(
            "p99 quiet and noisy: {}; {} of {} ended in time, slowest {:?}",
            turns.join(", "),
            fates.ended(),
            fates.sent(),
            fates.slowest()
        );
        write_part(&format!("{name}: {}", course.name), delivery, fates.sent(), &figures);
        run.figure(format!("{}: {figures}", course.name));
        run.expect(!noticed, || format!("{} are noticed: {}", course.name, turns.join(", ")));
        run.expect(fates.ended() == fates.sent(), || format!("not all have ended in time:\n{fates}"));
        wrong += usize::from(noticed || fates.ended() < fates.sent());
        if wrong == ENOUGH_IS_WRONG {
            break;
        }
    }
    let innocents = run.stop_sending();
    run.topic_holds(innocents + sent as u64);
    run.finish()
}

/// Runs innocents alone, and then beside what `noise` does.
fn turn(run: &Run, noise: impl FnOnce()) -> Turn {
    let begun = run.sent();
    std::thread::sleep(QUIET);
    let between = run.sent();
    noise();
    let end = run.sent();
    run.await_answers_for(end, GIVEN_UP_AFTER);
    let percentile = |numbers| {
        let mut latencies = run.reader.latencies(numbers);
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    };
    Turn { quiet: percentile(begun..between), noisy: percentile(between..end) }
}

impl<'a> Course<'a> {
    /// Makes a course of so many requests, of all these kinds in turn.
    fn of(name: &'a str, kinds: &'a [Kind], requests: usize) -> Self {
        Self { name, kinds, noisy: Duration::from_secs(1) * requests as u32 / BAD }
    }
}

impl Turn {
    fn shown(&self) -> String {
        let milliseconds = |percentile: Duration| match percentile {
            Duration::MAX => "never".to_owned(),
            percentile => format!("{} ms", percentile.as_millis()),
        };
        format!("{} {}", milliseconds(self.quiet), milliseconds(self.noisy))
    }
}

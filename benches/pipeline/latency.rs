//! Measures `POST /invocations` with a model that answers at once, one call at a time, beside two bare hops over the
//! same broker: a record to a process that only consumes and produces, and its record back. The hops' clients have the
//! settings of the shim's and the intake's. A call is answered by the instance that took it, at once, or by another,
//! whose reply comes over the broker. All sides take turns, a number of calls at a time: work that a
//! side still has to do after its answer may cost its own next call, and not another's.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use tokio::runtime::Builder;

use crate::backlog::{forget, kibibyte};
use crate::statistics::{at, milliseconds};
use crate::support::{Kafka, Process, Setup, Signalbox};
use crate::table::{Reach, Row};
use crate::throughput::{FOUR_ROUTES, bare};

const TURNS: usize = 20;
const CALLS_PER_TURN: usize = 50;
/// Calls that are not counted, before the others in each turn.
const WARM_UP: usize = 10;
/// Pause between two calls: with it, no call meets work that is still done for the call before; without it, calls do.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::ZERO];
const NAMES: [&str; 5] = [
    "two bare hops",
    "POST /invocations, at_least_once",
    "POST /invocations, exactly_once",
    "by another instance, at_least_once",
    "by another instance, exactly_once",
];
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends bare records, and waits for each to come back.
struct Hops {
    producer: ThreadedProducer<DefaultProducerContext>,
    consumer: BaseConsumer,
    requests: String,
    payload: Vec<u8>,
    _process: Process,
}

pub(crate) fn run() -> Vec<Row> {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let hops = Hops::start(kafka, &setup);
    let ways = [("at_least_once", false), ("exactly_once", false), ("at_least_once", true), ("exactly_once", true)];
    let setups = ways.map(|_| Setup::new(kafka));
    let doors: Vec<_> = ways
        .iter()
        .zip(&setups)
        .map(|((delivery, is_apart), setup)| ShimProcesses::start(setup, delivery, *is_apart))
        .collect();
    let client = Client::builder().tcp_nodelay(true).no_proxy().build().unwrap();
    // The caller has one thread, as the bare hops have.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();

    let mut call = 0;
    let mut measure = |pause| {
        let mut took: [Vec<Duration>; 5] = Default::default();
        // The first call is not counted, as every connection is made in it.
        for turn in 0..=TURNS {
            for (side, took) in took.iter_mut().enumerate() {
                let calls = (0..WARM_UP + CALLS_PER_TURN).map(|_| {
                    call += 1;
                    std::thread::sleep(pause);
                    match side {
                        0 => hops.there_and_back(call),
                        door => runtime.block_on(post(&client, doors[door - 1].0[0].url())),
                    }
                });
                let calls: Vec<_> = calls.collect();
                took.extend(calls.into_iter().skip(WARM_UP).filter(|_| turn > 0));
            }
        }
        took.each_mut().map(|took| {
            took.sort_unstable();
            [0.1, 0.5, 0.9, 0.99].map(|share| milliseconds(at(took, share)))
        })
    };
    let measured = PAUSES.map(&mut measure);
    let by_this =
        |door: &ShimProcesses| door.0[0].metric(r#"signalbox_shim_replies_total{way="direct"}"#).unwrap_or_default();
    let by_this: Vec<_> = doors.iter().map(by_this).collect();
    drop((hops, doors));
    setups.iter().chain([&setup]).for_each(|setup| forget(kafka, setup));

    for (pause, sides) in PAUSES.iter().zip(&measured) {
        let what = format!("1 KiB, one call at a time, {pause:?} apart, ms");
        println!("\n{what:<44} {:>8} {:>8} {:>8} {:>8} {:>8}", "p10", "p50", "p90", "p99", "ratio");
        for (name, [p10, p50, p90, p99]) in NAMES.iter().zip(sides) {
            println!("{name:<44} {p10:>8.2} {p50:>8.2} {p90:>8.2} {p99:>8.2} {:>8.2}", p50 / sides[0][1]);
        }
    }
    assert!(by_this.iter().zip(ways).all(|(replies, (_, is_apart))| (*replies == 0.0) == is_apart), "{by_this:?}");
    let row = |what, side: usize, reach| Row {
        what,
        against: "two bare produce→consume hops, same broker",
        ours: measured[0][side][1],
        theirs: measured[0][0][1],
        unit: "ms",
        reach,
    };
    vec![
        row("POST /invocations p50, no-op model", 1, Reach::AtMost(1.3)),
        row("the same with exactly_once", 2, Reach::AtMost(1.3)),
        row("the same, answered by another instance", 3, Reach::Open),
        row("the same with exactly_once", 4, Reach::Open),
    ]
}

/// Runs a process that takes calls, and perhaps another that answers them.
struct ShimProcesses(Vec<Signalbox>);

impl ShimProcesses {
    fn start(setup: &Setup<'_>, delivery: &str, is_apart: bool) -> Self {
        let config = setup.config(FOUR_ROUTES, &format!("  delivery: {delivery}"), "http://127.0.0.1:9");
        match is_apart {
            true => Self(["shim", "router"].map(|role| Signalbox::start_role(role, &config)).into()),
            false => Self(vec![Signalbox::start(&config)]),
        }
    }
}

async fn post(client: &Client, url: &str) -> Duration {
    let begun = Instant::now();
    let post = client.post(format!("{url}/invocations")).header(CONTENT_TYPE, "application/json");
    let answer = post.body(kibibyte(0)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap();
    begun.elapsed()
}

impl Hops {
    fn start(kafka: &Kafka, setup: &Setup<'_>) -> Self {
        let config = |settings: &[(&str, &str)]| {
            let mut config = ClientConfig::new();
            for (key, value) in [("bootstrap.servers", &*kafka.bootstrap())].iter().chain(settings) {
                config.set(*key, *value);
            }
            config
        };
        let linger = [("linger.ms", "0"), ("sticky.partitioning.linger.ms", "0")];
        let producer = config(&[&linger[..], &[("acks", "all"), ("enable.idempotence", "true")]].concat());
        let consumer: BaseConsumer = config(&[
            ("group.id", "hops"),
            ("enable.auto.commit", "false"),
            ("isolation.level", "read_uncommitted"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.queue.backoff.ms", "5"),
            ("queued.max.messages.kbytes", "16384"),
        ])
        .create()
        .unwrap();
        let mut replies = TopicPartitionList::new();
        for partition in 0..4 {
            replies.add_partition_offset(&setup.replies, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&replies).unwrap();
        Self {
            producer: producer.create().unwrap(),
            consumer,
            requests: setup.requests.clone(),
            payload: kibibyte(0),
            _process: bare(kafka, setup),
        }
    }

    fn there_and_back(&self, call: usize) -> Duration {
        let id = call.to_string();
        let begun = Instant::now();
        self.producer.send(BaseRecord::to(&self.requests).key(&id).payload(&self.payload)).map_err(|it| it.0).unwrap();
        loop {
            assert!(begun.elapsed() < PATIENCE, "no record came back");
            let Some(record) = self.consumer.poll(Duration::from_millis(100)) else { continue };
            if record.unwrap().key() == Some(id.as_bytes()) {
                return begun.elapsed();
            }
        }
    }
}

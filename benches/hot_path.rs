//! Measures the hot path in micro-benchmarks. Routing decisions: without conditions, with one over the body, which is
//! searched for repeated keys, and among routes with shares. Batches: payloads that are joined, and answers that are
//! cut. A partition's window, and the metadata of its commit.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]

#[path = "common/routing.rs"]
mod routing;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use signalbox::config::Strategy;
use signalbox::intake::{MAX_WINDOW, Position, Window};
use signalbox::invocation::body::{Answer, Payload};

use routing::{CONDITION, decide, request, route, table, table_of};

fn without_conditions(criterion: &mut Criterion) {
    let table = table(vec![route("fast", None)]);
    let request = request(1 << 10);
    criterion.bench_function("decide/no condition", |bencher| {
        bencher.iter(|| table.endpoint(black_box(&request)).map(|endpoint| endpoint.decide(&request)));
    });
}

fn with_conditions(criterion: &mut Criterion) {
    let body = table(vec![route("fast", None), route("accurate", Some(CONDITION))]);
    for (name, size) in [("1 KB", 1 << 10), ("15 KB", 15 << 10), ("1 MB", 1 << 20)] {
        let request = request(size);
        criterion.bench_function(&format!("decide/body condition, {name}"), |bencher| {
            bencher.iter(|| decide(&body, black_box(&request)));
        });
    }
    let header = table(vec![route("fast", None), route("gold", Some("request.headers.get('x-tier') == 'gold'"))]);
    let request = request(1 << 10);
    criterion.bench_function("decide/header condition", |bencher| {
        bencher.iter(|| decide(&header, black_box(&request)));
    });
}

/// Decides among a thousand routes, of which the first, the tenth, the hundredth or the last has the condition that
/// holds: a decision takes as long as the conditions that are evaluated for it. Conditions on the same place of the
/// payload read it once.
fn with_a_thousand_routes(criterion: &mut Criterion) {
    let small = request(1 << 10);
    let large = request(1 << 20);
    for at in [1, 10, 100, 1000] {
        let routes = |condition: &dyn Fn(usize) -> String| {
            let routes = (1..=1000).map(|n| {
                let holds = "request.headers['x-tier'] == 'gold'".to_owned();
                let condition = if n == at { holds } else { condition(n) };
                route(&format!("route-{n}"), Some(&condition))
            });
            table(routes.collect())
        };
        let first_cell = "request.json()['dataframe_split']['data'][0][0]";
        let shared = routes(&|n| format!("{first_cell}.startswith('Domain {n}')"));
        let apart =
            routes(&|n| format!("request.json()['dataframe_split']['columns'][0] == request.json().get('{n}', {n})"));
        for (name, table, request) in [
            ("one place, 1 KB", &shared, &small),
            ("one place, 1 MB", &shared, &large),
            ("a place each, 1 KB", &apart, &small),
        ] {
            criterion.bench_function(&format!("thousand routes/{name}, condition {at} holds"), |bencher| {
                bencher.iter(|| decide(table, black_box(request)));
            });
        }
    }
}

fn with_shares(criterion: &mut Criterion) {
    let request = request(1 << 10);
    for (name, strategy, sticky_by) in [
        ("by chance", Strategy::Weighted, None),
        ("by caller", Strategy::Weighted, Some("request.headers['x-tier']")),
        ("in turn", Strategy::RoundRobin, None),
        ("by load", Strategy::LeastLoaded, None),
    ] {
        let routes = ["one", "two", "three", "four"].map(|alias| route(alias, None)).into();
        let table = table_of(routes, strategy, sticky_by);
        criterion.bench_function(&format!("decide/four shares {name}"), |bencher| {
            bencher.iter(|| decide(&table, black_box(&request)));
        });
    }
}

/// Measures the cost of a batch besides the model: 64 payloads are understood and joined, and the answer is cut again.
fn batches(criterion: &mut Criterion) {
    let one = |n: usize| {
        format!(r#"{{"dataframe_split": {{"columns": ["text", "score"], "data": [["some text, {n}", 0.{n}]]}}}}"#)
    };
    let payloads: Vec<Bytes> = (0..64).map(|n| one(n).into()).collect();
    let read = |bytes: &Bytes| Payload::read("application/json", bytes).expect("it is plain JSON");
    let understood: Vec<_> = payloads.iter().map(read).collect();
    let predictions: Vec<_> = (0..64).map(|n| format!(r#"{{"label": "positive", "score": 0.{n}}}"#)).collect();
    let body = Bytes::from(format!(r#"{{"predictions": [{}]}}"#, predictions.join(", ")));
    criterion.bench_function("batch/understand a payload of 100 B, and its key", |bencher| {
        bencher.iter(|| read(black_box(&payloads[7])).key("application/json", None, false));
    });
    let large = request(1 << 20).payload.clone().expect("it has one");
    criterion.bench_function("batch/understand a payload of 1 MB", |bencher| bencher.iter(|| read(black_box(&large))));
    criterion.bench_function("batch/splice 64 payloads", |bencher| {
        bencher.iter(|| Payload::join(&understood.iter().collect::<Vec<_>>()));
    });
    criterion.bench_function("batch/split an answer for 64", |bencher| {
        bencher.iter(|| {
            let answer = Answer::read(black_box(&body), 64).expect("it has 64 rows");
            (0..64).map(|row| answer.part(row..row + 1)).collect::<Vec<_>>()
        });
    });
}

/// Measures requests of a window, by the number under way, and the metadata of a commit where every other one is
/// finished.
fn windows(criterion: &mut Criterion) {
    let now = std::time::Instant::now();
    for width in [64, 1024, MAX_WINDOW] {
        let last = i64::try_from(width).expect("a width fits");
        let mut window = Window::default();
        for offset in 0..last {
            window.begin(offset, now);
        }
        let mut next = last;
        criterion.bench_function(&format!("window of {width}: one begins, the oldest finishes"), |bencher| {
            bencher.iter(|| {
                window.finish(next - last);
                window.begin(next, now);
                next += 1;
            });
        });
        let mut window = Window::default();
        for offset in 0..last {
            window.begin(offset, now);
            if offset % 2 == 1 {
                window.finish(offset);
            }
        }
        let metadata = |window: &Window| window.position().map(|position| position.metadata()).unwrap_or_default();
        criterion.bench_function(&format!("commit metadata of {width} offsets: written"), |bencher| {
            bencher.iter(|| metadata(black_box(&window)));
        });
        let written = metadata(&window);
        criterion.bench_function(&format!("commit metadata of {width} offsets: read"), |bencher| {
            bencher.iter(|| Position::read(0, black_box(&written)));
        });
    }
}

criterion_group!(benches, without_conditions, with_conditions, with_a_thousand_routes, with_shares, batches, windows);
criterion_main!(benches);

//! Measures the growth of cost with payloads, routes and partitions: a backlog for a no-op model, beside a bare loop.

use std::fmt::Write;

use crate::backlog::{Backlog, Measured, payload, signalbox};
use crate::plot::{Curve, Plot};
use crate::support::{Kafka, Setup};
use crate::table::Row;
use crate::throughput::{AT_LEAST_ONCE, bare, noop};

/// Holds one point of a sweep's curves: the swept value, Signalbox, and the bare loop.
type Point = (f64, Measured, Measured);

pub(crate) fn payloads() -> Vec<Row> {
    let points = [
        beside(100, Backlog::with(100_000, |_| payload(100)), noop),
        beside(1_000, Backlog::with(100_000, |_| payload(1_000)), noop),
        beside(10_000, Backlog::with(30_000, |_| payload(10_000)), noop),
        beside(100_000, Backlog::with(5_000, |_| payload(100_000)), noop),
        beside(1_000_000, Backlog::with(600, |_| payload(1_000_000)), noop),
    ];
    print("bytes of payload", &points);
    Plot {
        file: "sweep-payloads",
        title: "Requests per second by the size of the payload, no-op model, 4 routes with conditions",
        across: "bytes of payload",
        up: "requests/s",
        curves: rates(&points),
    }
    .draw_logarithmic();
    Plot {
        file: "sweep-payloads-cpu",
        title: "Processor time of a request by the size of the payload",
        across: "bytes of payload",
        up: "CPU, µs",
        curves: costs(&points),
    }
    .draw_logarithmic();
    Vec::new()
}

pub(crate) fn partitions() -> Vec<Row> {
    let points = [1, 4, 16, 64].map(|partitions| {
        let count = usize::try_from(partitions).unwrap();
        beside(count, Backlog { partitions, ..Backlog::of(100_000) }, noop)
    });
    print("partitions", &points);
    Plot {
        file: "sweep-partitions",
        title: "Requests per second by partitions of each topic, 1 KiB, no-op model",
        across: "partitions",
        up: "requests/s",
        curves: rates(&points),
    }
    .draw();
    Vec::new()
}

/// Sweeps over the number of routes, whose conditions are all evaluated, and none of which holds.
pub(crate) fn routes() -> Vec<Row> {
    let points = [(1, 60_000), (10, 60_000), (100, 30_000), (1_000, 8_000)].map(|(routes, requests)| {
        let measured = Backlog::of(requests).measure(Kafka::shared(), |setup| {
            signalbox(&setup.config(&endpoint(routes), AT_LEAST_ONCE, "http://127.0.0.1:9"))
        });
        (f64::from(routes), measured)
    });
    println!("\n{:<18} {:>14} {:>16}", "routes", "requests/s", "CPU us/request");
    for (routes, measured) in &points {
        println!("{routes:<18} {:>14.0} {:>16.1}", measured.per_second, measured.cpu_microseconds);
    }
    let curve = |value: fn(&Measured) -> f64| {
        Curve::new("signalbox", points.iter().map(|(routes, measured)| (*routes, value(measured))).collect())
    };
    Plot {
        file: "sweep-routes",
        title: "Processor time of a request by routes whose conditions are looked at, none of which holds",
        across: "routes",
        up: "CPU, µs",
        curves: vec![curve(|measured| measured.cpu_microseconds)],
    }
    .draw();
    Plot {
        file: "sweep-routes-rate",
        title: "Requests per second by routes whose conditions are looked at, none of which holds",
        across: "routes",
        up: "requests/s",
        curves: vec![curve(|measured| measured.per_second)],
    }
    .draw();
    Vec::new()
}

/// Makes this many routes, the last of which has no condition.
fn endpoint(routes: u32) -> String {
    let mut endpoint = "\n  - name: only\n    routes:\n".to_owned();
    for route in 1..routes {
        let condition = format!("request.json()['inputs'][0] == 'route {route}'");
        let keys = format!("alias: route-{route}, model_request_condition: \"{condition}\"");
        writeln!(endpoint, "      - {{model_uri: \"builtin:noop\", {keys}}}").unwrap();
    }
    endpoint + "      - {model_uri: \"builtin:noop\", alias: last}\n"
}

/// Measures Signalbox and the bare loop, one after the other.
fn beside(at: usize, backlog: Backlog, start: fn(&Setup<'_>) -> crate::support::Process) -> Point {
    let kafka = Kafka::shared();
    let floor = backlog.measure(kafka, |setup| bare(kafka, setup));
    (at as f64, backlog.measure(kafka, start), floor)
}

fn print(what: &str, points: &[Point]) {
    println!(
        "\n{what:<18} {:>14} {:>14} {:>8} {:>16} {:>12} {:>8}",
        "requests/s", "bare loop", "rate", "CPU us/request", "bare loop", "CPU"
    );
    for (at, ours, bare) in points {
        println!(
            "{at:<18} {:>14.0} {:>14.0} {:>7.2}x {:>16.1} {:>12.1} {:>7.2}x",
            ours.per_second,
            bare.per_second,
            ours.per_second / bare.per_second,
            ours.cpu_microseconds,
            bare.cpu_microseconds,
            ours.cpu_microseconds / bare.cpu_microseconds
        );
    }
}

fn rates(points: &[Point]) -> Vec<Curve> {
    both(points, |measured| measured.per_second)
}

fn costs(points: &[Point]) -> Vec<Curve> {
    both(points, |measured| measured.cpu_microseconds)
}

fn both(points: &[Point], value: fn(&Measured) -> f64) -> Vec<Curve> {
    vec![
        Curve::new("signalbox", points.iter().map(|(at, ours, _)| (*at, value(ours))).collect()),
        Curve::new("a bare consume→produce loop", points.iter().map(|(at, _, bare)| (*at, value(bare))).collect()),
    ]
}

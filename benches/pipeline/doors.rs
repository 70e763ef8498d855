//! Measures the shim with many HTTP callers at once, and a model that answers at once.

use crate::backlog::{forget, kibibyte};
use crate::callers::{Calls, call};
use crate::plot::{Curve, Plot};
use crate::support::{Kafka, Setup, Signalbox};
use crate::table::Row;
use crate::throughput::{AT_LEAST_ONCE, FOUR_ROUTES};

const CALLERS: [(usize, usize); 5] = [(1, 1_000), (4, 4_000), (16, 10_000), (64, 20_000), (256, 30_000)];

pub(crate) fn run() -> Vec<Row> {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let signalbox = Signalbox::start(&setup.config(FOUR_ROUTES, AT_LEAST_ONCE, "http://127.0.0.1:9"));
    let url = format!("{}/invocations", signalbox.url());
    let served = CALLERS.map(|(callers, calls)| (callers as f64, call(&url, callers, calls, kibibyte(0))));
    drop(signalbox);
    forget(kafka, &setup);

    println!("\n{:<12} {:>12} {:>10} {:>10}", "callers", "requests/s", "p50 ms", "p99 ms");
    for (callers, served) in &served {
        println!("{callers:<12} {:>12.0} {:>10.2} {:>10.2}", served.per_second, served.p50, served.p99);
    }
    let curve = |name, value: fn(&Calls) -> f64| {
        Curve::new(name, served.iter().map(|(callers, served)| (*callers, value(served))).collect())
    };
    Plot {
        file: "sweep-callers",
        title: "POST /invocations per second by callers, each its next call when it has the answer",
        across: "callers",
        up: "requests/s",
        curves: vec![curve("signalbox", |served| served.per_second)],
    }
    .draw();
    Plot {
        file: "sweep-callers-latency",
        title: "Latency of POST /invocations by callers, each its next call when it has the answer",
        across: "callers",
        up: "ms",
        curves: vec![curve("p50", |served| served.p50), curve("p99", |served| served.p99)],
    }
    .draw_logarithmic();
    Vec::new()
}

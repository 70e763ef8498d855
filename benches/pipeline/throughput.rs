//! Requests per second and CPU per request beside a bare consume→produce loop.

use crate::backlog::{measure, signalbox};
use crate::support::{Kafka, Process, fresh_directory, http_model};
use crate::table::{Reach, Row};

const REQUESTS: usize = 200_000;
/// A model behind Python's own HTTP server is slower, so it gets fewer.
const HTTP_REQUESTS: usize = 10_000;
const IN_FLIGHT: &str = "  max_in_flight: 4096";

pub(crate) const FOUR_ROUTES: &str = "
  - name: only
    routes:
      - {model_uri: \"builtin:noop\", alias: a, model_request_condition: \"request.json()['inputs'][0] == 'a'\"}
      - {model_uri: \"builtin:noop\", alias: b, model_request_condition: \"request.json()['inputs'][0] == 'b'\"}
      - {model_uri: \"builtin:noop\", alias: c, model_request_condition: \"request.headers.get('x-tier') == 'gold'\"}
      - {model_uri: \"builtin:noop\", alias: d}
";

pub(crate) fn run() -> Vec<Row> {
    let kafka = Kafka::shared();
    let own = std::env::current_exe().unwrap();
    let bare = measure(kafka, REQUESTS, |setup| {
        let command = [own.to_str().unwrap(), "bare", &kafka.bootstrap(), &setup.requests, &setup.replies];
        Process::start("bare", &fresh_directory("bare"), &[], command)
    });
    let noop = measure(kafka, REQUESTS, |setup| signalbox(&setup.config(FOUR_ROUTES, IN_FLIGHT, "http://127.0.0.1:9")));
    let (_model, url) = http_model(0);
    let http = measure(kafka, HTTP_REQUESTS, |setup| signalbox(&setup.single_config(&url, IN_FLIGHT)));

    println!(
        "\n{:<42} {:>12} {:>16} {:>8} {:>8}",
        "1 KiB requests on one broker", "requests/s", "CPU us/request", "rate", "CPU"
    );
    for (name, measured) in [
        ("bare consume -> produce", &bare),
        ("signalbox, 4 routes, in-process no-op model", &noop),
        ("signalbox, a model over HTTP (Python)", &http),
    ] {
        println!(
            "{name:<42} {:>12.0} {:>16.1} {:>7.2}x {:>7.2}x",
            measured.per_second,
            measured.cpu_microseconds,
            measured.per_second / bare.per_second,
            measured.cpu_microseconds / bare.cpu_microseconds,
        );
    }
    vec![
        Row {
            what: "1 KB requests, 4 routes with conditions, no-op",
            against: "a bare librdkafka consume→produce loop",
            ours: noop.per_second,
            theirs: bare.per_second,
            unit: "requests/s",
            reach: Reach::AtLeast(0.7),
        },
        Row {
            what: "CPU of the same",
            against: "CPU of the same",
            ours: noop.cpu_microseconds,
            theirs: bare.cpu_microseconds,
            unit: "µs/request",
            reach: Reach::AtMost(2.0),
        },
    ]
}

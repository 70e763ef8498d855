//! Measures one routing decision, in this process: a condition over the payload whose value lies near its front. The
//! rest of the payload is not read, but searched for a repeated key of the path to the value, of which the last counts.

use std::hint::black_box;
use std::time::Instant;

use crate::routing::{CONDITION, decide, request, route, table};
use crate::statistics::median;
use crate::table::{Reach, Row};

const DECISIONS: u32 = 5_000;
/// Number of turns of the two sides, so that a noisy minute hits both.
const TURNS: usize = 21;

pub(crate) fn run() -> Vec<Row> {
    let table = table(vec![route("fast", None), route("accurate", Some(CONDITION))]);
    let requests = [1 << 10, 1 << 20].map(request);
    let mut turns: [Vec<f64>; 2] = Default::default();
    for _ in 0..TURNS {
        for (request, turns) in requests.iter().zip(&mut turns) {
            let begun = Instant::now();
            for _ in 0..DECISIONS {
                assert_eq!(decide(&table, black_box(request)), 1);
            }
            turns.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(DECISIONS));
        }
    }
    let [small, large] = turns.map(median);
    println!("\none decision: {small:.2} µs at 1 KB, {large:.2} µs at 1 MB");
    vec![Row {
        what: "one routing decision, body condition, 1 MB",
        against: "the same at 1 KB",
        ours: large,
        theirs: small,
        unit: "µs",
        reach: Reach::AtMost(2.0),
    }]
}

//! Tests that an expression which takes too much fails alone.

use super::*;

/// Expressions that never end, or not within days, or that want all memory.
const ENDLESS: [&str; 5] = [
    "[0 for n in range(10**18) if n < 0]",
    "10**10**9",
    "re.match('(a+)+$', 'a' * 60 + 'b')",
    "sum(len(str(7**n)) for n in range(10**6))",
    "any(str(n) == request.path for n in range(10**18))",
];
const GREEDY: [&str; 4] =
    ["len('x' * 10**10)", "[0] * 10**12", "len(list(range(10**9)))", "(lambda f: f(f))(lambda f: f(f))"];

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn others_are_answered_right_and_in_time_when_an_expression_takes_too_much() {
    let limit = Duration::from_millis(300);
    let config = config::Conditions { timeout: limit, max_memory: bytesize::ByteSize::mib(256), ..Default::default() };
    let world = World::running(&config).await;
    let good = question(&["request.json['n'] * 2"], &[]);
    for source in ENDLESS.iter().chain(&GREEDY) {
        let bad = question(&[source, "1"], &[]);
        let before = world.metrics.evaluators_lost.with_label_values(&["timed_out"]).get();
        let bad = world.ask(&bad, "{}");
        let good = join_all((0..200).map(|number| {
            let (world, good) = (&world, &good);
            async move {
                sleep(Duration::from_millis(number % 50 * 10)).await;
                let begun = Instant::now();
                let said = world.ask(good, &format!("{{\"n\": {number}}}")).await;
                assert_eq!(said, [(2 * number).to_string()], "{source}");
                begun.elapsed()
            }
        }));
        let (bad, good) = tokio::join!(bad, good);
        let slowest = good.into_iter().max().unwrap();
        let timed_out = world.metrics.evaluators_lost.with_label_values(&["timed_out"]).get() - before;
        eprintln!("{source}: {} ({timed_out} timed out); the slowest other took {slowest:?}", bad[0]);
        if ENDLESS.contains(source) {
            // The value of the other expression went with the process.
            assert_eq!(bad, ["TimeoutError: the evaluation took longer than 300ms"; 2], "{source}");
        } else {
            assert!(bad[0].starts_with("MemoryError") || bad[0].starts_with("RecursionError"), "{source}: {}", bad[0]);
            assert_eq!(bad[1], "1");
        }
        // A replacement is ready, but the machine may be busy.
        assert!(slowest < 3 * limit, "{source}: {slowest:?}");
    }
    world.end().await;
}

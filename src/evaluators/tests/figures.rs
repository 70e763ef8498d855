//! Prints what an evaluation costs, beside what Python alone takes.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn figures_of_evaluations_are_printed() {
    let world = World::running(&config::Conditions { timeout: Duration::from_secs(5), ..Default::default() }).await;
    let asked = question(&["sum(row['a'] for row in request.json['rows']) > 1"], &[]);
    let body = format!("{{\"rows\": [{{\"a\": 1}}, {{\"a\": 2}}], \"text\": \"{}\"}}", "x".repeat(980));
    let request = request(&body);

    let mut times = Vec::new();
    for _ in 0..4000 {
        let begun = Instant::now();
        world.evaluators.ask(&asked, &request).await;
        times.push(begun.elapsed());
    }
    times.sort();
    eprintln!("one at a time, 1 KB: p50 {:?}, p99 {:?}", times[2000], times[3960]);

    for callers in [8, 64, 256] {
        let pids = world.evaluators.report().evaluators.into_iter().map(|evaluator| evaluator.pid.to_string());
        let (pids, begun) = (pids.collect::<Vec<_>>(), Instant::now());
        let spent = || (processor_time("self"), pids.iter().map(|pid| processor_time(pid)).sum::<f64>());
        let before = spent();
        let all = (0..callers).map(|_| {
            let (evaluators, asked, request) = (world.evaluators.clone(), Arc::clone(&asked), Arc::clone(&request));
            tokio::spawn(async move {
                let mut answered = 0u32;
                while begun.elapsed() < Duration::from_secs(3) {
                    let answers = evaluators.ask(&asked, &request).await;
                    assert!(matches!(&answers[..], [Ok(Value::Bool(true))]), "{answers:?}");
                    answered += 1;
                }
                answered
            })
        });
        let answered: u32 = join_all(all).await.into_iter().map(Result::unwrap).sum();
        let (answered, seconds, after) = (f64::from(answered), begun.elapsed().as_secs_f64(), spent());
        let [here, there] = [after.0 - before.0, after.1 - before.1].map(|spent| spent * 1e6 / answered);
        eprintln!(
            "{callers} at once: {:.0} decisions/s; of the processor {here:.1} µs here, {there:.1} µs in Python",
            answered / seconds
        );
    }

    let row = r#"{"id": 12345, "text": "some text that a model reads", "score": 0.7256}"#;
    let body = format!("{{\"rows\": [{}]}}", vec![row; (1 << 20) / row.len()].join(", "));
    let large = super::request(&body);
    let asked = question(&["len(request.json['rows']) > 1"], &[]);
    let mut times = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        world.evaluators.ask(&asked, &large).await;
        times.push(begun.elapsed());
    }
    times.sort();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("body"), &body).unwrap();
    let program = "import json, sys, time\nbody = open(sys.argv[1], 'rb').read()\ntimes = []\nfor _ in range(50):\n    \
                   begun = time.perf_counter()\n    json.loads(body)\n    times.append(time.perf_counter() - begun)\n\
                   print(sorted(times)[25] * 1000)";
    let bare = Command::new(&world.python).args(["-c", program]).arg(directory.path().join("body")).output().unwrap();
    let bare = String::from_utf8_lossy(&bare.stdout).trim().to_owned();
    eprintln!("{} bytes: p50 {:?}, json.loads alone {bare} ms", body.len(), times[25]);
    world.end().await;
}

/// Returns the seconds of the processor that a process has taken.
fn processor_time(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

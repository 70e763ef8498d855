//! Tests that lost processes cost at most the request that they were at.

use super::*;

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn nothing_is_lost_when_evaluators_are_killed_and_stopped_at_any_moment() {
    let config = config::Conditions { timeout: Duration::from_millis(500), ..Default::default() };
    let world = World::running(&config).await;
    let question = question(&["request.json['n'] * 2"], &[]);
    let until = Instant::now() + Duration::from_secs(10);
    let asking = join_all((0..24u64).map(|caller| {
        let (world, question) = (&world, &question);
        async move {
            let (mut right, mut failed, mut slowest) = (0, 0, Duration::ZERO);
            while Instant::now() < until {
                let (number, begun) = (caller * 1_000_000 + right, Instant::now());
                let said = world.ask(question, &format!("{{\"n\": {number}}}")).await.remove(0);
                slowest = slowest.max(begun.elapsed());
                if said == (2 * number).to_string() {
                    right += 1;
                } else {
                    assert!(said.starts_with("TimeoutError") || said.contains("has ended"), "{said}");
                    failed += 1;
                }
            }
            (right, failed, slowest)
        }
    }));
    let harming = async {
        let mut signals = 0;
        while Instant::now() < until {
            sleep(Duration::from_micros(fastrand::u64(1_000..150_000))).await;
            let processes = world.processes().await;
            if let Some(pid) = fastrand::choice(processes) {
                let signal = if fastrand::bool() { Signal::KILL } else { Signal::STOP };
                signals += u64::from(kill_process(pid, signal).is_ok());
            }
        }
        signals
    };
    let (asked, signals) = tokio::join!(asking, harming);
    let right: u64 = asked.iter().map(|(right, ..)| right).sum();
    let failed: u64 = asked.iter().map(|(_, failed, _)| failed).sum();
    let slowest = asked.iter().map(|(.., slowest)| *slowest).max().unwrap();
    eprintln!("{signals} signals: {right} right, {failed} failed, the slowest took {slowest:?}");
    assert!(signals > 20 && right > 500 && failed <= signals, "{signals} signals: {right} right, {failed} failed");
    // Every process is replaced.
    for _ in 0..50 {
        assert_eq!(world.ask(&question, "{\"n\": 1}").await.len(), 1);
    }
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn idle_evaluator_that_is_killed_costs_no_request() {
    let world = World::running(&config::Conditions { evaluators: 1, ..Default::default() }).await;
    let question = question(&["1"], &[]);
    for _ in 0..3 {
        for pid in world.processes().await {
            kill_process(pid, Signal::KILL).unwrap();
        }
        eventually("both are replaced", || world.metrics.evaluators.get() < 2).await;
        assert_eq!(world.ask(&question, "{}").await, ["1"]);
        eventually("both are replaced", || world.metrics.evaluators.get() == 2).await;
    }
    // The template and all that was forked from it.
    let template = world.models.template(&world.python).pid().await.unwrap();
    kill_process(Pid::from_raw(i32::try_from(template).unwrap()).unwrap(), Signal::KILL).unwrap();
    eventually("all are gone", || world.metrics.evaluators.get() == 0).await;
    assert_eq!(world.ask(&question, "{}").await, ["1"]);
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn no_process_is_left_when_the_pool_is_dropped() {
    let world = World::running(&config::Conditions::default()).await;
    let before: HashSet<_> = world.processes().await.into_iter().collect();
    assert_eq!(before.len(), 3);
    let World { models, evaluators, metrics, .. } = world;
    let endless = tokio::spawn({
        let evaluators = evaluators.clone();
        async move { said(&evaluators.ask(&question(&["10**10**9"], &[]), &REQUEST).await) }
    });
    tokio::task::yield_now().await;
    evaluators.shutdown().await;
    let answered = timeout(Duration::from_secs(5), endless).await.unwrap().unwrap();
    assert!(answered == ["Signalbox is stopping"] || answered[0].starts_with("TimeoutError"), "{answered:?}");
    assert_eq!(said(&evaluators.ask(&question(&["1"], &[]), &REQUEST).await), ["Signalbox is stopping"]);
    drop(evaluators);
    let is_gone = |pid: &Pid| {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        status.is_err() || status.is_ok_and(|stat| stat.contains(") Z"))
    };
    eventually("all processes are gone", || before.iter().all(is_gone)).await;
    assert_eq!(metrics.evaluators.get(), 0);
    models.shutdown().await;
}

//! Covers stages and aliases that move: no request fails, and no version that does not work is switched to.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Caller, Hosting, Latencies, Mlflow, eventually, kill, unique};

const LIMIT: Duration = Duration::from_secs(30);
const REFRESH: Duration = Duration::from_millis(200);
const MOVES: usize = 100;
const CALLERS: usize = 3;

/// Describes one version's turn to answer.
#[derive(Debug)]
struct Turn {
    /// A version that the alias led to for a moment only.
    passed: Option<&'static str>,
    version: &'static str,
    moved: Instant,
    /// The time at which the version had answered.
    seen: Instant,
}

/// Records one caller's observation: the time of the question, the time of the answer, and the version that answered.
type Seen = (Instant, Instant, String);

fn nothing() -> Value {
    json!({"dataframe_records": [{"seconds": 0.0}]})
}

/// Follows an alias of `moving-model` that no other test moves, and which leads to version 1.
async fn follow(mlflow: &Mlflow) -> (Hosting, String) {
    let alias = unique("alias");
    mlflow.move_alias("moving-model", &alias, "1").await;
    let hosting = Hosting::of(mlflow).registry("refresh: 200ms");
    (hosting.endpoint("moving", &format!("models:/moving-model@{alias}")), alias)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn requests_succeed_when_alias_moves_a_hundred_times_under_load() {
    let mlflow = Mlflow::shared();
    let (hosting, alias) = follow(mlflow).await;
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    assert_eq!(caller.ask("moving", &nothing()).await.predictions(), json!([1]));

    let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (caller, seen) = (caller.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                loop {
                    let asked = Instant::now();
                    let answer = caller.ask("moving", &nothing()).await;
                    let number = answer.predictions()[0].to_string();
                    assert_eq!(number, answer.version(), "the reply does not say who made it");
                    seen.lock().unwrap().push((asked, Instant::now(), number));
                }
            })
        })
        .collect();

    let mut turns = vec![Turn { passed: None, version: "1", moved: Instant::now(), seen: Instant::now() }];
    let mut moves = 0;
    while moves < MOVES {
        let at = turns[turns.len() - 1].version;
        let others: Vec<_> = ["1", "2", "5"].into_iter().filter(|it| *it != at).collect();
        let [passed, version] = if turns.len() % 2 == 0 { [others[0], others[1]] } else { [others[1], others[0]] };
        // Now and then the alias moves on before anyone can have followed it.
        let passed = (turns.len() % 10 == 0).then_some(passed);
        let moved = Instant::now();
        for version in passed.into_iter().chain([version]) {
            mlflow.move_alias("moving-model", &alias, version).await;
            moves += 1;
        }
        eventually(&format!("an answer of version {version} after {moves} moves"), LIMIT, async || {
            assert!(callers.iter().all(|caller| !caller.is_finished()), "a request failed; see above");
            let seen = seen.lock().unwrap();
            let mut since = seen.iter().rev().take_while(|(_, answered, _)| *answered > moved);
            since.any(|(asked, _, number)| *asked > moved && number == version).then_some(())
        })
        .await;
        turns.push(Turn { passed, version, moved, seen: Instant::now() });
    }
    for caller in callers {
        caller.abort();
        assert!(!caller.await.is_err_and(|error| error.is_panic()), "a request failed; see above");
    }

    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let switches = Latencies::of(turns.iter().skip(1).map(|turn| turn.seen - turn.moved).collect());
    println!("{} requests while an alias moved {moves} times; the switch was seen after {switches:?}", seen.len());
    for (asked, answered, number) in &seen {
        assert_in_turn(&turns, *asked, *answered, number);
    }
    // A load takes a tenth of a second on an idle machine.
    assert!(switches.median < REFRESH + Duration::from_secs(2), "{switches:?}");
    assert!(switches.worst < REFRESH + Duration::from_secs(8), "{switches:?}");
    let loaded = caller.models().await.models.into_iter().filter(|model| model.state == "loaded").count();
    assert!(loaded <= 3, "{loaded} versions are loaded");
}

/// Checks a version's turn: from the move until the switch was seen, the old version may answer or the new one, or one
/// that the alias only passed by; afterwards only the new one.
fn assert_in_turn(turns: &[Turn], asked: Instant, answered: Instant, number: &str) {
    let is_in = |turn: &Turn| turn.version == number || turn.passed == Some(number);
    let now = turns.iter().rposition(|turn| turn.moved <= asked).unwrap_or(0);
    let settled = asked >= turns[now].seen;
    let allowed = turns[now].version == number
        || !settled && (is_in(&turns[now]) || turns[now.saturating_sub(1)].version == number)
        || turns.get(now + 1).is_some_and(|next| answered >= next.moved && is_in(next));
    assert!(allowed, "version {number} answered in turn {now}, settled: {settled}; {:?}", turns[now]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn alias_keeps_old_version_when_new_one_fails_load_or_example() {
    let mlflow = Mlflow::shared();
    let (hosting, alias) = follow(mlflow).await;
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    assert_eq!(caller.ask("moving", &nothing()).await.predictions(), json!([1]));
    let uri = format!("models:/moving-model@{alias}");
    for (version, reason) in [("3", "version 3 cannot be loaded"), ("4", "version 4 does not know its own example")] {
        mlflow.move_alias("moving-model", &alias, version).await;
        let pending = eventually(&format!("word of version {version}"), LIMIT, async || {
            assert_eq!(caller.ask("moving", &nothing()).await.version(), "1");
            let page = caller.models().await;
            let following = page.following.into_iter().find(|following| following.model_uri == uri)?;
            assert_eq!(following.version.as_deref(), Some("1"));
            following.pending.filter(|pending| pending.version.as_deref() == Some(version) && pending.reason.is_some())
        })
        .await;
        assert!(pending.reason.as_ref().unwrap().contains(reason), "{pending:?}");
        assert!(signalbox.log().contains(reason), "{}", signalbox.log());
    }
    assert_eq!(caller.ask("moving", &nothing()).await.predictions(), json!([1]));
    mlflow.move_alias("moving-model", &alias, "2").await;
    eventually("version 2", LIMIT, async || {
        (caller.ask("moving", &nothing()).await.predictions() == json!([2])).then_some(())
    })
    .await;
    eventually("a page without a pending version", LIMIT, async || {
        let page = caller.models().await;
        let following = page.following.into_iter().find(|following| following.model_uri == uri)?;
        (following.version.as_deref() == Some("2") && following.pending.is_none()).then_some(())
    })
    .await;
    let serving = caller.model("moving-model/2").await.unwrap();
    assert!(serving.serves.contains(&uri), "{serving:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn resolved_models_keep_answering_when_registry_is_stopped() {
    let mut mlflow = Mlflow::start();
    let (hosting, alias) = follow(&mlflow).await;
    let hosting = hosting.endpoint("staged", "models:/slow-model/Production").endpoint_with(
        "unresolved",
        "models:/sentiment-model-fast/Production",
        "20s",
        "",
    );
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    for endpoint in ["moving", "staged"] {
        assert_eq!(caller.ask(endpoint, &nothing()).await.predictions(), json!([1]));
    }
    mlflow.stop();
    let begun = Instant::now();
    while begun.elapsed() < REFRESH * 10 {
        for endpoint in ["moving", "staged"] {
            assert_eq!(caller.ask(endpoint, &nothing()).await.predictions(), json!([1]));
        }
    }
    // A host that has to be started again fails no request either, nor does a model that has to be loaded again.
    for pid in caller.model("moving-model/1").await.unwrap().pids {
        kill(pid);
    }
    eventually("an answer of a new host", LIMIT, async || {
        (caller.ask("moving", &nothing()).await.status == 200).then_some(())
    })
    .await;
    let (status, said) = caller.tell("slow-model/1", "unload").await;
    assert!((200..300).contains(&status), "{said}");
    eventually("a model that is unloaded", LIMIT, async || {
        (caller.model("slow-model/1").await?.state == "unloaded").then_some(())
    })
    .await;
    assert_eq!(caller.ask("staged", &nothing()).await.predictions(), json!([1]));

    let fault = caller.ask("unresolved", &json!({"dataframe_records": [{"text": "a"}]})).await;
    let (code, message) = fault.fault();
    assert_eq!(code, "TEMPORARILY_UNAVAILABLE", "{message}");
    assert!(message.contains(&mlflow.tracking_uri()["http://".len()..]), "{message}");

    mlflow.start_again();
    mlflow.move_alias("moving-model", &alias, "2").await;
    eventually("version 2", LIMIT, async || {
        (caller.ask("moving", &nothing()).await.predictions() == json!([2])).then_some(())
    })
    .await;
}

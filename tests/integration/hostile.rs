//! Covers models that misbehave: only their own requests suffer, and each of those gets a clear fault.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Answer, Bystander, Caller, Hosting, MARK, Mark, Mlflow, Signalbox, eventually, is_alive, kill, wait_for_end,
};

const LIMIT: Duration = Duration::from_secs(60);
const MEBIBYTE: u64 = 1 << 20;

fn text() -> Value {
    json!({"dataframe_records": [{"text": "a great day"}]})
}

fn deed(what: &str, amount: f64) -> Value {
    json!({"dataframe_records": [{"do": what, "amount": amount}]})
}

fn seconds(seconds: f64) -> Value {
    json!({"dataframe_records": [{"seconds": seconds}]})
}

/// Hosts the misbehaving models with a well-behaved one beside them.
fn hosting(mlflow: &Mlflow) -> Hosting {
    Hosting::of(mlflow).endpoint("good", "models:/sentiment-model-fast/1")
}

/// Starts Signalbox, and waits until the well-behaved model is loaded.
async fn start(hosting: &Hosting) -> (Signalbox, Caller) {
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    caller.ask("good", &text()).await.predictions();
    (signalbox, caller)
}

/// Asks until there is an answer. Replies before that must be clear faults that tell to try again.
async fn until_answered(caller: &Caller, endpoint: &str, payload: &Value) -> Answer {
    eventually(&format!("an answer of {endpoint}"), LIMIT, async || {
        let answer = caller.ask(endpoint, payload).await;
        if answer.status == 200 {
            return Some(answer);
        }
        answer.fault();
        assert_eq!(answer.json()["retryable"], true, "{}", answer.text());
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn hostile_call_fails_only_its_own_requests() {
    let mark = Mark::new();
    let hosting = hosting(Mlflow::shared())
        .endpoint_with("hostile", "models:/hostile-model/1", "3s", "")
        .endpoint("hostile-and-patient", "models:/hostile-model/1")
        .variable(MARK, mark.value());
    let (mut signalbox, caller) = start(&hosting).await;
    until_answered(&caller, "hostile", &deed("nothing", 0.0)).await;
    let usual = Bystander::alone(&caller, "good", &text()).await;
    let bystander = Bystander::calling(&caller, "good", text());

    // Each deed has its name and amount; the status, the code, a word of the message, and whether the process has to
    // go.
    let deeds = [
        (
            "exit at once",
            7.0,
            502,
            "MODEL_ERROR",
            "hostile-model/1 did not answer: its process ended (exit status: 7)",
            true,
        ),
        ("exit", 3.0, 502, "MODEL_ERROR", "the model raised SystemExit: 3", false),
        ("exit in a thread", 9.0, 502, "MODEL_ERROR", "exit status: 9", true),
        ("die of a signal", 11.0, 502, "MODEL_ERROR", "SIGSEGV", true),
        ("die of a signal", 9.0, 502, "MODEL_ERROR", "SIGKILL", true),
        ("hang", 0.0, 504, "DEADLINE_EXCEEDED", "hostile-model/1 had not answered when", true),
        ("hang and ignore signals", 0.0, 504, "DEADLINE_EXCEEDED", "hostile-model/1 had not answered when", true),
        ("close everything", 0.0, 502, "MODEL_ERROR", "hostile-model/1 did not answer", true),
        ("write everywhere", 0.0, 502, "MODEL_ERROR", "hostile-model/1 did not answer", true),
        ("flood", 32.0, 200, "", "", false),
        ("leave a thread", 0.0, 200, "", "", false),
        ("leave a process", 0.0, 200, "", "", false),
        ("leave a daemon", 0.0, 200, "", "", false),
    ];
    for (what, amount, status, code, word, ends) in deeds {
        let before = until_answered(&caller, "hostile", &deed("nothing", 0.0)).await.predictions();
        // A deed that ends by itself has time.
        let endpoint = if status == 200 { "hostile-and-patient" } else { "hostile" };
        let answer = caller.ask(endpoint, &deed(what, amount)).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        if status >= 400 {
            let (said, message) = answer.fault();
            assert_eq!(said, code, "{what}: {message}");
            assert!(message.contains(word), "{what}: {message}");
        }
        println!("{what}: {status} after {:?}", answer.took);
        if ends {
            wait_for_end(u32::try_from(before[0].as_u64().unwrap()).unwrap());
        }
        let after = until_answered(&caller, "hostile", &deed("nothing", 0.0)).await.predictions();
        assert_eq!(before != after, ends, "{what}");
    }
    let calls = bystander.report().await;
    println!("a bystander's calls: alone {usual:?}, beside a hostile model {calls:?}");
    calls.assert_undisturbed(&usual);
    let log = signalbox.log();
    assert!(log.len() < 4 << 20, "the log took {} bytes of what a model wrote", log.len());
    assert!(!log.contains("panicked"), "{log}");

    let of_models = mark.wait_for_bearers("sleep 1000", 2);
    let host = caller.model("hostile-model/1").await.unwrap();
    let (status, said) = caller.tell("hostile-model/1", "unload").await;
    assert!((200..300).contains(&status), "{said}");
    for pid in host.pids {
        wait_for_end(pid);
    }
    for left in of_models {
        wait_for_end(left.pid);
    }
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    mark.assert_nothing_is_left("after it was told to end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_is_replaced_when_killed_in_call() {
    let hosting = hosting(Mlflow::shared()).endpoint("slow", "models:/slow-model/1");
    let (_signalbox, caller) = start(&hosting).await;
    caller.ask("slow", &seconds(0.0)).await.predictions();
    let usual = Bystander::alone(&caller, "good", &text()).await;
    let bystander = Bystander::calling(&caller, "good", text());
    for _ in 0..5 {
        let before = caller.model("slow-model/1").await.unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let caller = caller.clone();
            calls.spawn(async move { caller.ask("slow", &seconds(0.5)).await });
        }
        eventually("a call that is under way", LIMIT, async || {
            let model = caller.model("slow-model/1").await?;
            (model.calls > before.calls && !model.pids.is_empty()).then_some(())
        })
        .await;
        before.pids.iter().for_each(|pid| kill(*pid));
        while let Some(answer) = calls.join_next().await {
            let answer = answer.unwrap();
            if answer.status != 200 {
                let (code, message) = answer.fault();
                let expected = ["MODEL_ERROR", "TEMPORARILY_UNAVAILABLE"];
                assert!(expected.contains(&code.as_str()) && message.contains("slow-model"), "{code}: {message}");
            }
        }
        until_answered(&caller, "slow", &seconds(0.0)).await;
        let after = caller.model("slow-model/1").await.unwrap();
        assert!(after.pids.iter().all(|pid| !before.pids.contains(pid) && is_alive(*pid)), "{before:?} {after:?}");
    }
    let calls = bystander.report().await;
    println!("a bystander's calls: alone {usual:?}, beside a host that is killed {calls:?}");
    calls.assert_undisturbed(&usual);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn hostile_load_fails_only_its_own_model() {
    let endpoint = |hosting: Hosting, name: &str| hosting.endpoint(name, &format!("models:/{name}/1"));
    let names =
        ["raises-at-load-model", "exits-at-load-model", "hangs-at-load-model", "slow-at-load-model", "unmet-model"];
    let hosting = names.into_iter().fold(hosting(Mlflow::shared()), endpoint).models("load_timeout: 26s");
    let (_signalbox, caller) = start(&hosting).await;
    let usual = Bystander::alone(&caller, "good", &text()).await;
    let bystander = Bystander::calling(&caller, "good", text());

    let mut loads = tokio::task::JoinSet::new();
    for name in names {
        let caller = caller.clone();
        loads.spawn(async move { (name, caller.ask(name, &text()).await) });
    }
    while let Some(load) = loads.join_next().await {
        let (name, answer) = load.unwrap();
        // Each case has the status, the code, words of the message, and after how many seconds at the earliest and the
        // latest.
        let (status, code, word, earliest, latest) = match name {
            "raises-at-load-model" => (503, "TEMPORARILY_UNAVAILABLE", "these weights are of no use", 0, 20),
            "exits-at-load-model" => (503, "TEMPORARILY_UNAVAILABLE", "exit status: 7", 0, 20),
            "hangs-at-load-model" => (503, "TEMPORARILY_UNAVAILABLE", "26s", 25, 45),
            "slow-at-load-model" => (200, "", "", 20, 45),
            _ => (200, "", "", 0, 20),
        };
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        let took = answer.took.as_secs();
        assert!((earliest..=latest).contains(&took), "{name} after {took} s: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.predictions(), json!(["loaded"]));
            continue;
        }
        let (said, message) = answer.fault();
        assert_eq!(said, code, "{name}: {message}");
        assert!(message.contains(word) && message.contains(name), "{name}: {message}");
        // The failure is remembered: the next request is not kept waiting for the same.
        let begun = Instant::now();
        let again = caller.ask(name, &text()).await;
        assert_eq!(again.fault().0, code, "{name}");
        assert!(name == "exits-at-load-model" || begun.elapsed() < Duration::from_secs(2), "{name} is tried again");
        let shown = caller.model(&format!("{name}/1")).await.unwrap();
        assert_eq!(shown.state, "failed", "{shown:?}");
        assert!(shown.reason.as_deref().is_some_and(|reason| reason.contains(word)), "{shown:?}");
    }
    let calls = bystander.report().await;
    println!("a bystander's calls: alone {usual:?}, beside models that do not load {calls:?}");
    calls.assert_undisturbed(&usual);

    let unmet = caller.model("unmet-model/1").await.unwrap().unmet.join("; ");
    for word in ["numpy==1.2.3", "no-such-library>=4"] {
        assert!(unmet.contains(word), "{unmet}");
    }
    assert!(!unmet.contains("pandas") && !unmet.contains("mlflow"), "{unmet}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn leaking_model_leaves_memory_for_others() {
    let limit = 512 * MEBIBYTE;
    let hosting = hosting(Mlflow::shared())
        .endpoint("leaking", "models:/leaking-model/1")
        .endpoint("slow", "models:/slow-model/1")
        .models(&format!("memory_limit: {limit}B"));
    let (_signalbox, caller) = start(&hosting).await;
    let usual = Bystander::alone(&caller, "good", &text()).await;
    let bystander = Bystander::calling(&caller, "good", text());
    let mut largest = 0;
    for n in 0..24 {
        let answer = caller.ask("leaking", &deed("leak", 64.0)).await;
        if answer.status != 200 {
            let (_, message) = answer.fault();
            assert!(message.contains("leaking-model") || message.contains("MemoryError"), "{message}");
        }
        if n % 4 == 0 {
            // Other models are loaded beside the leaking one.
            caller.ask("slow", &seconds(0.0)).await.predictions();
        }
        largest = largest.max(caller.models().await.memory.used);
    }
    println!("beside a model that leaked 1536 MiB, {} MiB were used at most", largest / MEBIBYTE);
    // The leak is seen after the call that did it.
    assert!(largest < limit + 128 * MEBIBYTE, "{largest}");
    eventually("memory under its limit", LIMIT, async || (caller.models().await.memory.used <= limit).then_some(()))
        .await;
    let calls = bystander.report().await;
    println!("a bystander's calls: alone {usual:?}, beside a model that leaks {calls:?}");
    calls.assert_undisturbed(&usual);
}

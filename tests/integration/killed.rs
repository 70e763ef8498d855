//! Kills Signalbox with -9 at any moment: nothing it has started is left, and nothing half-done is taken for whole.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Answer, Caller, Dice, Hosting, MARK, Mark, Mlflow, fresh_directory, signal, wait_for_end};

/// Size of the model's weights in bytes; see `models.py`.
const WEIGHTS: usize = 24 << 20;

fn kills() -> usize {
    std::env::var("SIGNALBOX_TEST_KILLS").map_or(15, |kills| kills.parse().unwrap())
}

/// Asks three models at once, and returns their answers, or what went wrong.
async fn ask_all(caller: &Caller) -> [reqwest::Result<Answer>; 3] {
    let text = json!({"dataframe_records": [{"text": "a great day"}]});
    let seconds = json!({"dataframe_records": [{"seconds": 0.3}]});
    let (weighty, fast, slow) = tokio::join!(
        caller.try_ask("weighty", &text),
        caller.try_ask("fast", &text),
        caller.try_ask("slow", &seconds),
    );
    [weighty, fast, slow]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn signalbox_restarts_without_leftovers_when_killed_at_any_moment() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {} kills", kills());
    let mut dice = Dice::new(seed);
    let mark = Mark::new();
    let temporary = fresh_directory("temporary");
    let mut hosting = hosting(&mark, &temporary);
    let mut expected: Option<Vec<serde_json::Value>> = None;
    let mut moments = Vec::new();
    let mut kill = 0;
    // The usual time is from the start to the last of the first answers.
    let mut usual = Duration::from_secs(3);
    while kill < kills() {
        // The first kills come in the middle of the start, the downloads and the loads, with nothing in the cache …
        let mut signalbox = hosting.spawn();
        let moment = dice.moment(usual * 5 / 4);
        let interrupted = tokio::spawn(ask_when_ready(signalbox.log_path(), Instant::now() + moment));
        moments.push(interrupted.await.unwrap());
        signalbox.kill();
        kill += 1;
        mark.assert_nothing_is_left(&format!("seed {seed}, kill {kill}, {moment:?} after the start"));

        // … and the later ones, when what is there now has given right answers, in the middle of calls.
        let begun = Instant::now();
        let mut signalbox = hosting.start();
        let caller = Caller::of(&signalbox);
        let answers = ask_all(&caller).await.map(|answer| answer.unwrap().predictions()).to_vec();
        assert_eq!(*expected.get_or_insert_with(|| answers.clone()), answers, "seed {seed}, after kill {kill}");
        let pids: Vec<_> = caller.models().await.models.into_iter().flat_map(|model| model.pids).collect();
        usual = begun.elapsed();
        // Models have processes of their own.
        for what in ["leave a process", "leave a daemon"] {
            caller.ask("hostile", &json!({"dataframe_records": [{"do": what, "amount": 0.0}]})).await.predictions();
        }
        mark.wait_for_bearers("sleep 1000", 2);
        let marked = mark.bearers();
        assert!(
            pids.len() >= 3 && pids.iter().all(|pid| marked.iter().any(|it| it.pid == *pid)),
            "{pids:?} {marked:?}"
        );
        let interrupted =
            tokio::spawn(async move { ask_all(&caller).await.into_iter().filter(Result::is_err).count() });
        tokio::time::sleep(dice.moment(Duration::from_millis(300))).await;
        signalbox.kill();
        kill += 1;
        moments.push(format!("with {} calls under way, {usual:?} from start to answers", interrupted.await.unwrap()));
        mark.assert_nothing_is_left(&format!("seed {seed}, kill {kill}, in the middle of calls"));
        assert_tidy(&hosting.cache, &temporary, seed);
        if dice.fraction() < 0.7 {
            hosting = self::hosting(&mark, &temporary);
        }
    }
    println!("killed {moments:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn signalbox_leaves_nothing_behind_when_killed_with_unread_events() {
    let (mark, temporary) = (Mark::new(), fresh_directory("temporary"));
    let mut signalbox = hosting(&mark, &temporary).start();
    let caller = Caller::of(&signalbox);
    for what in ["leave a process", "leave a daemon"] {
        caller.ask("hostile", &json!({"dataframe_records": [{"do": what, "amount": 0.0}]})).await.predictions();
    }
    assert!(ask_all(&caller).await.iter().all(Result::is_ok));
    let fast = caller.model("sentiment-model-fast/1").await.unwrap().pids;
    // Signalbox is stopped, a host ends, and the news of that is never read.
    signal("STOP", signalbox.pid());
    for pid in fast {
        signal("KILL", pid);
        wait_for_end(pid);
    }
    signalbox.kill();
    mark.assert_nothing_is_left("killed with news unread");
}

fn hosting(mark: &Mark, temporary: &Path) -> Hosting {
    Hosting::of(Mlflow::shared())
        .endpoint("weighty", "models:/weighty-model/Production")
        .endpoint("fast", "models:/sentiment-model-fast/Production")
        .endpoint("slow", "models:/slow-model/Production")
        .endpoint("hostile", "models:/hostile-model/Production")
        .variable(MARK, mark.value())
        .variable("TMPDIR", temporary)
}

/// Calls the models as soon as Signalbox is there, until the moment comes, and returns how far things were.
async fn ask_when_ready(log: std::path::PathBuf, moment: Instant) -> String {
    let until = tokio::time::Instant::from_std(moment);
    let asking = async {
        loop {
            let written = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(caller) = Caller::in_log(&written) {
                let answered = ask_all(&caller).await.into_iter().filter(Result::is_ok).count();
                return format!("after {answered} answers");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout_at(until, asking).await {
        Ok(answered) => {
            tokio::time::sleep_until(until).await;
            answered
        }
        Err(_) if Caller::in_log(&std::fs::read_to_string(&log).unwrap_or_default()).is_some() => {
            "while it loaded".to_owned()
        }
        Err(_) => "while it started".to_owned(),
    }
}

/// Checks that there is no socket, no more of the models than there is of them, and hardly anything temporary.
fn assert_tidy(cache: &Path, temporary: &Path, seed: u64) {
    let (in_cache, in_temporary) = (files_in(cache), files_in(temporary));
    for (path, kind, _) in in_cache.iter().chain(&in_temporary) {
        assert!(!kind.is_socket(), "seed {seed}: a socket is left: {}", path.display());
    }
    let bytes: u64 = in_cache.iter().map(|(.., bytes)| bytes).sum();
    assert!(bytes < 2 * WEIGHTS as u64, "seed {seed}: {bytes} bytes are left in the cache: {in_cache:#?}");
    assert!(in_temporary.len() < 10, "seed {seed}: temporary files are left: {in_temporary:#?}");
}

/// Lists all files below, with their types and sizes.
fn files_in(directory: &Path) -> Vec<(std::path::PathBuf, std::fs::FileType, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_in(&entry.path()));
        } else {
            found.push((entry.path(), kind, entry.metadata().map_or(0, |metadata| metadata.len())));
        }
    }
    found
}

//! Runs twenty models with room for ten: none of the requests fails, the memory stays under its limit, and nothing that
//! is in use is unloaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Caller, Dice, Hosting, Latencies, Mlflow, Pattern, eventually};

const MODELS: usize = 20;
const ROOM: u64 = 10;
const REQUESTS: usize = 200;
const CALLERS: usize = 3;

fn seconds(seconds: f64) -> Value {
    json!({"dataframe_records": [{"seconds": seconds}]})
}

fn shelf(mlflow: &Mlflow) -> Hosting {
    (1..=MODELS).fold(Hosting::of(mlflow), |hosting, n| {
        hosting.endpoint(&format!("shelf-{n}"), &format!("models:/shelf-model/{n}"))
    })
}

/// Measures the memory of one of the models, with the others beside it.
async fn memory_of_one(mlflow: &Mlflow) -> u64 {
    let signalbox = shelf(mlflow).start();
    let caller = Caller::of(&signalbox);
    for n in 1..=3 {
        caller.ask(&format!("shelf-{n}"), &seconds(0.0)).await.predictions();
    }
    let page = caller.models().await;
    page.models.iter().filter(|model| model.state == "loaded").filter_map(|model| model.memory).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn requests_succeed_when_twenty_models_share_room_for_ten() {
    let mlflow = Mlflow::shared();
    let one = memory_of_one(mlflow).await;
    let limit = one * ROOM + one / 3;
    println!("one takes {} KiB, the limit is {} KiB", one >> 10, limit >> 10);
    let signalbox = shelf(mlflow).models(&format!("memory_limit: {limit}B")).start();
    let caller = Caller::of(&signalbox);

    // A model's memory is known once the model was loaded. Until then there may be too much for a moment, by as many
    // models as are loaded at once.
    let learning = tokio::spawn(watch(caller.clone(), limit, CALLERS as u64 * one));
    for n in 1..=MODELS {
        assert_eq!(caller.ask(&format!("shelf-{n}"), &seconds(0.0)).await.predictions(), json!([n]));
    }
    assert!(!learning.is_finished(), "too much memory is used; see above");
    learning.abort();

    let watching = tokio::spawn(watch(caller.clone(), limit, limit / 50));
    for pattern in Pattern::ALL {
        let loads_before = loads(&caller).await;
        let begun = Instant::now();
        let latencies = ask(&caller, pattern).await;
        let loads = loads(&caller).await - loads_before;
        let mean = latencies.iter().sum::<Duration>() / u32::try_from(latencies.len()).unwrap();
        println!("{pattern:?}: {loads} loads in {:?}, mean {mean:?}, {:?}", begun.elapsed(), Latencies::of(latencies));
        assert!(!watching.is_finished(), "too much memory is used; see above");
    }
    watching.abort();
    let stopped = watching.await;
    assert!(!stopped.is_err_and(|error| error.is_panic()), "too much memory is used; see above");
    let page = caller.models().await;
    assert!(page.models.iter().map(|model| model.evictions).sum::<u64>() > 0, "nothing was ever unloaded: {page:?}");
    let loaded = page.models.iter().filter(|model| model.state == "loaded").count();
    assert!((5..=11).contains(&loaded), "{loaded} are loaded where there is room for ten");
    eventually("memory under its limit", Duration::from_secs(10), async || {
        (caller.models().await.memory.used <= limit).then_some(())
    })
    .await;
}

/// Lets some callers ask short questions; meanwhile one has a model busy for longer than it takes to load all others.
async fn ask(caller: &Caller, pattern: Pattern) -> Vec<Duration> {
    let next = Arc::new(AtomicUsize::new(0));
    let slow = async {
        for n in [3, 17, 11] {
            let answer = caller.ask(&format!("shelf-{n}"), &seconds(1.5)).await;
            assert_eq!(answer.predictions(), json!([n]));
        }
    };
    let callers = (0..CALLERS).map(|number| {
        let (caller, next) = (caller.clone(), Arc::clone(&next));
        let mut dice = Dice::new(number as u64);
        tokio::spawn(async move {
            let mut took = Vec::new();
            loop {
                let request = next.fetch_add(1, Ordering::Relaxed);
                if request >= REQUESTS {
                    return took;
                }
                let n = 1 + pattern.pick(request, MODELS, &mut dice);
                let answer = caller.ask(&format!("shelf-{n}"), &seconds(0.0)).await;
                assert_eq!(answer.predictions(), json!([n]), "request {request}");
                took.push(answer.took);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    slow.await;
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.unwrap());
    }
    took
}

async fn loads(caller: &Caller) -> u64 {
    caller.models().await.models.iter().map(|model| model.loads).sum()
}

/// Looks at the memory all the time, and panics when it is this much more than it may be.
async fn watch(caller: Caller, limit: u64, more: u64) {
    loop {
        let page = caller.models().await;
        assert_eq!(page.memory.limit, Some(limit));
        assert!(page.memory.used <= limit + more, "{} of {limit} bytes are used: {page:#?}", page.memory.used);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! More models than memory holds.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::phases::Phases;
use super::support::{Caller, Dice, Mlflow, Pattern, Signalbox, eventually, fresh_directory};
use super::{at, hosting, milliseconds, payload, unload, verdict};

pub(super) const MODELS: usize = 20;
const ROOM: usize = 10;
const CALLERS: usize = 4;
const REQUESTS: usize = 600;
/// The contenders take turns, so that a noisy minute hits all of them.
const TURNS: usize = 3;

const ZIPF_TARGET: f64 = 1.5;

/// One way to decide what stays.
struct Contender {
    name: &'static str,
    signalbox: Signalbox,
    caller: Caller,
    lru: Option<Arc<Lru>>,
    measured: Measured,
}

#[derive(Debug, Default)]
struct Measured {
    took: Vec<Duration>,
    elapsed: Duration,
    loads: u64,
    failed: usize,
}

pub(super) async fn residency(mlflow: &Mlflow) {
    let cache = fresh_directory("cache");
    let mut contenders = vec![Contender::start("unlimited", mlflow, &cache, None, false).await];
    // Those that were called are measured each second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let largest = async || {
        let page = contenders[0].caller.models().await;
        let settled = page.models.iter().all(|model| model.state == "loaded" && model.calls > 0);
        settled.then(|| page.models.iter().filter_map(|model| model.memory).max().unwrap())
    };
    let largest = eventually("the sizes of all models", Duration::from_secs(10), largest).await;
    let limit = largest * ROOM as u64 + largest / 2;
    contenders.push(Contender::start("plain LRU, from outside", mlflow, &cache, None, true).await);
    contenders.push(Contender::start("signalbox", mlflow, &cache, Some(limit), false).await);

    let mebibyte = (1 << 20) as f64;
    println!(
        "\n{MODELS} models of at most {:.1} MiB, room for {ROOM} ({:.0} MiB), {CALLERS} callers, {REQUESTS} requests each",
        largest as f64 / mebibyte,
        limit as f64 / mebibyte
    );
    println!(
        "{:<34} {:>9} {:>9} {:>8} {:>11} {:>10} {:>7} {:>7}",
        "", "mean ms", "p95 ms", "ratio", "loads/min", "hits", "failed", "req/s"
    );
    for pattern in Pattern::ALL {
        let mut dice = Dice::new(20);
        let requests = (0..REQUESTS + REQUESTS / TURNS).map(|request| 1 + pattern.pick(request, MODELS, &mut dice));
        let requests: Vec<_> = requests.collect();
        let (before, requests) = requests.split_at(REQUESTS / TURNS);
        for contender in &mut contenders {
            contender.run(before).await;
            contender.measured = Measured::default();
        }
        let phases = Phases::scraped(&contenders[2].signalbox).await;
        for turn in requests.chunks(REQUESTS / TURNS) {
            for contender in &mut contenders {
                contender.run(turn).await;
            }
        }
        let unlimited = contenders[0].measured.mean();
        for contender in &contenders {
            contender.measured.print(&format!("{pattern:?}, {}", contender.name), unlimited);
        }
        Phases::scraped(&contenders[2].signalbox).await.since(&phases).print_loads();
        if matches!(pattern, Pattern::Zipf) {
            verdict("Zipf: signalbox / unlimited, mean", contenders[2].measured.mean() / unlimited, ZIPF_TARGET);
        }
    }
}

impl Contender {
    async fn start(name: &'static str, mlflow: &Mlflow, cache: &Path, limit: Option<u64>, lru: bool) -> Self {
        let mut hosting = hosting(mlflow, MODELS);
        cache.clone_into(&mut hosting.cache);
        if let Some(limit) = limit {
            hosting = hosting.models(&format!("memory_limit: {limit}B"));
        }
        let signalbox = hosting.start();
        let caller = Caller::of(&signalbox);
        let lru = lru.then(|| Arc::new(Lru::default()));
        let mut contender = Self { name, signalbox, caller, lru, measured: Measured::default() };
        contender.run(&(1..=MODELS).collect::<Vec<_>>()).await;
        contender.measured = Measured::default();
        contender
    }

    /// Has the callers take one request after the other.
    async fn run(&mut self, requests: &[usize]) {
        let loads = self.loads().await;
        let (requests, next): (Arc<[usize]>, _) = (requests.into(), Arc::new(AtomicUsize::new(0)));
        let begun = Instant::now();
        let callers = (0..CALLERS).map(|_| {
            let (caller, lru) = (self.caller.clone(), self.lru.clone());
            let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
            tokio::spawn(async move {
                let (mut took, mut failed) = (Vec::new(), 0);
                while let Some(number) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    if let Some(lru) = &lru {
                        lru.begin(&caller, *number).await;
                    }
                    let answer = caller.ask(&format!("model-{number}"), &payload()).await;
                    if let Some(lru) = &lru {
                        lru.end(*number);
                    }
                    took.push(begun.elapsed());
                    if answer.status != 200 {
                        failed += 1;
                        println!("  {}: model-{number}: {} {}", answer.status, answer.took.as_millis(), answer.text());
                    }
                }
                (took, failed)
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            let (took, failed) = caller.await.unwrap();
            self.measured.took.extend(took);
            self.measured.failed += failed;
        }
        self.measured.elapsed += begun.elapsed();
        self.measured.loads += self.loads().await - loads;
    }

    async fn loads(&self) -> u64 {
        self.caller.models().await.models.iter().map(|model| model.loads).sum()
    }
}

impl Measured {
    fn mean(&self) -> f64 {
        self.took.iter().map(|took| milliseconds(*took)).sum::<f64>() / self.took.len() as f64
    }

    fn print(&self, name: &str, unlimited: f64) {
        let mut took = self.took.clone();
        took.sort_unstable();
        let (mean, requests, elapsed) = (self.mean(), took.len() as f64, self.elapsed.as_secs_f64());
        println!(
            "{name:<34} {mean:>9.1} {:>9.1} {:>7.2}x {:>11.0} {:>9.1}% {:>7} {:>7.0}",
            milliseconds(at(&took, 0.95)),
            mean / unlimited,
            self.loads as f64 / elapsed * 60.0,
            100.0 * (1.0 - self.loads as f64 / requests),
            self.failed,
            requests / elapsed,
        );
    }
}

/// Keeps the models that were used last, and one that is in use whatever happens.
#[derive(Default)]
struct Lru {
    /// Those that are loaded, the least recently used first, and how many calls of each are under way.
    order: Mutex<VecDeque<(usize, usize)>>,
}

impl Lru {
    /// Before a request: makes room for its model, if that is not loaded.
    async fn begin(&self, caller: &Caller, number: usize) {
        let victim = {
            let mut order = self.order.lock().unwrap();
            let known = order.iter().position(|(loaded, _)| *loaded == number).and_then(|index| order.remove(index));
            order.push_back((number, known.map_or(0, |(_, calls)| calls) + 1));
            let is_full = order.len() > ROOM;
            let unused = order.iter().position(|(_, calls)| *calls == 0).filter(|_| is_full);
            unused.and_then(|index| order.remove(index))
        };
        if let Some((victim, _)) = victim {
            unload(caller, victim).await;
        }
    }

    /// After its answer.
    fn end(&self, number: usize) {
        let mut order = self.order.lock().unwrap();
        if let Some((_, calls)) = order.iter_mut().find(|(loaded, _)| *loaded == number) {
            *calls -= 1;
        }
    }
}

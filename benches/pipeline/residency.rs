//! Measures residency policies with more models than memory holds.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::models::{hosting, payload, registry, unload};
use super::phases::Phases;
use super::statistics::{at, milliseconds};
use super::support::{Caller, Dice, Mlflow, Pattern, Signalbox, eventually, fresh_directory};
use super::table::{Reach, Row};

const MODELS: usize = 20;
const ROOM: usize = 10;
/// Requests a second of the steady load, of which a machine of two cores can answer ten times as many.
const RATE: f64 = 30.0;
const CALLERS: usize = 4;
/// Requests of each pattern and kind of load.
const REQUESTS: usize = 300;
/// Number of turns of the contenders, so that a noisy minute hits all of them.
const TURNS: usize = 3;

const ZIPF_TARGET: Reach = Reach::AtMost(1.5);

/// Names one way to decide which models stay loaded.
struct Contender {
    name: &'static str,
    signalbox: Signalbox,
    caller: Caller,
    lru: Option<Arc<Lru>>,
    measured: Measured,
}

/// Names the times at which requests come.
#[derive(Debug, Clone, Copy)]
enum Arrivals {
    /// Requests come at random at a mean rate, whether earlier ones have been answered or not.
    Steady,
    /// Requests come as fast as a number of callers get their answers: the machine is never idle.
    Full,
}

#[derive(Debug, Default)]
struct Measured {
    took: Vec<Duration>,
    elapsed: Duration,
    loads: u64,
    failed: usize,
}

pub(super) fn run() -> Vec<Row> {
    let mlflow = registry(MODELS);
    Runtime::new().unwrap().block_on(residency(mlflow))
}

async fn residency(mlflow: &Mlflow) -> Vec<Row> {
    let mut rows = Vec::new();
    let cache = fresh_directory("cache");
    let mut contenders = vec![Contender::start("unlimited", mlflow, &cache, None, false).await];
    // Signalbox measures the memory of called models each second.
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
        "\n{MODELS} models of at most {:.1} MiB, room for {ROOM} ({:.0} MiB), {REQUESTS} requests each",
        largest as f64 / mebibyte,
        limit as f64 / mebibyte
    );
    for arrivals in [Arrivals::Steady, Arrivals::Full] {
        match arrivals {
            Arrivals::Steady => println!("\n{RATE} requests a second"),
            Arrivals::Full => println!("\n{CALLERS} callers, each its next request when it has the answer"),
        }
        println!(
            "{:<34} {:>9} {:>9} {:>8} {:>11} {:>10} {:>7} {:>7}",
            "", "mean ms", "p95 ms", "ratio", "loads/min", "hits", "failed", "req/s"
        );
        for pattern in Pattern::ALL {
            rows.extend(compare(&mut contenders, pattern, arrivals).await);
        }
    }
    rows
}

/// Has the contenders answer the same requests in turn.
async fn compare(contenders: &mut [Contender], pattern: Pattern, arrivals: Arrivals) -> Option<Row> {
    let mut dice = Dice::new(20);
    let requests = (0..REQUESTS + REQUESTS / TURNS).map(|request| 1 + pattern.pick(request, MODELS, &mut dice));
    let requests: Vec<_> = requests.collect();
    let (before, requests) = requests.split_at(REQUESTS / TURNS);
    for contender in &mut *contenders {
        contender.run(before, arrivals).await;
        contender.measured = Measured::default();
    }
    let phases = Phases::scraped(&contenders[2].signalbox).await;
    for turn in requests.chunks(REQUESTS / TURNS) {
        for contender in &mut *contenders {
            contender.run(turn, arrivals).await;
        }
    }
    let unlimited = contenders[0].measured.mean();
    for contender in &*contenders {
        contender.measured.print(&format!("{pattern:?}, {}", contender.name), unlimited);
    }
    Phases::scraped(&contenders[2].signalbox).await.since(&phases).print_loads();
    matches!((pattern, arrivals), (Pattern::Zipf, Arrivals::Steady)).then(|| Row {
        what: "mean latency, 20 models in room for 10, Zipf",
        against: "the same with room for all",
        ours: contenders[2].measured.mean(),
        theirs: unlimited,
        unit: "ms",
        reach: ZIPF_TARGET,
    })
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
        contender.run(&(1..=MODELS).collect::<Vec<_>>(), Arrivals::Full).await;
        contender.measured = Measured::default();
        contender
    }

    /// Requests these models, one after the other.
    async fn run(&mut self, requests: &[usize], arrivals: Arrivals) {
        let loads = self.loads().await;
        let begun = Instant::now();
        let took = match arrivals {
            Arrivals::Steady => self.at_a_rate(requests).await,
            Arrivals::Full => self.by_callers(requests).await,
        };
        for took in took {
            self.measured.failed += usize::from(took.is_none());
            self.measured.took.extend(took);
        }
        self.measured.elapsed += begun.elapsed();
        self.measured.loads += self.loads().await - loads;
    }

    /// Sends the requests, and returns the time of each from the moment at which it was due.
    async fn at_a_rate(&self, requests: &[usize]) -> Vec<Option<Duration>> {
        let mut dice = Dice::new(7);
        let mut due = Instant::now();
        let mut asking = Vec::with_capacity(requests.len());
        for number in requests {
            due += Duration::from_secs_f64(-f64::ln(1.0 - dice.fraction()) / RATE);
            tokio::time::sleep_until(due.into()).await;
            asking.push(tokio::spawn(ask(self.caller.clone(), self.lru.clone(), *number, due)));
        }
        let mut took = Vec::with_capacity(asking.len());
        for asking in asking {
            took.push(asking.await.unwrap());
        }
        took
    }

    async fn by_callers(&self, requests: &[usize]) -> Vec<Option<Duration>> {
        let (requests, next): (Arc<[usize]>, _) = (requests.into(), Arc::new(AtomicUsize::new(0)));
        let callers = (0..CALLERS).map(|_| {
            let (caller, lru) = (self.caller.clone(), self.lru.clone());
            let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while let Some(number) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    took.push(ask(caller.clone(), lru.clone(), *number, Instant::now()).await);
                }
                took
            })
        });
        let mut took = Vec::with_capacity(requests.len());
        for caller in callers.collect::<Vec<_>>() {
            took.extend(caller.await.unwrap());
        }
        took
    }

    async fn loads(&self) -> u64 {
        self.caller.models().await.models.iter().map(|model| model.loads).sum()
    }
}

/// Waits for the answer, and returns the time since the given moment; none if the answer is no prediction.
async fn ask(caller: Caller, lru: Option<Arc<Lru>>, number: usize, from: Instant) -> Option<Duration> {
    if let Some(lru) = &lru {
        lru.begin(&caller, number).await;
    }
    let answer = caller.ask(&format!("model-{number}"), &payload()).await;
    if let Some(lru) = &lru {
        lru.end(number);
    }
    let took = from.elapsed();
    if answer.status != 200 {
        println!("  {}: model-{number}: {} {}", answer.status, answer.took.as_millis(), answer.text());
        return None;
    }
    Some(took)
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

/// Keeps the most recently used models, and never unloads one that is in use.
#[derive(Default)]
struct Lru {
    /// The loaded models, the least recently used first, each with the number of its calls under way.
    order: Mutex<VecDeque<(usize, usize)>>,
}

impl Lru {
    /// Makes room for the model of a request that is about to be sent, if the model is not loaded.
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

    /// Notes the end of a call.
    fn end(&self, number: usize) {
        let mut order = self.order.lock().unwrap();
        if let Some((_, calls)) = order.iter_mut().find(|(loaded, _)| *loaded == number) {
            *calls -= 1;
        }
    }
}

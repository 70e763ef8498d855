//! The task that looks after canaries: reads where they stand, compares, and decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use xxhash_rust::xxh3::xxh3_64;

use super::ledger::{Ledger, News};
use super::policy::{Phase, Standing, Verdict, judge};
use super::statistics::{Mark, Sample, Statistics};
use super::{CanaryReport, Subject, Wish};
use crate::broker::Cluster;
use crate::config::Kafka;
use crate::telemetry::Metrics;

/// Each step is looked at so many times while it lasts.
const LOOKS: u32 = 20;
/// But neither more often nor more seldom than this.
const SOONEST: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(5);

/// What was written and has not come back is written again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What the task is told.
#[derive(Debug)]
pub(super) enum Order {
    Set(Vec<Subject>),
    Report(oneshot::Sender<Vec<CanaryReport>>),
    Ask(String, String, Wish, oneshot::Sender<bool>),
    Close(oneshot::Sender<()>),
}

/// The task.
pub(super) struct Watch {
    cluster: Arc<Cluster>,
    config: Kafka,
    metrics: Metrics,
    ledger: Option<Ledger>,
    /// Whether everything that had been written before has been read.
    caught_up: bool,
    /// Where canaries stand, those included that this instance does not have.
    held: BTreeMap<String, Standing>,
    watched: BTreeMap<String, Watched>,
}

/// A canary that this instance has.
#[derive(Debug)]
struct Watched {
    subject: Subject,
    /// The counters when it came to where it stands: its own first.
    marks: Vec<Mark>,
    marked_at: Instant,
    written: Option<(Standing, Instant)>,
    /// What the others did when they last had enough requests to be compared with: at 100 % they have none.
    usual: Option<Sample>,
    /// Where it stands, once its share is what it is there.
    held: Option<Standing>,
}

impl Watch {
    pub(super) fn new(cluster: Arc<Cluster>, config: Kafka, metrics: Metrics) -> Self {
        let (held, watched) = (BTreeMap::new(), BTreeMap::new());
        Self { cluster, config, metrics, ledger: None, caught_up: false, held, watched }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let (sender, mut news) = mpsc::unbounded_channel();
        let mut looks = interval(LATEST);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Set(subjects)) => {
                        self.set(subjects, &sender);
                        looks = interval(self.pace());
                        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                    Some(Order::Report(answer)) => drop(answer.send(self.report())),
                    Some(Order::Ask(endpoint, route, wish, answer)) => {
                        let _ = answer.send(self.ask(&endpoint, &route, wish));
                    }
                    Some(Order::Close(answer)) => {
                        self.close().await;
                        let _ = answer.send(());
                    }
                    None => return self.close().await,
                },
                Some(news) = news.recv() => match news {
                    News::Record(key, standing) => self.read(key, standing),
                    News::CaughtUp => self.catch_up(),
                },
                _ = looks.tick(), if self.caught_up => self.look(),
            }
        }
    }

    async fn close(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.close().await;
        }
    }

    /// As often as the one with the shortest steps needs it.
    fn pace(&self) -> Duration {
        let shortest = self.watched.values().map(|watched| watched.subject.canary.every / LOOKS).min();
        shortest.unwrap_or(LATEST).clamp(SOONEST, LATEST)
    }

    fn set(&mut self, subjects: Vec<Subject>, news: &mpsc::UnboundedSender<News>) {
        let mut before = std::mem::take(&mut self.watched);
        for subject in subjects {
            let key = key(&subject);
            let known = before.remove(&key).filter(|known| Arc::ptr_eq(&known.subject.own, &subject.own));
            let watched = match known {
                Some(known) if are_same(&known.subject.others, &subject.others) => Watched { subject, ..known },
                _ => Watched {
                    marks: marks(&subject),
                    marked_at: Instant::now(),
                    written: None,
                    usual: None,
                    held: None,
                    subject,
                },
            };
            self.watched.insert(key, watched);
        }
        for gone in before.into_values() {
            let labels = [&*gone.subject.endpoint, &*gone.subject.route];
            let _ = self.metrics.canary_share.remove_label_values(&labels);
        }
        if self.ledger.is_none() && !self.watched.is_empty() {
            match Ledger::open(&self.cluster, &self.config, news.clone()) {
                Ok(ledger) => self.ledger = Some(ledger),
                Err(error) => tracing::error!(%error, "canaries cannot be looked after: no thread can be started"),
            }
        }
        if self.caught_up {
            self.catch_up();
        }
    }

    /// It is known now where each of them stands. Those of which nothing is known begin.
    fn catch_up(&mut self) {
        self.caught_up = true;
        let keys: Vec<_> = self.watched.keys().cloned().collect();
        for key in keys {
            match self.held.get(&key) {
                Some(_) => self.hold(&key),
                None => self.write(&key, Standing::first(0, now())),
            }
        }
    }

    fn read(&mut self, key: String, standing: Standing) {
        match self.held.get(&key) {
            Some(held) if *held == standing => {}
            Some(held) if !standing.replaces(held) => {
                // Somebody did not know better. The topic keeps the last record of each key, so that must be the one
                // that holds.
                if self.caught_up
                    && let Some(ledger) = &self.ledger
                {
                    ledger.write(&key, held);
                }
            }
            _ => {
                self.held.insert(key.clone(), standing);
                if self.caught_up {
                    self.hold(&key);
                }
            }
        }
    }

    /// Has the share of a canary be what it is where it stands.
    fn hold(&mut self, key: &str) {
        let (Some(watched), Some(standing)) = (self.watched.get_mut(key), self.held.get(key)) else { return };
        let Subject { endpoint, route, canary, share: held, .. } = &watched.subject;
        let (before, share) = (held.get(), standing.share(canary));
        held.set(share);
        if watched.held.as_ref() == Some(standing) {
            // Only the configuration around it has changed.
            return;
        }
        watched.marks = marks(&watched.subject);
        watched.marked_at = Instant::now();
        watched.written = None;
        watched.held = Some(standing.clone());
        self.metrics.canary_share.with_label_values(&[endpoint, route]).set(share);
        let (from, to) = (100.0 * before, 100.0 * share);
        match standing.phase {
            Phase::Aborted => {
                let reason = standing.reason.as_deref();
                self.metrics.canary_aborts.with_label_values(&[endpoint, route]).inc();
                tracing::warn!(%endpoint, %route, from, reason, "canary is taken back");
            }
            Phase::Done => tracing::info!(%endpoint, %route, share = to, "canary has passed its last step"),
            Phase::Rolling => {
                tracing::info!(%endpoint, %route, from, to, step = standing.step, "canary's share moves");
            }
        }
    }

    /// Compares each canary with the others, and moves those that are due.
    fn look(&mut self) {
        let keys: Vec<_> = self.watched.keys().cloned().collect();
        for key in keys {
            let (Some(watched), Some(standing)) = (self.watched.get_mut(&key), self.held.get(&key)) else { continue };
            let (own, others) = watched.samples();
            let canary = &watched.subject.canary;
            if others.calls >= canary.abort_if.minimum_calls as u64 {
                watched.usual = Some(others);
            }
            let verdict = judge(&canary.abort_if, &own, &watched.usual.unwrap_or(others));
            let is_good = verdict == Verdict::Good;
            if let Some(next) = standing.next(canary, verdict, now()) {
                self.write(&key, next);
            } else if standing.phase == Phase::Done && is_good && watched.marked_at.elapsed() >= canary.every {
                // What it did long ago must not make up for what it does now.
                watched.marks = marks(&watched.subject);
                watched.marked_at = Instant::now();
            }
        }
    }

    fn write(&mut self, key: &str, standing: Standing) {
        let (Some(watched), Some(ledger)) = (self.watched.get_mut(key), &self.ledger) else { return };
        let is_under_way = watched.written.as_ref().is_some_and(|(written, at)| {
            (written.phase, written.step, written.generation) == (standing.phase, standing.step, standing.generation)
                && at.elapsed() < AGAIN_AFTER
        });
        if !is_under_way {
            ledger.write(key, &standing);
            watched.written = Some((standing, Instant::now()));
        }
    }

    fn ask(&mut self, endpoint: &str, route: &str, wish: Wish) -> bool {
        let named = |watched: &Watched| *watched.subject.endpoint == *endpoint && *watched.subject.route == *route;
        let Some(key) = self.watched.iter().find(|(_, watched)| named(watched)).map(|(key, _)| key.clone()) else {
            return false;
        };
        let Some(standing) = self.held.get(&key) else { return false };
        let next = match wish {
            Wish::Restart => Standing::first(standing.generation.saturating_add(1), now()),
            Wish::Abort => standing.aborted("an operator asked for it".to_owned(), now()),
        };
        self.write(&key, next);
        true
    }

    fn report(&self) -> Vec<CanaryReport> {
        let milliseconds = |duration: Duration| 1000.0 * duration.as_secs_f64();
        let report = |(key, watched): (&String, &Watched)| {
            let (own, others) = watched.samples();
            let subject = &watched.subject;
            CanaryReport {
                endpoint: Arc::clone(&subject.endpoint),
                route: Arc::clone(&subject.route),
                share: 100.0 * subject.share.get(),
                steps: subject.canary.steps.clone(),
                standing: self.held.get(key).cloned(),
                calls: own.calls,
                failures: own.failures,
                p95_ms: milliseconds(own.p95),
                others_p95_ms: milliseconds(others.p95),
            }
        };
        self.watched.iter().map(report).collect()
    }
}

impl Watched {
    /// What it did since it was marked, and what the others did.
    fn samples(&self) -> (Sample, Sample) {
        let now = marks(&self.subject);
        let pairs = || self.marks.iter().zip(&now);
        (Mark::sample(pairs().take(1)), Mark::sample(pairs().skip(1)))
    }
}

fn marks(subject: &Subject) -> Vec<Mark> {
    std::iter::once(&subject.own).chain(&subject.others).map(|statistics| statistics.mark()).collect()
}

fn are_same(one: &[Arc<Statistics>], other: &[Arc<Statistics>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// What a canary is called in the topic: another model or other steps make it another one.
fn key(subject: &Subject) -> String {
    let Subject { endpoint, route, model_uri, canary, .. } = subject;
    let definition = xxh3_64(format!("{model_uri} {:?}", canary.steps).as_bytes());
    format!("canary/{endpoint}/{route}/{definition:016x}")
}

/// Unix time in milliseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

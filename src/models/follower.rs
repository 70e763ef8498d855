//! Following the registry: when a URI comes to stand for another version, because a stage or an alias has moved or a
//! version was registered again under its number, that is loaded and tried before it takes calls.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Inner;
use super::host::Example;
use super::keeper::Leaving;
use super::lease::Hold;
use super::model::{Hosted, Model, Pending, Standing};
use super::registry::{Registration, Snapshot};
use super::uri::{Pick, Target};
use super::version::Version;
use crate::message::{Code, Fault, Stage};

/// After the first failure of a new version. It doubles with each one after that.
const FIRST_AGAIN: Duration = Duration::from_secs(10);

/// However often it has failed.
const LONGEST_AGAIN: Duration = Duration::from_secs(300);

/// How many registered models are asked about at the same time.
const QUESTIONS_AT_ONCE: usize = 8;

/// What was said about each registered model, so that an outage is told once.
#[derive(Debug, Default)]
pub(super) struct Outages(Mutex<HashSet<String>>);

impl Inner {
    /// Compares what URIs stand for with what takes calls, again and again. (When a registered model was last updated
    /// does not tell: moving an alias leaves that as it is.)
    pub(super) async fn follow(self: Arc<Self>) {
        let mut ticks = interval(self.refresh);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.refresh().await;
        }
    }

    async fn refresh(self: &Arc<Self>) {
        self.forget_unused();
        self.tend_pinned();
        let mut followed: BTreeMap<String, Vec<Arc<Model>>> = BTreeMap::new();
        for model in self.models() {
            if let Some((name, _)) = model.followed() {
                followed.entry(name.to_owned()).or_default().push(Arc::clone(&model));
            }
        }
        let asking = followed.into_iter().map(|(name, models)| async move {
            let picks = models.iter().filter_map(|model| model.followed()).map(|(_, pick)| pick.clone()).collect();
            let snapshot = self.registry.current(&name, &picks).await;
            let result = if snapshot.is_ok() { "ok" } else { "error" };
            self.metrics.registry_refreshes.with_label_values(&[result]).inc();
            match snapshot {
                Ok(snapshot) => {
                    self.outages.over(&name);
                    models.iter().for_each(|model| self.compare(model, &snapshot));
                }
                Err(fault) => self.outages.begun(&name, &fault),
            }
        });
        stream::iter(asking).for_each_concurrent(QUESTIONS_AT_ONCE, |asking| asking).await;
    }

    /// Has those loaded again that are to stay whatever happens, and that have left all the same.
    fn tend_pinned(self: &Arc<Self>) {
        for model in self.models() {
            let Standing::Hosted(hosted) = &model.standing else { continue };
            let gone = |version: &Version| {
                version.slot.get().is_none() && !version.slot.is_loading() && !version.history.was_sent_away()
            };
            if hosted.pinned && hosted.current.get().is_some_and(|current| gone(&current.0)) {
                let models = Arc::clone(self);
                self.spawn(async move {
                    // Why it failed is in the log, and shown by `GET /models`.
                    let _ = model.load(&models, false).await;
                });
            }
        }
    }

    fn compare(self: &Arc<Self>, model: &Arc<Model>, snapshot: &Snapshot) {
        let Standing::Hosted(hosted) = &model.standing else { return };
        let (Some((name, pick)), Some(current)) = (hosted.followed(), hosted.current.get()) else { return };
        let mut pending = hosted.pending();
        let running = current.0.registration();
        let picked = match snapshot.pick(pick) {
            Some(picked) if running.is_some_and(|running| picked.is(running)) => {
                *pending = None;
                return;
            }
            Some(picked) => picked,
            // Taken away altogether: what has answered until now goes on.
            None => {
                if pending.as_ref().is_none_or(|pending| pending.version.is_some()) {
                    let fault = names_nothing(&hosted.uri, &current.0.version);
                    tracing::warn!(model = %hosted.uri, "{}", fault.message);
                    let again = Instant::now();
                    *pending = Some(Pending { version: None, fault: Some(fault), again, failures: 0 });
                }
                return;
            }
        };
        let is_picked = |version: &Registration| version.is(picked);
        let before = pending.as_ref().filter(|pending| pending.version.as_ref().is_some_and(is_picked));
        if before.is_some_and(|pending| pending.fault.is_none() || Instant::now() < pending.again) {
            return;
        }
        let failures = before.map_or(0, |pending| pending.failures);
        let (from, to) = (&*current.0.version, &*picked.version);
        match failures {
            0 if from == to => {
                let provenance = &picked.provenance;
                tracing::info!(model = %hosted.uri, version = to, ?provenance, "model's version was registered again");
            }
            0 => tracing::info!(model = %hosted.uri, from, to, "model has moved in the registry"),
            _ => tracing::info!(model = %hosted.uri, version = to, failures, "model's new version is tried again"),
        }
        *pending = Some(Pending { version: Some(picked.clone()), fault: None, again: Instant::now(), failures });
        drop(pending);
        let (models, model, picked) = (Arc::clone(self), Arc::clone(model), picked.clone());
        let Ok(number) = picked.version.parse() else { return };
        let target = Target::Registered { name: name.to_owned(), pick: Pick::Version(number) };
        self.spawn(async move { models.switch(&model, &target, &picked).await });
    }

    /// Loads and tries the new version; only then it takes calls, and the old one goes when its last call has ended.
    async fn switch(self: &Arc<Self>, model: &Arc<Model>, target: &Target, picked: &Registration) {
        let Standing::Hosted(hosted) = &model.standing else { return };
        let result = self.tried(hosted, target, picked).await;
        let label = if result.is_ok() { "ok" } else { "error" };
        self.metrics.model_switches.with_label_values(&[label]).inc();
        match result {
            Ok((version, _hold)) => {
                let before = hosted.current.get();
                if !hosted.switch(&version) {
                    tracing::info!(model = %hosted.uri, version = &*version.version, "model has moved on in the registry");
                    return self.retire(&version, Leaving::Replaced);
                }
                tracing::info!(model = %hosted.uri, version = &*version.version, "model's new version takes its calls");
                version.pinned.fetch_or(hosted.pinned, Ordering::Relaxed);
                if let Some(before) = before {
                    self.retire(&before.0, Leaving::Replaced);
                }
            }
            Err(fault) => {
                let version = &*picked.version;
                tracing::warn!(model = %hosted.uri, version, %fault, "model's new version does not work; the old one goes on");
                let mut pending = hosted.pending();
                if let Some(pending) = pending.as_mut().filter(|pending| pending.version.as_ref() == Some(picked)) {
                    let delay = (FIRST_AGAIN * (1 << pending.failures.min(10))).min(LONGEST_AGAIN);
                    // Whoever lacks room knows better when to come back.
                    let delay = fault.retry_after.map_or(delay, |after| delay.min(after));
                    pending.failures = pending.failures.saturating_add(1);
                    pending.again = Instant::now() + delay;
                    pending.fault = Some(fault);
                }
            }
        }
    }

    /// A version that is loaded, and that has answered its own example if it has one.
    /// It is held, so that it is still there when it is switched to.
    async fn tried(
        self: &Arc<Self>,
        hosted: &Hosted,
        target: &Target,
        picked: &Registration,
    ) -> Result<(Arc<Version>, Hold), Fault> {
        let resolved = self.registry.resolve(target).await?;
        if !resolved.registration.is(picked) {
            let message = format!("{} was registered again while it was looked up", resolved.name);
            let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message);
            return Err(Fault { retry_after: Some(Duration::ZERO), ..fault });
        }
        let version = self.version_of(resolved.into(), &hosted.hosting);
        let loaded = version.loaded(self, true, None).await?;
        if let Some(Example::Failed(why)) = &loaded.report.proof.example {
            self.retire(&version, Leaving::Rejected);
            let message = format!("{} does not answer its own example: {why}", version.name);
            return Err(Fault::permanent(Code::ModelError, Stage::Load, message));
        }
        let hold = Hold::take(loaded, &self.keeper).ok_or_else(|| {
            let message = format!("{} was unloaded again at once, for memory is short", version.name);
            Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
        })?;
        Ok((version, hold))
    }

    /// Has a version go that no URI stands for any more.
    pub(super) fn retire(self: &Arc<Self>, version: &Version, why: Leaving) {
        let models = self.models();
        let mut standing = models.iter().filter_map(|model| match &model.standing {
            Standing::Hosted(hosted) if hosted.has(version) => Some(hosted.pinned),
            _ => None,
        });
        match standing.next() {
            Some(pinned) => version.pinned.store(pinned || standing.any(|pinned| pinned), Ordering::Relaxed),
            None => {
                version.pinned.store(false, Ordering::Relaxed);
                self.keeper.unload(version, why);
            }
        }
    }
}

impl Outages {
    fn begun(&self, name: &str, fault: &Fault) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            tracing::warn!(model = name, %fault, "the registry does not say what this model is; what it said before still holds");
        }
    }

    fn over(&self, name: &str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            tracing::info!(model = name, "the registry answers again");
        }
    }
}

fn names_nothing(uri: &super::ModelUri, version: &str) -> Fault {
    let message = format!("{uri} names no version any more; version {version} goes on");
    Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message)
}

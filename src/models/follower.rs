//! Follows the registry: when a URI comes to stand for another version, because a stage or an alias has moved or a
//! version was registered again under its number, the follower loads and tries that version before it takes calls.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::faults::{not_found, unavailable};
use super::host::ExampleResult;
use super::model::{HostedModel, Model, PendingVersion};
use super::registry::{PickedVersions, Registration};
use super::residency::UseGuard;
use super::serving::Serving;
use super::unload::UnloadReason;
use super::uri::{ModelTarget, VersionPick};
use super::version::Version;
use crate::invocation::Backoff;
use crate::message::{Code, Deadline, Fault, Stage};

/// Delays between the tries of a new version that fails.
const RETRIES: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(300) };

/// Registered models that are asked about at the same time; more would burden the registry at each refresh.
const CONCURRENT_QUERIES: usize = 8;

/// Compares the URIs' versions with the registry at each refresh, and switches URIs to their new versions.
pub(super) struct Follower {
    pub(super) serving: Arc<Serving>,
    /// Interval between two looks at the registry.
    pub(super) refresh: Duration,
    pub(super) outages: Outages,
}

/// Registered models that the registry does not answer about, so that an outage is logged once.
#[derive(Debug, Default)]
pub(super) struct Outages(Mutex<HashSet<String>>);

impl Follower {
    /// Follows the registry until Signalbox stops. (The time of a registered model's last update does not tell: moving
    /// an alias leaves that as it is.)
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = interval(self.refresh);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.refresh().await;
        }
    }

    async fn refresh(self: &Arc<Self>) {
        self.serving.catalog.forget_unused();
        self.reload_pinned();
        // URIs of one registered model are asked about together, so that a refresh costs one query a model.
        let mut followed: BTreeMap<String, Vec<Arc<Model>>> = BTreeMap::new();
        for model in self.serving.catalog.all() {
            if let Some((name, _)) = model.followed() {
                followed.entry(name.to_owned()).or_default().push(Arc::clone(&model));
            }
        }
        let queries = followed.into_iter().map(|(name, models)| async move {
            let picks = models.iter().filter_map(|model| model.followed()).map(|(_, pick)| pick.clone()).collect();
            let picked = self.serving.registry.current(&name, &picks).await;
            let result = if picked.is_ok() { "ok" } else { "error" };
            self.serving.metrics.registry_refreshes.with_label_values(&[result]).inc();
            match picked {
                Ok(picked) => {
                    self.outages.end(&name);
                    models.iter().for_each(|model| self.compare(model, &picked));
                }
                Err(fault) => self.outages.begin(&name, &fault),
            }
        });
        stream::iter(queries).for_each_concurrent(CONCURRENT_QUERIES, |query| query).await;
    }

    /// Loads the pinned versions again that are not loaded all the same, unless an operator unloaded them.
    fn reload_pinned(self: &Arc<Self>) {
        for model in self.serving.catalog.all() {
            let Some(hosted) = model.hosted() else { continue };
            let is_missing = |version: &Version| {
                version.loaded.get().is_none()
                    && !version.loaded.is_loading()
                    && *version.history.unload_reason.lock() != Some(UnloadReason::Operator)
            };
            if hosted.pinned && hosted.serving.get().is_some_and(|serving| is_missing(&serving)) {
                let serving = Arc::clone(&self.serving);
                self.serving.background.spawn(async move {
                    // The reason of a failure is in the log, and shown by `GET /models`.
                    let _ = serving.load_model(&model, false).await;
                });
            }
        }
    }

    /// Compares the version that takes a URI's calls with the version that the registry names, and begins a switch when
    /// they differ.
    fn compare(self: &Arc<Self>, model: &Arc<Model>, snapshot: &PickedVersions) {
        let Some(hosted) = model.hosted() else { return };
        let (Some((name, pick)), Some(serving)) = (model.followed(), hosted.serving.get()) else { return };
        let mut pending = hosted.pending.lock();
        let running = serving.registration();
        let picked = match snapshot.get(pick) {
            // Nothing has changed, or a change was taken back.
            Some(picked) if running.is_some_and(|running| picked.is(running)) => {
                *pending = None;
                return;
            }
            Some(picked) => picked,
            // The URI names no version any more: the version that has answered until now goes on.
            None => {
                if pending.as_ref().is_none_or(|pending| pending.version.is_some()) {
                    let (uri, version) = (&model.uri, &serving.version);
                    let fault = not_found(format!("{uri} names no version any more; version {version} goes on"));
                    tracing::warn!(model = %uri, "{}", fault.message);
                    let retry_at = Instant::now();
                    *pending = Some(PendingVersion { version: None, fault: Some(fault), retry_at, failures: 0 });
                }
                return;
            }
        };
        // A switch to this very version is under way, or has failed and is not due yet.
        let is_picked = |version: &Registration| version.is(picked);
        let before = pending.as_ref().filter(|pending| pending.version.as_ref().is_some_and(is_picked));
        if before.is_some_and(|pending| pending.fault.is_none() || Instant::now() < pending.retry_at) {
            return;
        }
        let failures = before.map_or(0, |pending| pending.failures);
        let (from, to) = (&*serving.version, &*picked.version);
        match failures {
            0 if from == to => {
                let provenance = &picked.provenance;
                tracing::info!(model = %model.uri, version = to, ?provenance, "model's version was registered again");
            }
            0 => tracing::info!(model = %model.uri, from, to, "model has moved in the registry"),
            _ => tracing::info!(model = %model.uri, version = to, failures, "model's new version is tried again"),
        }
        // The pending version is noted before the switch is spawned, so that the next refresh does not begin a second.
        let retry_at = Instant::now();
        *pending = Some(PendingVersion { version: Some(picked.clone()), fault: None, retry_at, failures });
        drop(pending);
        let (follower, model, picked) = (Arc::clone(self), Arc::clone(model), picked.clone());
        let Ok(number) = picked.version.parse() else { return };
        let target = ModelTarget::Registered { name: name.to_owned(), pick: VersionPick::Version(number) };
        self.serving.background.spawn(async move { follower.switch(&model, &target, &picked).await });
    }

    /// Loads and tries the new version; only then it takes calls, and the old one is unloaded when its last call has
    /// ended.
    async fn switch(self: &Arc<Self>, model: &Arc<Model>, target: &ModelTarget, picked: &Registration) {
        let Some(hosted) = model.hosted() else { return };
        let result = self.load_and_try(hosted, target, picked).await;
        let label = if result.is_ok() { "ok" } else { "error" };
        self.serving.metrics.model_switches.with_label_values(&[label]).inc();
        match result {
            Ok((version, _guard)) => {
                let before = hosted.serving.get();
                if !hosted.switch(&version) {
                    tracing::info!(model = %model.uri, version = &*version.version, "model has moved on in the registry");
                    return self.serving.unload_unless_serving(&version, UnloadReason::Replaced);
                }
                tracing::info!(model = %model.uri, version = &*version.version, "model's new version takes its calls");
                version.pinned.fetch_or(hosted.pinned, Ordering::Relaxed);
                if let Some(before) = before {
                    self.serving.unload_unless_serving(&before, UnloadReason::Replaced);
                }
            }
            Err(fault) => {
                let version = &*picked.version;
                tracing::warn!(model = %model.uri, version, %fault, "model's new version does not work; the old one goes on");
                let mut pending = hosted.pending.lock();
                if let Some(pending) = pending.as_mut().filter(|pending| pending.version.as_ref() == Some(picked)) {
                    pending.failures = pending.failures.saturating_add(1);
                    let delay = RETRIES.pause(pending.failures);
                    // A fault for want of room knows better when to come back.
                    let delay = fault.retry_after.map_or(delay, |after| delay.min(after));
                    pending.retry_at = Instant::now() + delay;
                    pending.fault = Some(fault);
                }
            }
        }
    }

    /// Returns a version that is loaded, and that has answered its own example if it has one. The guard keeps it loaded
    /// until it is switched to.
    async fn load_and_try(
        self: &Arc<Self>,
        hosted: &HostedModel,
        target: &ModelTarget,
        picked: &Registration,
    ) -> Result<(Arc<Version>, UseGuard), Fault> {
        let entry = self.serving.registry.resolve(target).await?;
        if !entry.registration.is(picked) {
            let fault = unavailable(format!("{} was registered again while it was looked up", entry.name));
            return Err(Fault { retry_after: Some(Duration::ZERO), ..fault });
        }
        let version = self.serving.versions.version_of(entry.into(), &hosted.hosting);
        let loaded = self.serving.loader.loaded(&version, true, Deadline::NONE).await?;
        if let Some(ExampleResult::Failed(why)) = &loaded.report.warm_up.example {
            self.serving.unload_unless_serving(&version, UnloadReason::Rejected);
            let message = format!("{} does not answer its own example: {why}", version.name);
            return Err(Fault::permanent(Code::ModelError, Stage::Load, message));
        }
        let guard = UseGuard::acquire(loaded, &self.serving.residency)
            .ok_or_else(|| unavailable(format!("{} was unloaded again at once, for memory is short", version.name)))?;
        Ok((version, guard))
    }
}

impl Outages {
    fn begin(&self, name: &str, fault: &Fault) {
        if self.0.lock().insert(name.to_owned()) {
            tracing::warn!(model = name, %fault, "the registry does not answer about this model; its last answer still holds");
        }
    }

    fn end(&self, name: &str) {
        if self.0.lock().remove(name) {
            tracing::info!(model = name, "the registry answers again");
        }
    }
}

//! Status of the models, as operators see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::Models;
use super::host::ExampleResult;
use super::model::Model;
use super::registry::Provenance;
use super::residency::ResidencyManager;
use super::serving::Serving;
use super::unload::UnloadReason;
use super::uri::redacted;
use super::version::Version;
use crate::config::Runtime;
use crate::invocation::row_independence::Voucher;
use crate::message::since_1970;

/// Reason that is shown for a served version: its joined calls would carry no headers of single requests.
const SERVED_SINGLY: &str = "`mlflow models serve` is called for several requests where a route has `batch:`";

/// Body of `GET /models`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The memory of all hosts together.
    pub memory: MemoryReport,
    /// Every version that takes calls, or is loaded.
    pub models: Vec<VersionReport>,
    /// Every URI that routes use, and the version behind it.
    pub following: Vec<FollowingReport>,
}

/// Private bytes of all hosts.
#[derive(Debug, Serialize)]
pub struct MemoryReport {
    /// The bytes that they may hold.
    pub limit: Option<u64>,
    /// The bytes that they hold, including those of loads and unloads under way.
    pub used: u64,
}

/// Status of one version.
#[derive(Debug, Serialize)]
pub struct VersionReport {
    /// Name of the version: `sentiment/3`, a logged model's id, or a directory.
    pub id: String,
    /// The place of a registered version's files when it was registered.
    pub source: Option<String>,
    /// The run that made it.
    pub run_id: Option<String>,
    /// The time of its registration, in Unix milliseconds: it tells two versions of one number apart.
    pub created: Option<u64>,
    /// `loaded`, `loading`, `unloaded` or `failed`.
    pub state: &'static str,
    /// The reason why it is not loaded.
    pub reason: Option<String>,
    /// Private bytes of its hosts as measured last, now or when it was loaded.
    pub memory: Option<u64>,
    /// The failure of its own example, when that got no prediction.
    pub example: Option<String>,
    /// The processes that hold it.
    pub pids: Vec<u32>,
    /// The number of its hosts when it is loaded.
    pub workers: usize,
    /// The number of calls that each host answers at once; none where the server decides on that.
    pub threads: Option<usize>,
    /// The interpreter.
    pub python: String,
    /// `forked` or `mlflow_serve`.
    pub runtime: Runtime,
    /// The number of calls under way, or waiting for a host.
    pub in_use: usize,
    /// The time of the last call, in Unix milliseconds.
    pub last_use: Option<u64>,
    /// The number of calls since the start of Signalbox, as are all counts that follow.
    pub calls: u64,
    /// The number of loads.
    pub loads: u64,
    /// The number of unloads.
    pub evictions: u64,
    /// The duration of the last load, without the download.
    pub load_seconds: Option<f64>,
    /// The URIs that stand for it now.
    pub serves: Vec<String>,
    /// True if the version is pinned.
    pub pinned: bool,
    /// The authority that says that it answers each row as if it were alone, so that its requests are joined into
    /// batches: `model`, `tag` or `route`.
    pub batched_by: Option<Voucher>,
    /// The reason why its requests are not joined into batches.
    pub singly: Option<String>,
    /// Each requirement that the interpreter does not meet.
    pub unmet: Vec<String>,
}

/// Status of one URI.
#[derive(Debug, Serialize)]
pub struct FollowingReport {
    /// The URI as configured.
    pub model_uri: String,
    /// The interpreter.
    pub python: String,
    /// `forked` or `mlflow_serve`.
    pub runtime: Runtime,
    /// The version that takes calls; none before the registry was asked.
    pub version: Option<Arc<str>>,
    /// The reason why the registry could not say which version it stands for.
    pub reason: Option<String>,
    /// The version that the registry names instead, while that does not take calls.
    pub pending: Option<PendingReport>,
}

/// Version that does not take calls, though the registry says it should.
#[derive(Debug, Serialize)]
pub struct PendingReport {
    /// The version; none when the URI names none any more.
    pub version: Option<Arc<str>>,
    /// The time of its registration, in Unix milliseconds.
    pub created: Option<u64>,
    /// The reason why it does not take calls; none while it is being loaded.
    pub reason: Option<String>,
}

impl Models {
    /// Reports the versions that are loaded, those that are not and why, and the version behind each URI.
    pub fn report(&self) -> Report {
        let Serving { catalog, versions, residency, .. } = &*self.serving;
        let (limit, used) = residency.memory();
        let (all, versions) = (catalog.all(), versions.all());
        let mut models: Vec<_> = versions.iter().map(|version| version_report(version, &all, residency)).collect();
        models.sort_by(|one, other| one.id.cmp(&other.id));
        let mut following: Vec<_> = all.iter().filter_map(|model| following_report(model)).collect();
        following.sort_by(|one, other| one.model_uri.cmp(&other.model_uri));
        Report { memory: MemoryReport { limit, used }, models, following }
    }
}

fn version_report(version: &Version, models: &[Arc<Model>], residency: &ResidencyManager) -> VersionReport {
    let ready = version.loaded.get();
    let broken = ready.as_ref().and_then(|loaded| loaded.broken().cloned());
    let failure = version.loaded.failure().or(broken);
    let loaded = ready.filter(|loaded| loaded.is_open());
    let (state, reason) = match (&loaded, failure) {
        (Some(_), _) => ("loaded", None),
        (None, _) if version.loaded.is_loading() => ("loading", None),
        (None, Some(fault)) => ("failed", Some(fault.message)),
        (None, None) => {
            let why = version.history.unload_reason.lock().map_or("nobody has called it", UnloadReason::in_words);
            ("unloaded", Some(why.to_owned()))
        }
    };
    let habit = version.usage.habit(residency.calls());
    let is_served = |model: &&Arc<Model>| model.hosted().is_some_and(|hosted| hosted.serves(version));
    let served: Vec<_> = models.iter().filter(is_served).collect();
    let provenance = version.registration().map(|registration| registration.provenance.clone());
    let Provenance { source, run_id, created } = provenance.unwrap_or_default();
    let by_route = served.iter().any(|model| model.is_vouched_for());
    let (batched_by, singly) = match version.hosting.runtime {
        Runtime::MlflowServe if !by_route => (None, Some(SERVED_SINGLY.to_owned())),
        Runtime::MlflowServe | Runtime::Forked => version.row_independence.report(by_route),
    };
    VersionReport {
        id: version.name.to_string(),
        source: source.map(|source| redacted(&source).into_owned()),
        run_id,
        created,
        state,
        reason,
        memory: Some(match &loaded {
            Some(loaded) => loaded.memory.load(Ordering::Relaxed),
            None => version.history.memory.load(Ordering::Relaxed),
        })
        .filter(|bytes| *bytes > 0),
        example: loaded.as_ref().and_then(|loaded| match &loaded.report.warm_up.example {
            Some(ExampleResult::Failed(why)) => Some(why.clone()),
            Some(ExampleResult::Answered) | None => None,
        }),
        pids: loaded.as_ref().map(|loaded| loaded.backend.pids()).unwrap_or_default(),
        workers: match version.hosting.runtime {
            Runtime::Forked => version.hosting.workers,
            Runtime::MlflowServe => 1,
        },
        threads: (version.hosting.runtime == Runtime::Forked).then_some(version.hosting.threads),
        python: version.hosting.python.clone(),
        runtime: version.hosting.runtime,
        in_use: loaded.as_ref().map_or(0, |loaded| loaded.uses.held()),
        last_use: habit.last_use.map(|last_use| unix_milliseconds(last_use, residency)),
        calls: habit.uses,
        loads: version.history.loads.load(Ordering::Relaxed),
        evictions: version.history.evictions.load(Ordering::Relaxed),
        load_seconds: loaded.as_ref().map(|loaded| loaded.load_cost.as_secs_f64()),
        serves: served.iter().map(|model| model.uri.to_string()).collect(),
        pinned: version.pinned.load(Ordering::Relaxed),
        batched_by,
        singly,
        unmet: loaded.map(|loaded| loaded.report.warm_up.unmet.clone()).unwrap_or_default(),
    }
}

fn unix_milliseconds(since_start: Duration, residency: &ResidencyManager) -> u64 {
    let ago = residency.now().saturating_sub(since_start);
    let then = since_1970().saturating_sub(ago);
    u64::try_from(then.as_millis()).unwrap_or(u64::MAX)
}

/// Reports what a URI stands for; none for a model that is not loaded here.
fn following_report(model: &Model) -> Option<FollowingReport> {
    let hosted = model.hosted()?;
    let pending = hosted.pending.lock().as_ref().map(|pending| PendingReport {
        version: pending.version.as_ref().map(|registration| Arc::clone(&registration.version)),
        created: pending.version.as_ref().and_then(|registration| registration.provenance.created),
        reason: pending.fault.as_ref().map(|fault| fault.message.clone()),
    });
    Some(FollowingReport {
        model_uri: model.uri.to_string(),
        python: hosted.hosting.python.clone(),
        runtime: hosted.hosting.runtime,
        version: hosted.serving.get().map(|serving| Arc::clone(&serving.version)),
        reason: hosted.serving.failure().map(|fault| fault.message),
        pending,
    })
}

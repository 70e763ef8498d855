//! Models as routes name them: all routes with the same URI and the same options share one.

use parking_lot::Mutex;
use std::sync::Arc;

use tokio::time::Instant;

use super::backend::ServerBackend;
use super::registry::Registration;
use super::single_flight::SingleFlight;
use super::uri::{ModelTarget, ModelUri, VersionPick};
use super::version::{Hosting, Version};
use crate::message::Fault;

/// Model behind one URI and one set of options.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) uri: ModelUri,
    pub(super) source: ModelSource,
    /// A token, held by each route that says that the model answers each row as if it were alone.
    pub(super) vouchers: Arc<()>,
}

/// Source of a model's answers.
#[derive(Debug)]
pub(super) enum ModelSource {
    /// The model that is built into Signalbox.
    Noop,
    /// A server that somebody else runs; or the reason why it cannot be called.
    Address(Result<Arc<ServerBackend>, Fault>),
    /// A version that is loaded here.
    Hosted(Box<HostedModel>),
}

/// URI that stands for one version now, and may stand for another later.
#[derive(Debug)]
pub(super) struct HostedModel {
    pub(super) hosting: Hosting,
    pub(super) pinned: bool,
    /// The version that takes calls. Empty until the registry was first asked.
    pub(super) serving: Arc<SingleFlight<Version>>,
    /// Version that the URI has come to stand for, and that does not take calls (yet).
    pub(super) pending: Mutex<Option<PendingVersion>>,
}

/// Version that a URI has come to stand for, and that does not take calls (yet).
#[derive(Debug, Clone)]
pub(super) struct PendingVersion {
    /// The registration; none when the URI names none any more.
    pub(super) version: Option<Registration>,
    /// The reason why it has not been switched to; none while it is being loaded.
    pub(super) fault: Option<Fault>,
    /// Time of the next try.
    pub(super) retry_at: Instant,
    pub(super) failures: u32,
}

impl Model {
    /// Returns the part of a model that is loaded here; none of another model.
    pub(super) fn hosted(&self) -> Option<&HostedModel> {
        match &self.source {
            ModelSource::Hosted(hosted) => Some(hosted),
            ModelSource::Noop | ModelSource::Address(_) => None,
        }
    }

    /// Returns the registered model and the pick to follow, once it is known what the URI stands for. Even a number can
    /// come to mean another version, once the model was deleted and registered again.
    pub(super) fn followed(&self) -> Option<(&str, &VersionPick)> {
        self.hosted()?.serving.get()?;
        match self.uri.target() {
            ModelTarget::Registered { name, pick } => Some((name, pick)),
            _ => None,
        }
    }

    /// Tells whether a route says that the model answers each row as if it were alone.
    pub(super) fn is_vouched_for(&self) -> bool {
        Arc::strong_count(&self.vouchers) > 1
    }
}

impl HostedModel {
    pub(super) fn new(hosting: Hosting, pinned: bool) -> Self {
        Self { hosting, pinned, serving: SingleFlight::empty(), pending: Mutex::default() }
    }

    /// Switches the calls to a version, unless the registry has named another since this version was sent for. Tells
    /// whether it did.
    pub(super) fn switch(&self, version: &Arc<Version>) -> bool {
        let mut pending = self.pending.lock();
        let expected = pending.as_ref().and_then(|pending| pending.version.as_ref());
        let expected = expected.zip(version.registration()).is_some_and(|(expected, ours)| expected.is(ours));
        if expected {
            self.serving.replace(Arc::clone(version));
            *pending = None;
        }
        expected
    }

    /// Tells whether this version takes the URI's calls.
    pub(super) fn serves(&self, version: &Version) -> bool {
        self.serving.get().is_some_and(|serving| serving.key == version.key)
    }
}

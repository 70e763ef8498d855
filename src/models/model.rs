//! What a model URI stands for, as everyone who asks for the same URI with the same options shares it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::registry::Registration;
use super::slot::{Found, Slot};
use super::uri::{ModelUri, Pick, Target};
use super::version::{Hosting, ServerSeats, Version};
use super::{Inner, until};
use crate::message::{Code, Fault, Stage};

/// What a model URI stands for.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) uri: ModelUri,
    pub(super) standing: Standing,
    /// Held by each route that says that it answers each row as if it were alone.
    pub(super) vouchers: Arc<()>,
}

/// Which kind of thing answers.
#[derive(Debug)]
pub(super) enum Standing {
    /// What is part of Signalbox.
    Noop,
    /// A server that somebody else runs; or why it cannot be called.
    Address(Result<Arc<ServerSeats>, Fault>),
    /// A version that is loaded here.
    Hosted(Box<Hosted>),
}

/// A URI that stands for one version now, and may stand for another later.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) uri: ModelUri,
    pub(super) hosting: Hosting,
    pub(super) pinned: bool,
    /// The version that takes calls. Empty until the registry was first asked.
    pub(super) current: Arc<Slot<Current>>,
    pending: Mutex<Option<Pending>>,
}

/// The version that takes calls.
#[derive(Debug)]
pub(super) struct Current(pub(super) Arc<Version>);

/// A version that a URI has come to stand for, and that does not take calls (yet).
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// None when the URI names none any more.
    pub(super) version: Option<Registration>,
    /// Why it has not been switched to; None while it is being loaded.
    pub(super) fault: Option<Fault>,
    /// When it is tried again.
    pub(super) again: Instant,
    pub(super) failures: u32,
}

impl Model {
    /// The registered model and the pick that it is followed by, once it is known what it stands for.
    pub(super) fn followed(&self) -> Option<(&str, &Pick)> {
        let Standing::Hosted(hosted) = &self.standing else { return None };
        hosted.current.get().and_then(|_| hosted.followed())
    }

    /// Whether a route says that it answers each row as if it were alone.
    pub(super) fn is_vouched_for(&self) -> bool {
        Arc::strong_count(&self.vouchers) > 1
    }

    /// Has it loaded, if it is one that is loaded here. `urgent` when somebody waits.
    pub(super) async fn load(self: &Arc<Self>, models: &Arc<Inner>, urgent: bool) -> Result<(), Fault> {
        let Standing::Hosted(hosted) = &self.standing else { return Ok(()) };
        let version = hosted.version(self, models, None).await?;
        version.loaded(models, urgent, None).await.map(drop)
    }
}

impl Hosted {
    pub(super) fn new(uri: ModelUri, hosting: Hosting, pinned: bool) -> Self {
        Self { uri, hosting, pinned, current: Slot::empty(), pending: Mutex::default() }
    }

    /// The version that takes calls; the first who asks has the registry asked.
    pub(super) async fn version(
        &self,
        model: &Arc<Model>,
        models: &Arc<Inner>,
        deadline: Option<Instant>,
    ) -> Result<Arc<Version>, Fault> {
        if let Some(current) = self.current.get() {
            return Ok(Arc::clone(&current.0));
        }
        let waiting = match self.current.find(Instant::now()) {
            Found::Ready(current) => return Ok(Arc::clone(&current.0)),
            Found::Failed(fault) => return Err(fault),
            Found::Loading(waiting) => waiting,
            Found::Missing(resolving, waiting) => {
                models.spawn_resolve(Arc::clone(model), resolving);
                waiting
            }
        };
        let resolved = until(deadline, waiting.outcome()).await.unwrap_or_else(|| {
            let message = format!("the registry had not said what {} is when time was up", self.uri);
            Err(Fault::passing(Code::DeadlineExceeded, Stage::Load, message))
        });
        resolved.map(|current| Arc::clone(&current.0))
    }

    /// The registered model and the pick, when that can come to mean another version: even a number can, once the model
    /// was deleted and registered again.
    pub(super) fn followed(&self) -> Option<(&str, &Pick)> {
        match self.uri.target() {
            Target::Registered { name, pick } => Some((name, pick)),
            _ => None,
        }
    }

    /// From now on this version takes the calls, unless the registry has said something else since it was sent for.
    /// Tells whether it does.
    pub(super) fn switch(&self, version: &Arc<Version>) -> bool {
        let mut pending = self.pending();
        let expected = pending.as_ref().and_then(|pending| pending.version.as_ref());
        let expected = expected.zip(version.registration()).is_some_and(|(expected, it)| expected.is(it));
        if expected {
            self.current.put(Arc::new(Current(Arc::clone(version))));
            *pending = None;
        }
        expected
    }

    /// Whether this version takes the calls.
    pub(super) fn has(&self, version: &Version) -> bool {
        self.current.get().is_some_and(|current| current.0.key == version.key)
    }

    /// The version that is on its way in, or cannot come.
    pub(super) fn pending(&self) -> MutexGuard<'_, Option<Pending>> {
        // Nothing panics while it is held.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

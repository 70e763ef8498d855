//! The right to call a model, which is loaded while it is held.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::loader::Loaded;
use super::slot::{Found, Slot};
use super::uri::ModelUri;
use crate::invocation::{Backend, Call};
use crate::message::{Code, Fault, Reply, Stage};

/// One model, as everyone who asks for the same URI with the same options shares it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) uri: ModelUri,
    pub(super) python: String,
    pub(super) slot: Arc<Slot<Loaded>>,
    pub(super) max_concurrency: usize,
    /// None where nothing needs to be limited.
    pub(super) permits: Option<Arc<Semaphore>>,
}

/// A model that can be called. Cheap to clone; nothing is loaded for its sake.
#[derive(Debug, Clone)]
pub struct ModelHandle {
    pub(super) model: Arc<Model>,
    pub(super) models: Arc<Inner>,
}

/// The right to make one call of a model. While it is held the model stays loaded, and one of its `max_concurrency`
/// places is taken.
#[derive(Debug)]
pub struct Lease {
    model: Arc<Model>,
    loaded: Arc<Loaded>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl ModelHandle {
    /// The model's URI as configured.
    pub fn uri(&self) -> &ModelUri {
        &self.model.uri
    }

    /// How many calls are under way.
    pub fn in_use(&self) -> usize {
        self.model.permits.as_ref().map_or(0, |permits| self.model.max_concurrency - permits.available_permits())
    }

    /// Waits until the model is loaded and one of its places is free, and takes that. The first who asks has it
    /// loaded; the load goes on when nobody waits for it any longer. Without a deadline this waits for as long as
    /// loading, and then the calls of others, may take.
    pub async fn lease(&self, deadline: Option<Instant>) -> Result<Lease, Fault> {
        let model = &self.model;
        loop {
            let loaded = match model.slot.get() {
                Some(loaded) if !loaded.is_gone() => loaded,
                gone => self.load(gone, deadline).await?,
            };
            let permit = model.permit(deadline).await?;
            // Its host may have ended while we waited for a place.
            if !loaded.is_gone() {
                return Ok(Lease { model: Arc::clone(model), loaded, _permit: permit });
            }
        }
    }

    async fn load(&self, gone: Option<Arc<Loaded>>, deadline: Option<Instant>) -> Result<Arc<Loaded>, Fault> {
        let model = &self.model;
        if self.models.loader.closing.is_cancelled() {
            return Err(Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "Signalbox is stopping"));
        }
        if let Some(gone) = gone {
            model.slot.remove(&gone);
        }
        let waiting = match model.slot.find(Instant::now()) {
            Found::Ready(loaded) => return Ok(loaded),
            Found::Failed(fault) => return Err(fault),
            Found::Loading(waiting) => waiting,
            Found::Missing(loading, waiting) => {
                self.models.spawn_load(Arc::clone(model), loading);
                waiting
            }
        };
        until(deadline, waiting.outcome()).await.unwrap_or_else(|| {
            let message =
                format!("{} was still being loaded when the request's time was up; it goes on loading", model.uri);
            Err(Fault::passing(Code::DeadlineExceeded, Stage::Load, message))
        })
    }
}

impl Model {
    async fn permit(&self, deadline: Option<Instant>) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        let Some(permits) = &self.permits else { return Ok(None) };
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Ok(Some(permit));
        }
        // It is never closed.
        let acquired = until(deadline, Arc::clone(permits).acquire_owned()).await;
        acquired.map(Result::ok).ok_or_else(|| {
            let message = format!(
                "all {} places of {} were taken until the request's time was up",
                self.max_concurrency, self.uri
            );
            Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
        })
    }
}

impl Lease {
    /// Which version of the model answers.
    pub fn version(&self) -> &Arc<str> {
        &self.loaded.version
    }

    /// Calls the model, and waits for its answer.
    pub async fn invoke(&self, call: Call<'_>) -> Result<Reply, Fault> {
        match self.loaded.backend.invoke(call).await {
            Ok(reply) => Ok(reply),
            Err(failure) => {
                if failure.disconnected {
                    self.look_after_host().await;
                }
                Err(failure.fault)
            }
        }
    }

    /// A server that no longer listens is gone, even if we have not been told yet: the next lease starts it again.
    async fn look_after_host(&self) {
        let (Some(host), Backend::Http(backend)) = (&self.loaded.host, &self.loaded.backend) else { return };
        if !backend.is_listening().await && host.stop() {
            let model = &**self.model.uri.text();
            tracing::warn!(model, "model's server is not there any longer; the next request starts it again");
        }
    }
}

async fn until<T>(deadline: Option<Instant>, what: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, what).await.ok(),
        None => Some(what.await),
    }
}

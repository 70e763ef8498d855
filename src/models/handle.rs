//! Handles by which routes lease their models.

use std::sync::{Arc, LazyLock};

use super::backend::{Backend, ServerBackend};
use super::call::CallKind;
use super::lease::{Lease, LeasedBackend};
use super::loaded_version::LoadedVersion;
use super::model::{HostedModel, Model, ModelSource};
use super::residency::UseGuard;
use super::serving::Serving;
use super::unload::UnloadReason;
use super::uri::ModelUri;
use super::version::Version;
use crate::config::Runtime;
use crate::invocation::row_independence::RowIndependence;
use crate::message::{Deadline, Fault, Step};

/// Version of the model that is built into Signalbox.
static BUILTIN: LazyLock<Arc<str>> = LazyLock::new(|| "builtin".into());

/// Version of a model at an address, where nobody knows which it is.
static EXTERNAL: LazyLock<Arc<str>> = LazyLock::new(|| "external".into());

/// Trust in the built-in model, which is called with one request at a time, so that there is nothing to trust.
static BUILTIN_INDEPENDENCE: LazyLock<Arc<RowIndependence>> = LazyLock::new(Arc::default);

/// Handle of a model that can be called. Cloning it is cheap, and loads nothing.
#[derive(Debug, Clone)]
pub struct ModelHandle {
    pub(super) model: Arc<Model>,
    pub(super) serving: Arc<Serving>,
    pub(super) _voucher: Option<Arc<()>>,
}

impl ModelHandle {
    /// Returns the model's URI as configured.
    pub fn uri(&self) -> &ModelUri {
        &self.model.uri
    }

    /// Returns the number of places: calls of the model that run at once.
    pub fn places(&self) -> usize {
        match &self.model.source {
            ModelSource::Noop => usize::MAX,
            ModelSource::Address(backend) => backend.as_ref().map_or(1, |backend| backend.concurrency),
            ModelSource::Hosted(hosted) => hosted.hosting.concurrency,
        }
    }

    /// Tells whether the model's processes are forked here.
    pub fn is_forked(&self) -> bool {
        self.model.hosted().is_some_and(|hosted| hosted.hosting.runtime == Runtime::Forked)
    }

    /// Returns the handle for a route that says that the model answers each row as if it were alone.
    pub fn vouched_for(mut self) -> Self {
        self._voucher = Some(Arc::clone(&self.model.vouchers));
        self
    }

    /// Tells whether it is known that requests to the model may not be joined; `by_route` when the route vouches that
    /// they may.
    pub fn is_called_singly(&self, by_route: bool) -> bool {
        let serving = self.model.hosted().and_then(|hosted| hosted.serving.get());
        serving.is_some_and(|serving| serving.row_independence.is_called_singly(by_route))
    }

    /// Waits until the model is loaded and a place is free, and takes that place. The first caller has the model
    /// loaded. Without a deadline this waits for as long as loading, and then the calls of others, may take.
    ///
    /// # Errors
    ///
    /// The fault of resolving or loading the model, or `DEADLINE_EXCEEDED`.
    pub async fn lease(&self, deadline: Deadline) -> Result<Lease, Fault> {
        self.lease_as(CallKind::Request, deadline).await
    }

    /// Leases the model for a request whose call is to be the only one in its process, which may not survive it.
    ///
    /// # Errors
    ///
    /// The same as of [`ModelHandle::lease`].
    pub async fn lease_alone(&self, deadline: Deadline) -> Result<Lease, Fault> {
        self.lease_as(CallKind::Alone, deadline).await
    }

    /// Leases the model for a call that nobody waits for: it takes only a place that no request waits for, never the
    /// last free place of several, and models that requests wait for are loaded before it.
    ///
    /// # Errors
    ///
    /// The same as of [`ModelHandle::lease`].
    pub async fn spare_lease(&self, deadline: Deadline) -> Result<Lease, Fault> {
        self.lease_as(CallKind::Spare, deadline).await
    }

    async fn lease_as(&self, kind: CallKind, deadline: Deadline) -> Result<Lease, Fault> {
        match &self.model.source {
            ModelSource::Noop => Ok(Lease::new(&BUILTIN, LeasedBackend::Noop, None, Arc::clone(&BUILTIN_INDEPENDENCE))),
            ModelSource::Address(backend) => {
                let backend = backend.as_ref().map_err(Clone::clone)?;
                let leased = self.lease_server(backend, kind, deadline).await?;
                Ok(Lease::new(&EXTERNAL, leased, None, Arc::clone(&backend.row_independence)))
            }
            // In a box, as the calls of a host are, so that requests which are not at a model stay small.
            ModelSource::Hosted(hosted) => Box::pin(self.lease_hosted(hosted, kind, deadline)).await,
        }
    }

    /// Leases the version that takes the model's calls; begins again when another version takes its place meanwhile, or
    /// when it is unloaded before the lease is had.
    async fn lease_hosted(&self, hosted: &HostedModel, kind: CallKind, deadline: Deadline) -> Result<Lease, Fault> {
        let Serving { loader, residency, .. } = &*self.serving;
        let mut counted = None;
        loop {
            let version = self.serving.version(&self.model, hosted, deadline).await?;
            // A call counts once for each version, however often it has to begin again.
            if counted.replace(version.key) != Some(version.key) {
                version.usage.used(residency.now(), residency.count_call());
            }
            let loaded = loader.loaded(&version, kind != CallKind::Spare, deadline).await;
            if !hosted.serves(&version) {
                // Another version took its place while it was loaded: nobody is going to call it.
                self.serving.unload_unless_serving(&version, UnloadReason::Replaced);
                continue;
            }
            if let Some(lease) = self.lease_loaded(&version, loaded?, kind, deadline).await? {
                return Ok(lease);
            }
        }
    }

    /// Leases a loaded version; none when it is being unloaded, or its hosts are gone: then it has to be loaded again.
    async fn lease_loaded(
        &self,
        version: &Version,
        loaded: Arc<LoadedVersion>,
        kind: CallKind,
        deadline: Deadline,
    ) -> Result<Option<Lease>, Fault> {
        let Some(guard) = UseGuard::acquire(loaded, &self.serving.residency) else { return Ok(None) };
        let leased = match &guard.loaded().backend {
            Backend::Hosts(pool) => {
                match deadline.until(pool.acquire(kind)).await.ok_or_else(|| self.all_taken(deadline))? {
                    Some(host) => LeasedBackend::Host(host),
                    None => return Ok(None),
                }
            }
            Backend::Server(backend) => self.lease_server(backend, kind, deadline).await?,
        };
        if guard.loaded().broken().is_some() {
            return Ok(None);
        }
        let row_independence = Arc::clone(&version.row_independence);
        Ok(Some(Lease::new(&version.version, leased, Some(guard), row_independence)))
    }

    async fn lease_server(
        &self,
        backend: &Arc<ServerBackend>,
        kind: CallKind,
        deadline: Deadline,
    ) -> Result<LeasedBackend, Fault> {
        let all = u32::try_from(backend.concurrency).unwrap_or(u32::MAX);
        let wanted = if kind == CallKind::Alone && backend.server.is_some() { all } else { 1 };
        let permit = async {
            kind.wait(|| Some((backend.permits.available_permits(), backend.concurrency))).await;
            Arc::clone(&backend.permits).acquire_many_owned(wanted).await
        };
        // The semaphore is never closed.
        let permit = deadline.until(permit).await.and_then(Result::ok);
        let permit = permit.ok_or_else(|| self.all_taken(deadline))?;
        Ok(LeasedBackend::Server { backend: Arc::clone(backend), _permit: permit })
    }

    fn all_taken(&self, deadline: Deadline) -> Fault {
        deadline.fault(Step::Place(self.model.uri.text()))
    }
}

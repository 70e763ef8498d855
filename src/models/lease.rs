//! The right to call a model, which is loaded while it is held.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::keeper::{Keeper, Leaving};
use super::model::{Hosted, Model, Standing};
use super::pool::{self, NoSeat};
use super::uri::ModelUri;
use super::version::{Loaded, Seats, ServerSeats, Version};
use super::{Inner, until};
use crate::config::Runtime;
use crate::invocation::body::Signature;
use crate::invocation::trust::Trust;
use crate::invocation::{self, Answers, Call, LARGEST_REPLY, Several};
use crate::message::{Code, Fault, Reply, Stage};

/// The version of what is part of Signalbox.
static BUILTIN: LazyLock<Arc<str>> = LazyLock::new(|| "builtin".into());

/// The version of what serves at an address, where nobody knows which it is.
static EXTERNAL: LazyLock<Arc<str>> = LazyLock::new(|| "external".into());

/// What is part of Signalbox is called singly, so there is nothing to trust.
static NOBODY: LazyLock<Arc<Trust>> = LazyLock::new(Arc::default);

/// A model that can be called. Cheap to clone; nothing is loaded for its sake.
#[derive(Debug, Clone)]
pub struct ModelHandle {
    pub(super) model: Arc<Model>,
    pub(super) models: Arc<Inner>,
    pub(super) _voucher: Option<Arc<()>>,
}

/// The right to call a model, once at a time. While it is held the model stays loaded, and what answers it is its own.
#[derive(Debug)]
pub struct Lease {
    version: Arc<str>,
    // Given back before the hold ends: whoever waits for the end of all holds finds every host idle.
    seat: Seat,
    hold: Option<Hold>,
    trust: Arc<Trust>,
    /// Bytes of the largest answer that is read.
    largest_answer: usize,
}

#[derive(Debug)]
enum Seat {
    Host(pool::Seat),
    Server { seats: Arc<ServerSeats>, _permit: OwnedSemaphorePermit },
    Noop,
}

/// What a place is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// A request, which waits in the order of its coming.
    Request,
    /// A request that may be the death of what it is called with: it waits like any other, and then until no other call is
    /// in the same process.
    Alone,
    /// A call that nobody waits for.
    Spare,
}

/// How often a call that nobody waits for looks whether there is a place for it.
const SPARE_POLL: Duration = Duration::from_millis(5);

impl Claim {
    /// Waits until it may ask for a place, of which `free` tells how many may be taken and how many there are, or none if
    /// there are none any more; a request may at once.
    ///
    /// It does not queue for a place: whoever comes later, and is waited for, goes first. Between looking and taking,
    /// somebody may come; then it is the one call that is ahead of a request.
    pub(super) async fn wait(self, free: impl Fn() -> Option<(usize, usize)>) {
        while self == Self::Spare && free().is_some_and(|(free, places)| free <= usize::from(places > 1)) {
            sleep(SPARE_POLL).await;
        }
    }
}

/// Why a call got no prediction.
#[derive(Debug, Clone)]
pub struct CallFailure {
    /// What the caller is told.
    pub fault: Fault,
    /// Whether the process that was to answer is gone, through no fault of the request's as far as is known: another
    /// lease gets another process.
    pub crashed: bool,
    /// Whether other calls were in the process that is gone, so that it may be one of them that it did not survive.
    pub in_company: bool,
    /// Whether there was no connection to what was to answer, or it broke.
    pub disconnected: bool,
}

/// Keeps a version loaded.
#[derive(Debug)]
pub(super) struct Hold {
    loaded: Arc<Loaded>,
    keeper: Arc<Keeper>,
}

impl ModelHandle {
    /// The model's URI as configured.
    pub fn uri(&self) -> &ModelUri {
        &self.model.uri
    }

    /// How many calls of it run at once.
    pub fn places(&self) -> usize {
        match &self.model.standing {
            Standing::Noop => usize::MAX,
            Standing::Address(seats) => seats.as_ref().map_or(1, |seats| seats.concurrency),
            Standing::Hosted(hosted) => hosted.hosting.concurrency,
        }
    }

    /// Whether its processes are forked here.
    pub fn is_forked(&self) -> bool {
        matches!(&self.model.standing, Standing::Hosted(hosted) if hosted.hosting.runtime == Runtime::Forked)
    }

    /// The same for a route that says that the model answers each row as if it were alone.
    pub fn vouched_for(mut self) -> Self {
        self._voucher = Some(Arc::clone(&self.model.vouchers));
        self
    }

    /// Whether it is known that requests for it do not go together, unless the route vouches for it and it is so asked.
    pub fn is_called_singly(&self, by_route: bool) -> bool {
        let Standing::Hosted(hosted) = &self.model.standing else { return false };
        hosted.current.get().is_some_and(|current| current.0.trust.is_called_singly(by_route))
    }

    /// Waits until the model is loaded and something is free to answer, and takes that. The first who asks has it
    /// loaded. Without a deadline this waits for as long as loading, and then the calls of others, may take.
    pub async fn lease(&self, deadline: Option<Instant>) -> Result<Lease, Fault> {
        self.lease_as(Claim::Request, deadline).await
    }

    /// The same for a request whose call is to be the only one in its process, which may not survive it.
    pub async fn lease_alone(&self, deadline: Option<Instant>) -> Result<Lease, Fault> {
        self.lease_as(Claim::Alone, deadline).await
    }

    /// The same for a call that nobody waits for: it takes only what nobody else waits for, never the last free place
    /// of several, and whatever requests wait for is loaded before it.
    pub async fn spare_lease(&self, deadline: Option<Instant>) -> Result<Lease, Fault> {
        self.lease_as(Claim::Spare, deadline).await
    }

    async fn lease_as(&self, claim: Claim, deadline: Option<Instant>) -> Result<Lease, Fault> {
        match &self.model.standing {
            Standing::Noop => {
                let trust = Arc::clone(&NOBODY);
                Ok(Lease::new(&BUILTIN, Seat::Noop, None, trust))
            }
            Standing::Address(at_hand) => {
                let seats = at_hand.as_ref().map_err(Clone::clone)?;
                let seat = self.server_seat(seats, claim, deadline).await?;
                Ok(Lease::new(&EXTERNAL, seat, None, Arc::clone(&seats.trust)))
            }
            // In a box, as calls of it are.
            Standing::Hosted(hosted) => Box::pin(self.hosted_lease(hosted, claim, deadline)).await,
        }
    }

    async fn hosted_lease(&self, hosted: &Hosted, claim: Claim, deadline: Option<Instant>) -> Result<Lease, Fault> {
        let mut asked = None;
        loop {
            let version = hosted.version(&self.model, &self.models, deadline).await?;
            if asked.replace(version.key) != Some(version.key) {
                let keeper = &self.models.keeper;
                version.usage.used(keeper.now(), keeper.count_call());
            }
            let loaded = version.loaded(&self.models, claim != Claim::Spare, deadline).await;
            if !hosted.has(&version) {
                // Another version took its place while it was loaded: nobody is going to call it.
                self.models.retire(&version, Leaving::Replaced);
                continue;
            }
            if let Some(lease) = self.take(&version, loaded?, claim, deadline).await? {
                return Ok(lease);
            }
        }
    }

    /// None when it is on its way out, or its hosts are gone: then it has to be loaded again.
    async fn take(
        &self,
        version: &Version,
        loaded: Arc<Loaded>,
        claim: Claim,
        deadline: Option<Instant>,
    ) -> Result<Option<Lease>, Fault> {
        let Some(hold) = Hold::take(loaded, &self.models.keeper) else { return Ok(None) };
        let seat = match &hold.loaded.seats {
            Seats::Hosts(pool) => match pool.seat(claim, deadline).await {
                Ok(seat) => Seat::Host(seat),
                Err(NoSeat::Gone) => return Ok(None),
                Err(NoSeat::TimeIsUp) => return Err(self.all_taken()),
            },
            Seats::Server(seats) => self.server_seat(seats, claim, deadline).await?,
        };
        if hold.loaded.broken().is_some() {
            return Ok(None);
        }
        let trust = Arc::clone(&version.trust);
        Ok(Some(Lease::new(&version.version, seat, Some(hold), trust)))
    }

    async fn server_seat(
        &self,
        seats: &Arc<ServerSeats>,
        claim: Claim,
        deadline: Option<Instant>,
    ) -> Result<Seat, Fault> {
        let all = u32::try_from(seats.concurrency).unwrap_or(u32::MAX);
        let wanted = if claim == Claim::Alone && seats.server.is_some() { all } else { 1 };
        let permit = async {
            claim.wait(|| Some((seats.permits.available_permits(), seats.concurrency))).await;
            Arc::clone(&seats.permits).acquire_many_owned(wanted).await
        };
        // It is never closed.
        let permit = until(deadline, permit).await.and_then(Result::ok);
        let permit = permit.ok_or_else(|| self.all_taken())?;
        Ok(Seat::Server { seats: Arc::clone(seats), _permit: permit })
    }

    fn all_taken(&self) -> Fault {
        let message = format!(
            "all places of {} were taken until time was up; give the route more `workers`, more `threads` or a higher \
             `max_concurrency`",
            self.model.uri
        );
        Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
    }
}

impl Lease {
    fn new(version: &Arc<str>, seat: Seat, hold: Option<Hold>, trust: Arc<Trust>) -> Self {
        Self { version: Arc::clone(version), seat, hold, trust, largest_answer: LARGEST_REPLY }
    }

    /// From now on no more bytes are read of an answer by HTTP.
    pub fn limit_answer(&mut self, bytes: usize) {
        self.largest_answer = bytes;
    }

    /// Which version of the model answers.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Whether the model is in a process of ours, which is ended when it does not answer in time.
    pub fn is_hosted(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether what answers can be called once more.
    pub fn is_usable(&self) -> bool {
        !matches!(&self.seat, Seat::Host(seat) if seat.is_lost())
    }

    /// What the model says of its input, if that is known.
    pub fn signature(&self) -> Option<&Arc<Signature>> {
        self.hold.as_ref().and_then(|hold| hold.loaded.report.signature.as_ref())
    }

    /// Whether this version answers each row as if it were alone.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Calls the model, and waits for its answer.
    pub async fn invoke(&mut self, call: &Call<'_>) -> Result<Reply, CallFailure> {
        self.invoke_for(call, Several::default()).await.map(|answers| answers.reply)
    }

    /// Calls the model for several requests. A host finds out which of them the model refuses, if any; what else answers
    /// refuses all of them or none.
    pub async fn invoke_for(&mut self, call: &Call<'_>, several: Several<'_>) -> Result<Answers, CallFailure> {
        match &mut self.seat {
            // In boxes, so that requests which are not at a model, most of those under way, do not carry the room for it.
            Seat::Host(seat) => Box::pin(seat.invoke(call, several)).await,
            Seat::Server { seats, .. } => Box::pin(seats.invoke(call, self.largest_answer)).await.map(Answers::from),
            Seat::Noop => Ok(invocation::noop().into()),
        }
    }
}

impl Hold {
    /// None when it is on its way out.
    pub(super) fn take(loaded: Arc<Loaded>, keeper: &Arc<Keeper>) -> Option<Self> {
        loaded.leases.take().then(|| {
            loaded.taken.store(true, Ordering::Relaxed);
            Self { loaded, keeper: Arc::clone(keeper) }
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.loaded.leases.give_back() {
            self.keeper.unused();
        }
    }
}

//! Pool of the hosts of one loaded version. Each host answers as many calls at once as it has threads; a host that is
//! lost is replaced.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::background::Background;
use super::call::{CallFailure, CallKind};
use super::faults::unavailable;
use super::host::{HostSpec, Late, LoadReport, Lost, ModelHost, Template};
use super::places::{Places, PoolHost};
use crate::invocation::{Answers, Backoff, Call, Several};
use crate::message::{Code, Fault, Stage};
use crate::telemetry::Metrics;

/// Crashes in a row, with no answer between, after which the hosts of a version are given up: it is not started again
/// at once.
const MOST_CRASHES: u32 = 4;

/// Delay of the restart after the second crash in a row; it doubles twice with each one after that.
const CRASH_DELAY: Duration = Duration::from_millis(100);

/// Delays until a host that could not be replaced is tried again, while there are others.
const FAILED_STARTS: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

/// Starts the hosts of one version.
#[derive(Debug, Clone)]
pub(super) struct HostStarter {
    pub(super) template: Arc<Template>,
    pub(super) spec: HostSpec,
    pub(super) background: Background,
    pub(super) metrics: Metrics,
}

/// Pool of the hosts of one loaded version.
#[derive(Debug)]
pub(super) struct HostPool {
    starter: HostStarter,
    runtime: Handle,
    /// Locked for the moment that it takes to take a place, or to give it back.
    places: Mutex<Places<Arc<ModelHost>, oneshot::Sender<PooledHost>>>,
    /// The process id of each host, idle or not.
    pids: Mutex<Vec<u32>>,
    crashes_in_a_row: AtomicU32,
    /// The reason why the pool has no hosts any more.
    broken: OnceLock<Fault>,
    /// Cancelled when no host is to be replaced any more.
    stopped: CancellationToken,
    /// The replacements that are under way.
    replacing: TaskTracker,
}

/// Place at a host of the pool, taken for one call.
#[derive(Debug)]
pub(super) struct PooledHost {
    pool: Arc<HostPool>,
    /// The host; none once the call goes on without its caller, and during the drop.
    host: Option<Arc<ModelHost>>,
    /// The number of crashes in a row when the place was taken: hosts that crash together count as one crash. None once a
    /// call for several requests has ended the host: each of them is called alone after that, and only that crash counts.
    crashes_before: Option<u32>,
}

impl HostStarter {
    async fn start(&self) -> Result<(ModelHost, LoadReport), Fault> {
        let spec = HostSpec { deadline: Instant::now() + self.spec.load_timeout, ..self.spec.clone() };
        ModelHost::start(&self.template, &spec).await
    }
}

impl HostPool {
    /// Starts so many hosts, and allows `at_once` calls of all of them at the same time. When one host cannot be
    /// started, the others have ended as well before this returns.
    pub(super) async fn start(
        starter: HostStarter,
        hosts: usize,
        at_once: usize,
    ) -> Result<(Arc<Self>, LoadReport), Fault> {
        // All hosts start at once, for each takes its time.
        let (mut started, mut failed) = (Vec::new(), None);
        for result in join_all((0..hosts.max(1)).map(|_| starter.start())).await {
            match result {
                Ok((host, report)) => started.push((Arc::new(host), report)),
                Err(fault) => failed = Some(fault),
            }
        }
        let (hosts, mut reports): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        // The version is loaded as a whole or not at all, so one failure ends the hosts that did start.
        if let Some(fault) = failed {
            end(&hosts).await;
            return Err(fault);
        }
        let pids = hosts.iter().map(|host| host.pid()).collect();
        let threads = starter.spec.threads.max(1);
        let places = Places::new(hosts, threads, at_once.max(1));
        let pool = Self {
            runtime: Handle::current(),
            places: Mutex::new(places),
            pids: Mutex::new(pids),
            crashes_in_a_row: AtomicU32::new(0),
            broken: OnceLock::new(),
            stopped: starter.background.closing.child_token(),
            replacing: TaskTracker::new(),
            starter,
        };
        Ok((Arc::new(pool), reports.swap_remove(0)))
    }

    /// Waits for a place at a host; none when the hosts are all gone, or are being ended.
    pub(super) async fn acquire(self: &Arc<Self>, kind: CallKind) -> Option<PooledHost> {
        let free = || {
            let places = self.places.lock();
            (!places.is_closed()).then(|| (places.free(), places.at_once()))
        };
        kind.wait(free).await;
        let alone = kind == CallKind::Alone;
        loop {
            let host = match self.request_place(alone)? {
                Ok(host) => host,
                Err(waiting) => waiting.await.ok()?,
            };
            // A host that ended while it was idle is replaced like any other, and the next place is taken.
            if !host.is_lost() {
                return Some(host);
            }
        }
    }

    /// Takes a place, or queues for one and returns the channel that brings it; none when the hosts are gone.
    fn request_place(self: &Arc<Self>, alone: bool) -> Option<Result<PooledHost, oneshot::Receiver<PooledHost>>> {
        let (asked, lost) = {
            let mut places = self.places.lock();
            if places.is_closed() {
                return None;
            }
            let asked = places.take(alone).ok_or_else(|| {
                let (sender, receiver) = oneshot::channel();
                places.wait(alone, sender);
                receiver
            });
            (asked, places.lost())
        };
        lost.into_iter().for_each(|host| self.lose(host, Some(self.crashes())));
        Some(asked.map(|host| self.pooled(host)))
    }

    fn pooled(self: &Arc<Self>, host: Arc<ModelHost>) -> PooledHost {
        PooledHost { pool: Arc::clone(self), host: Some(host), crashes_before: Some(self.crashes()) }
    }

    fn give_back(self: &Arc<Self>, host: &Arc<ModelHost>, was_late: bool, crashes_before: Option<u32>) {
        self.update(crashes_before, |places| places.give_back(host, was_late));
    }

    /// Changes the places, and then hands the free ones to the calls that wait for them.
    fn update(
        self: &Arc<Self>,
        crashes_before: Option<u32>,
        change: impl FnOnce(&mut Places<Arc<ModelHost>, oneshot::Sender<PooledHost>>),
    ) {
        let is_there = |waiter: &oneshot::Sender<PooledHost>| !waiter.is_closed();
        let (mut next, lost) = {
            let mut places = self.places.lock();
            change(&mut places);
            (places.next(is_there), places.lost())
        };
        lost.into_iter().for_each(|host| self.lose(host, crashes_before));
        while let Some((host, waiter)) = next {
            // A call that gives up just now drops the place, which passes it on.
            drop(waiter.send(self.pooled(host)));
            next = self.places.lock().next(is_there);
        }
    }

    /// Returns the reason why no host is left, when that is so.
    pub(super) fn broken(&self) -> Option<&Fault> {
        self.broken.get()
    }

    /// Lists the processes that hold the model now.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.pids.lock().clone()
    }

    /// Ends every host, and waits until their processes have gone. The caller sees to it that no lease is held.
    pub(super) async fn stop(&self) {
        self.places.lock().close();
        self.stopped.cancel();
        self.replacing.close();
        self.replacing.wait().await;
        let hosts = self.places.lock().clear();
        end(&hosts).await;
    }

    /// Counts and replaces a host that is gone, or is to be ended; so many crashes had there been in a row when it was
    /// called, if this one counts.
    fn lose(self: &Arc<Self>, host: Arc<ModelHost>, crashes_before: Option<u32>) {
        if !host.is_gone() && !host.is_spent() {
            // The calls that are left in the host have all run out of time, so nobody loses an answer.
            host.give_up();
        }
        let timed_out = host.has_timed_out();
        let reason = if timed_out { "timed_out" } else { "crashed" };
        self.starter.metrics.model_hosts_lost.with_label_values(&[reason]).inc();
        if let Some(before) = crashes_before.filter(|_| !timed_out) {
            let after = before.saturating_add(1);
            // Another call may have counted the same crash.
            let _ = self.crashes_in_a_row.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
        }
        // The version gets another host, unless it keeps losing them.
        let pool = Arc::clone(self);
        let replacing = self.replacing.track_future(async move {
            end(std::slice::from_ref(&host)).await;
            pool.pids.lock().retain(|pid| *pid != host.pid());
            drop(host);
            tokio::select! {
                () = pool.stopped.cancelled() => pool.places.lock().close(),
                () = pool.start_another() => {}
            }
        });
        self.starter.background.tasks.spawn_on(replacing, &self.runtime);
    }

    async fn start_another(self: &Arc<Self>) {
        let crashes = self.crashes();
        if crashes >= MOST_CRASHES {
            let shown = &self.starter.spec.shown;
            return self.give_up(unavailable(format!(
                "the process of {shown} ended {crashes} times in a row; it is started again in a while"
            )));
        }
        // The first crash in a row may be chance, so the host is replaced at once; further ones wait ever longer.
        if crashes > 1 {
            sleep(CRASH_DELAY * 4_u32.pow(crashes - 2)).await;
        }
        for failures in 1.. {
            match self.starter.start().await {
                Ok((host, _)) => {
                    self.pids.lock().push(host.pid());
                    return self.update(Some(self.crashes()), |places| places.add(Arc::new(host)));
                }
                // No host is left to answer: the version itself has failed, and its callers get the fault.
                Err(fault) if self.pids.lock().is_empty() => return self.give_up(fault),
                Err(fault) => {
                    tracing::warn!(model = &*self.starter.spec.shown, %fault, "a host cannot be replaced; others go on");
                }
            }
            sleep(FAILED_STARTS.pause(failures)).await;
        }
    }

    /// Gives all hosts up. The calls that wait learn the reason from the version, which asks the pool for it.
    fn give_up(&self, fault: Fault) {
        tracing::warn!(model = &*self.starter.spec.shown, %fault, "model's hosts are given up");
        let _ = self.broken.set(fault);
        self.stopped.cancel();
        self.places.lock().close();
    }

    fn crashes(&self) -> u32 {
        self.crashes_in_a_row.load(Ordering::Relaxed)
    }
}

impl PooledHost {
    /// Calls the model. Dropped before the answer is there, the host is lost, for nothing else stops the call.
    pub(super) async fn invoke(&mut self, call: &Call<'_>, several: Several<'_>) -> Result<Answers, CallFailure> {
        let Some(host) = self.host.clone() else {
            return Err(CallFailure { fault: gone(), crashed: true, disconnected: true, in_company: false });
        };
        let failure = match host.invoke(call, several).await {
            Ok(answers) => {
                self.pool.crashes_in_a_row.store(0, Ordering::Relaxed);
                return Ok(answers);
            }
            Err(failure) => failure,
        };
        if let Some(late) = failure.late {
            self.abandon_call(late);
        } else if failure.lost.is_none() {
            self.pool.crashes_in_a_row.store(0, Ordering::Relaxed);
        }
        let crashed = matches!(failure.lost, Some(Lost::Ended { .. } | Lost::Garbled(_)));
        if crashed && several.rows.len() > 1 {
            self.crashes_before = None;
        }
        let in_company = crashed && self.pool.places.lock().had_company(&host);
        Err(CallFailure { fault: failure.fault, crashed, disconnected: crashed, in_company })
    }

    /// Leaves a call behind that has run out of time. The call goes on by itself where other calls are in the same
    /// host; else the host is ended.
    fn abandon_call(&mut self, late: Late) {
        let Some(host) = self.host.take() else { return };
        let (pool, crashes_before) = (Arc::clone(&self.pool), self.crashes_before);
        if !pool.places.lock().runs_late(&host) {
            host.give_up();
            return pool.give_back(&host, false, crashes_before);
        }
        let runtime = pool.runtime.clone();
        let tasks = pool.starter.background.tasks.clone();
        let waiting_out = async move {
            host.wait_out(late).await;
            pool.give_back(&host, true, crashes_before);
        };
        tasks.spawn_on(waiting_out, &runtime);
    }

    /// Tells whether the host is gone, or about to be.
    pub(super) fn is_lost(&self) -> bool {
        self.host.as_ref().is_none_or(|host| host.is_gone() || host.is_spent())
    }
}

impl Drop for PooledHost {
    fn drop(&mut self) {
        if let Some(host) = self.host.take() {
            self.pool.give_back(&host, false, self.crashes_before);
        }
    }
}

impl PoolHost for Arc<ModelHost> {
    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }

    fn is_gone(&self) -> bool {
        ModelHost::is_gone(self)
    }

    fn is_spent(&self) -> bool {
        ModelHost::is_spent(self)
    }
}

/// Ends hosts, and waits until their processes have gone.
async fn end(hosts: &[Arc<ModelHost>]) {
    hosts.iter().for_each(|host| host.kill());
    join_all(hosts.iter().map(|host| host.gone())).await;
}

fn gone() -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, "the model's process has gone")
}

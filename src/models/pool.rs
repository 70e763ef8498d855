//! The hosts of one loaded version. Each of them answers one call at a time; one that is lost is replaced.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::host::{HostSpec, LoadReport, Lost, ModelHost, Template};
use super::lease::{CallFailure, Claim};
use super::until;
use crate::invocation::{Answers, Call, Several};
use crate::message::{Code, Fault, Stage};
use crate::telemetry::Metrics;

/// A version whose hosts crash so often in a row, with no answer between, is not started again at once.
const CRASHES: u32 = 4;

/// How long the second crash in a row is waited after; it doubles twice with each one after that.
const AFTER_A_CRASH: Duration = Duration::from_millis(100);

/// How long at most until a host that could not be replaced is tried again, while there are others.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How its hosts are made.
#[derive(Debug, Clone)]
pub(super) struct HostStarter {
    pub(super) template: Template,
    pub(super) spec: HostSpec,
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
    pub(super) metrics: Metrics,
}

/// The hosts of one loaded version.
#[derive(Debug)]
pub(super) struct Pool {
    starter: HostStarter,
    runtime: Handle,
    /// One permit for each idle host that may be taken.
    free: Semaphore,
    /// How many of these there are when nothing is called.
    at_once: usize,
    idle: Mutex<Vec<ModelHost>>,
    /// The process of each host, idle or not.
    pids: Mutex<Vec<u32>>,
    crashes_in_a_row: AtomicU32,
    /// Why it has no hosts any more.
    broken: OnceLock<Fault>,
    /// Cancelled when no host is to be replaced any more.
    stopped: CancellationToken,
    /// The replacements that are under way.
    replacing: TaskTracker,
}

/// A host that is ours for one call.
#[derive(Debug)]
pub(super) struct Seat {
    pool: Arc<Pool>,
    /// None only while it is being dropped.
    host: Option<ModelHost>,
    /// How many crashes there had been in a row when it was taken: hosts that crash together count as one crash.
    crashes_before: u32,
    timed_out: bool,
}

/// Why there is no host to be had.
#[derive(Debug)]
pub(super) enum NoSeat {
    /// The deadline came first.
    TimeIsUp,
    /// They are all gone, or going.
    Gone,
}

impl HostStarter {
    async fn start(&self) -> Result<(ModelHost, LoadReport), Fault> {
        let spec = HostSpec { deadline: Instant::now() + self.spec.load_timeout, ..self.spec.clone() };
        ModelHost::start(&self.template, &spec).await
    }
}

impl Pool {
    /// Starts so many hosts, of which `at_once` are called at the same time. When one cannot be started, the others have
    /// gone as well before this returns.
    pub(super) async fn start(
        starter: HostStarter,
        hosts: usize,
        at_once: usize,
    ) -> Result<(Arc<Self>, LoadReport), Fault> {
        let (mut started, mut failed) = (Vec::new(), None);
        for result in join_all((0..hosts.max(1)).map(|_| starter.start())).await {
            match result {
                Ok(host) => started.push(host),
                Err(fault) => failed = Some(fault),
            }
        }
        let (hosts, mut reports): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        if let Some(fault) = failed {
            end(&hosts).await;
            return Err(fault);
        }
        let pids = hosts.iter().map(ModelHost::pid).collect();
        let at_once = at_once.clamp(1, hosts.len());
        let pool = Self {
            runtime: Handle::current(),
            free: Semaphore::new(at_once),
            at_once,
            idle: Mutex::new(hosts),
            pids: Mutex::new(pids),
            crashes_in_a_row: AtomicU32::new(0),
            broken: OnceLock::new(),
            stopped: starter.closing.child_token(),
            replacing: TaskTracker::new(),
            starter,
        };
        Ok((Arc::new(pool), reports.swap_remove(0)))
    }

    /// Waits for a host that is idle.
    pub(super) async fn seat(self: &Arc<Self>, claim: Claim, deadline: Option<Instant>) -> Result<Seat, NoSeat> {
        let permit = async || {
            claim.wait(&self.free, self.at_once).await;
            self.free.acquire().await
        };
        loop {
            let permit = match until(deadline, permit()).await {
                None => return Err(NoSeat::TimeIsUp),
                Some(Err(_)) => return Err(NoSeat::Gone),
                Some(Ok(permit)) => permit,
            };
            // It goes back together with the host.
            permit.forget();
            let Some(host) = self.idle().pop() else { return Err(NoSeat::Gone) };
            let crashes_before = self.crashes_in_a_row.load(Ordering::Relaxed);
            let seat = Seat { pool: Arc::clone(self), host: Some(host), crashes_before, timed_out: false };
            // One that ended while it was idle is replaced like any other, and we take the next.
            if !seat.is_lost() {
                return Ok(seat);
            }
        }
    }

    /// Why no host is left, when that is so.
    pub(super) fn broken(&self) -> Option<&Fault> {
        self.broken.get()
    }

    /// The processes that hold the model now.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.running().clone()
    }

    /// Ends every host, and waits until their processes have gone. Nobody calls one any more.
    pub(super) async fn stop(&self) {
        self.free.close();
        self.stopped.cancel();
        self.replacing.close();
        self.replacing.wait().await;
        let hosts = std::mem::take(&mut *self.idle());
        end(&hosts).await;
    }

    /// Puts another host in the place of one that is lost, unless the version keeps losing them.
    fn replace(self: &Arc<Self>, lost: ModelHost) {
        let pool = Arc::clone(self);
        let replacing = self.replacing.track_future(async move {
            end(std::slice::from_ref(&lost)).await;
            pool.running().retain(|pid| *pid != lost.pid());
            drop(lost);
            tokio::select! {
                () = pool.stopped.cancelled() => pool.free.close(),
                () = pool.start_another() => {}
            }
        });
        self.starter.tasks.spawn_on(replacing, &self.runtime);
    }

    async fn start_another(&self) {
        let crashes = self.crashes_in_a_row.load(Ordering::Relaxed);
        if crashes >= CRASHES {
            return self.give_up(self.keeps_crashing(crashes));
        }
        let mut pause = if crashes > 1 { AFTER_A_CRASH * 4_u32.pow(crashes - 2) } else { Duration::ZERO };
        loop {
            sleep(pause).await;
            match self.starter.start().await {
                Ok((host, _)) => {
                    self.running().push(host.pid());
                    return self.put_back(host);
                }
                Err(fault) if self.running().is_empty() => return self.give_up(fault),
                Err(fault) => {
                    tracing::warn!(model = &*self.starter.spec.shown, %fault, "a host cannot be replaced; others go on");
                }
            }
            pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
        }
    }

    fn put_back(&self, host: ModelHost) {
        self.idle().push(host);
        self.free.add_permits(1);
    }

    /// Whoever waits is told by the version, which asks us why.
    fn give_up(&self, fault: Fault) {
        tracing::warn!(model = &*self.starter.spec.shown, %fault, "model's hosts are given up");
        let _ = self.broken.set(fault);
        self.stopped.cancel();
        self.free.close();
    }

    fn keeps_crashing(&self, crashes: u32) -> Fault {
        let shown = &self.starter.spec.shown;
        let message = format!("the process of {shown} ended {crashes} times in a row; it is started again in a while");
        Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<ModelHost>> {
        // Nothing panics while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Vec<u32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Calls the model. Dropped before the answer is there, the host is lost, for nothing else stops it.
    pub(super) async fn invoke(&mut self, call: &Call<'_>, several: Several<'_>) -> Result<Answers, CallFailure> {
        let Some(host) = &mut self.host else {
            return Err(CallFailure { fault: gone(), crashed: true, disconnected: true });
        };
        let failure = match host.invoke(call, several).await {
            Ok(answers) => {
                self.pool.crashes_in_a_row.store(0, Ordering::Relaxed);
                return Ok(answers);
            }
            Err(failure) => failure,
        };
        let crashed = match &failure.lost {
            None => {
                self.pool.crashes_in_a_row.store(0, Ordering::Relaxed);
                false
            }
            Some(Lost::TimedOut) => {
                self.timed_out = true;
                self.count_lost("timed_out");
                false
            }
            Some(Lost::Ended { .. } | Lost::Garbled(_)) => {
                self.count_lost("crashed");
                true
            }
        };
        Err(CallFailure { fault: failure.fault, crashed, disconnected: crashed })
    }

    fn count_lost(&self, reason: &str) {
        self.pool.starter.metrics.model_hosts_lost.with_label_values(&[reason]).inc();
    }

    /// Whether the host is gone, or about to be.
    pub(super) fn is_lost(&self) -> bool {
        self.host.as_ref().is_none_or(ModelHost::is_gone)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(host) = self.host.take() else { return };
        if !host.is_gone() {
            return self.pool.put_back(host);
        }
        if !self.timed_out {
            let before = self.crashes_before;
            let crashes = &self.pool.crashes_in_a_row;
            // Another may have counted the same disaster.
            let _ = crashes.compare_exchange(before, before.saturating_add(1), Ordering::Relaxed, Ordering::Relaxed);
        }
        self.pool.replace(host);
    }
}

/// Ends hosts, and waits until their processes have gone.
async fn end(hosts: &[ModelHost]) {
    hosts.iter().for_each(ModelHost::kill);
    join_all(hosts.iter().map(ModelHost::gone)).await;
}

fn gone() -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, "the model's process has gone")
}

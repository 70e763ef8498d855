//! The reload of a configuration file while requests are served: when it has changed, and when a SIGHUP asks for it.
//!
//! An invalid file changes nothing. Keys that need a restart are named in the log, and the rest is applied.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::file::ConfigFile;
use crate::config::{Config, Report, Severity};
use crate::message::since_1970;
use crate::telemetry::Metrics;

/// Time between two looks at the file. Reading a few kilobytes costs microseconds, and finds a change on every file
/// system and behind every link, where watching the kernel's events takes a watch of each directory on the way, and
/// sees nothing on network file systems.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Waits for new configurations and has them applied.
pub struct Reloader {
    /// The file; none while another thread reads it.
    file: Option<ConfigFile>,
    hangup: Option<Signal>,
    ticks: Interval,
}

impl Reloader {
    /// Makes a reloader that also reacts to SIGHUP. Without a file, SIGHUP ends the process, as it does by default.
    pub fn new(file: Option<ConfigFile>) -> Self {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hangup = file.as_ref().and_then(|_| {
            let hangup = signal(SignalKind::hangup());
            hangup.inspect_err(|cause| error!(%cause, "SIGHUP cannot be received; a changed file is still taken")).ok()
        });
        Self { file, hangup, ticks }
    }

    /// Applies each new configuration, for ever. `in_use` is the configuration with which Signalbox was started.
    pub async fn run(
        mut self,
        in_use: &Config,
        metrics: &Metrics,
        mut apply: impl AsyncFnMut(&Config) -> Result<(), String>,
    ) {
        metrics.config_last_reload_success.set(1);
        loop {
            let Some(outcome) = self.next().await else { return std::future::pending().await };
            let result = match outcome {
                Ok(config) => {
                    log_keys_that_need_a_restart(&config, in_use);
                    apply(&config).await.inspect(|()| info!("the new configuration is in use")).map_err(|problem| {
                        error!(%problem, "the new configuration cannot be used; the old one stays in use");
                        "error"
                    })
                }
                Err(report) => {
                    warn!("the new configuration is invalid and changes nothing:\n{report}");
                    Err("invalid")
                }
            };
            metrics.config_reloads.with_label_values(&[result.err().unwrap_or("ok")]).inc();
            metrics.config_last_reload_success.set(i64::from(result.is_ok()));
            if result.is_ok() {
                let now = since_1970();
                metrics.config_last_reload_success_timestamp.set(now.as_secs_f64());
            }
        }
    }

    /// Returns the next configuration that is asked for, or the report of everything that is wrong with it. None when
    /// there is no file.
    async fn next(&mut self) -> Option<Result<Config, Report>> {
        loop {
            let is_asked = tokio::select! {
                () = hangup(&mut self.hangup) => true,
                _ = self.ticks.tick() => false,
            };
            let mut file = self.file.take()?;
            // Another thread reads the file, since its file system may be slow, and conditions take time to compile.
            let reading = spawn_blocking(move || {
                if is_asked {
                    file.reread();
                }
                let outcome = (is_asked || file.poll_change()).then(|| file.load());
                (file, outcome)
            });
            let (file, outcome) = reading.await.ok()?;
            self.file = Some(file);
            if let Some(outcome) = outcome {
                return Some(outcome.map(|loaded| {
                    log_warnings(&loaded.warnings);
                    loaded.config
                }));
            }
        }
    }
}

async fn hangup(signal: &mut Option<Signal>) {
    let asked = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if asked.is_none() {
        std::future::pending().await
    }
}

fn log_warnings(report: &Report) {
    for problem in report.problems.iter().filter(|problem| problem.severity == Severity::Warning) {
        warn!("{}:{problem}", report.file);
    }
}

fn log_keys_that_need_a_restart(config: &Config, in_use: &Config) {
    let keys = config.waits_for_restart(in_use);
    if !keys.is_empty() {
        warn!(keys = keys.join(", "), "some changed keys wait for a restart; the rest is applied");
    }
}

//! Plan: what a batch would send, and about how long it would take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::block::Position;
use super::error::BatchError;
use super::input::InputFile;
use super::progress::Counts;
use super::request::write_body;
use super::run::Run;
use super::{Batch, WAITING_BLOCKS, spawn};
use crate::broker::Cluster;
use crate::config::Kafka;

/// Bytes of the first blocks, which are kept to be sent on trial.
const TRIAL_BYTES: usize = 16 << 20;

/// Time of the trial after its first answer.
const TRIAL: Duration = Duration::from_secs(3);

/// Requests that a batch would send.
pub struct Plan {
    batch: Batch,
    /// Rows of the input.
    pub rows: u64,
    /// Rows that cannot be sent, with the reason of the first.
    pub unsendable: (u64, Option<String>),
    /// Requests that are sent if none fails.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The first blocks.
    first: Vec<super::block::Block>,
}

/// Result of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Rows that were asked about.
    pub rows: u64,
    /// Rows of them that have failed.
    pub failed: u64,
    /// Time until the first answer.
    pub first: Duration,
    /// Rows a second after that.
    pub rate: f64,
}

impl Batch {
    /// Reads the whole input, and counts. Nothing is sent and nothing is written.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub fn plan(mut self, stop: &AtomicBool) -> Result<Plan, BatchError> {
        if self.run.whole {
            self.rows = 1;
        }
        let input = InputFile::find(&self.input, self.input_format)?;
        let mut input = input.read(&self.input_options(), Position::default(), None)?;
        let mut plan = Plan { batch: self, rows: 0, unsendable: (0, None), requests: 0, bytes: 0, first: Vec::new() };
        let (mut body, mut kept) = (Vec::new(), 0);
        while let Some(block) = input.blocks.next_block()? {
            if stop.load(Ordering::Relaxed) {
                return Err(BatchError::Unfinished("stopped".to_owned()));
            }
            let count = block.rows.len();
            let bad = block.rows.iter().filter_map(|row| row.values.as_ref().err());
            let (mut unsendable, mut reason) = (0, None);
            for (place, message) in bad.enumerate() {
                unsendable += 1;
                if place == 0 {
                    reason = Some(message.clone());
                }
            }
            plan.rows += count as u64;
            plan.unsendable.0 += unsendable;
            plan.unsendable.1 = plan.unsendable.1.or(reason);
            if unsendable < count as u64 {
                write_body(&mut body, &block, &(0..count), plan.batch.run.params.as_deref());
                plan.requests += 1;
                plan.bytes += body.len() as u64;
            }
            if kept < TRIAL_BYTES {
                kept += block.size;
                plan.first.push(block);
            }
        }
        Ok(plan)
    }
}

impl Plan {
    /// Asks about the first rows, for some seconds, and throws the answers away.
    ///
    /// # Errors
    /// When the router is not there, or does not answer.
    pub fn try_out(self, cluster: &Arc<Cluster>, kafka: &Kafka, stop: &AtomicBool) -> Result<Trial, BatchError> {
        let exchange = self.batch.exchange(cluster, kafka)?;
        let (reading, blocks) = sync_channel(WAITING_BLOCKS);
        let (writing, finished) = sync_channel(WAITING_BLOCKS);
        spawn("batch-trial", move || self.first.into_iter().all(|block| reading.send(Ok(block)).is_ok()))?;
        spawn("batch-nowhere", move || finished.iter().for_each(drop))?;
        let over = AtomicBool::new(false);
        let mut first: Option<(Duration, u64)> = None;
        let mut last = (Duration::ZERO, Counts::default());
        let mut watch = |run: super::progress::BatchProgress| {
            last = (run.elapsed, run.counts);
            if first.is_none() && run.counts.rows > 0 {
                first = Some((run.elapsed, run.counts.rows));
            }
            let is_over = first.is_some_and(|(since, _)| run.elapsed - since >= TRIAL);
            over.store(is_over || stop.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        let began = Instant::now();
        Run::new(&exchange, &self.batch.run, Counts::default()).finish_all(&blocks, &writing, &over, &mut watch)?;
        if stop.load(Ordering::Relaxed) {
            return Err(BatchError::Unfinished("stopped".to_owned()));
        }
        let (elapsed, counts) = last;
        let (first, of_first) = first.unwrap_or((began.elapsed(), 0));
        // So few rows that all came at once have taken the time of the first.
        let (rows, seconds) = match counts.rows - of_first {
            0 => (counts.rows, elapsed),
            rows => (rows, elapsed.saturating_sub(first)),
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = rows as f64 / seconds.as_secs_f64().max(1e-3);
        Ok(Trial { rows: counts.rows, failed: counts.failed, first, rate })
    }
}

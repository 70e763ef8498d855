//! Asks an endpoint about each row of a file, over Kafka, and writes each answer beside its row.
//!
//! A thread reads the input in [blocks](block), each of which becomes a [request]; a [run] keeps as many requests under
//! way as the [window] allows, and hands the blocks on in their order, when each of their rows has an answer or has
//! failed; another thread [writes](output) them, and a [checkpoint] from time to time. So a run that is killed is gone on
//! with from the last checkpoint, and every row has one answer in the output.

mod answer;
mod block;
mod checkpoint;
mod column_type;
mod columns;
mod error;
mod exchange;
mod format;
mod input;
mod json;
mod output;
mod plan;
mod progress;
mod request;
mod row;
mod run;
mod temporary;
mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use block::{Block, Blocks};
use checkpoint::{Checkpoint, Shape};
pub use error::BatchError;
use error::STANDARD;
use exchange::Exchange;
pub use format::Format;
use input::{Input, InputFile, InputOptions};
use output::{Conversion, Finished, Place, Staging, Writer};
pub use plan::{Plan, Trial};
use progress::Counts;
pub use progress::Progress;
pub use run::RunSettings;
use run::{Run, RunEnd};

use crate::broker::Cluster;
use crate::config::Kafka;

/// Blocks that wait between two threads.
const WAITING_BLOCKS: usize = 16;

/// Options of a batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The input; `-` is standard input.
    pub input: PathBuf,
    /// Format of the input.
    pub input_format: Format,
    /// The output; `-` is standard output.
    pub output: PathBuf,
    /// Format of the output.
    pub output_format: Format,
    /// The endpoint; None where the router has only one.
    pub endpoint: Option<String>,
    /// Greatest number of rows in a request.
    pub rows: usize,
    /// Columns of the input that are in the output; None is all.
    pub columns: Option<Vec<String>>,
    /// Name of the column of the answers.
    pub prediction: String,
    /// CSV's columns that are text whatever they hold.
    pub text: Vec<String>,
    /// Headers of the requests.
    pub headers: Vec<(String, String)>,
    /// Replaces an output that is there.
    pub overwrite: bool,
    /// Begins anew where an earlier run could be gone on with.
    pub restart: bool,
    /// Settings of the exchange with the router.
    pub run: RunSettings,
}

/// A batch whose input is found and whose output is locked.
pub struct PreparedBatch {
    batch: Batch,
    input: InputFile,
    place: Place,
    checkpoint: Checkpoint,
}

/// Tells how the preparation has ended.
pub enum Prepared {
    /// A batch with rows to ask about.
    Batch(Box<PreparedBatch>),
    /// An earlier run has answered all.
    Finished(BatchSummary),
}

/// Sums up a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSummary {
    /// Rows of the input.
    pub rows: u64,
    /// Rows that have failed.
    pub failed: u64,
    /// Rows that earlier runs had done.
    pub rows_before: u64,
    /// Time of this run.
    pub elapsed: Duration,
    /// Path of the error file, if any row has failed and it is a file.
    pub errors: Option<PathBuf>,
}

impl Batch {
    /// Finds the input, and what earlier runs have left of the output.
    ///
    /// # Errors
    /// When the options do not go together, the input is another than that of the run to go on with, or another process
    /// writes the output.
    pub fn prepare(mut self) -> Result<Prepared, BatchError> {
        if self.run.whole {
            self.rows = 1;
        }
        let input = InputFile::find(&self.input, self.input_format)?;
        let shape = self.shape();
        let (place, found) = if self.output.as_os_str() == STANDARD {
            (Place::standard(self.conversion(&input).is_some())?, None)
        } else {
            match Place::open(&self.output, self.overwrite, self.restart)? {
                Finished::Yes(checkpoint) => {
                    self.check_same(&checkpoint, &input, &shape)?;
                    Place::clear(&self.output, &checkpoint)?;
                    return Ok(Prepared::Finished(self.summary(&checkpoint, checkpoint.position.rows, Instant::now())));
                }
                Finished::No(place, checkpoint) => (*place, checkpoint),
            }
        };
        let checkpoint = match found {
            Some(checkpoint) => {
                self.check_same(&checkpoint, &input, &shape)?;
                checkpoint
            }
            None => Checkpoint::new(input.identity.clone(), shape),
        };
        Ok(Prepared::Batch(Box::new(PreparedBatch { batch: self, input, place, checkpoint })))
    }

    fn check_same(&self, checkpoint: &Checkpoint, input: &InputFile, shape: &Shape) -> Result<(), BatchError> {
        let differences = checkpoint.differences(&input.identity, shape);
        if differences.is_empty() {
            return Ok(());
        }
        Err(BatchError::usage(format!(
            "an earlier run of {} has answered {} rows of another job: {}; give the same input and options to go on with it, \
             or begin anew with --restart",
            self.output.display(),
            checkpoint.position.rows,
            differences.join("; ")
        )))
    }

    fn shape(&self) -> Shape {
        Shape {
            endpoint: self.endpoint.clone(),
            input_format: self.input_format,
            output_format: self.output_format,
            columns: self.columns.clone(),
            prediction: self.prediction.clone(),
            text: self.text.clone(),
            params: self.run.params.clone(),
            headers: self.headers.clone(),
            whole: self.run.whole,
        }
    }

    fn input_options(&self) -> InputOptions {
        InputOptions {
            rows: self.rows,
            text: self.text.clone(),
            columns: self.columns.clone(),
            prediction: self.prediction.clone(),
            keeps_originals: Staging::needs_originals(self.input_format, self.output_format),
        }
    }

    /// Chooses what the appended lines are made into at the end, if they are not the output already.
    fn conversion<'a>(&self, input: &'a InputFile) -> Option<Conversion<'a>> {
        match (Staging::of(self.input_format, self.output_format), self.output_format) {
            (Staging::Predictions, _) => Some(Conversion::Beside(input)),
            (Staging::Lines, Format::Csv) => Some(Conversion::Csv),
            (Staging::Lines, Format::Parquet) => Some(Conversion::Parquet),
            _ => None,
        }
    }

    fn summary(&self, checkpoint: &Checkpoint, rows_before: u64, began: Instant) -> BatchSummary {
        let has_errors = checkpoint.failed > 0 && self.output.as_os_str() != STANDARD;
        BatchSummary {
            rows: checkpoint.position.rows,
            failed: checkpoint.failed,
            rows_before,
            elapsed: began.elapsed(),
            errors: has_errors.then(|| Place::errors_path(&self.output)),
        }
    }
}

impl PreparedBatch {
    /// Returns how many rows an earlier run has done.
    pub fn rows_before(&self) -> u64 {
        self.checkpoint.position.rows
    }

    /// Returns the output.
    pub fn output(&self) -> &Path {
        &self.batch.output
    }

    /// Asks about all rows. Blocks; not for a runtime's workers.
    ///
    /// # Errors
    /// When the input, the output or the router is not there, or `stop` has become true. What was answered until then is
    /// noted, and the next run goes on from there.
    pub fn run(
        mut self,
        cluster: &Arc<Cluster>,
        kafka: &Kafka,
        stop: &AtomicBool,
        mut progress: impl FnMut(Progress),
    ) -> Result<BatchSummary, BatchError> {
        let began = Instant::now();
        let prepared = self.begin(cluster, kafka);
        let (exchange, input) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // A run that has done nothing leaves nothing.
                if self.checkpoint.position.rows == 0 {
                    self.place.abandon();
                }
                return Err(error);
            }
        };
        let Self { batch, input: file, place, checkpoint } = self;
        let position = checkpoint.position;
        let counts = Counts { rows: position.rows, failed: checkpoint.failed, end: position };
        let Input { blocks, columns, length, .. } = input;
        let (writing, finished) = sync_channel(WAITING_BLOCKS);
        let writer = Writer::new(place, checkpoint, columns.as_deref());
        let writer = spawn("batch-output", move || writer.write_all(&finished))?;
        let run = Run::new(&exchange, &batch.run, counts);
        let mut report = |run| progress(Progress::of(run, counts, length));
        let end = run.finish_all(&read_ahead(blocks)?, &writing, stop, &mut report);
        drop(writing);
        let written =
            writer.join().map_err(|_| BatchError::File("the output's thread has ended by a defect".to_owned()));
        let (place, checkpoint) = written??;
        match end {
            Ok(RunEnd::Complete) => {
                place.finish(checkpoint.clone(), batch.conversion(&file))?;
                Ok(batch.summary(&checkpoint, position.rows, began))
            }
            Ok(RunEnd::Stopped | RunEnd::Unwritable) => {
                let rows = checkpoint.position.rows;
                Err(BatchError::Unfinished(format!("stopped; {}", goes_on(&batch.output, rows))))
            }
            Err(error) => {
                let rows = checkpoint.position.rows;
                if checkpoint.failed == rows {
                    place.abandon();
                    return Err(error);
                }
                Err(match error {
                    BatchError::Unfinished(reason) => {
                        BatchError::Unfinished(format!("{reason}; {}", goes_on(&batch.output, rows)))
                    }
                    error => error,
                })
            }
        }
    }

    fn begin(&mut self, cluster: &Arc<Cluster>, kafka: &Kafka) -> Result<(Exchange, Input), BatchError> {
        let Self { batch, input, place, checkpoint } = self;
        let exchange = batch.exchange(cluster, kafka)?;
        let input = input.read(&batch.input_options(), checkpoint.position, checkpoint.types.as_deref())?;
        checkpoint.types.clone_from(&input.types);
        place.go_on_from(checkpoint)?;
        Ok((exchange, input))
    }
}

impl Batch {
    fn exchange(&self, cluster: &Arc<Cluster>, kafka: &Kafka) -> Result<Exchange, BatchError> {
        Exchange::open(cluster.clone(), kafka, self.endpoint.as_deref(), &self.headers, self.run.timeout)
    }
}

/// Says how much is done, and how to do the rest.
fn goes_on(output: &Path, rows: u64) -> String {
    match output.as_os_str() == STANDARD {
        true => format!("{rows} rows have been written"),
        false => format!("{rows} rows are done, and the same command goes on from there"),
    }
}

/// Reads blocks on a thread of its own, a few ahead.
fn read_ahead(mut blocks: Blocks) -> Result<Receiver<Result<Block, BatchError>>, BatchError> {
    let (reading, blocks_read) = sync_channel(WAITING_BLOCKS);
    let read = move || {
        while let Some(block) = blocks.next_block().transpose() {
            let is_last = block.is_err();
            // When nobody takes blocks any more, the run has ended.
            if reading.send(block).is_err() || is_last {
                return;
            }
        }
    };
    spawn("batch-input", read)?;
    Ok(blocks_read)
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, BatchError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| BatchError::Unavailable(format!("no thread can be started: {error}")))
}

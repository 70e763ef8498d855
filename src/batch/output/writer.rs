//! Writer: appends finished blocks to the output, and notes from time to time how far it has come.

use std::io::{self, Write};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Staging;
use super::line::LineWriter;
use super::place::{Append, Place};
use super::record::{RecordWriter, records};
use crate::batch::answer::{Answer, RowFault};
use crate::batch::checkpoint::Checkpoint;
use crate::batch::columns::Columns;
use crate::batch::error::BatchError;
use crate::batch::run::FinishedBlock;

/// Time between two checkpoints: work of that time is done again after a kill.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// Writes finished blocks.
pub(in crate::batch) struct Writer {
    form: RowWriter,
    place: Place,
    checkpoint: Checkpoint,
    /// Time of the last checkpoint.
    noted: Instant,
    buffer: Vec<u8>,
    errors: Vec<u8>,
}

/// Form of the rows that are written.
enum RowWriter {
    Line(LineWriter),
    Record(RecordWriter),
    Prediction,
}

/// Serialises a line of the error file.
#[derive(Serialize)]
struct ErrorLine<'a> {
    /// Number of the row in the input, from 1.
    row: u64,
    error_code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

impl Writer {
    /// Goes on where the checkpoint says. `columns` are those of a CSV input.
    pub(in crate::batch) fn new(place: Place, checkpoint: Checkpoint, columns: Option<&Columns>) -> Self {
        let shape = &checkpoint.shape;
        let form = match (Staging::of(shape.input_format, shape.output_format), columns) {
            (Staging::Records, Some(columns)) => {
                RowWriter::Record(RecordWriter::new(columns, shape.columns.as_deref(), &shape.prediction))
            }
            (Staging::Predictions, _) => RowWriter::Prediction,
            _ => RowWriter::Line(LineWriter::new(shape.columns.clone(), &shape.prediction)),
        };
        Self { form, place, checkpoint, noted: Instant::now(), buffer: Vec::new(), errors: Vec::new() }
    }

    /// Writes all blocks that come, and a checkpoint after the last.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(in crate::batch) fn write_all(
        mut self,
        finished: &Receiver<FinishedBlock>,
    ) -> Result<(Place, Checkpoint), BatchError> {
        if let RowWriter::Record(writer) = &self.form
            && self.checkpoint.output_bytes == 0
        {
            writer.write_names(&mut records(&mut self.buffer));
            self.append()?;
        }
        while let Ok(block) = finished.recv() {
            self.write(&block)?;
        }
        self.note()?;
        Ok((self.place, self.checkpoint))
    }

    fn write(&mut self, FinishedBlock { block, answers }: &FinishedBlock) -> Result<(), BatchError> {
        let answered = || block.rows.iter().zip(answers).map(|(row, answer)| (row, prediction(answer)));
        match &self.form {
            RowWriter::Line(writer) => {
                answered().for_each(|(row, prediction)| writer.write(&mut self.buffer, block, row, prediction));
            }
            RowWriter::Record(writer) => {
                let mut out = records(&mut self.buffer);
                answered().for_each(|(row, prediction)| writer.write(&mut out, row, prediction));
            }
            RowWriter::Prediction => answered().for_each(|(_, prediction)| {
                self.buffer.extend_from_slice(prediction);
                self.buffer.push(b'\n');
            }),
        }
        for (row, answer) in (block.first + 1..).zip(answers) {
            if let Answer::Failed(fault) = answer {
                self.checkpoint.failed += 1;
                push_error(&mut self.errors, row, fault);
            }
        }
        self.checkpoint.position = block.end;
        self.append()?;
        if self.noted.elapsed() >= CHECKPOINT_INTERVAL {
            self.note()?;
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), BatchError> {
        self.place.append(Append::Output, &self.buffer)?;
        self.place.append(Append::Errors, &self.errors)?;
        self.checkpoint.output_bytes += self.buffer.len() as u64;
        self.checkpoint.error_bytes += self.errors.len() as u64;
        self.buffer.clear();
        self.errors.clear();
        Ok(())
    }

    fn note(&mut self) -> Result<(), BatchError> {
        self.place.note(&self.checkpoint)?;
        self.noted = Instant::now();
        Ok(())
    }
}

fn prediction(answer: &Answer) -> &[u8] {
    match answer {
        Answer::Prediction(prediction) => prediction,
        Answer::Failed(_) => b"null",
    }
}

fn push_error(out: &mut Vec<u8>, row: u64, fault: &RowFault) {
    let RowFault { code, message, correlation } = fault;
    let line = ErrorLine { row, error_code: code, message, correlation_id: correlation.as_deref() };
    // Strings and numbers always serialise, and writing to a vector cannot fail.
    let _ = serde_json::to_writer(&mut *out, &line).map_err(io::Error::from);
    let _ = out.write_all(b"\n");
}

//! Formats the table of results: two sides that were measured, the ratio to reach, and whether it was reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::{Machine, Ticks};

/// Compares two sides that were measured in turn.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) against: &'static str,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) unit: &'static str,
    pub(crate) reach: Reach,
}

/// Bounds the first side divided by the second.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reach {
    AtLeast(f64),
    AtMost(f64),
    /// The ratio has nothing to reach.
    Open,
}

/// Holds all rows, and describes the machine that they were measured on.
pub(crate) struct Table {
    machine: Machine,
    rows: Vec<Row>,
    failed: Vec<&'static str>,
    end: String,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    fn verdict(&self) -> &'static str {
        let is_reached = match self.reach {
            Reach::AtLeast(least) => self.ratio() >= least,
            Reach::AtMost(most) => self.ratio() <= most,
            Reach::Open => return "",
        };
        if is_reached { "reached" } else { "MISSED" }
    }

    fn cells(&self) -> [String; 7] {
        [
            self.what.to_owned(),
            self.against.to_owned(),
            format!("{} {}", number(self.ours), self.unit),
            format!("{} {}", number(self.theirs), self.unit),
            self.reach.ratio(self.ratio()),
            self.reach.to_string(),
            self.verdict().to_owned(),
        ]
    }
}

impl Reach {
    /// Formats a ratio beside its bound: as a fraction of one where the bound is one.
    fn ratio(self, ratio: f64) -> String {
        match self {
            Self::AtMost(..0.2) => format!("1/{:.0}", 1.0 / ratio),
            _ => format!("{ratio:.2}"),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(formatter, "≥ {}", self.ratio(*least)),
            Self::AtMost(most) => write!(formatter, "≤ {}", self.ratio(*most)),
            Self::Open => Ok(()),
        }
    }
}

impl Table {
    const HEAD: [&str; 7] = ["what", "against", "the first", "the second", "ratio", "to reach", "outcome"];

    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, rows: Vec::new(), failed: Vec::new(), end: String::new() }
    }

    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// Notes a part that has failed.
    pub(crate) fn failed(&mut self, part: &'static str) {
        self.failed.push(part);
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Notes the time of the whole run.
    pub(crate) fn end(&mut self, took: Duration, ticks: &Ticks) {
        let minutes = took.as_secs_f64() / 60.0;
        self.end = format!("{minutes:.1} minutes without the build; {} over all of it", ticks.since());
    }

    /// Writes the table beside the plots.
    pub(crate) fn write(&self) {
        let path = results("table.md");
        std::fs::write(&path, self.to_string()).unwrap();
        println!("written: {}", path.display());
    }
}

impl fmt::Display for Table {
    /// Formats the table as Markdown whose columns also line up as plain text.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> =
            [Self::HEAD.map(str::to_owned)].into_iter().chain(self.rows.iter().map(Row::cells)).collect();
        let widths: [usize; 7] = std::array::from_fn(|column| {
            rows.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        });
        let is_number = |column: usize| (2..6).contains(&column);
        for (index, cells) in rows.iter().enumerate() {
            for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
                match is_number(column) {
                    true => write!(formatter, "| {cell:>width$} ")?,
                    false => write!(formatter, "| {cell:<width$} ")?,
                }
            }
            writeln!(formatter, "|")?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    write!(formatter, "| {}{} ", "-".repeat(width - 1), if is_number(column) { ":" } else { "-" })?;
                }
                writeln!(formatter, "|")?;
            }
        }
        for part in &self.failed {
            writeln!(formatter, "\nFAILED, and not in the table: the part {part}.")?;
        }
        writeln!(formatter, "\n{}.\n{}.", self.machine, self.end)
    }
}

/// Returns the path of a file in `benches/results`.
pub(crate) fn results(file: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    std::fs::create_dir_all(&directory).unwrap();
    directory.join(file)
}

/// Formats a number with three significant digits, and all before the point.
fn number(value: f64) -> String {
    let places = if value >= 100.0 { 0 } else { 2 - value.abs().max(0.01).log10().floor() as usize };
    format!("{value:.places$}")
}

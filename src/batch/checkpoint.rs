//! Checkpoint: how far a run has come, in a file beside the output. It is written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::block::Position;
use super::column_type::ColumnType;
use super::format::Format;
use super::input::InputIdentity;

/// Version of this form.
const VERSION: u32 = 1;

/// Everything that a run needs to go on where another has stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    version: u32,
    pub(super) input: InputIdentity,
    pub(super) shape: Shape,
    /// Types of CSV's columns, which are not to change in the middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) types: Option<Vec<ColumnType>>,
    /// Position in the input up to which all rows are in the output.
    pub(super) position: Position,
    /// Rows of them that have failed.
    pub(super) failed: u64,
    /// Bytes of the output up to there.
    pub(super) output_bytes: u64,
    /// Bytes of the error file up to there.
    pub(super) error_bytes: u64,
    /// True if nothing is left but to give the output its name.
    #[serde(default)]
    pub(super) is_complete: bool,
}

/// Options on which the contents of the output depend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) endpoint: Option<String>,
    pub(super) input_format: Format,
    pub(super) output_format: Format,
    pub(super) columns: Option<Vec<String>>,
    pub(super) prediction: String,
    pub(super) text: Vec<String>,
    pub(super) params: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) whole: bool,
}

impl Checkpoint {
    /// Begins at the beginning.
    pub(super) fn new(input: InputIdentity, shape: Shape) -> Self {
        Self {
            version: VERSION,
            input,
            shape,
            types: None,
            position: Position::default(),
            failed: 0,
            output_bytes: 0,
            error_bytes: 0,
            is_complete: false,
        }
    }

    /// Reads a checkpoint; None when there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or is not one of ours.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let checkpoint: Self = serde_json::from_slice(&text)?;
        match checkpoint.version {
            VERSION => Ok(Some(checkpoint)),
            other => Err(io::Error::other(format!("it has version {other}, and this program knows {VERSION}"))),
        }
    }

    /// Writes the checkpoint, so that after a crash either this one is there or the one before.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        fs::rename(&new, path)
    }

    /// Says in which ways a run with this input and these options is another than that of the checkpoint.
    pub(super) fn differences(&self, input: &InputIdentity, shape: &Shape) -> Vec<String> {
        let mut differences = input.differences(&self.input);
        differences.extend(shape.differences(&self.shape));
        differences
    }
}

impl Shape {
    fn differences(&self, before: &Self) -> Vec<String> {
        fn list(columns: Option<&Vec<String>>) -> String {
            columns.map_or("all".to_owned(), |columns| format!("'{}'", columns.join(",")))
        }
        fn said<T: std::fmt::Debug>(value: Option<&T>) -> String {
            value.map_or("not given".to_owned(), |value| format!("{value:?}"))
        }
        let format = |format| match format {
            Format::Jsonl => "jsonl".to_owned(),
            Format::Csv => "csv".to_owned(),
            Format::Parquet => "parquet".to_owned(),
        };
        let of = |shape: &Self| {
            [
                ("--endpoint", said(shape.endpoint.as_ref())),
                ("--input-format", format(shape.input_format)),
                ("--output-format", format(shape.output_format)),
                ("--columns", list(shape.columns.as_ref())),
                ("--prediction", shape.prediction.clone()),
                ("--text", format!("'{}'", shape.text.join(","))),
                ("--params", said(shape.params.as_ref())),
                ("--header", format!("{:?}", shape.headers)),
                ("--whole", shape.whole.to_string()),
            ]
        };
        let pairs = of(before).into_iter().zip(of(self));
        let differing = pairs.filter(|(before, now)| before != now);
        differing.map(|((option, before), (_, now))| format!("{option} was {before}, and is {now}")).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::batch) fn shape(input_format: Format, output_format: Format) -> Shape {
        Shape {
            endpoint: Some("a".to_owned()),
            input_format,
            output_format,
            columns: None,
            prediction: "prediction".to_owned(),
            text: Vec::new(),
            params: None,
            headers: Vec::new(),
            whole: false,
        }
    }

    fn checkpoint() -> Checkpoint {
        let input = serde_json::from_str(r#"{"path": "/in.jsonl", "size": 10}"#).unwrap();
        Checkpoint::new(input, shape(Format::Jsonl, Format::Csv))
    }

    #[test]
    fn checkpoint_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.checkpoint");
        assert_eq!(Checkpoint::read(&path).unwrap(), None);
        let mut written = checkpoint();
        written.types = Some(vec![ColumnType::Double, ColumnType::Text]);
        written.position = Position { rows: 3, bytes: 30, hash: Some(u64::MAX) };
        for failed in 0..3 {
            written.failed = failed;
            written.write(&path).unwrap();
            assert_eq!(Checkpoint::read(&path).unwrap().unwrap(), written);
        }
        fs::write(&path, "{}").unwrap();
        assert!(Checkpoint::read(&path).is_err());
    }

    #[test]
    fn differences_name_the_option_and_both_values() {
        let before = checkpoint();
        assert_eq!(before.differences(&before.input, &before.shape), Vec::<String>::new());
        let mut now = before.clone();
        now.shape.columns = Some(vec!["id".to_owned(), "text".to_owned()]);
        now.shape.endpoint = None;
        now.input = serde_json::from_str(r#"{"path": "/in.jsonl", "size": 11}"#).unwrap();
        let differences = before.differences(&now.input, &now.shape);
        assert_eq!(
            differences,
            [
                "/in.jsonl had 10 bytes, and has 11",
                "--endpoint was \"a\", and is not given",
                "--columns was all, and is 'id,text'"
            ]
        );
    }
}

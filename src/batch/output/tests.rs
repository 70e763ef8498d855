use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use super::*;
use crate::batch::answer::{Answer, RowFault};
use crate::batch::block::{Block, Position};
use crate::batch::checkpoint::Checkpoint;
use crate::batch::checkpoint::tests::shape;
use crate::batch::columns::Columns;
use crate::batch::row::{Original, Row};
use crate::batch::run::FinishedBlock;

/// Rows of a test; every fifth has failed.
const ROWS: u64 = 6;
const ROWS_OF_BLOCK: u64 = 2;

fn block(first: u64) -> FinishedBlock {
    let rows: Vec<_> = (first..(first + ROWS_OF_BLOCK).min(ROWS)).collect();
    let row =
        |number: &u64| Row { values: Ok(format!("[{number},\"t\\n{number}\"]").into()), original: Original::None };
    let answer = |number: &u64| match number % 5 {
        4 => Answer::Failed(RowFault { code: "C".to_owned(), message: format!("row {number}"), correlation: None }),
        _ => Answer::Prediction(Bytes::from(format!("{{\"p\":{number}}}"))),
    };
    let block = Block {
        first,
        rows: rows.iter().map(row).collect(),
        columns: Some(columns()),
        end: Position { rows: first + rows.len() as u64, bytes: 0, hash: None },
        size: 0,
    };
    FinishedBlock { block, answers: rows.iter().map(answer).collect() }
}

fn columns() -> Arc<Columns> {
    Arc::new(Columns::new(vec!["n".to_owned(), "text".to_owned()]).unwrap())
}

fn begin(input: Format, output: Format) -> Checkpoint {
    let identity = serde_json::from_str(r#"{"path": "/in"}"#).unwrap();
    Checkpoint::new(identity, shape(input, output))
}

/// Opens the output, and writes rows up to this one. Returns the checkpoint.
fn write(out: &Path, from: Checkpoint, until: u64) -> (Place, Checkpoint) {
    let Finished::No(mut place, found) = Place::open(out, false, false).unwrap() else { panic!("it was finished") };
    let checkpoint = found.unwrap_or(from);
    place.go_on_from(&checkpoint).unwrap();
    let (sender, finished) = sync_channel(99);
    (checkpoint.position.rows..until)
        .step_by(ROWS_OF_BLOCK as usize)
        .for_each(|first| sender.send(block(first)).unwrap());
    drop(sender);
    Writer::new(*place, checkpoint, Some(&columns())).write_all(&finished).unwrap()
}

fn contents(out: &Path) -> (Vec<u8>, Vec<u8>) {
    let errors = format!("{}.errors.jsonl", out.display());
    (fs::read(out).unwrap(), fs::read(errors).unwrap())
}

#[test]
fn output_is_the_same_when_it_was_cut_at_any_byte_after_the_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    for format in [Format::Jsonl, Format::Csv] {
        let path = |name: &str| directory.path().join(format!("{name}-{format:?}"));
        let first = || begin(format, format);
        let (place, checkpoint) = write(&path("whole"), first(), ROWS);
        place.finish(checkpoint, None).unwrap();
        let whole = contents(&path("whole"));
        for noted in (0..=ROWS).step_by(ROWS_OF_BLOCK as usize) {
            let out = path(&format!("cut-{noted}"));
            let (place, checkpoint) = write(&out, first(), noted);
            drop(place);
            let beginning = &whole.0[..checkpoint.output_bytes as usize];
            for length in beginning.len()..=whole.0.len() {
                // What a killed run had appended: more of the output, and more errors, without a checkpoint.
                let partial = format!("{}.partial", out.display());
                fs::write(&partial, &whole.0[..length]).unwrap();
                fs::write(format!("{}.errors.jsonl", out.display()), &whole.1).unwrap();
                checkpoint.write(Path::new(&format!("{}.checkpoint", out.display()))).unwrap();
                let (place, end) = write(&out, first(), ROWS);
                place.finish(end, None).unwrap();
                assert!(contents(&out) == whole, "{format:?}, {noted} rows noted, cut at {length}");
                fs::remove_file(&out).unwrap();
            }
        }
    }
}

#[test]
fn conversion_knows_columns_and_types_of_all_lines() {
    let directory = tempfile::tempdir().unwrap();
    let staged = directory.path().join("staged");
    let lines = [
        r#"{"a":1,"b":true,"prediction":1}"#,
        r#"{"a":2.5,"b":null,"c":[1,"x"],"prediction":null}"#,
        r#"{"c":"text, \"quoted\"","a":3,"prediction":2}"#,
        r#"{"prediction":9}"#,
    ];
    fs::write(&staged, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let file = File::open(&staged).unwrap();
    let out = directory.path().join("out");
    Conversion::Csv.write(&file, File::create(&out).unwrap(), &out, None, "prediction").unwrap();
    let expected = "a,b,c,prediction\n1,true,,1\n2.5,,\"[1,\"\"x\"\"]\",\n3,,\"text, \"\"quoted\"\"\",2\n,,,9\n";
    assert_eq!(fs::read_to_string(&out).unwrap(), expected);
    let some = ["c".to_owned(), "d".to_owned()];
    Conversion::Csv.write(&file, File::create(&out).unwrap(), &out, Some(&some), "prediction").unwrap();
    assert!(fs::read_to_string(&out).unwrap().starts_with("c,d,"));

    Conversion::Parquet.write(&file, File::create(&out).unwrap(), &out, None, "prediction").unwrap();
    let (mut reader, schema, rows) = crate::batch::input::open_parquet(File::open(&out).unwrap(), &out, 0).unwrap();
    let types: Vec<_> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    assert_eq!((types.join(", ").as_str(), rows), ("a Float64, b Boolean, c Utf8, prediction Int64", 4));
    let batch = reader.next().unwrap().unwrap();
    let text = arrow_array::cast::AsArray::as_string::<i32>(batch.column(2));
    assert_eq!((text.value(1), text.value(2)), (r#"[1,"x"]"#, r#""text, \"quoted\"""#), "a mixed column has JSON");
}

#[test]
fn place_is_refused_to_others_and_kept_from_them() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.jsonl");
    let (place, checkpoint) = write(&out, begin(Format::Csv, Format::Jsonl), ROWS_OF_BLOCK);
    let refused = |overwrite, restart| Place::open(&out, overwrite, restart).err().unwrap().to_string();
    assert!(refused(false, false).contains("another process writes"), "{}", refused(false, false));
    drop(place);
    fs::write(&out, "mine").unwrap();
    assert!(refused(false, true).contains("is there already"));
    assert_eq!(Checkpoint::read(&directory.path().join("out.jsonl.checkpoint")).unwrap().unwrap(), checkpoint);
    assert!(matches!(Place::open(&out, true, false).unwrap(), Finished::No(_, Some(_))));
    assert!(matches!(Place::open(&out, true, true).unwrap(), Finished::No(_, None)));
    fs::write(directory.path().join("out.jsonl.partial"), "").unwrap();
    assert!(refused(true, false).contains("begin anew with --restart"));
    assert!(matches!(
        Place::open(&directory.path().join("no/out"), false, false),
        Err(crate::batch::BatchError::Usage(_))
    ));
}

#[test]
fn run_that_was_killed_after_its_last_step_but_one_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.jsonl");
    let (place, mut checkpoint) = write(&out, begin(Format::Csv, Format::Jsonl), ROWS);
    drop(place);
    checkpoint.is_complete = true;
    checkpoint.write(&directory.path().join("out.jsonl.checkpoint")).unwrap();
    fs::rename(directory.path().join("out.jsonl.partial"), &out).unwrap();
    let Finished::Yes(found) = Place::open(&out, false, false).unwrap() else { panic!("it is finished") };
    assert_eq!(found, checkpoint);
    Place::clear(&out, &found).unwrap();
    let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["out.jsonl", "out.jsonl.errors.jsonl"]);
}

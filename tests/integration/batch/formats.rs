//! Each format in and out, standard input and output, and rows that fail alone.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Ground, RowModel, json_lines};

const ROWS: usize = 700;

fn text(row: usize) -> Option<String> {
    (!row.is_multiple_of(7)).then(|| format!("text \"{row}\", é"))
}

fn write_inputs(ground: &Ground) {
    ground.lines("in.jsonl", ROWS, |row| {
        format!("{{\"id\":{row}, \"zip\": \"{row:05}\",\"text\":{}}}", serde_json::json!(text(row)))
    });
    let mut csv = csv::Writer::from_path(ground.path("in.csv")).unwrap();
    csv.write_record(["id", "zip", "text"]).unwrap();
    for row in 0..ROWS {
        csv.write_record([row.to_string(), format!("{row:05}"), text(row).unwrap_or_default()]).unwrap();
    }
    csv.flush().unwrap();
    let rows = || 0..ROWS as i64;
    let columns: [(&str, Arc<dyn Array>); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(rows()))),
        ("zip", Arc::new(StringArray::from_iter_values(rows().map(|row| format!("{row:05}"))))),
        ("text", Arc::new((0..ROWS).map(text).collect::<StringArray>())),
        ("at", Arc::new(TimestampMillisecondArray::from_iter_values(rows()))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(ground.path("in.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn read_parquet(ground: &Ground, name: &str) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(ground.path(name)).unwrap()).unwrap();
    builder.build().unwrap().map(Result::unwrap).collect()
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn rows_of_each_format_get_answers_in_each_format() {
    let model = RowModel::start(Duration::ZERO, 0);
    let ground = Ground::new(model.url(), "");
    write_inputs(&ground);
    for input in ["jsonl", "csv", "parquet"] {
        for output in ["jsonl", "csv", "parquet"] {
            let (from, to) = (format!("in.{input}"), format!("from-{input}.{output}"));
            let (code, said) = ground.run(&from, &to, &["--rows", "64"]);
            assert!(code == 0 && said.contains("700 rows, none failed"), "{from} {to}: {code} {said}");
            assert_eq!(ground.files_of(&to), [to.as_str()], "nothing else is left");
        }
        let lines = json_lines(&ground.path(&format!("from-{input}.jsonl")));
        assert_eq!(lines.len(), ROWS);
        for (row, line) in lines.iter().enumerate() {
            assert_eq!((line["id"].as_u64(), line["prediction"].as_u64()), (Some(row as u64), Some(2 * row as u64)));
            assert_eq!(
                (line["zip"].as_str().unwrap(), line["text"].as_str()),
                (&*format!("{row:05}"), text(row).as_deref())
            );
        }
        let mut csv = csv::Reader::from_path(ground.path(&format!("from-{input}.csv"))).unwrap();
        let names = if input == "parquet" { "id,zip,text,at,prediction" } else { "id,zip,text,prediction" };
        assert_eq!(csv.headers().unwrap().iter().collect::<Vec<_>>().join(","), names);
        let records: Vec<_> = csv.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), ROWS);
        for (row, record) in records.iter().enumerate() {
            assert_eq!(&record[0], row.to_string());
            assert_eq!((&record[1], &record[2]), (&*format!("{row:05}"), &*text(row).unwrap_or_default()));
            assert_eq!(&record[record.len() - 1], (2 * row).to_string());
        }
        let batches = read_parquet(&ground, &format!("from-{input}.parquet"));
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), ROWS);
        let mut row = 0;
        for batch in &batches {
            let column = |name| batch.column_by_name(name).unwrap();
            for index in 0..batch.num_rows() {
                assert_eq!(column("id").as_primitive::<Int64Type>().value(index), row);
                assert_eq!(column("zip").as_string::<i32>().value(index), format!("{row:05}"));
                assert_eq!(column("prediction").as_primitive::<Int64Type>().value(index), 2 * row);
                row += 1;
            }
        }
    }
    // The first line is as it came, with the answer beside.
    let first = ground.read("from-jsonl.jsonl").lines().next().unwrap().to_owned();
    assert_eq!(first, r#"{"id":0, "zip": "00000","text":null,"prediction":0}"#);
    let (code, said) = ground.run("in.parquet", "some.csv", &["--columns", "zip,id", "--prediction", "twice"]);
    assert_eq!(code, 0, "{said}");
    assert!(ground.read("some.csv").starts_with("zip,id,twice\n00000,0,0\n00001,1,2\n"));
    let (code, said) = ground.run("in.csv", "none.csv", &["--columns", "name"]);
    assert!(
        code == 64 && said.contains("--columns: there is no column 'name' in the input; it has id, zip, text"),
        "{said}"
    );
    let (code, said) = ground.run("in.csv", "none.csv", &["--prediction", "zip"]);
    assert!(code == 64 && said.contains("the input has a column 'zip'"), "{said}");
    assert!(ground.files_of("none.csv").is_empty());
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn bad_rows_fail_alone_with_the_reason() {
    let model = RowModel::start(Duration::ZERO, 0);
    let ground = Ground::new(model.url(), "");
    ground.lines("in.jsonl", 500, |row| match row {
        17 => "{\"text\": \"bad one\"}".to_owned(),
        18 => "{\"text\": ".to_owned(),
        400 => String::new(),
        401 => "{\"text\": \"bad two\"}".to_owned(),
        row => format!("{{\"text\": \"{row}\"}}"),
    });
    let (code, said) = ground.run("in.jsonl", "out.jsonl", &[]);
    assert!(code == 1 && said.contains("500 rows, 4 failed (see out.jsonl.errors.jsonl)"), "{code} {said}");
    let lines = json_lines(&ground.path("out.jsonl"));
    assert_eq!(lines.len(), 500);
    for (row, line) in lines.iter().enumerate() {
        let expected = (![17, 18, 400, 401].contains(&row)).then(|| row.to_string());
        assert_eq!(line["prediction"].as_str(), expected.as_deref(), "{row}");
    }
    let errors = json_lines(&ground.path("out.jsonl.errors.jsonl"));
    let codes: Vec<_> =
        errors.iter().map(|it| (it["row"].as_u64().unwrap(), it["error_code"].as_str().unwrap())).collect();
    assert_eq!(codes, [(18, "BAD_REQUEST"), (19, "BAD_ROW"), (401, "BAD_ROW"), (402, "BAD_REQUEST")]);
    assert!(errors[0]["correlation_id"].as_str().unwrap().starts_with("batch-"));
    assert_eq!(errors[2]["message"], "the line is empty");

    // An input that does not suit the model at all is not asked about to its end.
    ground.lines("all.jsonl", 20_000, |_| "{\"text\": \"bad\"}".to_owned());
    let (code, said) = ground.run("all.jsonl", "all.csv", &[]);
    assert!(code == 64 && said.contains("rows have all failed, and none is answered: BAD_REQUEST"), "{code} {said}");
    assert!(ground.files_of("all.csv").is_empty());
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn standard_input_is_answered_on_standard_output() {
    let model = RowModel::start(Duration::ZERO, 0);
    let ground = Ground::new(model.url(), "");
    let mut child = ground.command("-", "-", &[]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    // An answer does not wait for the end of the input.
    input.write_all(b"{\"n\": 1}\n").unwrap();
    let mut first = [0; 24];
    output.read_exact(&mut first).unwrap();
    assert_eq!(std::str::from_utf8(&first).unwrap(), "{\"n\": 1,\"prediction\":2}\n");
    input.write_all(b"{\"n\": 2}\n[5, 6]\n\"x\"").unwrap();
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let expected =
        "{\"n\": 2,\"prediction\":4}\n{\"inputs\":[5, 6],\"prediction\":10}\n{\"inputs\":\"x\",\"prediction\":\"x\"}\n";
    assert_eq!(rest, expected);
    assert_eq!(child.wait().unwrap().code(), Some(0));

    write_inputs(&ground);
    let more = ["--input-format", "parquet", "--output-format", "csv", "--columns", "id"];
    let file = File::open(ground.path("in.parquet")).unwrap();
    let done = ground.command("-", "-", &more).stdin(file).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.starts_with("id,prediction\n0,0\n1,2\n") && text.lines().count() == ROWS + 1, "{text:.200}");
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn dry_run_writes_nothing_and_tells_the_time() {
    let model = RowModel::start(Duration::from_millis(20), 0);
    let ground = Ground::new(model.url(), "");
    write_inputs(&ground);
    let done = ground.command("in.csv", "out.csv", &["--dry-run", "--rows", "50"]).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && said.starts_with("700 rows, 14 requests, "), "{said}");
    assert!(said.contains("\nabout ") && said.contains("rows were asked about on trial; "), "{said}");
    assert!(ground.files_of("out").is_empty());
}

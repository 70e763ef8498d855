use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

fn read(text: &str) -> Option<Payload> {
    Payload::read(JSON, &text.to_owned().into())
}

fn key(text: &str) -> Option<JoinKey> {
    read(text)?.key(JSON, None, false)
}

fn key_with(text: &str, signature: &Signature) -> Option<JoinKey> {
    read(text)?.key(JSON, Some(signature), false)
}

fn join(texts: &[&str]) -> String {
    let payloads: Vec<_> = texts.iter().map(|text| read(text).unwrap()).collect();
    let joined = Payload::join(&payloads.iter().collect::<Vec<_>>());
    String::from_utf8(joined.to_vec()).unwrap()
}

#[test]
fn rows_are_joined_as_written() {
    for (one, other, joined) in [
        (
            r#"{"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"]]}}"#,
            r#" {"dataframe_split":{"data":[ [2,"\u00e9]"] , [3, "" ] ],"columns":["a","b"]}}"#,
            r#"{"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"],[2,"\u00e9]"] , [3, "" ]]}}"#,
        ),
        (
            r#"{"dataframe_split": {"columns": ["a"], "index": [0, 1], "data": [[1], [2]]}}"#,
            r#"{"dataframe_split": {"index": [0], "columns": ["a"], "data": [[3]]}}"#,
            r#"{"dataframe_split": {"columns": ["a"], "index": [0,1,2], "data": [[1], [2],[3]]}}"#,
        ),
        (
            r#"{"dataframe_records": [{"a": 1.5, "b": null}], "params": {"k": 1}}"#,
            r#"{"params": {"k": 1}, "dataframe_records": [{"a":NaN,"b":null}, {"a":-Infinity, "b": null}]}"#,
            r#"{"dataframe_records": [{"a": 1.5, "b": null},{"a":NaN,"b":null}, {"a":-Infinity, "b": null}], "params": {"k": 1}}"#,
        ),
        (r#"{"inputs": [[1, 2]]}"#, r#"{"inputs": [[3, 4], [5, 6]]}"#, r#"{"inputs": [[1, 2],[3, 4], [5, 6]]}"#),
        (
            r#"{"instances": [{"a": [1.0]}]}"#,
            r#"{"instances":[{"a":[2.0]}]}"#,
            r#"{"instances": [{"a": [1.0]},{"a":[2.0]}]}"#,
        ),
        (
            r#"{"inputs": {"a": [1, 2], "b": [true, false]}}"#,
            r#"{"inputs": {"a": [3], "b": [true]}}"#,
            r#"{"inputs": {"a": [1, 2,3], "b": [true, false,true]}}"#,
        ),
    ] {
        assert_eq!(key(one), key(other), "{one} {other}");
        assert!(key(one).is_some(), "{one}");
        assert_eq!(join(&[one, other]), joined);
        assert_eq!(join(&[one]), one.replace("[0, 1]", "[0,1]"));
    }
}

#[test]
fn payload_is_not_understood_when_in_doubt() {
    for text in [
        "",
        "{}",
        "[1]",
        "null",
        r#"{"inputs": []}"#,
        r#"{"inputs": 1}"#,
        r#"{"inputs": {"a": 1}}"#,
        r#"{"inputs": {}}"#,
        r#"{"inputs": [1]} x"#,
        r#"{"inputs": [1], "instances": [1]}"#,
        r#"{"inputs": [1], "inputs": [2]}"#,
        r#"{"inputs": [1], "messages": []}"#,
        r#"{"inputs": [1], "inp\u0075ts": [1]}"#,
        r#"{"inputs": [[1], [1, 2]]}"#,
        r#"{"inputs": [1, {"a": 1}]}"#,
        r#"{"inputs": [1, [1]]}"#,
        r#"{"inputs": {"a": [1], "b": [1, 2]}}"#,
        r#"{"inputs": {"a": [1], "a": [1]}}"#,
        r#"{"inputs": [1], "params": {}, "params": {}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "data": []}}"#,
        r#"{"dataframe_split": {"columns": ["a"]}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "data": [1]}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "data": [[]]}}"#,
        r#"{"dataframe_split": {"data": [[]]}}"#,
        r#"{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3]]}}"#,
        r#"{"dataframe_split": {"columns": [["a", "b"]], "data": [[1]]}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "index": [7], "data": [[1]]}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "index": [0, 1], "data": [[1]]}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "data": [[1]], "data": [[1]]}}"#,
        r#"{"dataframe_split": {"columns": ["a"], "data": [[1]], "more": 1}}"#,
        r#"{"dataframe_records": [1, 2]}"#,
        r#"{"dataframe_records": [{"a": 1}, {"a": 1, "b": 2}]}"#,
        r#"{"dataframe_records": [{"a": 1, "b": 2}, {"b": 1, "a": 2}]}"#,
        r#"{"dataframe_records": [{"a": 1, "a": 2}]}"#,
        r#"{"dataframe_records": [{"a": 1, "b": 2}, {"a": 1}]}"#,
        r#"{"dataframe_records": [{}]}"#,
        r#"{"dataframe_records": {"a": 1}}"#,
        r#"{"inputs": [01]}"#,
        r#"{"inputs": [1.]}"#,
        r#"{"inputs": [.5]}"#,
        r#"{"inputs": [+1]}"#,
        r#"{"inputs": [1,]}"#,
        r#"{"inputs": [nan]}"#,
        r#"{"inputs": ["\x"]}"#,
        r#"{"inputs": ["\u12"]}"#,
        "{\"inputs\": [\"\n\"]}",
        r#"{"inputs": ["a]}"#,
        r#"{"inputs": [1}"#,
        r#"{"inputs": [tru]}"#,
        r#"{"inputs": [1]"#,
        "\u{feff}{\"inputs\": [1]}",
    ] {
        assert!(read(text).is_none(), "{text}");
    }
    let deep = format!("{{\"inputs\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(read(&deep).is_none());
    for content_type in
        ["text/plain", "application/json; charset=latin-1", "application/vnd.apache.parquet", "application/json; a=b"]
    {
        assert!(Payload::read(content_type, &r#"{"inputs": [1]}"#.into()).is_none(), "{content_type}");
    }
    assert!(Payload::read("application/json; charset=UTF-8", &r#"{"inputs": [1]}"#.into()).is_some());
    assert!(Payload::read(JSON, &b"{\"inputs\": [\"\xff\"]}"[..].into()).is_none());
    // Payloads of these kinds are understood, but no two are sure to be alike.
    assert!(key(r#"{"inputs": [12345678901234567890]}"#).is_none());
    assert!(key(r#"{"inputs": ["text of some length"]}"#).is_none());
    assert!(key_with(r#"{"inputs": ["text of some length"]}"#, &Signature::default()).is_some());
}

#[test]
fn payloads_stay_apart_when_model_could_see_difference() {
    let split = |row: &str| format!(r#"{{"dataframe_split": {{"columns": ["a", "b"], "data": [{row}]}}}}"#);
    let different = [
        split("[1, 2]"),
        split("[1.0, 2]"),
        split("[1, 2.0]"),
        split("[1, null]"),
        split(r#"[1, "2"]"#),
        split("[1, true]"),
        split("[1, [2]]"),
        split("[1, [2, 3]]"),
        split("[1, {}]"),
        split("[1, 1234567890123456]"),
        split("[[[1]], 2]"),
        split(r#"[1, 2], ["1", 2]"#),
        split("[1, true], [1, 2]"),
        split("[1, 2]").replace(r#""b""#, r#""c""#),
        split("[1, 2]").replace(r#""a", "b""#, r#""b", "a""#),
        split("[1, 2]").replace(r#""columns": ["a", "b"], "#, ""),
        split("[1, 2]").replace(r#""data""#, r#""index": [0], "data""#),
        split("[1, 2]").replace("}}", r#"}, "params": {"k": 1}}"#),
        split("[1, 2]").replace("}}", r#"}, "params": {"k": 2}}"#),
        r#"{"dataframe_records": [{"a": 1, "b": 2}]}"#.into(),
        r#"{"dataframe_records": [{"b": 1, "a": 2}]}"#.into(),
        r#"{"inputs": [{"a": 1, "b": 2}]}"#.into(),
        r#"{"instances": [{"a": 1, "b": 2}]}"#.into(),
        r#"{"inputs": {"a": [1], "b": [2]}}"#.into(),
        r#"{"inputs": [[1, 2]]}"#.into(),
        r#"{"inputs": [[1], [2]]}"#.into(),
        r#"{"inputs": [1, 2]}"#.into(),
        r#"{"inputs": [1.5, null]}"#.into(),
        r#"{"inputs": [1.5, 2]}"#.into(),
        r#"{"inputs": [[[1, 2]]]}"#.into(),
    ];
    let keys: Vec<_> = different.iter().map(|text| key(text).unwrap_or_else(|| panic!("{text}"))).collect();
    for (index, one) in keys.iter().enumerate() {
        for (other, text) in keys[..index].iter().zip(&different) {
            assert_ne!(one, other, "{} {text}", different[index]);
        }
    }
}

#[test]
fn numbers_are_alike_when_they_become_floats() {
    let records = |values: &str| {
        let rows: Vec<_> = values.split(' ').map(|value| format!(r#"{{"a": {value}}}"#)).collect();
        format!(r#"{{"dataframe_records": [{}]}}"#, rows.join(", "))
    };
    for values in ["1 2.5", "NaN", "1 null", "-0.0 NaN null 7", "1e3"] {
        assert_eq!(key(&records(values)), key(&records("1.5")), "{values}");
    }
    for values in ["1", "null", "true 1.5", "1.5 1234567890123456"] {
        assert_ne!(key(&records(values)), key(&records("1.5")), "{values}");
    }
    let floats = Signature::new(["a".to_owned()], false);
    assert_eq!(key_with(&records("1"), &floats), key_with(&records("1.5"), &floats));
    assert_ne!(key_with(&records("\"1\""), &floats), key_with(&records("1.5"), &floats));
    let others = Signature::new(["b".to_owned()], false);
    assert_ne!(key_with(&records("1"), &others), key_with(&records("1.5"), &others));
    let tensor = Signature::new([], true);
    assert_eq!(key_with(r#"{"inputs": [[1, 2]]}"#, &tensor), key_with(r#"{"inputs": [[0.5, 2]]}"#, &tensor));
}

#[test]
fn payloads_with_nulls_stay_apart_when_asked() {
    let signature = Signature::new(["a".to_owned()], false);
    let table =
        |values: &str| read(&format!(r#"{{"dataframe_split": {{"columns": ["a"], "data": [[{values}]]}}}}"#)).unwrap();
    for (one, other, are_alike) in
        [("1.5", "null", false), ("1.5", "NaN", false), ("null", "null", true), ("1.5", "7", true)]
    {
        let (one, other) = (table(one), table(other));
        let key = |payload: &Payload, apart| payload.key(JSON, Some(&signature), apart).unwrap();
        assert_eq!(key(&one, false), key(&other, false));
        assert_eq!(key(&one, true) == key(&other, true), are_alike);
    }
}

#[test]
fn tables_are_joined_when_plain() {
    let read = |text: &str| Payload::read(CSV, &text.to_owned().into());
    let (one, other) = (read("a,b,c\n1,x y,2.5\n").unwrap(), read("a,b,c\n-20,Łódź,0.5\n3,z,1.0").unwrap());
    assert_eq!((one.rows(), other.rows()), (1, 2));
    assert_eq!(one.key(CSV, None, false), other.key(CSV, None, false));
    assert_eq!(Payload::join(&[&one, &other]), "a,b,c\n1,x y,2.5\n-20,Łódź,0.5\n3,z,1.0\n");
    assert_eq!(Payload::join(&[&other, &one]), "a,b,c\n-20,Łódź,0.5\n3,z,1.0\n1,x y,2.5");
    let whole = read("a,b,c\n1,x,2\n").unwrap();
    assert_ne!(one.key(CSV, None, false), whole.key(CSV, None, false));
    for text in [
        "",
        "a",
        "a\n",
        "a,b\n1",
        "a\n1,2",
        "a\n\n1",
        "a\n\"1\"",
        "a\r\n1\r\n",
        "a\n1\n\n",
        "a\n ",
        "a\nnan",
        "a\nTrue",
        "a\n1e5",
        "a\n1\nx",
        "a\n1\n1.5",
        "a\n2024-01-01",
        "a\n\u{0}",
        "a\nNULL",
        "a\n-",
        "a\n.5",
        "a\n1234567890123456",
    ] {
        assert!(read(text).is_none(), "{text:?}");
    }
}

#[test]
fn answers_are_cut_as_written() {
    let body = r#"{"predictions": [1, {"a": [2, "]"]}, NaN, "\"x"]}"#.into();
    let answer = Answer::read(&body, 4).unwrap();
    assert_eq!(answer.part(0..1), r#"{"predictions": [1]}"#);
    assert_eq!(answer.part(1..3), r#"{"predictions": [{"a": [2, "]"]}, NaN]}"#);
    assert_eq!(answer.part(3..4), r#"{"predictions": ["\"x"]}"#);
    assert_eq!(answer.part(0..4), body);
    let body = r#"{"predictions":{"a":[1,2],"b":[[],[3]]}}"#.into();
    let answer = Answer::read(&body, 2).unwrap();
    assert_eq!(answer.part(1..2), r#"{"predictions":{"a":[2],"b":[[3]]}}"#);
    for (body, rows) in [
        (r#"{"predictions": [1, 2]}"#, 3),
        (r#"{"predictions": [1, 2]}"#, 1),
        (r#"{"predictions": {"a": [1, 2], "b": [1]}}"#, 2),
        (r#"{"predictions": {"a": [1, 2], "b": 1}}"#, 2),
        (r#"{"predictions": {}}"#, 0),
        (r#"{"predictions": []}"#, 0),
        (r#"{"predictions": 1}"#, 1),
        (r#"{"predictions": [1], "more": 1}"#, 1),
        (r#"{"predictions": [1]} {}"#, 1),
        (r#"[1]"#, 1),
        ("", 1),
    ] {
        assert!(Answer::read(&body.into(), rows).is_none(), "{body}");
    }
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f32>().prop_filter("JSON has no word for it", |number| number.is_finite()).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        prop::collection::vec(any::<i8>(), 2).prop_map(Value::from),
        Just(json!({"x": [1], "]": "}"})),
    ]
}

/// Generates payloads of one kind, each as its text and its rows.
fn payloads() -> impl Strategy<Value = Vec<(String, Vec<Value>)>> {
    let rows = (1usize..4).prop_flat_map(|width| {
        prop::collection::vec(leaf(), width).prop_flat_map(|row| {
            let like = |value: &Value| match value {
                Value::Number(number) if number.is_f64() => {
                    (0u8..100).prop_map(|part| json!(f64::from(part) + 0.5)).boxed()
                }
                Value::Number(_) => any::<i16>().prop_map(Value::from).boxed(),
                Value::String(_) => "\\PC{0,8}".prop_map(Value::from).boxed(),
                same => Just(same.clone()).boxed(),
            };
            let row: Vec<_> = row.iter().map(like).collect();
            let batch = prop::collection::vec(row, 1..5);
            prop::collection::vec(batch, 1..6)
        })
    });
    (rows, 0..4usize, any::<bool>(), any::<bool>()).prop_map(|(batches, format, is_pretty, has_params)| {
        let write = |rows: Vec<Vec<Value>>| {
            let name = |column: usize| format!("column \"{column}\"");
            let names: Vec<_> = (0..rows[0].len()).map(name).collect();
            let record = |row: &Vec<Value>| names.iter().cloned().zip(row.iter().cloned()).collect::<Value>();
            let records: Vec<_> = rows.iter().map(record).collect();
            let mut payload = match format {
                0 => json!({"dataframe_split": {"columns": names, "data": rows}}),
                1 => {
                    let index: Vec<_> = (0..rows.len()).collect();
                    json!({"dataframe_split": {"columns": names, "index": index, "data": rows}})
                }
                2 => json!({"dataframe_records": records}),
                _ => json!({"instances": records}),
            };
            if has_params {
                payload["params"] = json!({"k": [1, "}"]});
            }
            let text = if is_pretty { serde_json::to_string_pretty(&payload) } else { serde_json::to_string(&payload) };
            (text.unwrap(), if format < 2 { rows.into_iter().map(Value::from).collect() } else { records })
        };
        batches.into_iter().map(write).collect()
    })
}

fn rows_of(payload: &Value) -> &Value {
    payload.get("dataframe_split").map_or_else(
        || payload.get("dataframe_records").or_else(|| payload.get("instances")).unwrap(),
        |split| &split["data"],
    )
}

proptest! {
    #[test]
    fn joined_payload_holds_rows_of_all_and_nothing_else(payloads in payloads()) {
        let understood: Vec<_> = payloads.iter().map(|(text, _)| read(text).unwrap()).collect();
        let signature = Signature::default();
        let first = understood[0].key(JSON, Some(&signature), false).unwrap();
        for (payload, (_, rows)) in understood.iter().zip(&payloads) {
            prop_assert_eq!(payload.rows(), rows.len());
            prop_assert_eq!(&payload.key(JSON, Some(&signature), false).unwrap(), &first);
        }
        let joined = Payload::join(&understood.iter().collect::<Vec<_>>());
        let all: Value = payloads.iter().flat_map(|(_, rows)| rows.clone()).collect();
        let mut joined_value: Value = serde_json::from_slice(&joined).unwrap();
        prop_assert_eq!(rows_of(&joined_value), &all);
        let again = Payload::read(JSON, &joined).unwrap();
        prop_assert_eq!(again.rows(), all.as_array().unwrap().len());
        prop_assert_eq!(&again.key(JSON, Some(&signature), false).unwrap(), &first);
        // The joined payload is the first, apart from the rows and their numbers.
        let mut alone: Value = serde_json::from_str(&payloads[0].0).unwrap();
        for value in [&mut joined_value, &mut alone] {
            if let Some(split) = value.get_mut("dataframe_split") {
                split["index"] = Value::Null;
                split["data"] = Value::Null;
            } else {
                *value = value.get("params").cloned().unwrap_or_default();
            }
        }
        prop_assert_eq!(joined_value, alone);
    }

    #[test]
    fn reading_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Payload::read(JSON, &bytes.clone().into());
        let _ = Payload::read(CSV, &bytes.clone().into());
        let _ = Answer::read(&bytes.into(), 1);
    }

    #[test]
    fn payload_is_json_when_understood_after_change_of_byte(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = br#"{"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x\n"], [-2.5e3, "\u00e9"]]}, "params": {"a": [true, null]}}"#.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Some(payload) = Payload::read(JSON, &bytes.clone().into()) {
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(rows_of(&value).as_array().unwrap().len(), payload.rows());
        }
    }

    #[test]
    fn parts_make_answer_when_joined(predictions in prop::collection::vec(leaf(), 1..20), cut in any::<prop::sample::Index>()) {
        let write = |predictions: &[Value]| bytes::Bytes::from(json!({"predictions": predictions}).to_string());
        let cut = cut.index(predictions.len());
        let answer = Answer::read(&write(&predictions), predictions.len()).unwrap();
        prop_assert_eq!(answer.part(cut..predictions.len()), write(&predictions[cut..]));
        if cut > 0 {
            prop_assert_eq!(answer.part(0..cut), write(&predictions[..cut]));
        }
    }
}

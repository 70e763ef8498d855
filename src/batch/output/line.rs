//! Lines: a row and its answer as one JSON object.

use crate::batch::block::Block;
use crate::batch::json;
use crate::batch::row::{Original, Row};

/// Column of a row that is a bare value.
const BARE: &str = "inputs";

/// Writes rows as JSON objects, a line each.
#[derive(Debug)]
pub(super) struct LineWriter {
    /// Columns of the output; None takes all.
    columns: Option<Vec<String>>,
    /// Name of the answer's column, as it stands in JSON with its colon.
    prediction: Vec<u8>,
}

impl LineWriter {
    pub(super) fn new(columns: Option<Vec<String>>, prediction: &str) -> Self {
        let mut name = Vec::new();
        json::push_string(&mut name, prediction);
        name.push(b':');
        Self { columns, prediction: name }
    }

    /// Appends a row with its prediction.
    pub(super) fn write(&self, out: &mut Vec<u8>, block: &Block, row: &Row, prediction: &[u8]) {
        // The line as it is, up to its last brace.
        if let (None, Original::Line(line)) = (&self.columns, &row.original)
            && let Some(inside) = line.strip_suffix('}')
        {
            let inside = inside.trim_ascii_end();
            out.extend_from_slice(inside.as_bytes());
            return self.end(out, inside == "{", prediction);
        }
        out.push(b'{');
        let begin = out.len();
        match (&row.values, &block.columns) {
            (Ok(values), Some(columns)) => {
                let values = json::elements(values).unwrap_or_default();
                let mut push = |name: &str, value: &str| {
                    if out.len() > begin {
                        out.push(b',');
                    }
                    json::push_string(out, name);
                    out.push(b':');
                    out.extend_from_slice(value.as_bytes());
                };
                match &self.columns {
                    None => {
                        columns.names().iter().zip(values).for_each(|(name, value)| push(name, value.get()));
                    }
                    Some(wanted) => {
                        for name in wanted {
                            if let Some(value) = columns.position(name).and_then(|index| values.get(index)) {
                                push(name, value.get());
                            }
                        }
                    }
                }
            }
            (Ok(value), None) if self.columns.as_ref().is_none_or(|wanted| wanted.iter().any(|name| name == BARE)) => {
                json::push_string(out, BARE);
                out.push(b':');
                out.extend_from_slice(value.as_bytes());
            }
            _ => {}
        }
        let is_empty = out.len() == begin;
        self.end(out, is_empty, prediction);
    }

    fn end(&self, out: &mut Vec<u8>, is_empty: bool, prediction: &[u8]) {
        if !is_empty {
            out.push(b',');
        }
        out.extend_from_slice(&self.prediction);
        out.extend_from_slice(prediction);
        out.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::block::Position;
    use crate::batch::columns::Columns;

    fn written(columns: Option<&[&str]>, row: Row, is_bare: bool) -> String {
        let names = ["a", "b"].map(str::to_owned).to_vec();
        let of_block = (!is_bare).then(|| Arc::new(Columns::new(names).unwrap()));
        let block = Block { first: 0, rows: Vec::new(), columns: of_block, end: Position::default(), size: 0 };
        let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let mut out = Vec::new();
        LineWriter::new(columns, "p").write(&mut out, &block, &row, b"0.5");
        String::from_utf8(out).unwrap()
    }

    fn row(values: &str, line: Option<&str>) -> Row {
        let original = line.map_or(Original::None, |line| Original::Line(line.into()));
        Row { values: Ok(values.into()), original }
    }

    #[test]
    fn line_is_kept_as_it_came() {
        let line = r#"{ "a" :1.50,  "b": "\u00e9" }"#;
        let values = r#"[1.50,"\u00e9"]"#;
        assert_eq!(written(None, row(values, Some(line)), false), "{ \"a\" :1.50,  \"b\": \"\\u00e9\",\"p\":0.5}\n");
        assert_eq!(written(None, row("[]", Some("{ }")), false), "{\"p\":0.5}\n");
        assert_eq!(written(Some(&["b"]), row(values, Some(line)), false), "{\"b\":\"\\u00e9\",\"p\":0.5}\n");
        assert_eq!(written(Some(&[]), row(values, Some(line)), false), "{\"p\":0.5}\n");
        assert_eq!(written(Some(&["c", "a"]), row(values, Some(line)), false), "{\"a\":1.50,\"p\":0.5}\n");
    }

    #[test]
    fn row_without_line_is_made_from_its_values() {
        assert_eq!(written(None, row("[1,[2]]", None), false), "{\"a\":1,\"b\":[2],\"p\":0.5}\n");
        assert_eq!(written(None, row("[1,2]", None), true), "{\"inputs\":[1,2],\"p\":0.5}\n");
        assert_eq!(written(Some(&["a"]), row("7", None), true), "{\"p\":0.5}\n");
        assert_eq!(written(None, Row::unsendable(String::new(), Original::None), false), "{\"p\":0.5}\n");
    }
}

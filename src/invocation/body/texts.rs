//! The texts in the rows of a payload, each with its column.

use super::payload::{Payload, PayloadFormat};

impl Payload {
    /// Calls `each` with every text in its rows, and with the number of the column that it stands in.
    pub fn texts(&self, mut each: impl FnMut(usize, &[u8])) {
        for (place, rows) in self.rows_in_bytes().enumerate() {
            match self.table.format {
                PayloadFormat::Csv => fields(rows, &mut each),
                PayloadFormat::InputColumns => in_json(rows, &mut |_, text| each(place, text)),
                _ => in_json(rows, &mut each),
            }
        }
    }

    /// Returns the bytes of the rows, in one piece or by column.
    pub fn rows_in_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.table.places.iter().map(|place| self.bytes.get(place.clone()).unwrap_or_default())
    }
}

/// Finds the texts in rows of JSON that were understood before, and so are well-formed. A row is an array or an object,
/// so its cells are separated by the commas one level down.
fn in_json(rows: &[u8], each: &mut impl FnMut(usize, &[u8])) {
    let (mut depth, mut column, mut at) = (0_usize, 0, 0);
    while let Some(byte) = rows.get(at) {
        match byte {
            b'[' | b'{' => {
                column = if depth == 0 { 0 } else { column };
                depth += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => column += 1,
            b'"' => {
                let end = end_of_text(rows, at);
                let is_key = rows.iter().skip(end).find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if !is_key {
                    each(if depth == 0 { 0 } else { column }, rows.get(at..end).unwrap_or_default());
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

/// Finds the end of the text that begins at `start`.
fn end_of_text(rows: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = rows.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    rows.len()
}

fn fields(rows: &[u8], each: &mut impl FnMut(usize, &[u8])) {
    for line in rows.split(|byte| *byte == b'\n') {
        for (column, field) in line.split(|byte| *byte == b',').enumerate() {
            if !field.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-') {
                each(column, field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn texts(content_type: &str, text: &str) -> Vec<(usize, String)> {
        let payload = Payload::read(content_type, &Bytes::from(text.to_owned())).unwrap();
        let mut found = Vec::new();
        payload.texts(|column, text| found.push((column, String::from_utf8(text.to_vec()).unwrap())));
        found
    }

    #[test]
    fn texts_have_their_column_in_every_form() {
        let json = |text| texts("application/json", text);
        let split = r#"{"dataframe_split": {"columns": ["n", "t"], "data": [[1, "a, [b"], [2, "c\"]"]]}}"#;
        assert_eq!(json(split), [(1, r#""a, [b""#.to_owned()), (1, r#""c\"]""#.to_owned())]);
        let records =
            r#"{"dataframe_records": [{"n" : 1, "t": "a", "u": ["x", "y"]}, {"n": 2, "t": "b", "u": ["z", "z"]}]}"#;
        let expected = [(1, "\"a\""), (2, "\"x\""), (2, "\"y\""), (1, "\"b\""), (2, "\"z\""), (2, "\"z\"")];
        assert_eq!(json(records), expected.map(|(column, text)| (column, text.to_owned())));
        assert_eq!(json(r#"{"inputs": ["a", "b"]}"#), [(0, "\"a\"".to_owned()), (0, "\"b\"".to_owned())]);
        assert_eq!(json(r#"{"inputs": {"n": [1], "t": ["a"]}}"#), [(1, "\"a\"".to_owned())]);
        let csv = texts("text/csv", "n,t\n1,a\n-2,b\n");
        assert_eq!(csv, [(1, "a".to_owned()), (1, "b".to_owned())]);
    }
}

//! Columns: the names of a row's values.

use super::json;

/// Names of the values of rows, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns {
    names: Vec<String>,
    json: String,
}

impl Columns {
    /// Takes the names in their order.
    ///
    /// # Errors
    /// When a name is there twice: its values could not be told apart.
    pub(super) fn new(names: Vec<String>) -> Result<Self, String> {
        if let Some((_, twice)) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            return Err(format!("column '{twice}' is there twice"));
        }
        let mut json = vec![b'['];
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json::push_string(&mut json, name);
        }
        json.push(b']');
        Ok(Self { json: String::from_utf8(json).unwrap_or_default(), names })
    }

    /// Returns the names.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the names as a JSON array.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// Returns the place of a column.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_distinct_and_known_by_name() {
        let columns = Columns::new(vec!["a".to_owned(), "b\"".to_owned()]).unwrap();
        assert_eq!((columns.json(), columns.position("b\""), columns.position("c")), (r#"["a","b\""]"#, Some(1), None));
        let error = Columns::new(vec!["a".to_owned(), "b".to_owned(), "a".to_owned()]).unwrap_err();
        assert_eq!(error, "column 'a' is there twice");
    }
}

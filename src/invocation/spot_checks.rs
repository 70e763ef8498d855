//! Spot checks of a model that is called for several requests since its owner says that it may be: some requests are called
//! alone as well, to see that they are answered the same.
//!
//! A case that the owner did not think of shows in rows of a new kind. So rows are checked when their kind comes first, and
//! beyond that in one call of many.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::body::{JoinKey, Payload};

/// First calls of each kind (of the same columns, types and params) that are checked.
const FIRST_CALLS: usize = 4;

/// Interval of checks in calls: of the calls after the first ones, one in so many is checked.
const CHECK_EVERY: u64 = 64;

/// Requests of one call that are called alone as well, after which no further one is chosen for its texts.
const MAX_CHECKS: usize = 8;

/// Texts of a column that are remembered; a column with more holds no categories, and a new text in it is nothing new.
const MAX_CATEGORIES: usize = 64;

/// Checks of a text that several requests of a call have, in each column, and of a row that they share.
const MAX_REPETITIONS: usize = 4;

/// Columns that are checked one by one; the texts of further ones are not looked at.
const MAX_COLUMNS: usize = 64;

/// Kinds that are remembered, at most; with one more, all are forgotten.
const MAX_KINDS: usize = 1024;

/// Remembers for one version of a model which kinds, texts and rows were checked.
#[derive(Debug, Default)]
pub(super) struct SpotChecks {
    calls: u64,
    /// Calls of each kind that were checked.
    kinds: HashMap<JoinKey, usize>,
    columns: Vec<ColumnTexts>,
    /// Checked rows that several requests of a call had.
    repeated_rows: usize,
}

#[derive(Debug, Default)]
struct ColumnTexts {
    texts: HashSet<u64>,
    repetitions: usize,
}

impl SpotChecks {
    /// Chooses the payloads to be checked, of all payloads of one call, which have this key; returns their numbers.
    pub(super) fn choose(&mut self, key: &JoinKey, payloads: &[&Payload]) -> Vec<usize> {
        let mut chosen = Vec::new();
        self.calls += 1;
        if self.is_new(key) {
            // An effect that runs along the rows shows at one of their ends.
            chosen.extend([0, payloads.len().saturating_sub(1)]);
        } else if self.calls.is_multiple_of(CHECK_EVERY) {
            chosen.push(fastrand::usize(..payloads.len().max(1)));
        }
        self.choose_repeated_rows(payloads, &mut chosen);
        let mut in_this_call = HashMap::new();
        for (number, payload) in payloads.iter().enumerate() {
            payload.texts(|column, text| self.choose_text(column, text, number, &mut in_this_call, &mut chosen));
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    fn is_new(&mut self, key: &JoinKey) -> bool {
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(key) {
            self.kinds.clear();
        }
        let seen = self.kinds.entry(key.clone()).or_default();
        *seen += 1;
        *seen <= FIRST_CALLS
    }

    /// Chooses two requests with the same rows: which of them the model takes for the repetition, only the model knows.
    fn choose_repeated_rows(&mut self, payloads: &[&Payload], chosen: &mut Vec<usize>) {
        if self.repeated_rows >= MAX_REPETITIONS {
            return;
        }
        let mut first = HashMap::new();
        for (number, payload) in payloads.iter().enumerate() {
            let other = *first.entry(payload.rows_in_bytes().collect::<Vec<_>>()).or_insert(number);
            if other != number {
                self.repeated_rows += 1;
                chosen.extend([other, number]);
                return;
            }
        }
    }

    fn choose_text(
        &mut self,
        column: usize,
        text: &[u8],
        number: usize,
        in_this_call: &mut HashMap<(usize, u64), usize>,
        chosen: &mut Vec<usize>,
    ) {
        if column >= MAX_COLUMNS || chosen.len() >= MAX_CHECKS {
            return;
        }
        if column >= self.columns.len() {
            self.columns.resize_with(column + 1, ColumnTexts::default);
        }
        let Some(known) = self.columns.get_mut(column) else { return };
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let first = *in_this_call.entry((column, hash)).or_insert(number);
        if known.texts.len() < MAX_CATEGORIES && known.texts.insert(hash) {
            chosen.push(number);
        } else if first != number && known.repetitions < MAX_REPETITIONS {
            known.repetitions += 1;
            chosen.extend([first, number]);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn choose(checks: &mut SpotChecks, rows: &[String]) -> Vec<usize> {
        let payload = |row: &String| {
            let text = format!(r#"{{"dataframe_split": {{"columns": ["a", "b"], "data": [[{row}]]}}}}"#);
            Payload::read("application/json", &Bytes::from(text)).unwrap()
        };
        let payloads: Vec<_> = rows.iter().map(payload).collect();
        let key = payloads[0].key("application/json", None, true).unwrap();
        checks.choose(&key, &payloads.iter().collect::<Vec<_>>())
    }

    fn numbers(from: u32) -> Vec<String> {
        (from..from + 8).map(|number| format!("{number}, \"Oslo\"")).collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().enumerate().map(|(number, text)| format!("{number}, \"{text}\"")).collect()
    }

    #[test]
    fn calls_are_checked_first_and_then_one_in_many() {
        let mut checks = SpotChecks::default();
        let checked: Vec<_> = (0..1_000).map(|call| choose(&mut checks, &numbers(call * 8)).len()).collect();
        assert!(checked[..4].iter().all(|count| *count >= 1), "{checked:?}");
        let later = checked[8..].iter().filter(|count| **count > 0).count();
        assert!((10..=20).contains(&later), "{later}");
    }

    #[test]
    fn rows_are_checked_when_their_kind_is_new() {
        let mut checks = SpotChecks::default();
        (0..20).for_each(|call| drop(choose(&mut checks, &numbers(call * 8))));
        assert_eq!(choose(&mut checks, &texts(&["Oslo", "Rome", "Oslo"])), [1], "an unseen text");
        assert_eq!(choose(&mut checks, &texts(&["Oslo", "Rome", "Oslo"])), [0; 0]);
        let nulls: Vec<_> = (0..3).map(|number| format!("{number}, null")).collect();
        assert_eq!(choose(&mut checks, &nulls), [0, 2], "nulls");
        let same = vec!["1, \"Rome\"".to_owned(), "2, \"Oslo\"".to_owned(), "1, \"Rome\"".to_owned()];
        assert_eq!(choose(&mut checks, &same), [0, 2], "the same row twice");
    }

    #[test]
    fn texts_are_not_new_when_column_has_no_categories() {
        let mut checks = SpotChecks::default();
        let checked: Vec<_> = (0..200)
            .map(|call| {
                let all: Vec<_> = (0..16).map(|number| format!("0.5, \"text {call} {number}\"")).collect();
                choose(&mut checks, &all).len()
            })
            .collect();
        assert!(checked.iter().all(|count| *count <= MAX_CHECKS + 1), "{checked:?}");
        assert!(checked[10..].iter().sum::<usize>() <= 4, "{checked:?}");
    }
}

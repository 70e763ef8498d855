//! Looks at a model that is called for several requests since its owner says that it may be: which of them are called alone as
//! well, to see that they are answered the same.
//!
//! What an owner did not think of shows in rows of a new kind. So those are looked at when they come first, and beyond that one
//! call of many.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::body::{Key, Payload};

/// How many calls of each kind (of the same columns, types and params) are looked at when they come first.
const FIRST_CALLS: usize = 4;

/// Of the calls after that, one in so many.
const LOOK_EVERY: u64 = 64;

/// When so many requests of one call are called alone as well, no more are looked for.
const MOST: usize = 8;

/// A column with more texts than these holds no categories, and new texts in it are nothing new.
const CATEGORIES: usize = 64;

/// How often a text that several requests of a call have, or a row that they share, is looked at in each column.
const REPETITIONS: usize = 4;

/// More columns are not looked at one by one, and more kinds are not remembered.
const COLUMNS: usize = 64;
const KINDS: usize = 1024;

/// What was looked at of one version of a model.
#[derive(Debug, Default)]
pub(super) struct Looks {
    calls: u64,
    /// How many calls of each kind were looked at.
    kinds: HashMap<Key, usize>,
    columns: Vec<Column>,
    /// Rows that several requests of a call had.
    repeated_rows: usize,
}

#[derive(Debug, Default)]
struct Column {
    texts: HashSet<u64>,
    repetitions: usize,
}

impl Looks {
    /// The numbers of those payloads, of all of this key in one call, that are to be looked at.
    pub(super) fn choose(&mut self, key: &Key, payloads: &[&Payload]) -> Vec<usize> {
        let mut chosen = Vec::new();
        self.calls += 1;
        if self.is_new(key) {
            // What runs along the rows shows at one of their ends.
            chosen.extend([0, payloads.len().saturating_sub(1)]);
        } else if self.calls.is_multiple_of(LOOK_EVERY) {
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

    fn is_new(&mut self, key: &Key) -> bool {
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(key) {
            self.kinds.clear();
        }
        let seen = self.kinds.entry(key.clone()).or_default();
        *seen += 1;
        *seen <= FIRST_CALLS
    }

    /// Those who ask the same: which of them is taken for the repetition, only the model knows.
    fn choose_repeated_rows(&mut self, payloads: &[&Payload], chosen: &mut Vec<usize>) {
        if self.repeated_rows >= REPETITIONS {
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
        if column >= COLUMNS || chosen.len() >= MOST {
            return;
        }
        if column >= self.columns.len() {
            self.columns.resize_with(column + 1, Column::default);
        }
        let Some(known) = self.columns.get_mut(column) else { return };
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let first = *in_this_call.entry((column, hash)).or_insert(number);
        if known.texts.len() < CATEGORIES && known.texts.insert(hash) {
            chosen.push(number);
        } else if first != number && known.repetitions < REPETITIONS {
            known.repetitions += 1;
            chosen.extend([first, number]);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn choose(looks: &mut Looks, rows: &[String]) -> Vec<usize> {
        let payload = |row: &String| {
            let text = format!(r#"{{"dataframe_split": {{"columns": ["a", "b"], "data": [[{row}]]}}}}"#);
            Payload::read("application/json", &Bytes::from(text)).unwrap()
        };
        let payloads: Vec<_> = rows.iter().map(payload).collect();
        let key = payloads[0].key("application/json", None, true).unwrap();
        looks.choose(&key, &payloads.iter().collect::<Vec<_>>())
    }

    fn numbers(from: u32) -> Vec<String> {
        (from..from + 8).map(|number| format!("{number}, \"Oslo\"")).collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().enumerate().map(|(number, text)| format!("{number}, \"{text}\"")).collect()
    }

    #[test]
    fn the_first_calls_are_looked_at_and_then_one_in_many() {
        let mut looks = Looks::default();
        let looked: Vec<_> = (0..1_000).map(|call| choose(&mut looks, &numbers(call * 8)).len()).collect();
        assert!(looked[..4].iter().all(|count| *count >= 1), "{looked:?}");
        let later = looked[8..].iter().filter(|count| **count > 0).count();
        assert!((10..=20).contains(&later), "{later}");
    }

    #[test]
    fn rows_of_a_new_kind_are_looked_at_when_they_come() {
        let mut looks = Looks::default();
        (0..20).for_each(|call| drop(choose(&mut looks, &numbers(call * 8))));
        assert_eq!(choose(&mut looks, &texts(&["Oslo", "Rome", "Oslo"])), [1], "an unseen text");
        assert_eq!(choose(&mut looks, &texts(&["Oslo", "Rome", "Oslo"])), [0; 0]);
        let nulls: Vec<_> = (0..3).map(|number| format!("{number}, null")).collect();
        assert_eq!(choose(&mut looks, &nulls), [0, 2], "nulls");
        let same = vec!["1, \"Rome\"".to_owned(), "2, \"Oslo\"".to_owned(), "1, \"Rome\"".to_owned()];
        assert_eq!(choose(&mut looks, &same), [0, 2], "the same row twice");
    }

    #[test]
    fn texts_that_are_no_categories_are_not_new_for_ever() {
        let mut looks = Looks::default();
        let looked: Vec<_> = (0..200)
            .map(|call| {
                let all: Vec<_> = (0..16).map(|number| format!("0.5, \"text {call} {number}\"")).collect();
                choose(&mut looks, &all).len()
            })
            .collect();
        assert!(looked.iter().all(|count| *count <= MOST + 1), "{looked:?}");
        assert!(looked[10..].iter().sum::<usize>() <= 4, "{looked:?}");
    }
}

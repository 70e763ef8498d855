use proptest::prelude::*;

use super::super::choice::Filter;
use super::*;
use crate::message::{Headers, Request, Source};

const CODES: [&str; 3] = ["MODEL_ERROR", "INTERNAL_ERROR", "DEADLINE_EXCEEDED"];

fn letter(offset: i64, code: &str, time: i64) -> Letter {
    let headers: [(&str, &[u8]); 2] =
        [("kafka_dlt-original-topic", b"requests"), ("kafka_dlt-exception-fqcn", code.as_bytes())];
    let record = Request {
        source: Source { topic: "dead".into(), partition: 0, offset },
        timestamp: Some(time),
        key: None,
        payload: Some("{}".into()),
        headers: Headers::from_pairs(headers),
        parked: None,
    };
    Letter::new(record, true)
}

fn choice(filter: Filter) -> Choice {
    Choice { filter, requests: "requests".to_owned(), only_endpoint: None }
}

fn of_code(code: &str) -> Choice {
    choice(Filter { codes: vec![code.to_owned()], ..Filter::default() })
}

fn since(since: i64) -> Choice {
    choice(Filter { since: Some(since), ..Filter::default() })
}

/// A run over the letters before `until`, which may end before that; the offsets that it sends, and what it notes.
fn run(notes: &Notes, letters: &[Letter], choice: &Choice, until: i64) -> (Vec<i64>, Notes) {
    let mut notes = notes.clone();
    notes.begin(choice);
    let (mut sent, mut first_left) = (Vec::new(), None);
    let looked_at = notes.offset..until;
    for letter in letters.iter().filter(|letter| looked_at.contains(&letter.offset())) {
        if notes.has(letter) {
            continue;
        }
        if choice.takes(letter) {
            sent.push(letter.offset());
        } else {
            notes.leave(letter);
            first_left.get_or_insert(letter.offset());
        }
    }
    let noted = notes.at(until, first_left);
    (sent, Notes::read(noted.offset, &noted.metadata()).unwrap())
}

#[test]
fn what_is_left_takes_no_room_however_much_it_is() {
    let letters: Vec<_> = (0..50_000).map(|offset| letter(offset, CODES[offset as usize % 2], offset)).collect();
    let (sent, noted) = run(&Notes::new(0), &letters, &of_code(CODES[1]), 50_000);
    assert_eq!(sent, (0..25_000).map(|number| 2 * number + 1).collect::<Vec<_>>());
    assert!(noted.metadata().len() < 200, "{}", noted.metadata());
    assert!(run(&noted, &letters, &of_code(CODES[1]), 50_000).0.is_empty());
    let (rest, noted) = run(&noted, &letters, &choice(Filter::default()), 50_000);
    assert_eq!(rest.len(), 25_000);
    assert_eq!((noted.offset, noted.runs.len()), (50_000, 0));
}

/// One that asks for what came in the last hour, every hour, with an old letter before that nobody sends.
#[test]
fn runs_that_leave_nothing_new_need_one_note() {
    let (mut letters, mut notes) = (vec![letter(0, CODES[0], 0)], Notes::new(0));
    for hour in 1..200 {
        letters.push(letter(hour, CODES[0], 100 * hour));
        let (sent, noted) = run(&notes, &letters, &since(100 * hour - 50), hour + 1);
        assert_eq!(sent, [hour]);
        assert_eq!(noted.runs.len(), 1, "{noted:?}");
        notes = noted;
    }
}

#[test]
fn what_was_noted_one_by_one_is_still_known() {
    let position = Position { offset: 10, finished: vec![false, true, false, true], ..Position::default() };
    let old = Notes::read(10, &position.metadata()).unwrap();
    let letters: Vec<_> = (0..20).map(|offset| letter(offset, CODES[0], offset)).collect();
    let (sent, noted) = run(&old, &letters, &since(12), 20);
    assert_eq!(sent, [12, 14, 15, 16, 17, 18, 19]);
    let (sent, noted) = run(&noted, &letters, &choice(Filter::default()), 20);
    assert_eq!((sent, noted), (vec![10], Notes::new(20)));
    assert_eq!(Notes::read(7, ""), Ok(Notes::new(7)));
}

#[test]
fn what_is_not_ours_is_not_believed() {
    let (_, noted) = run(&Notes::new(0), &[letter(0, CODES[0], 0)], &of_code(CODES[1]), 9);
    let metadata = noted.metadata();
    assert_eq!(Notes::read(1, &metadata), Err(Unreadable::Damaged));
    assert_eq!(Notes::read(0, &metadata.replace("MODEL", "MODAL").replace('9', "8")), Err(Unreadable::Damaged));
    assert_eq!(Notes::read(0, "sr1."), Err(Unreadable::Damaged));
    assert_eq!(Notes::read(0, "somebody's"), Err(Unreadable::Foreign));
}

/// A run's choice, and after how many of the letters it is killed or limited.
fn runs() -> impl Strategy<Value = Vec<(Choice, i64)>> {
    let codes = prop::sample::subsequence(CODES.to_vec(), 0..3);
    let time = || prop::option::of(0..40_i64);
    let filter = (codes, time(), time()).prop_map(|(codes, since, until)| {
        choice(Filter { codes: codes.into_iter().map(str::to_owned).collect(), since, until, ..Filter::default() })
    });
    prop::collection::vec((filter, 0..40_i64), 0..12)
}

proptest! {
    #[test]
    fn whatever_runs_there_were_each_letter_is_sent_once(
        kinds in prop::collection::vec((0..4_usize, 0..40_i64), 40),
        runs in runs(),
    ) {
        // Some offsets hold no letter.
        let letters = kinds.iter().enumerate().filter(|(_, (kind, _))| *kind < 3);
        let letters: Vec<_> = letters.map(|(offset, (kind, time))| letter(offset as i64, CODES[*kind], *time)).collect();
        let (mut notes, mut sent) = (Notes::new(0), std::collections::BTreeSet::new());
        for (choice, until) in runs {
            let until = until.max(notes.offset);
            let (now, noted) = run(&notes, &letters, &choice, until);
            let wanted = letters.iter().filter(|letter| letter.offset() < until && choice.takes(letter));
            let wanted: Vec<_> = wanted.map(Letter::offset).filter(|offset| !sent.contains(offset)).collect();
            prop_assert_eq!(&now, &wanted, "{:?} after {:?}", choice, notes);
            sent.extend(now);
            notes = noted;
        }
        let (rest, notes) = run(&notes, &letters, &choice(Filter::default()), 40);
        let left: Vec<_> = letters.iter().map(Letter::offset).filter(|offset| !sent.contains(offset)).collect();
        prop_assert_eq!(rest, left);
        prop_assert_eq!(notes, Notes::new(40));
    }
}

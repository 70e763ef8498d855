use proptest::prelude::*;

use super::super::selector::Filter;
use super::*;
use crate::message::{Headers, Request, Source};

const CODES: [&str; 3] = ["MODEL_ERROR", "INTERNAL_ERROR", "DEADLINE_EXCEEDED"];

fn letter(offset: i64, code: &str, time: i64) -> DeadLetter {
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
    DeadLetter::new(record, true)
}

fn selector(filter: Filter) -> Selector {
    Selector { filter, requests: "requests".to_owned(), only_endpoint: None }
}

fn of_code(code: &str) -> Selector {
    selector(Filter { codes: vec![code.to_owned()], ..Filter::default() })
}

fn since(since: i64) -> Selector {
    selector(Filter { since: Some(since), ..Filter::default() })
}

/// Runs over the letters before `until`, and may end before that. Returns the offsets that it sends, and its checkpoint.
fn run(checkpoint: &Checkpoint, letters: &[DeadLetter], selector: &Selector, until: i64) -> (Vec<i64>, Checkpoint) {
    let mut checkpoint = checkpoint.clone();
    checkpoint.begin(selector);
    let (mut sent, mut first_unsent) = (Vec::new(), None);
    let looked_at = checkpoint.offset..until;
    for letter in letters.iter().filter(|letter| looked_at.contains(&letter.offset())) {
        if checkpoint.was_sent(letter) {
            continue;
        }
        if selector.selects(letter) {
            sent.push(letter.offset());
        } else {
            checkpoint.skip(letter);
            first_unsent.get_or_insert(letter.offset());
        }
    }
    let committed = checkpoint.at(until, first_unsent);
    (sent, Checkpoint::read(committed.offset, &committed.metadata()).unwrap())
}

#[test]
fn metadata_stays_short_however_many_letters_are_left() {
    let letters: Vec<_> = (0..50_000).map(|offset| letter(offset, CODES[offset as usize % 2], offset)).collect();
    let (sent, committed) = run(&Checkpoint::new(0), &letters, &of_code(CODES[1]), 50_000);
    assert_eq!(sent, (0..25_000).map(|number| 2 * number + 1).collect::<Vec<_>>());
    assert!(committed.metadata().len() < 200, "{}", committed.metadata());
    assert!(run(&committed, &letters, &of_code(CODES[1]), 50_000).0.is_empty());
    let (rest, committed) = run(&committed, &letters, &selector(Filter::default()), 50_000);
    assert_eq!(rest.len(), 25_000);
    assert_eq!((committed.offset, committed.runs.len()), (50_000, 0));
}

/// Asks every hour for the letters of the last hour, with an old letter before them that nobody sends.
#[test]
fn runs_need_one_watermark_when_they_leave_nothing_new() {
    let (mut letters, mut checkpoint) = (vec![letter(0, CODES[0], 0)], Checkpoint::new(0));
    for hour in 1..200 {
        letters.push(letter(hour, CODES[0], 100 * hour));
        let (sent, committed) = run(&checkpoint, &letters, &since(100 * hour - 50), hour + 1);
        assert_eq!(sent, [hour]);
        assert_eq!(committed.runs.len(), 1, "{committed:?}");
        checkpoint = committed;
    }
}

#[test]
fn letters_noted_one_by_one_are_still_known() {
    let position = Position { offset: 10, finished: vec![false, true, false, true], ..Position::default() };
    let old = Checkpoint::read(10, &position.metadata()).unwrap();
    let letters: Vec<_> = (0..20).map(|offset| letter(offset, CODES[0], offset)).collect();
    let (sent, committed) = run(&old, &letters, &since(12), 20);
    assert_eq!(sent, [12, 14, 15, 16, 17, 18, 19]);
    let (sent, committed) = run(&committed, &letters, &selector(Filter::default()), 20);
    assert_eq!((sent, committed), (vec![10], Checkpoint::new(20)));
    assert_eq!(Checkpoint::read(7, ""), Ok(Checkpoint::new(7)));
}

#[test]
fn metadata_is_rejected_when_damaged_or_foreign() {
    let (_, committed) = run(&Checkpoint::new(0), &[letter(0, CODES[0], 0)], &of_code(CODES[1]), 9);
    let metadata = committed.metadata();
    assert_eq!(Checkpoint::read(1, &metadata), Err(MetadataError::Damaged));
    assert_eq!(Checkpoint::read(0, &metadata.replace("MODEL", "MODAL").replace('9', "8")), Err(MetadataError::Damaged));
    assert_eq!(Checkpoint::read(0, "sr1."), Err(MetadataError::Damaged));
    assert_eq!(Checkpoint::read(0, "somebody's"), Err(MetadataError::Foreign));
}

/// Generates runs: a selector each, and the offset at which the run is killed or limited.
fn runs() -> impl Strategy<Value = Vec<(Selector, i64)>> {
    let codes = prop::sample::subsequence(CODES.to_vec(), 0..3);
    let time = || prop::option::of(0..40_i64);
    let filter = (codes, time(), time()).prop_map(|(codes, since, until)| {
        selector(Filter { codes: codes.into_iter().map(str::to_owned).collect(), since, until, ..Filter::default() })
    });
    prop::collection::vec((filter, 0..40_i64), 0..12)
}

proptest! {
    #[test]
    fn each_letter_is_sent_once_whatever_runs_there_were(
        kinds in prop::collection::vec((0..4_usize, 0..40_i64), 40),
        runs in runs(),
    ) {
        // Some offsets hold no letter.
        let letters = kinds.iter().enumerate().filter(|(_, (kind, _))| *kind < 3);
        let letters: Vec<_> = letters.map(|(offset, (kind, time))| letter(offset as i64, CODES[*kind], *time)).collect();
        let (mut checkpoint, mut sent) = (Checkpoint::new(0), std::collections::BTreeSet::new());
        for (selector, until) in runs {
            let until = until.max(checkpoint.offset);
            let (now, committed) = run(&checkpoint, &letters, &selector, until);
            let wanted = letters.iter().filter(|letter| letter.offset() < until && selector.selects(letter));
            let wanted: Vec<_> = wanted.map(DeadLetter::offset).filter(|offset| !sent.contains(offset)).collect();
            prop_assert_eq!(&now, &wanted, "{:?} after {:?}", selector, checkpoint);
            sent.extend(now);
            checkpoint = committed;
        }
        let (rest, checkpoint) = run(&checkpoint, &letters, &selector(Filter::default()), 40);
        let left: Vec<_> = letters.iter().map(DeadLetter::offset).filter(|offset| !sent.contains(offset)).collect();
        prop_assert_eq!(rest, left);
        prop_assert_eq!(checkpoint, Checkpoint::new(40));
    }
}

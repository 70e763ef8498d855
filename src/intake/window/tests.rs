use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn offset_and_finished(window: &Window) -> (i64, Vec<i64>) {
    let position = window.position().unwrap();
    let offsets = (position.offset..).zip(&position.finished).filter(|(_, finished)| **finished);
    (position.offset, offsets.map(|(offset, _)| offset).collect())
}

#[test]
fn window_commits_finished_prefix_and_what_else_is_finished() {
    let now = Instant::now();
    let mut window = Window::default();
    assert_eq!(window.position(), None);
    for offset in 10..14 {
        assert_eq!(window.begin(offset, now), OffsetBegin::New);
    }
    assert!(window.finish(11));
    assert!(window.finish(13));
    assert_eq!(offset_and_finished(&window), (10, vec![11, 13]));
    assert!(window.finish(10));
    assert_eq!(offset_and_finished(&window), (12, vec![13]));
    assert!(window.finish(12));
    assert_eq!((offset_and_finished(&window), window.width(), window.in_flight()), ((14, vec![]), 0, 0));
}

#[test]
fn window_finishes_offsets_that_never_arrive() {
    let now = Instant::now();
    let mut window = Window::default();
    window.begin(5, now);
    window.begin(9, now);
    window.finish(5);
    assert_eq!(window.first_unfinished(), Some(9));
    window.finish(9);
    assert_eq!(window.begin(20 + i64::try_from(MAX_WINDOW).unwrap(), now), OffsetBegin::New, "nothing is left behind");
    assert_eq!(window.width(), 1);
}

#[test]
fn window_ignores_what_is_not_under_way() {
    let now = Instant::now();
    let mut window = Window::default();
    assert!(!window.finish(0));
    window.begin(3, now);
    assert_eq!(window.begin(3, now), OffsetBegin::Back);
    assert_eq!(window.begin(2, now), OffsetBegin::Back);
    assert_eq!((window.in_flight(), window.first_unfinished()), (1, Some(3)), "another record is not swallowed");
    assert!(window.finish(3));
    assert!(!window.finish(3));
    assert!(!window.finish(100));
    assert!(!window.stage(100));
}

#[test]
fn window_does_not_rerun_what_earlier_owner_finished() {
    let now = Instant::now();
    let finished = vec![false, true, false, true];
    let mut window = Window::resume(&Position { offset: 10, finished, ..Position::default() });
    assert_eq!(offset_and_finished(&window), (10, vec![11, 13]), "what is not read yet is not forgotten");
    let begun: Vec<_> = (10..15).map(|offset| window.begin(offset, now)).collect();
    assert_eq!(begun, [OffsetBegin::New, OffsetBegin::Seen, OffsetBegin::New, OffsetBegin::Seen, OffsetBegin::New]);
    assert!(window.finish(12));
    assert_eq!(offset_and_finished(&window), (10, vec![11, 12, 13]));
    assert!(window.finish(10));
    assert_eq!(offset_and_finished(&window), (14, vec![]));
}

#[test]
fn window_finishes_what_earlier_owner_left_when_it_never_arrives() {
    let now = Instant::now();
    let finished = vec![false, true, false, true];
    let mut window = Window::resume(&Position { offset: 10, finished, ..Position::default() });
    assert_eq!(window.begin(12, now), OffsetBegin::New);
    assert_eq!(offset_and_finished(&window), (12, vec![13]));
    assert!(window.finish(12));
    assert_eq!(window.begin(1_000_000, now), OffsetBegin::New);
    assert_eq!(window.width(), 1);
}

#[test]
fn window_takes_offsets_before_position_as_finished() {
    let now = Instant::now();
    let mut window = Window::resume(&Position { offset: 10, ..Position::default() }).from_first(8);
    let begun: Vec<_> = [8, 9, 10, 9].into_iter().map(|offset| window.begin(offset, now)).collect();
    assert_eq!(begun, [OffsetBegin::Seen, OffsetBegin::Seen, OffsetBegin::New, OffsetBegin::Back]);
    assert!(window.has_finished(9) && !window.has_finished(10) && !window.has_finished(11));
}

#[test]
fn window_stops_request_too_far_ahead() {
    let now = Instant::now();
    let mut window = Window::default();
    window.begin(0, now);
    let far = i64::try_from(MAX_WINDOW).unwrap();
    assert_eq!(window.begin(far - 1, now), OffsetBegin::New);
    assert_eq!(window.begin(far, now), OffsetBegin::TooFar);
    assert_eq!((window.width(), window.in_flight()), (MAX_WINDOW, 2));
    window.finish(0);
    assert_eq!(window.begin(far, now), OffsetBegin::New, "it was not taken as read");
}

#[test]
fn window_counts_staged_ends_until_transaction_is_aborted() {
    let now = Instant::now();
    let mut window = Window::default();
    (0..4).for_each(|offset| assert_eq!(window.begin(offset, now), OffsetBegin::New));
    assert!(window.stage(0) && window.stage(2));
    assert_eq!(offset_and_finished(&window), (1, vec![2]));
    assert_eq!((window.in_flight(), window.first_unfinished()), (4, Some(0)));
    window.unstage(0);
    window.unstage(2);
    assert_eq!(offset_and_finished(&window), (0, vec![]));
    assert!(window.stage(0) && window.finish(0));
    assert_eq!((offset_and_finished(&window), window.in_flight()), ((1, vec![]), 3));
}

proptest! {
    /// Compares a window with the plain definition, with crashes in between: the next owner starts from the last
    /// commit.
    #[test]
    fn window_never_passes_unfinished_request_nor_reruns_finished_one(
        start in 0i64..1000,
        gaps in prop::collection::vec(1i64..4, 1..120),
        steps in prop::collection::vec((0u8..20, any::<prop::sample::Index>()), 1..400),
    ) {
        let now = Instant::now();
        let log: Vec<i64> = gaps.iter().scan(start, |next, gap| { *next += gap; Some(*next) }).collect();
        let end = log.last().copied().unwrap_or_default() + 1;
        // Offsets that the world has seen answered for good, and the commit that the broker has.
        let mut answered = BTreeSet::new();
        let mut committed = None::<(Position, BTreeSet<i64>)>;
        let mut window = Window::default();
        let mut read = 0;
        let mut under_way = BTreeSet::new();
        for (kind, index) in steps {
            match kind {
                0..8 => if let Some(offset) = log.get(read) {
                    read += 1;
                    match window.begin(*offset, now) {
                        OffsetBegin::New => prop_assert!(under_way.insert(*offset)),
                        OffsetBegin::Seen => prop_assert!(answered.contains(offset), "{offset} was never answered"),
                        other => prop_assert!(false, "{other:?}"),
                    }
                    prop_assert!(!answered.contains(offset) || !under_way.contains(offset));
                },
                8..16 => if !under_way.is_empty() {
                    let offset = *index.get(&under_way.iter().copied().collect::<Vec<_>>());
                    prop_assert!(under_way.remove(&offset) && window.finish(offset));
                    answered.insert(offset);
                },
                // A commit, or one whose transaction is aborted.
                16..18 => if let Some(position) = window.position() {
                    let staged: Vec<i64> = under_way.iter().copied().filter(|offset| offset % 3 == 0).collect();
                    staged.iter().for_each(|offset| assert!(window.stage(*offset)));
                    let with_staged = window.position().unwrap();
                    prop_assert!(with_staged.offset >= position.offset);
                    staged.iter().for_each(|offset| window.unstage(*offset));
                    let put_back = window.position();
                    prop_assert_eq!(put_back.as_ref(), Some(&position));
                    let unanswered = log.iter().find(|offset| !answered.contains(*offset)).copied();
                    prop_assert!(position.offset <= unanswered.unwrap_or(end));
                    prop_assert!(position.metadata().len() <= 4096);
                    committed = Some((position, answered.clone()));
                },
                // A crash: answers that were not committed are void, as an aborted transaction's are.
                _ => {
                    under_way.clear();
                    match &committed {
                        Some((position, then)) => {
                            answered = then.clone();
                            let kept = Position::read(position.offset, &position.metadata()).unwrap();
                            window = Window::resume(&kept);
                            read = log.partition_point(|offset| *offset < position.offset);
                        }
                        None => {
                            answered.clear();
                            window = Window::default();
                            read = 0;
                        }
                    }
                }
            }
            prop_assert_eq!(window.in_flight(), under_way.len());
        }
    }
}

use std::time::Duration;

use super::*;
use crate::intake::lane::Due;
use crate::intake::poison_pill::QUIET;
use crate::intake::window::OffsetBegin;
use crate::message::{Headers, Request, Source};

const ID: LaneId = LaneId { topic: 0, partition: 0 };
const OTHER: LaneId = LaneId { topic: 0, partition: 1 };

/// Opens a lane that goes on from `offset`, and has had this many owners one after another, the present one included.
fn open(lanes: &mut Lanes, id: LaneId, offset: i64, crash_count: u8, isolated_runs: u8) {
    lanes.assign(id);
    lanes.open(
        id,
        &Position { offset, crash_count: crash_count - 1, isolated_runs, reach: 2, ..Position::default() },
        offset,
    );
}

fn begin(lanes: &mut Lanes, id: LaneId, offset: i64) -> bool {
    lanes.runnable(id, offset).is_some_and(|lane| lane.window.begin(offset, Instant::now()) == OffsetBegin::New)
}

fn completion(lanes: &Lanes, id: LaneId, offset: i64) -> Completion {
    let epoch = lanes.lanes[&id].assignment.epoch;
    Completion { request: RequestPosition { lane: id, epoch, offset }, bytes: 0, finished: true }
}

fn held(offset: i64) -> HeldRecord {
    let source = Source { topic: "requests".into(), partition: 0, offset };
    let request =
        Request { source, timestamp: None, key: None, payload: None, headers: Headers::default(), parked: None };
    HeldRecord { request, offset, due: None, refusal: None, is_whole: true }
}

fn offsets(due: Vec<(LaneId, Position)>) -> Vec<(LaneId, i64)> {
    due.into_iter().map(|(lane, position)| (lane, position.offset)).collect()
}

#[test]
fn lanes_ignore_late_results_of_lost_lane() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    begin(&mut lanes, ID, 5);
    let late = completion(&lanes, ID, 5);
    lanes.remove(ID);
    assert!(!lanes.complete(&late));
    open(&mut lanes, ID, 5, 1, 0);
    begin(&mut lanes, ID, 5);
    assert!(!lanes.complete(&late), "the offset is the same, the assignment is not");
    assert_eq!(lanes.in_flight(&[ID]), 1);
}

#[test]
fn lanes_commit_changes_and_repeat_failed_commits() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    lanes.assign(OTHER);
    assert_eq!(lanes.take_commits(None, false), [], "an idle partition is never committed");
    begin(&mut lanes, ID, 5);
    assert!(lanes.complete(&completion(&lanes, ID, 5)));
    assert_eq!(offsets(lanes.take_commits(None, false)), [(ID, 6)]);
    assert_eq!(lanes.take_commits(None, false), []);
    lanes.committed([ID], false);
    assert_eq!(lanes.take_commits(Some(&[OTHER]), false), []);
    assert_eq!(offsets(lanes.take_commits(Some(&[ID]), false)), [(ID, 6)]);
}

#[test]
fn lanes_commit_at_once_what_finishes_out_of_order() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    (5..8).for_each(|offset| assert!(begin(&mut lanes, ID, offset)));
    assert!(lanes.complete(&completion(&lanes, ID, 7)));
    let due = lanes.take_commits(None, false);
    let [(ID, position)] = &due[..] else { panic!("{due:?}") };
    assert_eq!((position.offset, &position.finished[..]), (5, &[false, false, true][..]));
}

#[test]
fn abandoned_request_holds_commit() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    begin(&mut lanes, ID, 5);
    let abandoned = Completion { finished: false, ..completion(&lanes, ID, 5) };
    assert!(!lanes.complete(&abandoned));
    assert_eq!(lanes.get(ID).unwrap().window.first_unfinished(), Some(5));
}

#[test]
fn lane_runs_nothing_before_it_is_open() {
    let mut lanes = Lanes::default();
    lanes.assign(ID);
    assert!(!begin(&mut lanes, ID, 5));
    lanes.hold(ID, held(5), Instant::now());
    assert_eq!(lanes.unopened(Instant::now()), [(ID, 5)]);
    lanes.open(ID, &Position { offset: 5, ..Position::default() }, 5);
    assert_eq!(lanes.unopened(Instant::now()), []);
    assert!(lanes.is_any_due(Instant::now()) && lanes.take_due(Instant::now()) == [ID]);
    assert!(lanes.release(ID).is_some() && !lanes.is_held(ID) && !lanes.is_any_due(Instant::now()));
    assert!(begin(&mut lanes, ID, 5));
}

#[test]
fn lane_counts_its_owner_until_it_is_given_back() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 3, 0);
    (5..8).for_each(|offset| assert!(begin(&mut lanes, ID, offset)));
    let crash_count = |lanes: &Lanes, closing| lanes.get(ID).unwrap().position(closing).unwrap().crash_count;
    assert_eq!((crash_count(&lanes, false), crash_count(&lanes, true)), (3, 2));
    for offset in 5..8 {
        assert!(lanes.complete(&completion(&lanes, ID, offset)));
    }
    assert_eq!((crash_count(&lanes, false), crash_count(&lanes, true)), (2, 1), "the suspects have ended");
    open(&mut lanes, OTHER, 5, 1, 0);
    assert_eq!(lanes.take_commits(Some(&[OTHER]), false), []);
    assert_eq!(offsets(lanes.take_commits(Some(&[OTHER]), true)), [(OTHER, 5)], "it is nobody's any more");
}

#[test]
fn suspects_run_alone_one_after_another_when_too_many_owners_have_ended() {
    let now = Instant::now();
    let mut lanes = Lanes::default();
    open(&mut lanes, OTHER, 1, 1, 0);
    assert!(begin(&mut lanes, OTHER, 1));
    open(&mut lanes, ID, 5, 4, 0);
    lanes.hold(ID, held(5), now);
    assert!(!begin(&mut lanes, OTHER, 2) && !begin(&mut lanes, ID, 5), "nothing else begins");
    assert_eq!(lanes.next_isolated_run(now), None, "what is under way is waited for");
    assert!(lanes.complete(&completion(&lanes, OTHER, 1)));
    for offset in [5, 6] {
        assert_eq!(lanes.next_isolated_run(now), Some(ID));
        let (run, due) = lanes.begin_isolated_run(ID, true).unwrap();
        let (id, position) = due.last().unwrap();
        assert_eq!((run, *id, position.offset, position.isolated_runs), (IsolatedRun::Alone, ID, offset, 1));
        let others: Vec<_> = due.iter().filter(|(id, _)| *id == OTHER).map(|(_, position)| position.offset).collect();
        assert!(offset > 5 || others == [2], "nobody is tried again for what this one may do");
        assert!(lanes.release(ID).is_some());
        assert_eq!(lanes.quarantined(ID).unwrap().window.begin(offset, now), OffsetBegin::New);
        assert!(!begin(&mut lanes, OTHER, 2) && !begin(&mut lanes, ID, 7));
        lanes.hold(ID, held(offset + 1), now);
        assert!(lanes.complete(&completion(&lanes, ID, offset)));
    }
    assert!(begin(&mut lanes, OTHER, 2), "they have ended, and all goes on");
    let due = lanes.take_commits(None, false);
    lanes.committed(due.iter().map(|(id, _)| *id), true);
    assert!(begin(&mut lanes, ID, 7));
}

#[test]
fn quarantine_ends_when_suspects_never_come() {
    let now = Instant::now();
    let mut lanes = Lanes::default();
    open(&mut lanes, OTHER, 1, 1, 0);
    open(&mut lanes, ID, 5, 4, 0);
    assert_eq!(lanes.next_isolated_run(now), None);
    assert!(!begin(&mut lanes, OTHER, 1));
    assert_eq!(lanes.next_isolated_run(now + QUIET), None);
    assert!(begin(&mut lanes, OTHER, 1) && !lanes.has_quarantined());
}

#[test]
fn poison_pill_does_not_run_again() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 9, 2);
    lanes.hold(ID, held(5), Instant::now());
    assert_eq!(lanes.begin_isolated_run(ID, true).unwrap().0, IsolatedRun::Never);
    lanes.revoke_isolated_run(ID);
    lanes.remove(ID);
    open(&mut lanes, OTHER, 1, 1, 0);
    assert!(begin(&mut lanes, OTHER, 1), "a lane that has gone holds nobody up");
}

#[test]
fn closing_lane_stages_nothing_more() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    (5..8).for_each(|offset| assert!(begin(&mut lanes, ID, offset)));
    let requests = [5, 6, 7].map(|offset| completion(&lanes, ID, offset).request);
    assert!(lanes.stage(requests[0]));
    lanes.begin_closing(&[ID]);
    assert!(lanes.is_staged(ID), "what was in one already is waited for");
    assert!(!lanes.stage(requests[1]) && !begin(&mut lanes, ID, 8));
    assert!(lanes.complete(&completion(&lanes, ID, 5)));
    assert!(!lanes.is_staged(ID));
    let due = lanes.take_commits(Some(&[ID]), true);
    assert_eq!(offsets(due), [(ID, 6)]);
    assert!(!lanes.stage(requests[2]), "nothing can be committed after that");
}

#[test]
fn restarted_lane_forgets_its_topic_while_requests_end_by_themselves() {
    let now = Instant::now();
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    (5..8).for_each(|offset| assert!(begin(&mut lanes, ID, offset)));
    let ends = [5, 6, 7].map(|offset| completion(&lanes, ID, offset));
    lanes.hold(ID, held(8), now);
    lanes.restart(ID);
    assert!(!lanes.is_held(ID) && lanes.get(ID).unwrap().was_restarted && lanes.orphans() == 3);
    lanes.open(ID, &Position::default(), 0);
    (0..8).for_each(|offset| assert!(begin(&mut lanes, ID, offset)));
    assert!(lanes.stage(ends[0].request) && lanes.is_orphan(ends[0].request));
    lanes.unstage(ends[0].request);
    for end in &ends {
        assert!(lanes.complete(end), "it is answered");
    }
    assert_eq!((lanes.orphans(), lanes.in_flight(&[ID])), (0, 8), "and ends no other");
}

#[test]
fn held_record_waits_until_due_without_opening_its_lane() {
    let now = Instant::now();
    let seconds = |seconds| now + Duration::from_secs(seconds);
    let due = |at, rest| Some(Due { at: seconds(at), rest: Duration::from_secs(rest) });
    let mut lanes = Lanes::default();
    lanes.assign(ID);
    lanes.hold(ID, HeldRecord { due: due(10, 0), ..held(5) }, now);
    lanes.hold(ID, HeldRecord { due: due(11, 0), ..held(6) }, now);
    lanes.assign(OTHER);
    lanes.hold(OTHER, HeldRecord { due: due(1, 3), ..held(7) }, now);
    assert!(!lanes.is_any_due(seconds(2)), "the other rests for a while");
    assert_eq!(lanes.unopened(seconds(2)), [], "nobody has begun either");
    assert!(lanes.is_any_due(seconds(3)));
    assert_eq!(lanes.unopened(seconds(3)), [(OTHER, 7)]);
    assert_eq!(lanes.take_due(seconds(3)), [OTHER]);
    assert!(lanes.release(OTHER).is_some());
    assert!(!lanes.is_any_due(seconds(9)) && lanes.is_any_due(seconds(10)));
    assert_eq!(lanes.take_due(seconds(10)), [ID]);
    assert!(lanes.release(ID).is_some());
    let second = lanes.release(ID).unwrap();
    lanes.put_back(ID, second, seconds(10));
    assert!(!lanes.is_any_due(seconds(10)) && lanes.is_any_due(seconds(11)), "the second is due later");
}

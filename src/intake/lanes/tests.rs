use std::time::Instant;

use super::*;
use crate::intake::window::Begun;
use crate::message::{Headers, Source};

const ID: LaneId = LaneId { topic: 0, partition: 0 };
const OTHER: LaneId = LaneId { topic: 0, partition: 1 };

/// One that goes on from `offset`, which so many owners have begun.
fn open(lanes: &mut Lanes, id: LaneId, offset: i64, lives: u8, trials: u8) {
    lanes.take(id);
    lanes.open(id, Position { offset, lives, trials, finished: Vec::new() });
}

fn begin(lanes: &mut Lanes, id: LaneId, offset: i64) -> bool {
    lanes.running(id).is_some_and(|lane| lane.window.begin(offset, Instant::now()) == Begun::New)
}

fn completion(lanes: &Lanes, id: LaneId, offset: i64) -> Completion {
    let epoch = lanes.lanes[&id].assignment.epoch;
    Completion { claim: Claim { lane: id, epoch, offset }, bytes: 0, finished: true }
}

fn held(offset: i64) -> Held {
    let source = Source { topic: "requests".into(), partition: 0, offset };
    let request =
        Request { source, timestamp: None, key: None, payload: None, headers: Headers::default(), parked: None };
    Held { request, offset, due: None, refusal: None }
}

fn offsets(due: Vec<(LaneId, Position)>) -> Vec<(LaneId, i64)> {
    due.into_iter().map(|(lane, position)| (lane, position.offset)).collect()
}

#[test]
fn late_results_of_a_lost_lane_are_ignored() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    begin(&mut lanes, ID, 5);
    let late = completion(&lanes, ID, 5);
    lanes.close(ID);
    assert!(!lanes.complete(&late));
    open(&mut lanes, ID, 5, 1, 0);
    begin(&mut lanes, ID, 5);
    assert!(!lanes.complete(&late), "the offset is the same, the assignment is not");
    assert_eq!(lanes.in_flight(&[ID]), 1);
}

#[test]
fn commits_what_moved_and_repeats_what_failed() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    lanes.take(OTHER);
    assert_eq!(lanes.take_commits(None, false), [], "an idle partition is never committed");
    begin(&mut lanes, ID, 5);
    assert!(lanes.complete(&completion(&lanes, ID, 5)));
    assert_eq!(offsets(lanes.take_commits(None, false)), [(ID, 6)]);
    assert_eq!(lanes.take_commits(None, false), []);
    lanes.commit_failed(ID);
    assert_eq!(lanes.take_commits(Some(&[OTHER]), false), []);
    assert_eq!(offsets(lanes.take_commits(Some(&[ID]), false)), [(ID, 6)]);
}

#[test]
fn what_finishes_out_of_order_is_committed_at_once() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    (5..8).for_each(|offset| assert!(begin(&mut lanes, ID, offset)));
    assert!(lanes.complete(&completion(&lanes, ID, 7)));
    let expected = Position { offset: 5, lives: 1, trials: 0, finished: vec![false, false, true] };
    assert_eq!(lanes.take_commits(None, false), [(ID, expected)]);
}

#[test]
fn an_abandoned_request_holds_the_commit() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 1, 0);
    begin(&mut lanes, ID, 5);
    let abandoned = Completion { finished: false, ..completion(&lanes, ID, 5) };
    assert!(!lanes.complete(&abandoned));
    assert_eq!(lanes.get(ID).unwrap().window.first_unfinished(), Some(5));
}

#[test]
fn nothing_runs_before_it_is_known_what_is_finished() {
    let mut lanes = Lanes::default();
    lanes.take(ID);
    assert!(!begin(&mut lanes, ID, 5));
    lanes.hold(ID, held(5), Instant::now());
    assert_eq!(lanes.unopened(Instant::now()), [(ID, 5)]);
    lanes.open(ID, Position { offset: 5, ..Position::default() });
    assert_eq!(lanes.unopened(Instant::now()), []);
    assert!(lanes.is_any_due(Instant::now()) && lanes.take_due(Instant::now()) == [ID]);
    assert!(lanes.release(ID).is_some() && !lanes.is_held(ID) && !lanes.is_any_due(Instant::now()));
    assert!(begin(&mut lanes, ID, 5));
}

/// What each commit says of the owners that the first request has had.
#[test]
fn an_owner_that_ends_without_an_answer_is_counted_against_its_first_request() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 3, 0);
    (5..8).for_each(|offset| assert!(begin(&mut lanes, ID, offset)));
    let lives = |lanes: &Lanes, closing| lanes.get(ID).unwrap().position(closing).unwrap().lives;
    assert_eq!(lives(&lanes, false), 3);
    assert_eq!(lives(&lanes, true), 0, "it is given back: nobody has ended by it");
    assert!(lanes.complete(&completion(&lanes, ID, 5)));
    assert_eq!(lives(&lanes, false), 1, "we are the first owner of the next one");
    assert!(lanes.complete(&completion(&lanes, ID, 6)) && lanes.complete(&completion(&lanes, ID, 7)));
    assert_eq!(lives(&lanes, false), 0, "nothing is under way");
}

#[test]
fn what_too_many_owners_have_ended_by_runs_alone() {
    let mut lanes = Lanes::default();
    open(&mut lanes, OTHER, 1, 1, 0);
    assert!(begin(&mut lanes, OTHER, 1));
    open(&mut lanes, ID, 5, LIVES + 1, 0);
    lanes.hold(ID, held(5), Instant::now());
    assert!(!begin(&mut lanes, OTHER, 2) && !begin(&mut lanes, ID, 5), "nothing else begins");
    assert_eq!(lanes.next_trial(), None, "what is under way is waited for");
    assert!(lanes.complete(&completion(&lanes, OTHER, 1)));
    assert_eq!(lanes.next_trial(), Some(ID));
    let (trial, due) = lanes.begin_trial(ID, true).unwrap();
    let [(other, ended), (id, position)] = &due[..] else { panic!("{due:?}") };
    assert_eq!((trial, *id, position.offset, position.trials), (Trial::Alone, ID, 5, 1));
    assert_eq!((*other, ended.offset), (OTHER, 2), "nobody is tried again for what this one may do");
    assert!(lanes.release(ID).is_some());
    assert_eq!(lanes.tried(ID).unwrap().window.begin(5, Instant::now()), Begun::New);
    assert!(!begin(&mut lanes, OTHER, 2) && !begin(&mut lanes, ID, 6));
    assert!(lanes.complete(&completion(&lanes, ID, 5)));
    assert!(begin(&mut lanes, OTHER, 2) && begin(&mut lanes, ID, 6), "it has ended, and all goes on");
}

#[test]
fn what_nobody_survives_alone_does_not_run_again() {
    let mut lanes = Lanes::default();
    open(&mut lanes, ID, 5, 9, TRIALS);
    lanes.hold(ID, held(5), Instant::now());
    assert_eq!(lanes.begin_trial(ID, true).unwrap().0, Trial::Never);
    lanes.revoke_trial(ID);
    lanes.close(ID);
    open(&mut lanes, OTHER, 1, 1, 0);
    assert!(begin(&mut lanes, OTHER, 1), "a lane that has gone holds nobody up");
}

#[test]
fn a_record_that_is_not_due_costs_nothing_and_counts_against_nobody() {
    let now = Instant::now();
    let seconds = |seconds| now + Duration::from_secs(seconds);
    let due = |at, rest| Some(Due { at: seconds(at), rest: Duration::from_secs(rest) });
    let mut lanes = Lanes::default();
    lanes.take(ID);
    lanes.hold(ID, Held { due: due(10, 0), ..held(5) }, now);
    lanes.hold(ID, Held { due: due(11, 0), ..held(6) }, now);
    lanes.take(OTHER);
    lanes.hold(OTHER, Held { due: due(1, 3), ..held(7) }, now);
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

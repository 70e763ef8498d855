use std::collections::HashSet;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::recent_ids::{CAPACITY, RETENTION};
use super::*;
use crate::message::{Headers, Source};

fn open() -> Callers {
    let callers = Callers::default();
    callers.open("replies", 3);
    callers
}

fn reply(text: &'static str) -> ReplyRecord {
    ReplyRecord { headers: Headers::default(), body: Bytes::from_static(text.as_bytes()) }
}

fn request(headers: &[(&str, &str)]) -> Request {
    Request {
        source: Source { topic: "requests".into(), partition: 0, offset: 0 },
        timestamp: None,
        key: None,
        payload: None,
        headers: Headers::from_pairs(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
        parked: None,
    }
}

/// How many are remembered: who have gone, and who were answered ahead of their records.
fn remembered(callers: &Callers) -> (usize, usize) {
    let sum = |count: fn(&ShardState) -> usize| callers.0.shards.iter().map(|shard| count(&lock(shard))).sum();
    let gone = sum(|known| known.hung_up.len());
    assert_eq!(gone, callers.0.hung_up.load(Ordering::SeqCst));
    (gone, sum(|known| known.answered.len()))
}

#[tokio::test]
async fn the_first_reply_is_taken_and_its_repeats_are_not() {
    let (callers, id) = (open(), Uuid::now_v7());
    let mut waiting = callers.wait(id).unwrap();
    assert_eq!(callers.receive(Uuid::now_v7(), || reply("another's")), Recipient::Unknown);
    assert_eq!(callers.receive(id, || reply("first")), Recipient::Waiting);
    assert_eq!(callers.receive(id, || reply("second")), Recipient::Unknown);
    assert!(!callers.by_id(id).answer(reply("third")));
    assert_eq!(&waiting.answer().await.unwrap().body[..], b"first");
    drop(waiting);
    assert_eq!((callers.waiting(), remembered(&callers)), (0, (0, 0)));
}

#[tokio::test]
async fn who_is_answered_ahead_of_the_record_is_known_until_that_comes_by_once() {
    let (callers, id) = (open(), Uuid::now_v7());
    let mut waiting = callers.wait(id).unwrap();
    assert!(callers.by_id(id).answer(reply("at once")));
    assert!(!callers.by_id(id).answer(reply("by another run")));
    assert_eq!(&waiting.answer().await.unwrap().body[..], b"at once");
    drop(waiting);
    assert!(!callers.by_id(id).has_gone());
    assert_eq!(remembered(&callers), (0, 1));
    let copied = || panic!("nobody needs a copy");
    assert_eq!(callers.receive(id, copied), Recipient::AnsweredAhead);
    assert_eq!(callers.receive(id, copied), Recipient::Unknown);
    assert_eq!(remembered(&callers), (0, 0));
}

#[tokio::test]
async fn who_goes_before_the_answer_comes_has_hung_up_until_its_record_does() {
    let callers = open();
    let ids = [(); 4].map(|()| Uuid::now_v7());
    let [gone, received, answered, told] = ids.map(|id| callers.wait(id).unwrap());
    let have_gone = || ids.map(|id| callers.by_id(id).has_gone());
    assert_eq!(callers.receive(ids[1], || reply("in time")), Recipient::Waiting);
    assert!(callers.by_id(ids[2]).answer(reply("at once")));
    drop((gone, received, answered));
    assert_eq!(have_gone(), [true, false, false, false]);
    // There is nobody to hand it to; the record will come by.
    assert!(!callers.by_id(ids[0]).answer(reply("too late")));
    assert_eq!(have_gone(), [true, false, false, false]);
    assert_eq!(callers.receive(ids[0], || reply("too late")), Recipient::Unknown);
    callers.close();
    drop(told);
    assert_eq!((have_gone(), remembered(&callers)), ([false; 4], (0, 1)));
}

#[tokio::test]
async fn a_request_that_never_left_fails_and_its_caller_is_not_remembered() {
    let callers = open();
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    let [mut waiting, gone] = ids.map(|id| callers.wait(id).unwrap());
    drop(gone);
    ids.iter().for_each(|id| callers.fail(*id, Fault::permanent(Code::PayloadTooLarge, Stage::Publish, "too large")));
    assert_eq!(waiting.answer().await.unwrap_err().code, Code::PayloadTooLarge);
    drop(waiting);
    assert_eq!((callers.waiting(), remembered(&callers)), (0, (0, 0)));
}

#[test]
fn only_who_has_hung_up_has_gone() {
    let callers = open();
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    let [caller, other] = ids.map(|id| callers.by_id(id));
    let [waiting, _others] = ids.map(|id| callers.wait(id).unwrap());
    let mut gone = Box::pin(caller.gone());
    assert!(!caller.has_gone() && gone.as_mut().now_or_never().is_none());
    drop(waiting);
    assert!(caller.has_gone() && !other.has_gone());
    assert!(gone.now_or_never().is_some() && other.gone().now_or_never().is_none());
}

#[test]
fn those_who_came_over_kafka_are_nobodys_callers() {
    let (callers, id) = (open(), Uuid::now_v7().to_string());
    let correlation = ("kafka_correlationId", &*id);
    assert!(callers.of(&request(&[correlation])).is_none());
    assert!(callers.of(&request(&[(header::HTTP_TARGET, "POST /invocations")])).is_none());
    let named = ("kafka_correlationId", "order-1");
    assert!(callers.of(&request(&[named, (header::HTTP_TARGET, "POST /invocations")])).is_none());
    let request = request(&[correlation, (header::HTTP_TARGET, "POST /invocations")]);
    assert_eq!(callers.of(&request).unwrap().id.to_string(), id);
}

#[test]
fn replies_are_read_where_the_door_is_and_nowhere_else() {
    let (callers, without_door) = (open(), Callers::default());
    let reads = |callers: &Callers| {
        [("replies", Some(3)), ("replies", Some(2)), ("replies", None), ("others", Some(3))]
            .map(|(topic, partition)| callers.read_replies_of(topic, partition))
    };
    assert_eq!(reads(&callers), [true, false, false, false]);
    assert_eq!(reads(&without_door), [false; 4]);
    assert_eq!(without_door.wait(Uuid::now_v7()).unwrap_err().code.status(), 503);
}

#[test]
fn whose_records_never_come_are_forgotten_in_the_end() {
    let callers = open();
    let ids: Vec<_> = (0..3 * CAPACITY * SHARDS).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        drop(callers.wait(*id).unwrap());
    }
    assert_eq!(remembered(&callers), (CAPACITY * SHARDS, 0));
    let has_gone = |id| callers.by_id(id).has_gone();
    assert!(!has_gone(ids[0]) && has_gone(ids[ids.len() - 1]));
    for id in &ids {
        let waiting = callers.wait(*id).unwrap();
        assert!(callers.by_id(*id).answer(reply("at once")));
        drop(waiting);
    }
    assert_eq!(remembered(&callers), (CAPACITY * SHARDS, CAPACITY * SHARDS));
    // One in each shard comes later.
    let later = SystemTime::now() + RETENTION + Duration::from_secs(2);
    for last in 0..SHARDS as u8 {
        let mut bytes = *ids[0].as_bytes();
        bytes[15] = last;
        let id = Uuid::from_bytes(bytes);
        let waiting = callers.wait(id).unwrap();
        callers.hang_up_at(id, later);
        drop(waiting);
    }
    assert_eq!(remembered(&callers).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_race_with_both_ways_and_with_closing_all_end() {
    let callers = open();
    let (to_reader, records) = std::sync::mpsc::channel::<Uuid>();
    let reader = std::thread::spawn({
        let callers = callers.clone();
        move || records.iter().filter(|id| callers.receive(*id, || reply("x")) == Recipient::Waiting).count()
    });
    let calling: Vec<_> = (0..2_000)
        .map(|number| {
            let (callers, to_reader) = (callers.clone(), to_reader.clone());
            tokio::spawn(async move {
                let id = Uuid::now_v7();
                let Ok(mut waiting) = callers.wait(id) else { return (false, false) };
                to_reader.send(id).unwrap();
                if number == 1_500 {
                    callers.close();
                }
                let at_once = number % 2 == 0 && callers.by_id(id).answer(reply("x"));
                (waiting.answer().await.is_ok(), at_once)
            })
        })
        .collect();
    drop(to_reader);
    let (mut answered, mut at_once) = (0, 0);
    for calling in calling {
        let (is_answered, is_at_once) = calling.await.unwrap();
        answered += usize::from(is_answered);
        at_once += usize::from(is_at_once);
    }
    assert_eq!(answered, at_once + reader.join().unwrap());
    assert_eq!(callers.waiting(), 0);
}

proptest! {
    /// Against plain sets: whoever waits is answered exactly once, and a record is known as long as it should be.
    #[test]
    fn agrees_with_sets(steps in prop::collection::vec((0u8..4, 0u128..8), 0..200)) {
        let callers = open();
        let (mut waiting, mut gone, mut answered) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut people = HashMap::new();
        for (step, id) in steps {
            let id = Uuid::from_u128(id);
            match step {
                0 if !people.contains_key(&id) && !gone.contains(&id) && !answered.contains(&id) => {
                    people.insert(id, callers.wait(id).unwrap());
                    waiting.insert(id);
                }
                1 => {
                    let expected = match (waiting.remove(&id), answered.remove(&id)) {
                        (true, _) => Recipient::Waiting,
                        (_, true) => Recipient::AnsweredAhead,
                        _ => Recipient::Unknown,
                    };
                    gone.remove(&id);
                    prop_assert_eq!(callers.receive(id, || reply("x")), expected);
                }
                2 => {
                    let is_waiting = waiting.remove(&id);
                    prop_assert_eq!(callers.by_id(id).answer(reply("x")), is_waiting);
                    answered.extend(is_waiting.then_some(id));
                }
                _ => {
                    people.remove(&id);
                    gone.extend(waiting.remove(&id).then_some(id));
                }
            }
            prop_assert_eq!(callers.waiting(), waiting.len());
            prop_assert_eq!(remembered(&callers), (gone.len(), answered.len()));
            prop_assert_eq!(callers.by_id(id).has_gone(), gone.contains(&id));
        }
    }
}

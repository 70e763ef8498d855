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

/// Counts the remembered callers: those who hung up, and those who were answered ahead of their records.
fn remembered(callers: &Callers) -> (usize, usize) {
    let sum = |count: fn(&ShardState) -> usize| callers.0.shards.iter().map(|shard| count(&lock(shard))).sum();
    let gone = sum(|state| state.hung_up.len());
    assert_eq!(gone, callers.0.hung_up.load(Ordering::SeqCst));
    (gone, sum(|state| state.answered.len()))
}

#[tokio::test]
async fn receive_takes_first_reply_and_no_repeat() {
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
async fn caller_answered_ahead_is_remembered_until_record_arrives() {
    let (callers, id) = (open(), Uuid::now_v7());
    let mut waiting = callers.wait(id).unwrap();
    assert!(callers.by_id(id).answer(reply("at once")));
    assert!(!callers.by_id(id).answer(reply("by another run")));
    assert_eq!(&waiting.answer().await.unwrap().body[..], b"at once");
    drop(waiting);
    assert!(!callers.by_id(id).has_hung_up());
    assert_eq!(remembered(&callers), (0, 1));
    let copied = || panic!("nobody needs a copy");
    assert_eq!(callers.receive(id, copied), Recipient::AnsweredAhead);
    assert_eq!(callers.receive(id, copied), Recipient::Unknown);
    assert_eq!(remembered(&callers), (0, 0));
}

#[tokio::test]
async fn caller_has_hung_up_until_record_arrives() {
    let callers = open();
    let ids = [(); 4].map(|()| Uuid::now_v7());
    let [gone, received, answered, told] = ids.map(|id| callers.wait(id).unwrap());
    let have_gone = || ids.map(|id| callers.by_id(id).has_hung_up());
    assert_eq!(callers.receive(ids[1], || reply("in time")), Recipient::Waiting);
    assert!(callers.by_id(ids[2]).answer(reply("at once")));
    drop((gone, received, answered));
    assert_eq!(have_gone(), [true, false, false, false]);
    // The caller is not there to be answered; the record of the reply is still to arrive.
    assert!(!callers.by_id(ids[0]).answer(reply("too late")));
    assert_eq!(have_gone(), [true, false, false, false]);
    assert_eq!(callers.receive(ids[0], || reply("too late")), Recipient::Unknown);
    callers.close();
    drop(told);
    assert_eq!((have_gone(), remembered(&callers)), ([false; 4], (0, 1)));
}

#[tokio::test]
async fn fail_answers_caller_and_forgets_him() {
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
fn caller_has_gone_only_when_he_hung_up() {
    let callers = open();
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    let [caller, other] = ids.map(|id| callers.by_id(id));
    let [waiting, _others] = ids.map(|id| callers.wait(id).unwrap());
    let mut gone = Box::pin(caller.hung_up());
    assert!(!caller.has_hung_up() && gone.as_mut().now_or_never().is_none());
    drop(waiting);
    assert!(caller.has_hung_up() && !other.has_hung_up());
    assert!(gone.now_or_never().is_some() && other.hung_up().now_or_never().is_none());
}

#[test]
fn request_has_no_caller_when_it_came_over_kafka() {
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
fn replies_are_read_only_in_partition_of_shim() {
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
fn callers_are_forgotten_when_records_never_arrive() {
    let callers = open();
    let ids: Vec<_> = (0..3 * CAPACITY * SHARDS).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        drop(callers.wait(*id).unwrap());
    }
    assert_eq!(remembered(&callers), (CAPACITY * SHARDS, 0));
    let has_hung_up = |id| callers.by_id(id).has_hung_up();
    assert!(!has_hung_up(ids[0]) && has_hung_up(ids[ids.len() - 1]));
    for id in &ids {
        let waiting = callers.wait(*id).unwrap();
        assert!(callers.by_id(*id).answer(reply("at once")));
        drop(waiting);
    }
    assert_eq!(remembered(&callers), (CAPACITY * SHARDS, CAPACITY * SHARDS));
    // One more caller in each shard hangs up later, which makes the older ids expire.
    let later = wall_clock() + RETENTION + Duration::from_secs(2);
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
async fn callers_all_end_when_answers_and_close_race() {
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
    /// Compares with plain sets: each waiting caller is answered exactly once, and ids are remembered as long as they
    /// should be.
    #[test]
    fn callers_agree_with_plain_sets(steps in prop::collection::vec((0u8..4, 0u128..8), 0..200)) {
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
            prop_assert_eq!(callers.by_id(id).has_hung_up(), gone.contains(&id));
        }
    }
}

use std::cell::{Cell, RefCell};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use proptest::prelude::*;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde_json::{Value, json};

use super::*;
use crate::batch::block::Position;
use crate::batch::row::{Original, Row};

/// A router that answers in any order, and in which requests are lost, refused and answered twice, by chance.
struct UnreliableRouter {
    dice: RefCell<fastrand::Rng>,
    /// Share of requests, in percent, that come to no good end at once.
    trouble: u8,
    /// Replies that are on their way.
    replies: RefCell<Vec<ReceivedReply>>,
    undelivered: RefCell<Vec<u64>>,
    under_way: Cell<usize>,
    most_under_way: Cell<usize>,
}

impl UnreliableRouter {
    fn new(seed: u64, trouble: u8) -> Self {
        Self {
            dice: RefCell::new(fastrand::Rng::with_seed(seed)),
            trouble,
            replies: RefCell::default(),
            undelivered: RefCell::default(),
            under_way: Cell::new(0),
            most_under_way: Cell::new(0),
        }
    }
}

/// Answers each row with its number and ten times that; a request with a row from 900 on is bad as a whole.
fn answer(request: u64, body: &[u8]) -> ReceivedReply {
    let body: Value = serde_json::from_slice(body).unwrap();
    let rows: Vec<u64> = body["inputs"].as_array().unwrap().iter().map(|row| row.as_u64().unwrap()).collect();
    let reply =
        |status, body: Value| ReceivedReply { request, status, retry_after: None, body: Bytes::from(body.to_string()) };
    match rows.iter().any(|row| *row >= 900) {
        true => reply(400, json!({"error_code": "BAD_REQUEST", "message": "a row is bad", "retryable": false})),
        false => reply(200, json!({"predictions": rows.iter().map(|row| 10 * row).collect::<Vec<_>>()})),
    }
}

impl Link for UnreliableRouter {
    fn correlation(&self, request: u64) -> String {
        format!("run-{request}")
    }

    fn send(&self, request: u64, body: &[u8], _: Duration) -> Result<Sent, KafkaError> {
        let mut dice = self.dice.borrow_mut();
        self.under_way.set(self.under_way.get() + 1);
        self.most_under_way.set(self.most_under_way.get().max(self.under_way.get()));
        let answered = answer(request, body);
        let mut replies = self.replies.borrow_mut();
        if dice.u8(..100) >= self.trouble {
            replies.push(answered);
            return Ok(Sent::Yes);
        }
        match dice.u8(..5) {
            0 => {
                self.under_way.set(self.under_way.get() - 1);
                return Ok(Sent::Later);
            }
            1 => self.undelivered.borrow_mut().push(request),
            2 => replies.push(ReceivedReply { status: 503, body: Bytes::new(), ..answered }),
            3 => replies.push(ReceivedReply {
                status: 502,
                body: Bytes::from_static(b"{\"retryable\":true}"),
                ..answered
            }),
            _ => replies.extend([answered.clone(), answered]),
        }
        Ok(Sent::Yes)
    }

    fn receive(&self, _: Duration) -> Option<ReceivedReply> {
        let mut replies = self.replies.borrow_mut();
        let one = self.dice.borrow_mut().usize(..replies.len().max(1));
        let reply = (one < replies.len()).then(|| replies.swap_remove(one));
        self.under_way.set(self.under_way.get().saturating_sub(usize::from(reply.is_some())));
        reply
    }

    fn undelivered(&self) -> Option<(u64, KafkaError)> {
        let request = self.undelivered.borrow_mut().pop()?;
        self.under_way.set(self.under_way.get().saturating_sub(1));
        Some((request, KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)))
    }

    fn is_broker_away(&self) -> bool {
        false
    }
}

fn settings(in_flight: usize) -> RunSettings {
    RunSettings {
        in_flight,
        timeout: Duration::from_secs(60),
        attempts: 20,
        patience: Duration::from_secs(60),
        params: None,
        whole: false,
    }
}

/// Makes blocks of bare rows; a row without a number cannot be sent.
fn blocks(rows: &[Option<u64>], size: usize) -> Receiver<Result<Block, BatchError>> {
    let (sender, receiver) = sync_channel(rows.len() + 1);
    for (index, chunk) in rows.chunks(size).enumerate() {
        let row = |number: &Option<u64>| match number {
            Some(number) => Row { values: Ok(number.to_string().into()), original: Original::None },
            None => Row::unsendable("it is no row".to_owned(), Original::None),
        };
        let first = (index * size) as u64;
        let end = Position { rows: first + chunk.len() as u64, ..Position::default() };
        sender.send(Ok(Block { first, rows: chunk.iter().map(row).collect(), columns: None, end, size: 10 })).unwrap();
    }
    receiver
}

fn run(
    router: &UnreliableRouter,
    settings: &RunSettings,
    rows: &[Option<u64>],
    size: usize,
) -> (Result<RunEnd, BatchError>, Vec<Answer>) {
    let (sender, finished) = sync_channel(rows.len() + 1);
    let end = Run::new(router, settings, Counts::default()).finish_all(
        &blocks(rows, size),
        &sender,
        &AtomicBool::new(false),
        &mut |_| {},
    );
    drop(sender);
    let mut next = 0;
    let answers = finished.iter().flat_map(|FinishedBlock { block, answers }| {
        assert_eq!((block.first, block.rows.len()), (next, answers.len()), "blocks come in order, whole");
        next = block.end.rows;
        answers
    });
    (end, answers.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_rows_get_their_own_answers_in_order(
        rows in proptest::collection::vec(proptest::option::weighted(0.95, 0u64..920), 0..120),
        size in 1usize..20,
        in_flight in 1usize..9,
        trouble in 0u8..30,
        seed: u64,
    ) {
        let router = UnreliableRouter::new(seed, trouble);
        let (end, answers) = run(&router, &settings(in_flight), &rows, size);
        prop_assert_eq!(end.unwrap(), RunEnd::Complete);
        prop_assert_eq!(answers.len(), rows.len());
        for (row, answer) in rows.iter().zip(&answers) {
            match (row, answer) {
                (Some(number @ ..900), Answer::Prediction(prediction)) => {
                    prop_assert_eq!(prediction, &Bytes::from((10 * number).to_string()));
                }
                (Some(900..), Answer::Failed(fault)) => {
                    prop_assert!(fault.code == "BAD_REQUEST" && fault.correlation.is_some());
                }
                (None, Answer::Failed(fault)) => prop_assert_eq!(&*fault.code, "BAD_ROW"),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(router.most_under_way.get() <= 2 * in_flight, "replies that come twice count here, not there");
    }
}

#[test]
fn run_ends_when_endpoint_is_not_there() {
    struct Nobody;
    impl Link for Nobody {
        fn correlation(&self, request: u64) -> String {
            request.to_string()
        }
        fn send(&self, _: u64, _: &[u8], _: Duration) -> Result<Sent, KafkaError> {
            Ok(Sent::Yes)
        }
        fn receive(&self, _: Duration) -> Option<ReceivedReply> {
            let body =
                Bytes::from_static(b"{\"error_code\": \"RESOURCE_DOES_NOT_EXIST\", \"message\": \"no such endpoint\"}");
            Some(ReceivedReply { request: 0, status: 404, retry_after: None, body })
        }
        fn undelivered(&self) -> Option<(u64, KafkaError)> {
            None
        }
        fn is_broker_away(&self) -> bool {
            false
        }
    }
    let (sender, _finished) = sync_channel(9);
    let settings = settings(4);
    let end = Run::new(&Nobody, &settings, Counts::default()).finish_all(
        &blocks(&[Some(1)], 1),
        &sender,
        &AtomicBool::new(false),
        &mut |_| {},
    );
    let message = end.unwrap_err().to_string();
    assert_eq!(message, "the router refuses the requests: RESOURCE_DOES_NOT_EXIST: no such endpoint");
}

#[test]
fn run_stops_when_nobody_answers() {
    let router = UnreliableRouter::new(1, 0);
    let settings = RunSettings { patience: Duration::from_millis(300), ..settings(4) };
    struct Silent<'a>(&'a UnreliableRouter);
    impl Link for Silent<'_> {
        fn correlation(&self, request: u64) -> String {
            self.0.correlation(request)
        }
        fn send(&self, _: u64, _: &[u8], _: Duration) -> Result<Sent, KafkaError> {
            Ok(Sent::Yes)
        }
        fn receive(&self, wait: Duration) -> Option<ReceivedReply> {
            std::thread::sleep(wait);
            None
        }
        fn undelivered(&self) -> Option<(u64, KafkaError)> {
            None
        }
        fn is_broker_away(&self) -> bool {
            true
        }
    }
    let (sender, _finished) = sync_channel(9);
    let end = Run::new(&Silent(&router), &settings, Counts::default()).finish_all(
        &blocks(&[Some(1)], 1),
        &sender,
        &AtomicBool::new(false),
        &mut |_| {},
    );
    let message = end.unwrap_err().to_string();
    assert_eq!(message, "nothing is answered any more; it waited for the broker, which cannot be reached");
}

#[test]
fn run_ends_when_all_rows_fail() {
    let rows = vec![Some(900); 3_000];
    let router = UnreliableRouter::new(1, 0);
    let (end, answers) = run(&router, &settings(4), &rows, 10);
    let message = end.unwrap_err().to_string();
    assert!(message.starts_with("the first 1000 rows have all failed, and none is answered: BAD_REQUEST"), "{message}");
    assert!(answers.len() < rows.len());
}

use super::*;
use crate::message::{Headers, Source};
use crate::telemetry::Metrics;

struct World {
    queue: BatchQueue,
    mode: BatchMode,
    settings: config::Batch,
    metrics: BatchMetrics,
    /// Receivers of all tickets, kept since a request whose receiver is gone is not taken.
    tickets: Vec<oneshot::Receiver<BatchTicket>>,
}

impl World {
    fn new() -> Self {
        let settings = config::Batch { max_bytes: bytesize::ByteSize::b(2_000), ..config::Batch::default() };
        let metrics = Metrics::new().unwrap().batch("e", "main");
        let queue = BatchQueue::new(settings.max_rows, settings.target_latency, false);
        Self { queue, mode: BatchMode::Proven, settings, metrics, tickets: Vec::new() }
    }

    fn enter(&mut self, payload: &str) -> u64 {
        self.enter_until(payload, Deadline::NONE)
    }

    fn enter_until(&mut self, payload: &str, deadline: Deadline) -> u64 {
        let bytes = bytes::Bytes::from(payload.to_owned());
        let request = Request {
            source: Source { topic: "t".into(), partition: 0, offset: 0 },
            timestamp: None,
            key: None,
            payload: Some(bytes.clone()),
            headers: Headers::default(),
            parked: None,
        };
        let payload = Payload::read("application/json", &bytes).unwrap();
        let (sender, ticket) = oneshot::channel();
        self.tickets.push(ticket);
        self.queue.enter(BatchWaiter { payload, request: Arc::new(request), deadline, key: None, ticket: sender })
    }

    /// Takes a request, and returns the rows of each request that goes with it.
    fn take(&mut self, number: u64) -> Vec<usize> {
        self.take_with(number, None)
    }

    fn take_with(&mut self, number: u64, signature: Option<&Arc<Signature>>) -> Vec<usize> {
        match self.queue.take(number, signature, |_| self.mode, &self.settings, &self.metrics) {
            Taken::ByOther => Vec::new(),
            Taken::Single(single) => vec![single.rows],
            Taken::Batch(group) => {
                std::iter::once(&group.own).chain(&group.others).map(|member| member.payload.rows()).collect()
            }
        }
    }
}

fn rows(values: &[&str]) -> String {
    let rows: Vec<_> = values.iter().map(|value| format!("[{value}]")).collect();
    format!(r#"{{"dataframe_split": {{"columns": ["x"], "data": [{}]}}}}"#, rows.join(", "))
}

#[test]
fn requests_of_one_key_go_together_in_order_of_coming() {
    let mut world = World::new();
    let first = world.enter(&rows(&["1"]));
    let other = world.enter(&rows(&["\"a\""]));
    let second = world.enter(&rows(&["2", "3"]));
    let (third, gone) = (world.enter(&rows(&["4"])), world.enter(&rows(&["5"])));
    world.enter_until(&rows(&["6"]), Deadline::NONE.within(Duration::ZERO));
    world.queue.leave(gone);
    assert_eq!(world.take(first), [1, 2, 1]);
    assert_eq!((world.take(second), world.take(third)), (vec![], vec![]));
    assert_eq!(world.take(other), [1]);
    assert_eq!(world.queue.rows, 1, "the one whose time is up");
}

#[test]
fn batch_takes_as_many_rows_and_bytes_as_allowed() {
    let mut world = World::new();
    let numbers: Vec<_> = (0..40).map(|_| world.enter(&rows(&["1"]))).collect();
    // The size begins with sixteen rows.
    assert_eq!(world.take(numbers[0]).len(), 16);
    assert_eq!(world.take(numbers[20]).len(), 16);
    let large = world.enter(&rows(&["1"; 200]));
    assert_eq!(world.take(large), [200]);
    let padded = format!("{}{}", rows(&["1"]), " ".repeat(900));
    let padded: Vec<_> = (0..4).map(|_| world.enter(&padded)).collect();
    assert_eq!(world.take(padded[0]).len(), 9, "as many as have 2,000 bytes: eight small ones, which came first");
}

#[test]
fn request_goes_singly_when_batching_is_off() {
    let mut world = World::new();
    let numbers: Vec<_> = (0..4).map(|_| world.enter(&rows(&["1"]))).collect();
    world.mode = BatchMode::Off;
    assert_eq!(world.take(numbers[0]), [1]);
    world.mode = BatchMode::Trusted;
    assert_eq!(world.take(numbers[1]), [1, 1, 1]);
    assert_eq!(world.metrics.model.get(), 1);
}

#[test]
fn rows_with_nulls_go_apart_unless_independence_is_proven() {
    let floats = Arc::new(Signature::new(["x".to_owned()], false));
    for (mode, together) in [(BatchMode::Proven, 4), (BatchMode::Sampled, 2), (BatchMode::Trusted, 2)] {
        let mut world = World::new();
        world.mode = mode;
        let numbers = ["1", "null", "2.5", "null"].map(|value| world.enter(&rows(&[value])));
        assert_eq!(world.take_with(numbers[0], Some(&floats)).len(), together, "{mode:?}");
        assert_eq!(world.take_with(numbers[1], Some(&floats)).len(), if together == 4 { 0 } else { 2 }, "{mode:?}");
    }
}

#[test]
fn suspected_kind_goes_singly_while_it_is_refused() {
    let mut world = World::new();
    let mut next = world.enter(&rows(&["null"]));
    let suspected = world.queue.waiters[&next].key.clone().unwrap();
    world.queue.rejection_rate.record(&suspected, 10, 10);
    let mut call = |is_refused| {
        let waiting = world.enter(&rows(&["null"]));
        let number = std::mem::replace(&mut next, waiting);
        let taken = world.queue.take(number, None, |_| world.mode, &world.settings, &world.metrics);
        let Taken::Single(single) = taken else { return false };
        world.queue.record_single_call(&single, is_refused);
        true
    };
    assert!((0..200).all(|_| call(true)));
    let forgiven = (0..200).position(|_| !call(false)).unwrap();
    assert!((10..100).contains(&forgiven), "{forgiven}");
    assert_eq!(world.metrics.refused.get(), 200 + forgiven as u64);
}

#[test]
fn keys_follow_signature_of_leased_model() {
    let mut world = World::new();
    let whole = world.enter(&rows(&["1"]));
    let half = world.enter(&rows(&["0.5"]));
    assert_eq!(world.take(whole), [1]);
    let whole = world.enter(&rows(&["1"]));
    let floats = Arc::new(Signature::new(["x".to_owned()], false));
    assert_eq!(world.take_with(whole, Some(&floats)), [1, 1]);
    assert_eq!(world.take(half), [0; 0]);
}

#[test]
fn wait_is_expected_when_waiters_fill_calls() {
    let call = Duration::from_millis(50);
    let mut world = World::new();
    assert_eq!(world.queue.expected_wait(1, call), None);
    for _ in 0..64 {
        world.enter(&rows(&["1"]));
    }
    assert_eq!(world.queue.expected_wait(1, call), Some(Duration::from_millis(200)));
    assert_eq!(world.queue.expected_wait(2, call), Some(Duration::from_millis(100)));
    let few: Vec<_> = world.queue.waiters.keys().copied().take(40).collect();
    few.into_iter().for_each(|number| drop(world.queue.leave(number)));
    assert_eq!(world.queue.expected_wait(1, call), None);
}

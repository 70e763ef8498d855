use super::*;
use crate::message::{Headers, Source};
use crate::telemetry::Metrics;

struct World {
    queue: Queue,
    joining: Joining,
    settings: config::Batch,
    metrics: BatchMetrics,
    /// Kept, since who is gone is not taken.
    places: Vec<oneshot::Receiver<Company>>,
}

impl World {
    fn new() -> Self {
        let settings = config::Batch { max_bytes: bytesize::ByteSize::b(2_000), ..config::Batch::default() };
        let metrics = Metrics::new().unwrap().batch("e", "main");
        let queue = Queue::new(settings.max_rows, settings.target_latency, false);
        Self { queue, joining: Joining::Known, settings, metrics, places: Vec::new() }
    }

    fn enter(&mut self, payload: &str) -> u64 {
        self.enter_until(payload, None)
    }

    fn enter_until(&mut self, payload: &str, deadline: Option<Instant>) -> u64 {
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
        let (tell, place) = oneshot::channel();
        self.places.push(place);
        self.queue.enter(Waiting { payload, request: Arc::new(request), deadline, key: None, taken: tell })
    }

    /// How many rows each of those has that go with this one.
    fn take(&mut self, number: u64) -> Vec<usize> {
        self.take_with(number, None)
    }

    fn take_with(&mut self, number: u64, signature: Option<&Arc<Signature>>) -> Vec<usize> {
        match self.queue.take(number, signature, |_| self.joining, &self.settings, &self.metrics) {
            Taken::Along => Vec::new(),
            Taken::Alone(single) => vec![single.rows],
            Taken::Several(group) => group.members.iter().map(|member| member.payload.rows()).collect(),
        }
    }
}

fn rows(values: &[&str]) -> String {
    let rows: Vec<_> = values.iter().map(|value| format!("[{value}]")).collect();
    format!(r#"{{"dataframe_split": {{"columns": ["x"], "data": [{}]}}}}"#, rows.join(", "))
}

#[test]
fn who_is_alike_goes_together_in_the_order_of_coming() {
    let mut world = World::new();
    let first = world.enter(&rows(&["1"]));
    let other = world.enter(&rows(&["\"a\""]));
    let second = world.enter(&rows(&["2", "3"]));
    let (third, gone) = (world.enter(&rows(&["4"])), world.enter(&rows(&["5"])));
    world.enter_until(&rows(&["6"]), Some(Instant::now()));
    world.queue.leave(gone);
    assert_eq!(world.take(first), [1, 2, 1]);
    assert_eq!((world.take(second), world.take(third)), (vec![], vec![]));
    assert_eq!(world.take(other), [1]);
    assert_eq!(world.queue.rows, 1, "the one whose time is up");
}

#[test]
fn as_many_go_as_there_may_be() {
    let mut world = World::new();
    let numbers: Vec<_> = (0..40).map(|_| world.enter(&rows(&["1"]))).collect();
    // It begins with sixteen rows.
    assert_eq!(world.take(numbers[0]).len(), 16);
    assert_eq!(world.take(numbers[20]).len(), 16);
    let large = world.enter(&rows(&["1"; 200]));
    assert_eq!(world.take(large), [200]);
    let padded = format!("{}{}", rows(&["1"]), " ".repeat(900));
    let padded: Vec<_> = (0..4).map(|_| world.enter(&padded)).collect();
    assert_eq!(world.take(padded[0]).len(), 9, "as many as have 2,000 bytes: eight small ones, which came first");
}

#[test]
fn a_model_that_is_called_singly_is() {
    let mut world = World::new();
    let numbers: Vec<_> = (0..4).map(|_| world.enter(&rows(&["1"]))).collect();
    world.joining = Joining::No;
    assert_eq!(world.take(numbers[0]), [1]);
    world.joining = Joining::Unwatched;
    assert_eq!(world.take(numbers[1]), [1, 1, 1]);
    assert_eq!(world.metrics.model.get(), 1);
}

#[test]
fn what_lacks_a_value_goes_apart_where_only_somebodys_word_stands() {
    let floats = Arc::new(Signature::new(["x".to_owned()], false));
    for (joining, together) in [(Joining::Known, 4), (Joining::Watched, 2), (Joining::Unwatched, 2)] {
        let mut world = World::new();
        world.joining = joining;
        let numbers = ["1", "null", "2.5", "null"].map(|value| world.enter(&rows(&[value])));
        assert_eq!(world.take_with(numbers[0], Some(&floats)).len(), together, "{joining:?}");
        assert_eq!(world.take_with(numbers[1], Some(&floats)).len(), if together == 4 { 0 } else { 2 }, "{joining:?}");
    }
}

#[test]
fn what_is_suspected_goes_alone_as_long_as_it_is_refused() {
    let mut world = World::new();
    let mut next = world.enter(&rows(&["null"]));
    let suspected = world.queue.waiting[&next].key.clone().unwrap();
    world.queue.suspicion.saw(&suspected, 10, 10);
    let mut call = |is_refused| {
        let waiting = world.enter(&rows(&["null"]));
        let number = std::mem::replace(&mut next, waiting);
        let taken = world.queue.take(number, None, |_| world.joining, &world.settings, &world.metrics);
        let Taken::Alone(single) = taken else { return false };
        world.queue.called(&single, is_refused);
        true
    };
    assert!((0..200).all(|_| call(true)));
    let forgiven = (0..200).position(|_| !call(false)).unwrap();
    assert!((10..100).contains(&forgiven), "{forgiven}");
    assert_eq!(world.metrics.refused.get(), 200 + forgiven as u64);
}

#[test]
fn what_must_be_alike_depends_on_the_model_that_answers() {
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
fn a_wait_is_expected_when_enough_is_known() {
    let mut world = World::new();
    assert_eq!(world.queue.expected_wait(1), None);
    for _ in 0..64 {
        world.enter(&rows(&["1"]));
    }
    assert_eq!(world.queue.expected_wait(1), None);
    (0..8).for_each(|_| world.queue.size.saw(Duration::from_millis(50)));
    assert_eq!(world.queue.expected_wait(1), Some(Duration::from_millis(200)));
    assert_eq!(world.queue.expected_wait(2), Some(Duration::from_millis(100)));
    let few: Vec<_> = world.queue.waiting.keys().copied().take(40).collect();
    few.into_iter().for_each(|number| drop(world.queue.leave(number)));
    assert_eq!(world.queue.expected_wait(1), None);
}

use super::*;
use crate::config;

struct World {
    models: Models,
    metrics: Metrics,
}

impl World {
    fn new() -> Self {
        let metrics = Metrics::new().unwrap();
        let registry = config::Registry { tracking_uri: Some("http://127.0.0.1:9".to_owned()), ..Default::default() };
        Self { models: Models::start(&config::Models::default(), &registry, &metrics).unwrap(), metrics }
    }

    /// Makes a snapshot of endpoints `a` and `b`, each with these routes.
    fn snapshot(&self, a: &str, b: &str, before: Option<&Snapshot>) -> Snapshot {
        let text = format!("model_endpoints: [{{name: a, routes: [{a}]}}, {{name: b, routes: [{b}]}}]");
        let config = crate::check::parse(&text, "file", &|_| None).unwrap_or_else(|report| panic!("{report}")).config;
        let table = RoutingTable::build(&config).unwrap();
        Snapshot::new(&config, table, &self.models, &self.metrics, before).unwrap()
    }
}

/// Finds for each route of `other` in the endpoint `a` the index that the same route has in `one`.
fn kept(one: &Snapshot, other: &Snapshot) -> Vec<Option<usize>> {
    let routes = |snapshot: &Snapshot| snapshot.endpoints[0].routes.clone();
    let before = routes(one);
    routes(other).iter().map(|route| before.iter().position(|it| Arc::ptr_eq(it, route))).collect()
}

const FAST: &str = "{model_uri: builtin:noop, alias: fast}";
const SLOW: &str = "{model_uri: 'http://127.0.0.1:9', alias: slow}";

#[tokio::test]
async fn route_is_kept_when_reload_does_not_concern_it() {
    let world = World::new();
    let before = world.snapshot(&format!("{FAST}, {SLOW}"), FAST, None);
    // Neither the order, nor other endpoints, nor keys that only the routing table uses change a route.
    let after = world.snapshot(&format!("{SLOW}, {FAST}"), SLOW, Some(&before));
    assert_eq!(kept(&before, &after), [Some(1), Some(0)]);
    let condition = "model_request_condition: \"request.key == 'x'\"";
    let after =
        world.snapshot(&format!("{{model_uri: builtin:noop, alias: fast, {condition}}}, {SLOW}"), FAST, Some(&before));
    assert_eq!(kept(&before, &after), [Some(0), Some(1)]);
}

#[tokio::test]
async fn route_is_made_anew_when_its_config_changes() {
    let world = World::new();
    let before = world.snapshot(&format!("{FAST}, {SLOW}"), FAST, None);
    for changed in [
        "{model_uri: builtin:noop, alias: other}",
        "{model_uri: 'http://127.0.0.1:8', alias: fast}",
        "{model_uri: builtin:noop, alias: fast, max_concurrency: 3}",
    ] {
        let after = world.snapshot(&format!("{changed}, {SLOW}"), FAST, Some(&before));
        assert_eq!(kept(&before, &after), [None, Some(1)], "{changed}");
    }
}

#[tokio::test]
async fn canary_keeps_its_share_when_its_steps_stay() {
    let world = World::new();
    let routes = |steps: &str| {
        format!("{FAST}, {{model_uri: builtin:noop, alias: next, canary: {{steps: [{steps}], every: 10m}}}}")
    };
    let snapshot = |steps: &str, before: Option<&Snapshot>| world.snapshot(&routes(steps), FAST, before);
    let share = |snapshot: &Snapshot| Arc::clone(snapshot.table.named("a").unwrap().canary().unwrap().1);
    let before = snapshot("1, 50", None);
    share(&before).set(0.5);
    assert_eq!(share(&snapshot("1, 50", Some(&before))).get(), 0.5);
    assert_eq!(share(&snapshot("2, 50", Some(&before))).get(), 0.0);
    // Routes that a canary is compared with are no longer the same without it.
    let after = world.snapshot(FAST, FAST, Some(&before));
    assert_eq!(kept(&before, &after), [None]);
}

#[tokio::test]
async fn place_names_route_until_reload() {
    let world = World::new();
    let before = world.snapshot(FAST, &format!("{FAST}, {SLOW}"), None);
    let place = before.place(before.table.named("b").unwrap(), 1);
    let (endpoint, route) = before.route_at(place).unwrap();
    assert_eq!((&*endpoint, &*route), ("b", "slow"));
    assert_eq!(before.route_at(0), None);
    let after = world.snapshot(FAST, &format!("{SLOW}, {FAST}"), Some(&before));
    assert_eq!(after.route_at(place), None);
}

//! One scenario at one delivery: the load, the blows, the verdict.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::fire::{ComputedModel, Conduct, Kind, Load, Plan, Reader, Report, lag_vanishes};
use crate::support::{Cluster, Kafka, Proxy, Signalbox, fresh_directory, unique, wait_until};

const PARTITIONS: i32 = 6;
/// Without one more answer in this time, the rest is given up as lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// From the last answer to the last commit.
const COMMITTED_WITHIN: Duration = Duration::from_secs(60);
/// As short as brokers allow, so that an instance that is silent is soon replaced.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// Where a scenario takes place: addresses, and topics that no other run has.
pub(super) struct Ground {
    checkers: String,
    signalboxes: String,
    topics: [String; 3],
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    per_second: u64,
    seconds: u64,
    blows: u64,
}

/// A scenario under way.
pub(super) struct Run {
    name: &'static str,
    delivery: &'static str,
    length: Length,
    ground: Ground,
    group: String,
    config: String,
    pub(super) instances: Vec<Signalbox>,
    load: Load,
    reader: Reader,
    blows: u64,
    begun: Instant,
    _model: ComputedModel,
}

impl Ground {
    pub(super) fn on(kafka: &Kafka) -> Self {
        let topics = ["requests", "replies", "dead-letters"].map(|name| kafka.create_topic(name, PARTITIONS));
        Self { checkers: kafka.bootstrap(), signalboxes: kafka.bootstrap(), topics }
    }

    pub(super) fn on_cluster(cluster: &Cluster) -> Self {
        let topics = ["requests", "replies", "dead-letters"].map(|name| cluster.create_topic(name, PARTITIONS));
        Self { checkers: cluster.bootstrap(), signalboxes: cluster.bootstrap(), topics }
    }

    pub(super) fn behind(kafka: &Kafka, proxy: &Proxy) -> Self {
        Self { signalboxes: format!("127.0.0.1:{}", proxy.port()), ..Self::on(kafka) }
    }
}

impl Length {
    /// So many seconds and blows in the short version; in the long one a blow every so many seconds, and as many minutes
    /// as were asked for, or a tenth of them for a scenario that is not the main one.
    pub(super) fn of(seconds: u64, blows: u64, every: u64) -> Self {
        Self::scaled(seconds, blows, every, 6)
    }

    /// The same for the scenario that takes all the minutes.
    pub(super) fn of_the_main_one(seconds: u64, blows: u64, every: u64) -> Self {
        Self::scaled(seconds, blows, every, 60)
    }

    fn scaled(seconds: u64, blows: u64, every: u64, a_minute_is: u64) -> Self {
        match std::env::var("SIGNALBOX_TEST_FIRE_MINUTES") {
            Ok(minutes) => {
                let seconds = (minutes.parse::<u64>().unwrap() * a_minute_is).max(seconds);
                Self { per_second: 1_200, seconds, blows: (seconds / every).max(blows) }
            }
            Err(_) => Self { per_second: 300, seconds, blows },
        }
    }
}

impl Run {
    /// Starts so many instances, and then the load.
    pub(super) fn start(
        name: &'static str,
        delivery: &'static str,
        length: Length,
        ground: Ground,
        instances: usize,
        conduct: Conduct,
    ) -> Self {
        let group = unique("signalbox");
        // Of no other run, so that what strays from there is foreign here.
        let seed = xxhash_rust::xxh3::xxh3_64(group.as_bytes());
        let mut plan = Plan::new(seed, length.per_second * length.seconds, PARTITIONS);
        if conduct == Conduct::Troubled {
            plan.computed_per_mille = 300;
        }
        let model = ComputedModel::start(conduct);
        let mut config = config(&ground, delivery, &group, &model);
        if name == "kill -9" {
            // Alone and known by name, it need not wait after each kill until the group has given up its former self.
            config = config.replace("properties: {", "properties: {group.instance.id: alone, ");
        }
        let [requests, replies, dead_letters] = &ground.topics;
        let reader = Reader::start(plan.clone(), &ground.checkers, replies, dead_letters);
        let instances: Vec<_> = (0..instances).map(|_| Signalbox::start(&config)).collect();
        let load = Load::start(plan, &ground.checkers, requests, length.per_second);
        let begun = Instant::now();
        Self { name, delivery, length, group, config, instances, load, reader, blows: 0, begun, _model: model, ground }
    }

    /// Strikes at even distances over the load, and each time only when answers flow.
    pub(super) fn strike(&mut self, mut blow: impl FnMut(&mut Self, u64)) {
        let requests = self.length.per_second * self.length.seconds;
        for number in 0..self.length.blows {
            let due = (number + 1) * requests / (self.length.blows + 1);
            let limit = Duration::from_secs(self.length.seconds) + PATIENCE;
            wait_until("the load to go on", limit, || (self.load.sent() >= due).then_some(()));
            if !self.flows() {
                return;
            }
            blow(self, number);
            self.blows += 1;
        }
    }

    /// Waits for one more answer. False when there is none to come.
    pub(super) fn flows(&self) -> bool {
        let before = self.reader.answered();
        let all = self.length.per_second * self.length.seconds;
        wait_until("answers to flow", PATIENCE, || {
            (self.reader.answered() > before || before == all).then_some(before < all)
        })
    }

    /// One more instance. It is not waited for.
    pub(super) fn join(&mut self) {
        self.instances.push(Signalbox::spawn_with(&self.config, Vec::new()));
    }

    /// Waits until all is answered and committed, ends the instances, and judges.
    #[expect(clippy::print_stdout, reason = "what it cost is told of a run that went well, too")]
    pub(super) fn finish(mut self) -> Result<(), String> {
        let sent = self.load.finish();
        let all_answered = await_answers(&self.reader, sent);
        let seconds = self.begun.elapsed().as_secs_f64();
        let [requests, ..] = &self.ground.topics;
        let committed = match all_answered {
            true => lag_vanishes(&self.ground.checkers, &self.group, requests, sent, COMMITTED_WITHIN),
            false => Ok(()),
        };
        let ends: Vec<_> = self.instances.iter_mut().map(Signalbox::terminate).collect();
        let report = self.reader.finish(sent);
        println!("{} at {}, {} blows, {seconds:.0} s: {report}", self.name, self.delivery, self.blows);
        write_row(self.name, self.delivery, self.blows, seconds, &report);

        let mut wrong: Vec<_> = committed.err().into_iter().collect();
        wrong.extend((self.blows == 0).then(|| "all was answered before the first blow, which proves nothing".into()));
        wrong.extend(ends.iter().filter(|end| !end.success()).map(|end| format!("an instance ended with {end}")));
        let judged = [Kind::Lost, Kind::Foreign, Kind::Misrouted].into_iter();
        let judged = judged.chain((self.delivery == "exactly_once").then_some(Kind::Repeated));
        wrong.extend(judged.filter(|kind| report.count(*kind) > 0).map(|kind| format!("{kind:?}")));
        if wrong.is_empty() {
            return Ok(());
        }
        let logs = self.instances.iter().map(|instance| instance.log_path().display().to_string());
        let logs = logs.collect::<Vec<_>>().join("\n");
        Err(format!("{} at {}: {}\n{report}\n{logs}", self.name, self.delivery, wrong.join("; ")))
    }
}

/// Whether all are answered before patience is at its end.
fn await_answers(reader: &Reader, sent: u64) -> bool {
    let (mut answered, mut since) = (reader.answered(), Instant::now());
    while answered < sent && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
        let now = reader.answered();
        if now > answered {
            (answered, since) = (now, Instant::now());
        }
    }
    answered == sent
}

/// A line of the table that `tests/fire` prints.
fn write_row(name: &str, delivery: &str, blows: u64, seconds: f64, report: &Report) {
    let Some(table) = std::env::var_os("SIGNALBOX_TEST_FIRE_TABLE") else { return };
    let counts = [Kind::Lost, Kind::Repeated, Kind::Foreign, Kind::Misrouted, Kind::Reordered];
    let counts = counts.map(|kind| report.count(kind).to_string()).join("\t");
    let (sent, faults, dead) = (report.sent, report.faults_by_status(), report.dead_letters);
    let rate = sent as f64 / seconds;
    let row = format!("{name}\t{delivery}\t{sent}\t{blows}\t{counts}\t{faults}\t{dead}\t{seconds:.0}\t{rate:.0}\n");
    let mut file = std::fs::File::options().create(true).append(true).open(table).unwrap();
    file.write_all(row.as_bytes()).unwrap();
}

fn config(ground: &Ground, delivery: &str, group: &str, model: &ComputedModel) -> String {
    let gold = "model_request_condition: \"request.headers.get('x-tier') == 'gold'\"";
    let retries = "retries: {max_attempts: 3, backoff: 20ms}";
    let Ground { signalboxes, topics: [requests, replies, dead_letters], .. } = ground;
    let ComputedModel { gold: gold_url, plain: plain_url, .. } = model;
    format!(
        "model_endpoints:
  - name: north
    routes:
      - {{model_uri: builtin:noop, alias: gold, {gold}}}
      - {{model_uri: builtin:noop, alias: plain}}
  - name: south
    routes:
      - {{model_uri: builtin:noop, alias: gold, {gold}}}
      - {{model_uri: builtin:noop, alias: plain}}
  - name: computed
    timeout: 1s
    routes:
      - {{model_uri: \"{gold_url}\", alias: gold, {gold}, max_concurrency: 128, {retries}}}
      - {{model_uri: \"{plain_url}\", alias: plain, max_concurrency: 128, {retries}}}
kafka:
  bootstrap_servers: {signalboxes}
  requests_topic: {requests}
  replies_topic: {replies}
  dead_letter_topic: {dead_letters}
  group_id: {group}
  delivery: {delivery}
  properties: {{session.timeout.ms: \"{}\"}}
server: {{port: 0}}
registry: {{tracking_uri: \"http://127.0.0.1:9\"}}
models: {{cache: {{directory: \"{}\"}}}}
",
        SESSION.as_millis(),
        fresh_directory("cache").display(),
    )
}

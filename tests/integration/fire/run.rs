//! Runs one scenario at one delivery: the load, the blows, the verdict.

use std::io::Write;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Ground;
use super::ground::PARTITIONS;
use crate::support::fire::{ComputedModel, Conduct, Kind, Load, Plan, Reader, Report, lag_vanishes};
use crate::support::{Signalbox, unique, wait_until};

/// Time without one more answer after which the rest is given up as lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// Limit from the last answer to the last commit.
const COMMITTED_WITHIN: Duration = Duration::from_secs(60);
/// Session timeout, as short as brokers allow, so that an instance that is silent is soon replaced.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// Describes the length of a run and the number of its blows and requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    pub(super) per_second: u64,
    pub(super) seconds: u64,
    pub(super) blows: u64,
}

/// Holds a scenario under way.
pub(super) struct Run {
    name: String,
    delivery: &'static str,
    length: Length,
    pub(super) ground: Ground,
    group: String,
    config: String,
    plan: Plan,
    pub(super) instances: Vec<Signalbox>,
    load: Option<Load>,
    /// The number of requests of earlier loads that the broker has.
    acknowledged: u64,
    /// The number of records that the requests topic holds, where it is not that of the plan.
    in_topic: Option<u64>,
    pub(super) reader: Reader,
    judged: Vec<Kind>,
    dead_letters_due: Option<u64>,
    patience: Duration,
    blows: u64,
    begun: Instant,
    figures: Vec<String>,
    wrong: Vec<String>,
    _model: ComputedModel,
}

impl Length {
    /// Lasts so many seconds with so many blows in the short version; in the long one a blow comes every so many
    /// seconds, and the run takes as many minutes as were asked for, or a tenth of them for a scenario that is not the
    /// main one.
    pub(super) fn of(seconds: u64, blows: u64, every: u64) -> Self {
        Self::scaled(seconds, blows, every, 6)
    }

    /// Lasts as [`Self::of`] says, for the scenario that takes all the minutes.
    pub(super) fn of_the_main_one(seconds: u64, blows: u64, every: u64) -> Self {
        Self::scaled(seconds, blows, every, 60)
    }

    /// Lasts as long as the other short one, at a rate of its own. A scenario in which one thing is done or goes on all
    /// the time has no blows to count.
    pub(super) fn without_blows(per_second: u64, seconds: u64) -> Self {
        Self { per_second, ..Self::of(seconds, 0, u64::MAX) }
    }

    /// Sets a rate of its own.
    pub(super) fn per_second(self, per_second: u64) -> Self {
        Self { per_second, ..self }
    }

    /// Tells whether the run is the long version.
    pub(super) fn is_long() -> bool {
        std::env::var_os("SIGNALBOX_TEST_FIRE_MINUTES").is_some()
    }

    /// Returns the number of requests.
    pub(super) fn requests(self) -> u64 {
        self.per_second * self.seconds
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
        name: &str,
        delivery: &'static str,
        length: Length,
        ground: Ground,
        instances: usize,
        conduct: Conduct,
    ) -> Self {
        let mut run = Self::prepare(name, delivery, length, ground, instances, conduct);
        run.send(0..length.requests());
        run
    }

    /// Starts so many instances, and no load.
    pub(super) fn prepare(
        name: &str,
        delivery: &'static str,
        length: Length,
        ground: Ground,
        instances: usize,
        conduct: Conduct,
    ) -> Self {
        let group = unique("signalbox");
        // The seed is of no other run, so that a record that strays from there is foreign here.
        let seed = xxhash_rust::xxh3::xxh3_64(group.as_bytes());
        let mut plan = Plan::new(seed, length.requests(), PARTITIONS);
        plan.computed_per_mille = match conduct {
            Conduct::Steady => 100,
            Conduct::Troubled | Conduct::Slow | Conduct::Failing => 300,
        };
        (ground.plan)(&mut plan);
        Self::of_plan(name, delivery, length, ground, instances, conduct, plan)
    }

    /// Starts so many instances of another group, which has the same requests, and topics of its own for what comes of
    /// them. The load is the first group's.
    pub(super) fn beside(&self, name: &str, replies: String, dead_letters: String, conduct: Conduct) -> Self {
        let topics = [self.ground.requests().to_owned(), replies, dead_letters];
        let (ground, instances) = (self.ground.clone().topics(topics), self.instances.len());
        Self::of_plan(name, self.delivery, self.length, ground, instances, conduct, self.plan.clone())
    }

    fn of_plan(
        name: &str,
        delivery: &'static str,
        length: Length,
        ground: Ground,
        instances: usize,
        conduct: Conduct,
        plan: Plan,
    ) -> Self {
        let group = unique("signalbox");
        let model = ComputedModel::start(conduct, plan.answer_bytes);
        let config = ground.config(delivery, &group, conduct, &model);
        let [_, replies, dead_letters] = &ground.topics;
        let reader = Reader::start(plan.clone(), &ground.checkers, replies, dead_letters);
        let instances: Vec<_> = (0..instances).map(|_| Signalbox::start(&config)).collect();
        let mut judged = vec![Kind::Lost, Kind::Foreign, Kind::Misrouted];
        judged.extend((delivery == "exactly_once").then_some(Kind::Repeated));
        Self {
            name: name.to_owned(),
            delivery,
            length,
            ground,
            group,
            config,
            plan,
            instances,
            load: None,
            acknowledged: 0,
            in_topic: None,
            reader,
            judged,
            dead_letters_due: None,
            patience: PATIENCE,
            blows: 0,
            begun: Instant::now(),
            figures: Vec::new(),
            wrong: Vec::new(),
            _model: model,
        }
    }

    /// Starts to send these requests, after those before.
    pub(super) fn send(&mut self, numbers: Range<u64>) {
        self.all_are_sent();
        let (plan, topic) = (self.plan.clone(), self.ground.requests());
        let load = Load::start(plan, numbers, &self.ground.checkers, topic, self.length.per_second);
        self.load = Some(load);
    }

    /// Waits until the broker has all that is to be sent so far, and returns the number of requests, from the first on.
    pub(super) fn all_are_sent(&mut self) -> u64 {
        self.acknowledged += self.load.take().map_or(0, Load::finish);
        self.acknowledged
    }

    /// Stops the load, and returns the number of requests.
    pub(super) fn stop_sending(&mut self) -> u64 {
        self.load.iter().for_each(Load::stop);
        self.all_are_sent()
    }

    /// Returns the number of the request that is sent next.
    pub(super) fn sent(&self) -> u64 {
        self.load.as_ref().map_or(self.acknowledged, Load::sent)
    }

    /// Judges findings of this kind as well, or no longer.
    pub(super) fn judge(&mut self, kind: Kind, is_judged: bool) {
        self.judged.retain(|judged| *judged != kind);
        self.judged.extend(is_judged.then_some(kind));
    }

    /// Gives up the rest sooner than usual.
    pub(super) fn be_patient_for(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sets the number of records that the requests topic holds in the end.
    pub(super) fn topic_holds(&mut self, records: u64) {
        self.in_topic = Some(records);
    }

    /// Adds a figure that the table tells beside the counts.
    pub(super) fn figure(&mut self, figure: String) {
        self.figures.push(figure);
    }

    /// Notes something that is wrong unless it holds.
    pub(super) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.wrong.extend((!holds).then(otherwise));
    }

    /// Requires a dead letter in the end of every request that fails for good.
    pub(super) fn expect_dead_letters(&mut self) {
        self.dead_letters_due = Some((0..self.plan.requests).filter(|number| self.plan.fails(*number)).count() as u64);
    }

    /// Strikes at even distances over the load, and each time only when answers flow.
    pub(super) fn strike(&mut self, mut blow: impl FnMut(&mut Self, u64)) {
        let requests = self.length.requests();
        for number in 0..self.length.blows {
            let due = (number + 1) * requests / (self.length.blows + 1);
            self.wait_until_sent(due);
            if !self.flows() {
                return;
            }
            blow(self, number);
            self.blows += 1;
        }
    }

    /// Waits until so many requests have been sent.
    pub(super) fn wait_until_sent(&self, due: u64) {
        let limit = Duration::from_secs(self.length.seconds) + PATIENCE;
        wait_until("the load to go on", limit, || (self.sent() >= due).then_some(()));
    }

    /// Waits for one more answer, and returns false when there is none to come.
    pub(super) fn flows(&self) -> bool {
        let before = self.reader.answered();
        let all = self.length.requests();
        wait_until("answers to flow", PATIENCE, || {
            (self.reader.answered() > before || before == all).then_some(before < all)
        })
    }

    /// Starts one more instance, and does not wait for it.
    pub(super) fn join(&mut self) {
        self.instances.push(Signalbox::spawn_with(&self.config, Vec::new()));
    }

    /// Waits until so many requests are answered, and returns false when patience is at its end before.
    pub(super) fn await_answers(&self, sent: u64) -> bool {
        self.await_answers_for(sent, self.patience)
    }

    /// Waits as [`Self::await_answers`] does, with another patience.
    pub(super) fn await_answers_for(&self, sent: u64, patience: Duration) -> bool {
        let (mut answered, mut since) = (self.reader.answered(), Instant::now());
        while answered < sent && since.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.reader.answered();
            if now > answered {
                (answered, since) = (now, Instant::now());
            }
        }
        answered >= sent
    }

    /// Waits until all is answered and committed, ends the instances, and judges.
    pub(super) fn finish(mut self) -> Result<(), String> {
        let sent = self.all_are_sent();
        self.verdict(sent)
    }

    /// Finishes this run and another that had the same requests.
    pub(super) fn finish_with(mut self, other: Self) -> Result<(), String> {
        let sent = self.all_are_sent();
        let wrong: Vec<_> = [self, other].into_iter().filter_map(|run| run.verdict(sent).err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    #[expect(clippy::print_stdout, reason = "what it cost is told of a run that went well, too")]
    fn verdict(mut self, sent: u64) -> Result<(), String> {
        let all_answered = self.await_answers(sent);
        let seconds = self.begun.elapsed().as_secs_f64();
        let committed = match all_answered {
            true => {
                let (requests, in_topic) = (self.ground.requests(), self.in_topic.unwrap_or(sent));
                lag_vanishes(&self.ground.checkers, &self.group, requests, in_topic, COMMITTED_WITHIN)
            }
            false => Ok(()),
        };
        let ends: Vec<_> = self.instances.iter_mut().map(Signalbox::terminate).collect();
        let report = self.reader.finish(sent);
        let (name, delivery, blows, figures) = (&self.name, self.delivery, self.blows, self.figures.join(", "));
        println!("{name} at {delivery}, {blows} blows, {seconds:.0} s, {figures}: {report}");
        write_row(name, delivery, blows, seconds, &report, &figures);

        let mut wrong = self.wrong;
        wrong.extend(committed.err());
        let due = self.dead_letters_due.unwrap_or(report.dead_letters);
        wrong.extend((report.dead_letters != due).then(|| format!("{due} dead letters were due")));
        let proves_nothing = self.length.blows > 0 && blows == 0;
        wrong.extend(proves_nothing.then(|| "all was answered before the first blow, which proves nothing".into()));
        wrong.extend(ends.iter().filter(|end| !end.success()).map(|end| format!("an instance ended with {end}")));
        let found = self.judged.iter().filter(|kind| report.count(**kind) > 0);
        wrong.extend(found.map(|kind| format!("{kind:?}: {}", report.count(*kind))));
        if wrong.is_empty() {
            return Ok(());
        }
        let logs = self.instances.iter().map(|instance| instance.log_path().display().to_string());
        let logs = logs.collect::<Vec<_>>().join("\n");
        Err(format!("{name} at {delivery}: {}\n{figures}\n{report}\n{logs}", wrong.join("; ")))
    }
}

/// Writes a line of the table that `tests/fire` prints, for a part of a scenario whose counts are those of the whole.
pub(super) fn write_part(name: &str, delivery: &str, blows: usize, figures: &str) {
    write_line(&format!("{name}\t{delivery}\t-\t{blows}{}\t{figures}\n", "\t-".repeat(9)));
}

/// Writes the line of a scenario.
fn write_row(name: &str, delivery: &str, blows: u64, seconds: f64, report: &Report, figures: &str) {
    let counts = [Kind::Lost, Kind::Repeated, Kind::Foreign, Kind::Misrouted, Kind::Reordered];
    let counts = counts.map(|kind| report.count(kind).to_string()).join("\t");
    let (sent, faults, dead) = (report.sent, report.faults_by_status(), report.dead_letters);
    let rate = sent as f64 / seconds;
    let figures = if figures.is_empty() { "-" } else { figures };
    write_line(&format!(
        "{name}\t{delivery}\t{sent}\t{blows}\t{counts}\t{faults}\t{dead}\t{seconds:.0}\t{rate:.0}\t{figures}\n"
    ));
}

fn write_line(row: &str) {
    let Some(table) = std::env::var_os("SIGNALBOX_TEST_FIRE_TABLE") else { return };
    let mut file = std::fs::File::options().create(true).append(true).open(table).unwrap();
    file.write_all(row.as_bytes()).unwrap();
}

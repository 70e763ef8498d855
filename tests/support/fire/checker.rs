//! Judges a history of replies: what is lost, repeated, foreign, reordered or misrouted.
//!
//! A million requests take 12 MB: where each was answered first, and after how long.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::message::Headers;

use super::clock;
use super::plan::Plan;
use super::report::{Kind, Report};

/// Marks a request that has no reply yet.
const UNANSWERED: u64 = u64::MAX;
/// Marks a request that has no reply yet, and needs none.
const EXCUSED: u64 = u64::MAX - 1;
const OFFSET_BITS: u32 = 48;

/// Names the place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Holds a reply, a fault or a dead letter, as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Terminal<'a> {
    pub(crate) at: Position,
    pub(crate) id: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) status: u16,
    pub(crate) endpoint: Option<&'a [u8]>,
    pub(crate) route: Option<&'a [u8]>,
    /// The header `x-number`, which travels through.
    pub(crate) number: Option<&'a [u8]>,
    pub(crate) body: &'a [u8],
    /// The time since the request was sent, by the header `x-sent`, which travels through.
    pub(crate) took: Option<Duration>,
}

/// Records the replies to the requests of a plan.
pub(crate) struct Checker {
    plan: Plan,
    /// The place of the first reply to each number.
    first: Vec<u64>,
    /// The time to the first reply to each number, in microseconds.
    took: Vec<u32>,
    /// The highest number of each key so far, plus one.
    latest: Vec<u64>,
    dead: Vec<(u64, Position)>,
    /// The number of requests that need no reply, and have none.
    excused: u64,
    report: Report,
}

impl Checker {
    pub(crate) fn new(plan: Plan) -> Self {
        let first = vec![UNANSWERED; usize::try_from(plan.requests).unwrap()];
        let took = vec![u32::MAX; first.len()];
        let latest = vec![0; usize::try_from(plan.keys).unwrap()];
        Self { plan, first, took, latest, dead: Vec::new(), excused: 0, report: Report::default() }
    }

    /// Counts the different requests that have been answered, or need not be.
    pub(crate) fn answered(&self) -> u64 {
        self.report.answered + self.excused
    }

    /// Asks for no reply to those of these requests that have none so far. One may come all the same.
    pub(crate) fn excuse(&mut self, numbers: Range<u64>) {
        for number in numbers {
            let first = &mut self.first[index(number)];
            if *first == UNANSWERED {
                *first = EXCUSED;
                self.excused += 1;
            }
        }
    }

    /// Returns the time that each of these requests took, and [`Duration::MAX`] for one that has no reply.
    pub(crate) fn latencies(&self, numbers: Range<u64>) -> Vec<Duration> {
        let micros = &self.took[index(numbers.start)..index(numbers.end)];
        let took = |micros: &u32| match *micros {
            u32::MAX => Duration::MAX,
            micros => Duration::from_micros(micros.into()),
        };
        micros.iter().map(took).collect()
    }

    /// Takes in a record of the replies topic.
    pub(crate) fn reply(&mut self, reply: &Terminal<'_>) {
        let Some(number) = self.plan.number(reply.id) else {
            self.report.note(Kind::Foreign, || format!("{} at replies/{}", Text(reply.id), reply.at));
            return;
        };
        let first = &mut self.first[index(number)];
        if *first < EXCUSED {
            let before = Position::unpack(*first);
            self.report.note(Kind::Repeated, || format!("{number} at replies/{} and before at {before}", reply.at));
        } else {
            self.excused -= u64::from(*first == EXCUSED);
            *first = reply.at.pack();
            if let Some(took) = reply.took {
                self.took[index(number)] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX - 1);
            }
            self.report.answered += 1;
            if reply.status >= 400 {
                *self.report.faults.entry(reply.status).or_default() += 1;
            }
            let latest = &mut self.latest[index(self.plan.key(number))];
            if *latest > number {
                let (later, key) = (*latest - 1, self.plan.key(number));
                self.report
                    .note(Kind::Reordered, || format!("{number} at replies/{} after {later}, key {key}", reply.at));
            }
            *latest = (*latest).max(number + 1);
        }
        if let Some(wrong) = self.misrouted(number, reply) {
            self.report.note(Kind::Misrouted, || format!("{number} at replies/{}: {wrong}", reply.at));
        }
    }

    /// Takes in a record of the dead-letter topic. Its caller gets a fault as well, so it answers nothing.
    pub(crate) fn dead_letter(&mut self, id: &[u8], at: Position) {
        let Some(number) = self.plan.number(id) else {
            self.report.note(Kind::Foreign, || format!("{} at dead letters/{at}", Text(id)));
            return;
        };
        if let Some((_, before)) = self.dead.iter().find(|(dead, _)| *dead == number) {
            self.report.note(Kind::Repeated, || format!("{number} at dead letters/{at} and before at {before}"));
            return;
        }
        self.dead.push((number, at));
        self.report.dead_letters += 1;
    }

    /// Returns the verdict when no more comes, and this many requests have been sent: the first of the plan.
    pub(crate) fn report(&self, sent: u64) -> Report {
        let mut report = self.report.clone();
        report.sent = sent;
        for number in 0..self.plan.requests {
            match (self.first[index(number)], number < sent) {
                (UNANSWERED, true) => {
                    report.note(Kind::Lost, || format!("{number}, key {}", self.plan.key(number)));
                }
                (first, false) if first < EXCUSED => {
                    let at = Position::unpack(first);
                    report.note(Kind::Foreign, || format!("{number}, which was not sent, at replies/{at}"));
                }
                _ => {}
            }
        }
        report
    }

    /// Finds the property of the reply that belongs to another request.
    fn misrouted(&self, number: u64, reply: &Terminal<'_>) -> Option<String> {
        let due = self.plan.due(number);
        let fault = reply.status >= 400;
        // A fault may come before an endpoint or a route is known, and says something else.
        let differs = |found: Option<&[u8]>, due: &str| found.map_or(!fault, |found| found != due.as_bytes());
        let wrong = |what: &str, found: Option<&[u8]>, due: &str| {
            Some(format!("{what} {} instead of {due}", found.map_or("none".into(), |found| Text(found).to_string())))
        };
        if reply.key != reply.id {
            return wrong("key", Some(reply.key), &Text(reply.id).to_string());
        }
        if reply.number != Some(number.to_string().as_bytes()) {
            return wrong("x-number", reply.number, &number.to_string());
        }
        if let Some(partition) = due.partition.filter(|partition| reply.at.partition != *partition) {
            return wrong("partition", Some(reply.at.partition.to_string().as_bytes()), &partition.to_string());
        }
        if differs(reply.endpoint, due.endpoint) {
            return wrong("endpoint", reply.endpoint, due.endpoint);
        }
        if differs(reply.route, due.route) {
            return wrong("route", reply.route, due.route);
        }
        if !fault && reply.body != due.answer {
            return wrong("answer", Some(reply.body), &Text(&due.answer).to_string());
        }
        None
    }
}

impl<'a> Terminal<'a> {
    /// Reads a record.
    pub(crate) fn of<M: Message>(record: &'a M) -> Self {
        let header = |name: &str| {
            let headers = record.headers()?;
            (0..headers.count()).map(|at| headers.get(at)).find(|header| header.key == name)?.value
        };
        let status = header("status").and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        Self {
            at: Position::of(record),
            id: header("kafka_correlationId").unwrap_or_default(),
            key: record.key().unwrap_or_default(),
            status: status.unwrap_or_default(),
            endpoint: header("endpoint"),
            route: header("route"),
            number: header("x-number"),
            body: record.payload().unwrap_or_default(),
            took: header("x-sent").and_then(clock::since),
        }
    }
}

impl Position {
    pub(crate) fn of<M: Message>(record: &M) -> Self {
        Self { partition: record.partition(), offset: record.offset() }
    }

    fn pack(self) -> u64 {
        u64::from(self.partition.unsigned_abs()) << OFFSET_BITS | self.offset.unsigned_abs()
    }

    fn unpack(packed: u64) -> Self {
        let (partition, offset) = (packed >> OFFSET_BITS, packed & ((1 << OFFSET_BITS) - 1));
        Self { partition: i32::try_from(partition).unwrap(), offset: i64::try_from(offset).unwrap() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.partition, self.offset)
    }
}

/// Formats bytes that are mostly text, for a person; not all of a long one.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "'{}'", String::from_utf8_lossy(&self.0[..self.0.len().min(80)]))
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: u64 = 1_000;

    /// Describes a reply whose every part can be forged.
    #[derive(Clone)]
    struct Forged {
        at: Position,
        id: String,
        status: u16,
        endpoint: Option<&'static str>,
        route: Option<&'static str>,
        number: String,
        body: Vec<u8>,
    }

    /// Makes the replies that are due, in the order of the requests.
    fn history(plan: &Plan) -> Vec<Forged> {
        let mut ends = vec![0; plan.reply_partitions.unsigned_abs() as usize];
        let replies = (0..plan.requests).map(|number| {
            let due = plan.due(number);
            let partition = due.partition.unwrap();
            let end = &mut ends[partition.unsigned_abs() as usize];
            *end += 1;
            Forged {
                at: Position { partition, offset: *end - 1 },
                id: plan.id(number),
                status: 200,
                endpoint: Some(due.endpoint),
                route: Some(due.route),
                number: number.to_string(),
                body: due.answer,
            }
        });
        replies.collect()
    }

    fn plan() -> Plan {
        Plan { keys: 7, ..Plan::new(11, REQUESTS, 4) }
    }

    /// Reports on a history that is right but for what `forge` does to it.
    fn report_on(forge: impl FnOnce(&mut Vec<Forged>)) -> Report {
        let plan = plan();
        let mut history = history(&plan);
        forge(&mut history);
        let mut checker = Checker::new(plan);
        for forged in &history {
            checker.reply(&Terminal {
                at: forged.at,
                id: forged.id.as_bytes(),
                key: forged.id.as_bytes(),
                status: forged.status,
                endpoint: forged.endpoint.map(str::as_bytes),
                route: forged.route.map(str::as_bytes),
                number: Some(forged.number.as_bytes()),
                body: &forged.body,
                took: Some(Duration::from_millis(7)),
            });
        }
        checker.report(REQUESTS)
    }

    /// Counts the findings of each kind, in the order of [`Kind::ALL`].
    fn counts(report: &Report) -> [u64; 5] {
        Kind::ALL.map(|kind| report.count(kind))
    }

    #[test]
    fn nothing_is_wrong_with_a_history_that_is_right() {
        let report = report_on(|_| {});
        assert_eq!(counts(&report), [0; 5], "{report}");
        assert_eq!((report.sent, report.answered), (REQUESTS, REQUESTS));
    }

    #[test]
    fn a_lost_request_is_named() {
        let report = report_on(|history| drop(history.remove(17)));
        assert_eq!(counts(&report), [1, 0, 0, 0, 0]);
        assert_eq!(report.answered, REQUESTS - 1);
        assert!(report.to_string().contains("17, key"), "{report}");
    }

    #[test]
    fn a_repeated_reply_is_named_with_both_places() {
        let report = report_on(|history| {
            let again = Forged { at: Position { offset: 5_000, ..history[3].at }, ..history[3].clone() };
            history.extend([again.clone(), again]);
        });
        assert_eq!(counts(&report), [0, 2, 0, 0, 0]);
        let partition = plan().reply_partition(3).unwrap();
        let (told, later) = (report.to_string(), format!("3 at replies/{partition}/5000 and before at {partition}/"));
        assert!(told.contains(&later), "{told}");
    }

    #[test]
    fn foreign_replies_are_those_of_other_runs_and_of_requests_that_were_not_sent() {
        let report = report_on(|history| {
            let foreign = |id: &str| Forged { id: id.to_owned(), ..history[0].clone() };
            let more = [foreign(&Plan::new(12, REQUESTS, 4).id(1)), foreign("requests-1-2"), foreign("")];
            history.extend(more);
        });
        assert_eq!(counts(&report), [0, 0, 3, 0, 0], "{report}");

        let plan = plan();
        let mut checker = Checker::new(plan.clone());
        let id = plan.id(9);
        checker.dead_letter(b"who", Position { partition: 0, offset: 0 });
        let due = plan.due(9);
        checker.reply(&Terminal {
            at: Position { partition: due.partition.unwrap(), offset: 0 },
            id: id.as_bytes(),
            key: id.as_bytes(),
            status: 200,
            endpoint: Some(due.endpoint.as_bytes()),
            route: Some(due.route.as_bytes()),
            number: Some(b"9"),
            body: &due.answer,
            took: None,
        });
        assert_eq!(counts(&checker.report(9)), [9, 0, 2, 0, 0], "the tenth request was not sent");
    }

    #[test]
    fn replies_of_one_key_that_have_changed_places_are_reordered_and_those_of_two_keys_are_not() {
        let plan = plan();
        let same = (1..REQUESTS).find(|number| plan.key(*number) == plan.key(0)).unwrap();
        let other = (1..REQUESTS).find(|number| plan.key(*number) != plan.key(0)).unwrap();
        let swapped = |number: u64| {
            report_on(|history| {
                let mut moved = history.remove(0);
                moved.at.offset = 5_000;
                history.insert(index(number), moved);
            })
        };
        assert_eq!(counts(&swapped(same)), [0, 0, 0, 1, 0]);
        assert_eq!(counts(&swapped(other.min(same - 1))), [0; 5]);
    }

    #[test]
    fn every_part_of_a_reply_that_is_another_s_is_misrouted() {
        type Forgery = fn(&mut Forged);
        let forgeries: [(&str, Forgery); 7] = [
            ("endpoint", |it| it.endpoint = Some("elsewhere")),
            ("endpoint", |it| it.endpoint = None),
            ("route", |it| it.route = it.route.map(|route| if route == "gold" { "plain" } else { "gold" })),
            ("x-number", |it| it.number = "1".to_owned()),
            ("answer", |it| it.body = b"{\"predictions\": [\"gold\", 1]}".to_vec()),
            ("partition", |it| it.at.partition = (it.at.partition + 1) % 4),
            ("endpoint", |it| (it.status, it.endpoint) = (503, Some("elsewhere"))),
        ];
        for (what, forge) in forgeries {
            let report = report_on(|history| forge(&mut history[40]));
            assert_eq!(counts(&report), [0, 0, 0, 0, 1], "{what}: {report}");
            assert!(report.to_string().contains(&format!(": {what} ")), "{what}: {report}");
        }
    }

    #[test]
    fn faults_answer_and_are_counted_by_status() {
        let report = report_on(|history| {
            for (forged, status) in history.iter_mut().zip([502, 502, 504]) {
                (forged.status, forged.body, forged.route) = (status, b"{}".to_vec(), None);
            }
        });
        assert_eq!(counts(&report), [0; 5], "{report}");
        assert_eq!(report.faults.into_iter().collect::<Vec<_>>(), [(502, 2), (504, 1)]);
    }

    #[test]
    fn dead_letters_are_counted_and_one_that_comes_twice_is_repeated() {
        let plan = plan();
        let mut checker = Checker::new(plan.clone());
        let at = |offset| Position { partition: 0, offset };
        checker.dead_letter(plan.id(1).as_bytes(), at(0));
        checker.dead_letter(plan.id(2).as_bytes(), at(1));
        checker.dead_letter(plan.id(1).as_bytes(), at(2));
        let report = checker.report(0);
        assert_eq!((report.dead_letters, counts(&report)), (2, [0, 1, 0, 0, 0]), "{report}");
    }
    #[test]
    fn what_is_excused_is_not_lost_and_may_still_be_answered_once() {
        let plan = plan();
        let mut checker = Checker::new(plan.clone());
        checker.excuse(0..3);
        assert_eq!(checker.answered(), 3);
        let due = plan.due(1);
        let id = plan.id(1);
        let reply = Terminal {
            at: Position { partition: due.partition.unwrap(), offset: 0 },
            id: id.as_bytes(),
            key: id.as_bytes(),
            status: 200,
            endpoint: Some(due.endpoint.as_bytes()),
            route: Some(due.route.as_bytes()),
            number: Some(b"1"),
            body: &due.answer,
            took: Some(Duration::from_micros(12)),
        };
        checker.reply(&reply);
        assert_eq!((checker.answered(), counts(&checker.report(4))), (3, [1, 0, 0, 0, 0]));
        assert_eq!(checker.latencies(0..2), [Duration::MAX, Duration::from_micros(12)]);
        checker.reply(&reply);
        assert_eq!(counts(&checker.report(3)), [0, 1, 0, 0, 0]);
    }
}

//! Ladder of recovery: the next attempt for a publication whose record was rejected. Pure.
//!
//! Every rejection that cannot pass leads one rung down, and the last rung is a drop that is counted and logged. So no
//! publication goes on for ever. The same record is tried again only for errors that may pass, each of which is listed
//! by name.

use rdkafka::error::RDKafkaErrorCode;

/// Rung of the ladder: the records of a publication that are still to be tried. A rung further down is less, compared
/// field by field in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Course {
    /// True if the request goes into a retry topic, in place of all below.
    pub(super) parked: bool,
    /// True if the reply goes to a topic that the caller has named, other than the default one.
    pub(super) named: bool,
    /// The dead letter.
    pub(super) letter: Letter,
    /// True if the request, parked or as a dead letter, has to be in the partition that it was in.
    pub(super) same_partition: bool,
    /// The reply or fault.
    pub(super) reply: Form,
    /// True if the partition of the reply is given.
    pub(super) partition: bool,
}

/// Share of its request that a dead letter keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Letter {
    /// No letter is left: the topic took no form of it.
    Spent,
    /// Origin of the request, and the reason why it is dead.
    Bare,
    /// Key and headers of the request.
    Valueless,
    /// The whole request.
    Whole,
    /// No letter is needed so far.
    Unwritten,
}

/// Form of a reply, by how much it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// No reply is left: no topic took any form of it.
    Dropped,
    /// A fault whose message and correlation id are short.
    Short,
    /// A fault without the headers that are carried from the request.
    Uncarried,
    /// A fault.
    Fault,
    /// The model's answer.
    Answer,
}

/// Kind of a publication's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RecordKind {
    /// The dead letter.
    DeadLetter,
    /// The reply or fault, or the request if it is parked.
    Reply,
}

/// Cause of a rejection, as far as the next attempt depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The cause has nothing to do with the record, and may pass in a moment.
    Passing,
    /// The topic is not there, or this client may not write to it. A topic of our own is an operator's to mend.
    Topic,
    /// The topic has no such partition.
    Partition,
    /// The record is larger than it may be.
    Size,
    /// The record will never be taken as it is, for any other cause.
    Record,
}

impl RecordKind {
    /// Kinds of records, in the order in which they are sent.
    pub(super) const ALL: [Self; 2] = [Self::DeadLetter, Self::Reply];
}

impl Letter {
    /// Returns whether there is a letter to write.
    pub(super) fn is_written(self) -> bool {
        matches!(self, Self::Bare | Self::Valueless | Self::Whole)
    }

    fn less(self) -> Self {
        match self {
            Self::Unwritten | Self::Whole => Self::Valueless,
            Self::Valueless => Self::Bare,
            Self::Bare | Self::Spent => Self::Spent,
        }
    }
}

impl Form {
    fn less(self) -> Self {
        match self {
            Self::Answer => Self::Fault,
            Self::Fault => Self::Uncarried,
            Self::Uncarried => Self::Short,
            Self::Short | Self::Dropped => Self::Dropped,
        }
    }
}

impl Course {
    /// Returns whether nothing is left to be tried.
    pub(super) fn is_lost(&self) -> bool {
        !self.parked && self.reply == Form::Dropped && !self.letter.is_written()
    }

    /// Makes the request a dead letter, if it is none yet, and sends the fault to the default topic. `partition`:
    /// whether that topic's partition is given.
    fn dead_letter(self, partition: bool) -> Self {
        let (letter, reply) = match self.letter {
            Letter::Unwritten => (Letter::Whole, self.reply.min(Form::Fault)),
            other => (other, self.reply),
        };
        Self { named: false, letter, reply, partition, ..self }
    }

    /// Makes the reply smaller. After the smallest comes a dead letter, which has to do without a reply.
    fn smaller_reply(self, partition: bool) -> Self {
        match (self.reply, self.named, self.letter) {
            (Form::Short | Form::Dropped, true, _) => self.dead_letter(partition),
            (Form::Short | Form::Dropped, false, Letter::Unwritten) => {
                Self { letter: Letter::Whole, reply: Form::Dropped, ..self }
            }
            _ => Self { reply: self.reply.less(), ..self },
        }
    }
}

/// Chooses the next rung; None is the same again. `partition`: whether the default topic's partition would be given.
pub(super) fn recourse(cause: Cause, kind: RecordKind, course: Course, partition: bool) -> Option<Course> {
    let next = match (kind, cause) {
        (_, Cause::Passing) => return None,
        // A retry topic may get partitions later than the requests topic, and each of its own is read.
        (RecordKind::Reply, Cause::Partition) if course.parked && course.same_partition => {
            Course { same_partition: false, ..course }
        }
        (RecordKind::Reply, _) if course.parked => Course { parked: false, same_partition: true, ..course },
        (RecordKind::DeadLetter, Cause::Topic) => return None,
        (RecordKind::DeadLetter, Cause::Partition) if course.same_partition => {
            Course { same_partition: false, ..course }
        }
        (RecordKind::DeadLetter, _) => Course { letter: course.letter.less(), ..course },
        (RecordKind::Reply, Cause::Partition) if course.partition => Course { partition: false, ..course },
        (RecordKind::Reply, Cause::Size) => course.smaller_reply(partition),
        (RecordKind::Reply, Cause::Topic | Cause::Partition | Cause::Record) if course.named => {
            course.dead_letter(partition)
        }
        (RecordKind::Reply, Cause::Topic) => return None,
        (RecordKind::Reply, Cause::Partition | Cause::Record) => course.smaller_reply(partition),
    };
    Some(next)
}

impl Cause {
    /// Classifies librdkafka's code. An error without one, such as that of a name with a NUL in it, is of the record.
    pub(super) fn of(code: Option<RDKafkaErrorCode>) -> Self {
        use RDKafkaErrorCode as E;
        match code {
            Some(code) if is_of_transaction(code) => Self::Passing,
            // Errors of brokers, connections, coordinators or producers pass, or end the whole producer, whose records
            // go to another.
            Some(
                E::BrokerTransportFailure
                | E::BrokerDestroy
                | E::DestroyBroker
                | E::AllBrokersDown
                | E::Resolve
                | E::SSL
                | E::Authentication
                | E::SaslAuthenticationFailed
                | E::NetworkException
                | E::NodeUpdate
                | E::UnknownBroker
                | E::BrokerNotAvailable
                | E::RebootstrapRequired
                | E::MessageTimedOut
                | E::OperationTimedOut
                | E::TimedOutQueue
                | E::RequestTimedOut
                | E::QueueFull
                | E::Interrupted
                | E::InProgress
                | E::PreviousInProgress
                | E::Retry
                | E::WaitCache
                | E::ThrottlingQuotaExceeded
                | E::LeaderNotAvailable
                | E::NotLeaderForPartition
                | E::FencedLeaderEpoch
                | E::UnknownLeaderEpoch
                | E::ReplicaNotAvailable
                | E::ISRInsufficient
                | E::NotEnoughReplicas
                | E::NotEnoughReplicasAfterAppend
                | E::KafkaStorageError
                | E::WaitingForCoordinator
                | E::CoordinatorLoadInProgress
                | E::CoordinatorNotAvailable
                | E::NotCoordinator
                // Another record of the same batch is at fault.
                | E::InvalidDifferentRecord
            ) => Self::Passing,
            Some(
                E::UnknownTopic
                | E::UnknownTopicOrPartition
                | E::UnknownTopicId
                | E::TopicAuthorizationFailed
                | E::ClusterAuthorizationFailed
                | E::TransactionalIdAuthorizationFailed,
            ) => Self::Topic,
            Some(E::UnknownPartition) => Self::Partition,
            Some(E::MessageSizeTooLarge | E::InvalidMessageSize | E::MessageBatchTooLarge) => Self::Size,
            _ => Self::Record,
        }
    }
}

/// Returns whether a code says nothing of the record itself: its transaction was aborted, or its producer has ended.
pub(super) fn is_of_transaction(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::PurgeQueue
            | E::PurgeInflight
            | E::State
            | E::Fatal
            | E::Fenced
            | E::ProducerFenced
            | E::InvalidProducerEpoch
            | E::InvalidProducerIdMapping
            | E::InvalidTransactionalState
            | E::ConcurrentTransactions
            | E::TransactionCoordinatorFenced
            | E::OutOfOrderSequenceNumber
            | E::DuplicateSequenceNumber
            | E::UnknownProducerId
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    const LETTERS: [Letter; 5] = [Letter::Spent, Letter::Bare, Letter::Valueless, Letter::Whole, Letter::Unwritten];
    const FORMS: [Form; 5] = [Form::Dropped, Form::Short, Form::Uncarried, Form::Fault, Form::Answer];
    const BOTH: [bool; 2] = [false, true];

    /// Lists every code that librdkafka has, and none.
    fn codes() -> Vec<Option<RDKafkaErrorCode>> {
        let known = (-300..400).filter_map(|code| RDKafkaRespErr::try_from(code).ok());
        known.map(|code| Some(code.into())).chain([None]).collect()
    }

    fn courses() -> Vec<Course> {
        let mut courses = Vec::new();
        for (letter, reply) in LETTERS.iter().flat_map(|letter| FORMS.map(|reply| (*letter, reply))) {
            for flags in 0..16 {
                let [parked, named, same_partition, partition] = [1, 2, 4, 8].map(|bit| flags & bit > 0);
                courses.push(Course { parked, named, letter, same_partition, reply, partition });
            }
        }
        courses
    }

    /// Lists the records of a rung that can be rejected.
    fn parts(course: Course) -> impl Iterator<Item = RecordKind> {
        let letter = !course.parked && course.letter.is_written();
        let reply = course.parked || course.reply > Form::Dropped;
        [(letter, RecordKind::DeadLetter), (reply, RecordKind::Reply)]
            .into_iter()
            .filter_map(|(is_there, kind)| is_there.then_some(kind))
    }

    /// Returns whether the same record is tried again: the error may pass, or a topic of our own has to be mended.
    fn is_again(cause: Cause, kind: RecordKind, course: Course) -> bool {
        let ours = !course.parked && (kind == RecordKind::DeadLetter || !course.named);
        cause == Cause::Passing || cause == Cause::Topic && ours
    }

    #[test]
    fn recourse_leads_down_for_each_rejection_that_cannot_pass() {
        let codes = codes();
        assert!(codes.len() > 170, "{}", codes.len());
        for code in codes {
            for course in courses() {
                for (kind, partition) in parts(course).flat_map(|kind| BOTH.map(|partition| (kind, partition))) {
                    let cause = Cause::of(code);
                    match recourse(cause, kind, course, partition) {
                        None => assert!(is_again(cause, kind, course), "{code:?} {kind:?} {course:?}"),
                        Some(next) => assert!(next < course, "{code:?} {kind:?} {course:?} {next:?}"),
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn recourse_ends_whatever_is_rejected_in_whatever_order(
            start in 0..courses().len(),
            refusals in prop::collection::vec((0..codes().len(), any::<bool>(), any::<bool>()), 200),
        ) {
            let (codes, mut course) = (codes(), courses()[start]);
            let mut steps = 0;
            for (code, last, partition) in refusals {
                let parts: Vec<_> = parts(course).collect();
                let Some(kind) = (if last { parts.last() } else { parts.first() }) else {
                    prop_assert!(course.is_lost());
                    return Ok(());
                };
                if let Some(next) = recourse(Cause::of(codes[code]), *kind, course, partition) {
                    course = next;
                    steps += 1;
                }
            }
            prop_assert!(steps <= 16, "{steps}");
        }
    }

    #[test]
    fn recourse_goes_all_rungs_for_answer_that_is_always_rejected() {
        let answer = Course {
            parked: true,
            named: true,
            letter: Letter::Unwritten,
            same_partition: true,
            reply: Form::Answer,
            partition: true,
        };
        let mut rungs = vec![answer];
        while let Some(kind) = parts(rungs[rungs.len() - 1]).last() {
            rungs.extend(recourse(Cause::Size, kind, rungs[rungs.len() - 1], false));
        }
        let seen: Vec<_> = rungs.iter().map(|rung| (rung.parked, rung.named, rung.letter, rung.reply)).collect();
        assert_eq!(
            seen,
            [
                (true, true, Letter::Unwritten, Form::Answer),
                (false, true, Letter::Unwritten, Form::Answer),
                (false, true, Letter::Unwritten, Form::Fault),
                (false, true, Letter::Unwritten, Form::Uncarried),
                (false, true, Letter::Unwritten, Form::Short),
                (false, false, Letter::Whole, Form::Short),
                (false, false, Letter::Whole, Form::Dropped),
                (false, false, Letter::Valueless, Form::Dropped),
                (false, false, Letter::Bare, Form::Dropped),
                (false, false, Letter::Spent, Form::Dropped),
            ]
        );
        assert!(rungs[rungs.len() - 1].is_lost());
    }

    #[test]
    fn recourse_has_next_rung_for_each_cause() {
        use RDKafkaErrorCode as E;
        let plain = Course {
            parked: false,
            named: false,
            letter: Letter::Unwritten,
            same_partition: true,
            reply: Form::Answer,
            partition: false,
        };
        let named = Course { named: true, ..plain };
        let lettered = Course { letter: Letter::Whole, reply: Form::Fault, ..plain };
        let cases = [
            (E::MessageSizeTooLarge, RecordKind::Reply, plain, Some(Course { reply: Form::Fault, ..plain })),
            (E::UnknownPartition, RecordKind::Reply, Course { partition: true, ..plain }, Some(plain)),
            (E::UnknownPartition, RecordKind::Reply, named, Some(lettered)),
            (E::UnknownTopic, RecordKind::Reply, named, Some(lettered)),
            (E::InvalidRecord, RecordKind::Reply, named, Some(lettered)),
            (E::TopicAuthorizationFailed, RecordKind::Reply, plain, None),
            (E::UnknownTopic, RecordKind::Reply, Course { named: true, ..lettered }, Some(lettered)),
            (E::UnknownTopic, RecordKind::DeadLetter, lettered, None),
            (E::BrokerTransportFailure, RecordKind::Reply, named, None),
            (E::UnknownPartition, RecordKind::DeadLetter, lettered, Some(Course { same_partition: false, ..lettered })),
            (
                E::MessageSizeTooLarge,
                RecordKind::DeadLetter,
                lettered,
                Some(Course { letter: Letter::Valueless, ..lettered }),
            ),
            (E::UnknownTopic, RecordKind::Reply, Course { parked: true, ..plain }, Some(plain)),
            (
                E::UnknownPartition,
                RecordKind::Reply,
                Course { parked: true, ..plain },
                Some(Course { parked: true, same_partition: false, ..plain }),
            ),
            (E::BrokerTransportFailure, RecordKind::Reply, Course { parked: true, ..plain }, None),
        ];
        for (code, kind, course, next) in cases {
            assert_eq!(recourse(Cause::of(Some(code)), kind, course, false), next, "{code:?} {kind:?} {course:?}");
        }
        assert_eq!(Cause::of(None), Cause::Record);
    }
}

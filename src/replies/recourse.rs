//! What to do about a record that the broker did not take. Pure.

use rdkafka::error::RDKafkaErrorCode;

/// Which record it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempted {
    /// A reply or fault to where the caller wants it.
    Caller {
        /// Whether the caller had named a partition.
        partition: bool,
        /// Whether the topic is `kafka.replies_topic` anyway.
        default_topic: bool,
        /// Whether it goes with a dead letter.
        after_letter: bool,
    },
    /// A dead letter, with or without the request's value.
    DeadLetter {
        /// Whether it carried the value.
        whole: bool,
    },
    /// A request on its way into a retry topic.
    Parked,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recourse {
    /// The same record again, after a moment.
    Again,
    /// The same record to any partition of the topic.
    AnyPartition,
    /// A small fault in place of the reply, which is too large.
    TooLarge,
    /// Nobody can be answered there: a dead letter, and then a fault to the default topic.
    DeadLetter,
    /// The same record to the default topic.
    DefaultAddress,
    /// The dead letter without the request's value, which is too large.
    Stripped,
    /// The reply or fault in place of the request, which the retry topic does not take.
    NotParked,
    /// Everything that could be tried was.
    GiveUp,
}

/// Chooses by the error and by what was tried.
pub(super) fn recourse(code: Option<RDKafkaErrorCode>, attempted: Attempted) -> Recourse {
    use Attempted::{Caller, DeadLetter, Parked};
    use RDKafkaErrorCode as E;
    match (code, attempted) {
        (Some(E::UnknownPartition), Caller { partition: true, .. } | DeadLetter { .. }) => Recourse::AnyPartition,
        (Some(E::MessageSizeTooLarge | E::InvalidMessageSize), Caller { .. }) => Recourse::TooLarge,
        (Some(E::MessageSizeTooLarge | E::InvalidMessageSize), DeadLetter { whole: true }) => Recourse::Stripped,
        (Some(E::MessageSizeTooLarge | E::InvalidMessageSize), DeadLetter { whole: false }) => Recourse::GiveUp,
        (Some(E::MessageSizeTooLarge | E::InvalidMessageSize), Parked) => Recourse::NotParked,
        (Some(code), Parked) if topic_is_unusable(code) => Recourse::NotParked,
        (Some(code), Caller { default_topic: false, after_letter, .. }) if topic_is_unusable(code) => {
            match after_letter {
                true => Recourse::DefaultAddress,
                false => Recourse::DeadLetter,
            }
        }
        // The default topic was there at the start; that it is gone, or forbidden, is for an operator to mend. Until
        // then the request waits, and its offset with it.
        _ => Recourse::Again,
    }
}

fn topic_is_unusable(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::PolicyViolation
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_way_out() {
        use RDKafkaErrorCode as E;
        let caller = |partition, default_topic| Attempted::Caller { partition, default_topic, after_letter: false };
        let lettered = |default_topic| Attempted::Caller { partition: false, default_topic, after_letter: true };
        let cases = [
            (E::MessageSizeTooLarge, caller(false, true), Recourse::TooLarge),
            (E::UnknownPartition, caller(true, true), Recourse::AnyPartition),
            (E::UnknownPartition, caller(false, false), Recourse::DeadLetter),
            (E::UnknownTopic, caller(false, false), Recourse::DeadLetter),
            (E::TopicAuthorizationFailed, caller(true, false), Recourse::DeadLetter),
            (E::TopicAuthorizationFailed, caller(false, true), Recourse::Again),
            (E::UnknownTopic, caller(false, true), Recourse::Again),
            (E::UnknownTopic, lettered(false), Recourse::DefaultAddress),
            (E::UnknownTopic, lettered(true), Recourse::Again),
            (E::BrokerTransportFailure, caller(false, false), Recourse::Again),
            (E::MessageSizeTooLarge, Attempted::DeadLetter { whole: true }, Recourse::Stripped),
            (E::MessageSizeTooLarge, Attempted::DeadLetter { whole: false }, Recourse::GiveUp),
            (E::MessageSizeTooLarge, Attempted::Parked, Recourse::NotParked),
            (E::UnknownTopic, Attempted::Parked, Recourse::NotParked),
            (E::BrokerTransportFailure, Attempted::Parked, Recourse::Again),
            (E::MessageTimedOut, Attempted::DeadLetter { whole: true }, Recourse::Again),
        ];
        for (code, attempted, expected) in cases {
            assert_eq!(recourse(Some(code), attempted), expected, "{code:?} {attempted:?}");
        }
        assert_eq!(recourse(None, caller(true, true)), Recourse::Again);
    }
}

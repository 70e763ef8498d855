//! Tests against librdkafka's own mock cluster, which can be told to refuse what a real broker refuses now and then.
//! Its transactions are not real, so only our side of each refusal is tested.

use std::sync::mpsc::channel;
use std::thread;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseRecord, DefaultProducerContext};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::*;
use crate::config::Kafka;
use crate::replies::limits::TopicLimits;

type Mock = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "replies";

fn factory(mock: &Mock) -> SessionFactory {
    let config =
        Kafka { bootstrap_servers: mock.bootstrap_servers(), instance_id: Some("a".to_owned()), ..Kafka::default() };
    mock.create_topic(TOPIC, 1, 1).unwrap();
    let cluster = Arc::new(Cluster::new(&config).unwrap());
    let throttle = Throttle::new(prometheus::Gauge::new("throttle", "seconds").unwrap());
    SessionFactory::new(&config, cluster, Identity::of(&config).unwrap(), TopicLimits::default(), throttle)
}

fn send(session: &Session) {
    session.producer().send(BaseRecord::<(), str, usize>::with_opaque_to(TOPIC, 0).payload("x")).unwrap();
}

/// Commits a transaction whose end the coordinator answers with these errors.
fn commit_refused_with(errors: &[RDKafkaRespErr]) -> Result<(), StepError> {
    let mock = Mock::new(1).unwrap();
    let session = factory(&mock).open(0).unwrap();
    session.begin().unwrap();
    send(&session);
    assert_eq!(session.flush(Instant::now()), FlushOutcome::Complete);
    mock.request_errors(RDKafkaApiKey::EndTxn, errors);
    let committed = session.commit();
    drop_in_time(session);
    committed
}

/// Drops a session in time: a lost session must not hold up the one that takes its place.
fn drop_in_time(session: Session) {
    let (dropped, done) = channel();
    thread::spawn(move || {
        drop(session);
        dropped.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(10)).expect("the session is dropped in time");
}

#[test]
fn commit_waits_out_refusal_that_passes() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS as CONCURRENT,
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS as LOADS, RD_KAFKA_RESP_ERR_NOT_COORDINATOR as MOVED,
    };
    assert!(commit_refused_with(&[CONCURRENT, LOADS, MOVED]).is_ok());
}

#[test]
fn commit_reports_fenced_session() {
    let error = commit_refused_with(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]).unwrap_err();
    assert!(matches!(error, StepError::Fatal(_)) && error.is_fenced(), "{error:?}");
}

#[test]
fn rejected_record_spoils_its_transaction() {
    let mock = Mock::new(1).unwrap();
    let session = factory(&mock).open(0).unwrap();
    session.begin().unwrap();
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    send(&session);
    assert_eq!(session.flush(Instant::now()), FlushOutcome::Rejected);
    assert!(session.has_refused());
    assert!(matches!(session.commit().unwrap_err(), StepError::Abortable(_)));
    session.abort().unwrap();
    let refused = session.take_refused();
    assert_eq!(refused[0].1.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    drop_in_time(session);
}

#[test]
fn session_fenced_while_it_aborts_does_not_hold_up_next() {
    let mock = Mock::new(1).unwrap();
    let factory = factory(&mock);
    let session = factory.open(0).unwrap();
    session.begin().unwrap();
    send(&session);
    assert_eq!(session.flush(Instant::now()), FlushOutcome::Complete);
    mock.request_errors(RDKafkaApiKey::EndTxn, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
    assert!(session.abort().is_err());
    drop_in_time(session);
    let next = factory.open(0).unwrap();
    next.begin().unwrap();
    send(&next);
    assert_eq!(next.flush(Instant::now()), FlushOutcome::Complete);
    next.commit().unwrap();
    drop_in_time(next);
}

#[test]
fn session_ends_in_time_when_broker_never_takes_its_records() {
    let mock = Mock::new(1).unwrap();
    let session = factory(&mock).open(0).unwrap();
    session.begin().unwrap();
    send(&session);
    assert_eq!(session.flush(Instant::now()), FlushOutcome::Complete);
    mock.broker_down(1).unwrap();
    send(&session);
    drop_in_time(session);
}

#[test]
fn session_is_given_up_when_group_coordinator_never_answers() {
    let mock = Mock::new(2).unwrap();
    let session = factory(&mock).open(0).unwrap();
    mock.coordinator(MockCoordinator::Transaction("a.0".to_owned()), 1).unwrap();
    mock.coordinator(MockCoordinator::Group("g".to_owned()), 2).unwrap();
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).set("group.id", "g").create().unwrap();
    session.begin().unwrap();
    send(&session);
    assert_eq!(session.flush(Instant::now()), FlushOutcome::Complete);
    mock.broker_down(2).unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(TOPIC, 0, Offset::Offset(1)).unwrap();
    let began = Instant::now();
    let error = session.add_offsets(StagedOffsets { offsets, group: consumer.group_metadata().unwrap() }).unwrap_err();
    assert!(matches!(error, StepError::Fatal(_)), "{error:?}");
    assert!(began.elapsed() < STUCK * 2);
    session.discard();
}

#[test]
fn record_id_survives_its_way_through_librdkafka() {
    for id in [
        RecordId { publication: 0, kind: RecordKind::Reply },
        RecordId { publication: 7, kind: RecordKind::DeadLetter },
    ] {
        assert_eq!(RecordId::from_opaque(id.opaque()), id);
    }
}

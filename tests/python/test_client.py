"""The client over Kafka, on a real broker where `tests/run` has started one."""

import asyncio
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import pandas
import pytest
import requests
from confluent_kafka import Consumer, Producer, TopicPartition

from signalbox import Answer, Client, Fault


def connect(signalbox, **options):
    return Client(signalbox.broker, **{"endpoint": "echo", **signalbox.topics, **options})


@pytest.fixture(scope="module")
def client(signalbox):
    with connect(signalbox) as client:
        yield client


def test_answer_has_predictions_and_says_which_model_made_them(client):
    answer = client.predict({"inputs": [1]}, params={"a": 1}, headers={"x-user": "é"})
    assert isinstance(answer, Answer)
    assert answer.predictions == [{"inputs": [1], "params": {"a": 1}}]
    assert answer.json() == {"predictions": answer.predictions}
    assert (answer.route, answer.headers["x-user"], answer.headers["status"]) == ("model", "é", "200")
    assert answer.model_uri == client.predict([1]).model_uri
    assert client.predict([1], endpoint="nothing").predictions == []


def test_frames_go_in_and_come_out(client):
    frame = pandas.DataFrame({"text": ["great", None], "stars": [5, 1]})
    answer = client.predict(frame)
    sent = {"columns": ["text", "stars"], "data": [["great", 5], [None, 1]]}
    assert answer.to_frame().to_dict("records") == [{"dataframe_split": sent}]
    assert client.predict(numpy.array([0.5])).predictions == [{"inputs": [0.5]}]
    assert Answer(b'{"predictions": {"a": [1, 2]}}', {}).to_frame().to_dict("list") == {"a": [1, 2]}
    assert Answer(b'{"predictions": {"a": 1}}', {}).to_frame().to_dict("list") == {"a": [1]}
    assert Answer(b'["a"]', {}).to_frame().to_dict("list") == {0: ["a"]}


def test_faults_are_typed(client):
    with pytest.raises(Fault, match="there is no endpoint") as raised:
        client.predict([1], endpoint="nobody")
    fault = raised.value
    assert (fault.code, fault.status, fault.stage, fault.retryable) == ("RESOURCE_DOES_NOT_EXIST", 404, "route", False)
    with pytest.raises(Fault, match="as told") as raised:
        client.predict({"status": 400})
    assert (raised.value.code, raised.value.stage) == ("BAD_REQUEST", "invoke")
    with pytest.raises(Fault) as raised:
        client.predict({"status": 500})
    assert raised.value.code == "MODEL_ERROR" and len(raised.value.correlation_id) == 36


def test_call_fails_when_its_time_is_over(client, signalbox):
    began = time.monotonic()
    with pytest.raises(Fault) as raised:
        client.predict({"sleep": 20}, timeout=1)
    assert raised.value.code == "DEADLINE_EXCEEDED" and raised.value.retryable
    assert 0.9 < time.monotonic() - began < 5
    # Nobody answers here, so the client itself says that the time is over.
    with connect(signalbox, requests_topic=signalbox.kafka["dead_letter_topic"]) as unheard:
        with pytest.raises(Fault, match="no reply came in time"):
            unheard.predict([1], timeout=0.5)
    with pytest.raises(ValueError, match="more than 0 seconds"):
        client.submit([1], timeout=0)


def test_submit_does_not_wait_and_futures_can_be_awaited(client):
    began = time.monotonic()
    futures = [client.submit({"sleep": 0.5, "n": n}) for n in range(20)]
    assert time.monotonic() - began < 0.4
    assert [future.result().predictions[0]["n"] for future in futures] == list(range(20))

    async def both():
        return await asyncio.gather(*(asyncio.wrap_future(client.submit([n])) for n in range(2)))

    assert [answer.predictions for answer in asyncio.run(both())] == [[{"inputs": [0]}], [{"inputs": [1]}]]
    cancelled = client.submit({"sleep": 0.2})
    assert cancelled.cancel()
    assert client.predict([1]).predictions == [{"inputs": [1]}]


def test_map_keeps_the_order_of_the_inputs_and_takes_no_more_than_fit(client):
    taken = itertools.count()
    pulled = 0

    def inputs():
        nonlocal pulled
        for n in range(200):
            pulled = next(taken) + 1
            yield {"n": n, "sleep": 0.05 if n % 7 == 0 else 0}

    for n, answer in enumerate(client.map(inputs(), in_flight=10)):
        assert answer.predictions[0]["n"] == n
        assert pulled - n <= 10
        if n == 50:
            # Whoever takes the answers slowly holds the inputs back.
            time.sleep(0.3)
            assert pulled - n <= 10
    assert n == 199


def test_map_yields_an_answer_before_the_next_input_comes(client):
    answered = threading.Event()

    def inputs():
        yield [0]
        assert answered.wait(10)
        yield [1]

    answers = client.map(([n] for n in range(2)), in_flight=1)
    assert [answer.predictions[0]["inputs"] for answer in answers] == [[0], [1]]
    answers = client.map(inputs(), in_flight=1)
    next(answers)
    answered.set()
    assert next(answers).predictions == [{"inputs": [1]}]


def test_map_raises_the_first_fault_or_yields_each_in_its_place(client):
    inputs = [{"n": 0}, {"status": 400}, {"n": 2}]
    answers = client.map(inputs)
    assert next(answers).predictions == [{"n": 0}]
    with pytest.raises(Fault, match="as told"):
        next(answers)
    assert list(answers) == []
    first, second, third = client.map(inputs, return_faults=True)
    assert isinstance(second, Fault) and (first.predictions, third.predictions) == ([{"n": 0}], [{"n": 2}])
    with pytest.raises(ValueError, match="in_flight"):
        client.map(inputs, in_flight=0)


def test_clients_and_threads_get_their_own_replies(signalbox):
    clients = [connect(signalbox) for _ in range(4)]

    def ask(n):
        answer = clients[n % 4].predict({"n": n})
        return answer.predictions[0]["n"]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(400))) == list(range(400))
    for client in clients:
        client.close()


def test_records_of_strangers_harm_nobody(client, signalbox):
    topic = signalbox.kafka["replies_topic"]
    producer = Producer({"bootstrap.servers": signalbox.broker})
    strange = [[], [("kafka_correlationId", None)], [("kafka_correlationId", b"\xff"), ("status", b"\xff")]]
    for partition, headers in itertools.product(range(2), strange):
        producer.produce(topic, None if not headers else b"\xff", partition=partition, headers=headers)
    assert producer.flush(30) == 0
    assert client.predict([1]).predictions == [{"inputs": [1]}]


def test_request_says_until_when_and_where_its_reply_is_waited_for(signalbox):
    # Nobody else reads the client's requests there, so this test answers them, and leaves out the status.
    topic = signalbox.kafka["dead_letter_topic"]
    reader = Consumer({"bootstrap.servers": signalbox.broker, "group.id": "reader"})
    with connect(signalbox, requests_topic=topic) as client:
        began = time.time()
        future = client.submit([1], timeout=60, key="order-1", headers={"x-user": "7"})
        partitions = reader.list_topics(topic, timeout=30).topics[topic].partitions
        reader.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        while (record := reader.poll(60)).key() != b"order-1":
            pass
        reader.close()
        headers = dict(record.headers())
        assert json.loads(record.value()) == {"inputs": [1]}
        assert (headers["endpoint"], headers["content-type"], headers["x-user"]) == (b"echo", b"application/json", b"7")
        assert 59 < int(headers["deadline"]) / 1000 - began < 60
        producer = Producer({"bootstrap.servers": signalbox.broker})
        partition = int.from_bytes(headers["kafka_replyPartition"], "big")
        identity = [("kafka_correlationId", headers["kafka_correlationId"])]
        producer.produce(headers["kafka_replyTopic"].decode(), b"{}", partition=partition, headers=identity)
        assert producer.flush(30) == 0
        with pytest.raises(Fault, match="no header 'status'"):
            future.result()


def test_request_that_is_too_large_fails_at_once(client):
    with pytest.raises(Fault) as raised:
        client.predict(b"x" * 2_000_000)
    assert raised.value.code == "PAYLOAD_TOO_LARGE"


def test_full_queue_makes_the_caller_wait(signalbox):
    with connect(signalbox, config={"queue.buffering.max.messages": 10}) as client:
        assert len(list(client.map(([n] for n in range(1000)), in_flight=500))) == 1000


def test_closed_client_answers_what_was_asked_and_refuses_more(signalbox):
    with connect(signalbox) as client:
        future = client.submit({"sleep": 0.5})
    assert future.done() and future.result().route == "model"
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.submit([1])
    client.close()

    client = connect(signalbox)
    future = client.submit({"sleep": 5})
    client.close(wait=False)
    with pytest.raises(Fault) as raised:
        future.result(0)
    assert raised.value.code == "CANCELLED"
    with pytest.raises(KeyError), connect(signalbox) as client:
        future = client.submit({"sleep": 5})
        raise KeyError
    assert isinstance(future.exception(0), Fault)


def test_missing_topic_and_missing_broker_are_named(signalbox, monkeypatch):
    with pytest.raises(Fault, match="replies cannot be read from topic 'none-such'") as raised:
        connect(signalbox, replies_topic="none-such")
    assert raised.value.code == "RESOURCE_DOES_NOT_EXIST"
    monkeypatch.setattr("signalbox.client.START", 1.0)
    with pytest.raises(Fault, match="the broker at 127.0.0.1:9 does not answer") as raised:
        Client("127.0.0.1:9")
    assert (raised.value.code, raised.value.retryable) == ("TEMPORARILY_UNAVAILABLE", True)


def test_both_doors_give_the_same_answer(client, signalbox):
    payload = json.dumps({"inputs": ["é", 1.5]})
    over_http = requests.post(f"{signalbox.url}/endpoints/echo/invocations", data=payload.encode(), timeout=30)
    assert client.predict(payload).body == over_http.content

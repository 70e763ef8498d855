"""The client over Kafka: requests are produced, and replies matched to them by their correlation id.

One thread reads one partition of the replies topic, which each request names as the address of its reply. The partition
is assigned from its end, never subscribed to: no consumer group, and no rebalance that could lose a reply.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, overload

from .answer import Answer
from .fault import Fault
from .payload import encode

try:
    from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
except ImportError as missing:
    raise ImportError("signalbox.Client needs confluent-kafka: pip install 'signalbox[kafka]'") from missing

if TYPE_CHECKING:
    from typing import TypeAlias, TypedDict

    from typing_extensions import Unpack

    from .payload import Inputs

    Headers: TypeAlias = list[tuple[str, str | bytes | None]]

    class Options(TypedDict, total=False):
        """Options of one call, which :meth:`Client.submit` describes."""

        endpoint: str | None
        params: Mapping[str, Any] | None
        key: str | bytes | None
        headers: Mapping[str, str] | None
        content_type: str
        timeout: float | None


_log = logging.getLogger("signalbox")

# Headers of the wire contract, docs/wire.md.
CORRELATION_ID = "kafka_correlationId"
REPLY_TOPIC = "kafka_replyTopic"
REPLY_PARTITION = "kafka_replyPartition"
# Seconds that one poll waits for replies; calls whose time is over are noticed that soon.
POLL = 0.1
# Replies that are taken in one go.
TOGETHER = 500
# Seconds in which a broker must say which partitions there are.
START = 15.0
# Seconds of a call's time that are kept for the way back of the reply, at most, and as a share of that time: a fault of
# Signalbox's own says more about what took so long than the client could.
WAY_BACK, WAY_BACK_SHARE = 0.25, 0.05


class Client:
    """Calls the endpoints of Signalbox over Kafka.

    All methods may be called from several threads at once. A client does not survive a fork: make one in each process.

    Example::

        with signalbox.Client("127.0.0.1:9092", endpoint="sentiment-router") as client:
            answer = client.predict({"dataframe_split": {"columns": ["text"], "data": [["Great!"]]}})
            print(answer.route, answer.predictions)
            for answer in client.map(frames, in_flight=100):
                ...

    Args:
        bootstrap_servers: Addresses of the brokers.
        endpoint: Endpoint that is called unless a call names another; needed where there are several.
        requests_topic: ``kafka.requests_topic`` of Signalbox's config.
        replies_topic: ``kafka.replies_topic``, or a topic that ``kafka.allowed_reply_topics`` allows.
        timeout: Seconds after which a call fails, unless it says another time.
        config: More properties of librdkafka for the producer and the consumer, such as those of TLS and SASL.

    Raises:
        Fault: If no broker answers, or there is no such topic.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        endpoint: str | None = None,
        requests_topic: str = "inference-requests",
        replies_topic: str = "inference-replies",
        timeout: float = 30.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._requests_topic = requests_topic
        self._timeout = _positive(timeout)
        # The calls that wait, by correlation id, each with the time of `time.monotonic` at which it fails. No call
        # fails before `_earliest`, so they are looked through only then.
        self._waiting: dict[bytes, tuple[Future[Answer], float]] = {}
        self._earliest = float("inf")
        self._lock = threading.Lock()
        self._none_waits = threading.Condition(self._lock)
        self._closed = False
        self._stop = threading.Event()

        shared = {"bootstrap.servers": bootstrap_servers, "client.id": "signalbox-python", "logger": _log}
        self._producer = Producer(
            {
                **shared,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                # A request that is older than its deadline is not worth delivering.
                "message.timeout.ms": max(int(timeout * 1000), 1),
                **(config or {}),
            }
        )
        self._consumer = Consumer(
            {
                **shared,
                # librdkafka insists on a group; it is never joined, and nothing is committed to it.
                "group.id": "signalbox-python",
                "enable.auto.commit": False,
                # Where the partition has lost the next offset, no reply that is left may be skipped.
                "auto.offset.reset": "earliest",
                # A broker that does not wake a waiting fetch, as the embedded one, lets replies wait that long.
                "fetch.wait.max.ms": 100,
                **(config or {}),
            }
        )
        try:
            partition = self._assign(bootstrap_servers, replies_topic)
        except BaseException:
            self._consumer.close()
            raise
        self._address = [(REPLY_TOPIC, replies_topic.encode()), (REPLY_PARTITION, partition.to_bytes(4, "big"))]
        self._thread = threading.Thread(target=self._read, name="signalbox-replies", daemon=True)
        self._thread.start()
        # A thread inside librdkafka must not outlive the interpreter.
        atexit.register(self.close, wait=False)

    def predict(self, inputs: Inputs, **options: Unpack[Options]) -> Answer:
        """Asks for predictions and waits for them. Takes the options of :meth:`submit`.

        Raises:
            Fault: If there was no prediction.
        """
        return self.submit(inputs, **options).result()

    def submit(
        self,
        inputs: Inputs,
        *,
        endpoint: str | None = None,
        params: Mapping[str, Any] | None = None,
        key: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> Future[Answer]:
        """Asks for predictions without waiting for them.

        The future ends within the timeout: with an :class:`Answer`, or with a :class:`Fault`. A future that is
        cancelled takes no answer any more, but the request stays sent. ``asyncio.wrap_future`` makes it awaitable.

        Args:
            inputs: A DataFrame, a NumPy array, a list, or a whole body as a mapping, text or bytes.
            endpoint: Endpoint to call, in place of the client's.
            params: Parameters of the inference.
            key: Key of the record; with ``kafka.ordering: key`` replies to one key keep their order.
            headers: More headers of the request, such as ``traceparent`` or ``x-signalbox-route``.
            content_type: Type of inputs that are bytes or text.
            timeout: Seconds after which the call fails, in place of the client's.

        Raises:
            TypeError: If the inputs cannot be sent.
            RuntimeError: If the client is closed.
        """
        body = encode(inputs, params)
        seconds = self._timeout if timeout is None else _positive(timeout)
        give_up = time.time() + seconds - min(WAY_BACK, seconds * WAY_BACK_SHARE)
        correlation = str(uuid.uuid4()).encode()
        fields: Headers = [(name, value.encode()) for name, value in (headers or {}).items()]
        fields += [(CORRELATION_ID, correlation), *self._address]
        fields += [("content-type", content_type.encode()), ("deadline", str(int(give_up * 1000)).encode())]
        endpoint = self._endpoint if endpoint is None else endpoint
        if endpoint is not None:
            fields.append(("endpoint", endpoint.encode()))

        future: Future[Answer] = Future()
        end = time.monotonic() + seconds
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            self._waiting[correlation] = (future, end)
            self._earliest = min(self._earliest, end)
        self._produce(correlation, key, body, fields, end)
        return future

    @overload
    def map(self, inputs: Iterable[Inputs], *, in_flight: int = 64, **options: Unpack[Options]) -> Iterator[Answer]: ...
    @overload
    def map(
        self, inputs: Iterable[Inputs], *, return_faults: Literal[True], in_flight: int = 64, **options: Unpack[Options]
    ) -> Iterator[Answer | Fault]: ...
    def map(
        self, inputs: Iterable[Inputs], *, in_flight: int = 64, return_faults: bool = False, **options: Unpack[Options]
    ) -> Iterator[Answer | Fault]:
        """Asks for predictions for each of many inputs, and yields them in the order of the inputs.

        The inputs are taken as they are needed: no more than ``in_flight`` of them wait for their answers, or for
        whoever takes the answers. Takes the options of :meth:`submit` besides.

        Args:
            inputs: Inputs of one request each.
            in_flight: Most requests that are under way at once.
            return_faults: Whether a fault is yielded in its place; otherwise it is raised, and ends the iteration.
        """
        if in_flight < 1:
            raise ValueError("in_flight must be 1 or more")
        return self._map(iter(inputs), in_flight, return_faults, options)

    def close(self, *, wait: bool = True) -> None:
        """Ends the client. Calls that wait are waited for; without ``wait`` they fail at once."""
        with self._lock:
            if self._closed and not self._thread.is_alive():
                return
            self._closed = True
            if wait:
                self._none_waits.wait_for(lambda: not self._waiting)
        self._stop.set()
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(wait=kind is None)

    def _map(
        self, inputs: Iterator[Inputs], in_flight: int, return_faults: bool, options: Options
    ) -> Iterator[Answer | Fault]:
        under_way: deque[Future[Answer]] = deque()

        def first() -> Answer | Fault:
            try:
                return under_way.popleft().result()
            except Fault as fault:
                if return_faults:
                    return fault
                raise

        try:
            for each in inputs:
                under_way.append(self.submit(each, **options))
                # Answers that are there do not wait until the inputs, which may come slowly, fill the places.
                while under_way and (len(under_way) >= in_flight or under_way[0].done()):
                    yield first()
            while under_way:
                yield first()
        finally:
            for future in under_way:
                future.cancel()

    def _assign(self, bootstrap_servers: str, topic: str) -> int:
        """Assigns a partition of the replies topic, from its end: no reply to a later call can lie before that."""
        try:
            found = self._consumer.list_topics(topic, timeout=START).topics[topic]
            if found.error is not None or not found.partitions:
                reason = found.error or "it has no partitions"
                message = f"replies cannot be read from topic '{topic}': {reason}"
                raise Fault("RESOURCE_DOES_NOT_EXIST", message)
            # Clients spread over the partitions.
            partition: int = random.choice(sorted(found.partitions))
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=START)
            self._consumer.assign([TopicPartition(topic, partition, end)])
            return partition
        except KafkaException as error:
            message = f"the broker at {bootstrap_servers} does not answer: {error.args[0]}"
            raise Fault("TEMPORARILY_UNAVAILABLE", message, retryable=True) from error

    def _produce(self, correlation: bytes, key: str | bytes | None, body: bytes, headers: Headers, end: float) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._fail(correlation, _undelivered(error))

        while True:
            try:
                self._producer.produce(self._requests_topic, body, key, headers=headers, on_delivery=delivered)
                return
            except BufferError:
                # Back-pressure: the caller waits until the broker has taken some of the requests before.
                if time.monotonic() >= end or self._stop.is_set():
                    message = "requests come faster than the broker takes them"
                    return self._fail(correlation, Fault("RESOURCE_EXHAUSTED", message, retryable=True))
                self._producer.poll(POLL)
            except KafkaException as error:
                return self._fail(correlation, _undelivered(error.args[0]))
            except BaseException:
                self._take(correlation)
                raise

    def _read(self) -> None:
        """Hands replies to their callers, and fails the calls whose time is over, until the client is closed."""
        try:
            while not self._stop.is_set():
                # The first reply is taken as soon as it comes, and with it those that have come meanwhile.
                first = self._consumer.poll(POLL)
                records = [] if first is None else [first, *self._consumer.consume(TOGETHER, 0)]
                for record in records:
                    try:
                        self._deliver(record)
                    except Exception:
                        # Anybody may write to the topic.
                        _log.exception("a record of the replies topic cannot be read")
                self._producer.poll(0)
                if time.monotonic() >= self._earliest:
                    self._fail_late()
        finally:
            with self._lock:
                self._closed = True
                left = list(self._waiting)
            for correlation in left:
                self._fail(correlation, Fault("CANCELLED", "the client was closed"))
            self._producer.purge()
            self._consumer.close()

    def _deliver(self, record: Message) -> None:
        error = record.error()
        if error is not None:
            _log.debug("replies cannot be read for now: %s", error)
            return
        fields = dict(record.headers() or [])
        headers = {name: value for name, value in fields.items() if isinstance(value, bytes)}
        future = self._take(headers.get(CORRELATION_ID, b""))
        # A reply without a caller belongs to another client, or comes too late.
        if future is None or not future.set_running_or_notify_cancel():
            return
        body = record.value() or b""
        shown = {name: value.decode("utf-8", "replace") for name, value in headers.items()}
        status = shown.get("status", "")
        if not status.isdecimal():
            message = "the reply has no header 'status'; whoever answers requests of this topic must send it"
            future.set_exception(Fault("MODEL_ERROR", message))
        elif int(status) >= 400:
            future.set_exception(Fault.parse(int(status), body, shown))
        else:
            future.set_result(Answer(body, shown))

    def _fail_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [correlation for correlation, (_, end) in self._waiting.items() if end <= now]
            self._earliest = min((end for _, end in self._waiting.values() if end > now), default=float("inf"))
        for correlation in late:
            self._fail(correlation, Fault("DEADLINE_EXCEEDED", "no reply came in time", retryable=True))

    def _fail(self, correlation: bytes, fault: Fault) -> None:
        future = self._take(correlation)
        if future is not None and future.set_running_or_notify_cancel():
            fault.correlation_id = correlation.decode()
            future.set_exception(fault)

    def _take(self, correlation: bytes) -> Future[Answer] | None:
        with self._lock:
            future, _ = self._waiting.pop(correlation, (None, 0.0))
            if not self._waiting:
                self._none_waits.notify_all()
            return future


def _positive(seconds: float) -> float:
    if not seconds > 0:
        raise ValueError("a timeout must be more than 0 seconds")
    return seconds


def _undelivered(error: KafkaError) -> Fault:
    if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE):
        return Fault("PAYLOAD_TOO_LARGE", "the request is larger than the broker takes (its message.max.bytes)")
    if error.code() == KafkaError._MSG_TIMED_OUT:
        return Fault(
            "TEMPORARILY_UNAVAILABLE", "the broker did not take the request: it does not answer", retryable=True
        )
    return Fault("TEMPORARILY_UNAVAILABLE", f"the broker did not take the request: {error.str()}", retryable=True)

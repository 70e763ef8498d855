"""Routes requests as a careful engineer's own worker does, for the benchmark to put beside Signalbox.

    python worker.py BOOTSTRAP REQUESTS REPLIES CONNECTIONS ALIAS=URL…

It takes requests from a topic, picks a model by the first condition that holds, posts the payload to the model's server
as it came, and writes the answer to the replies topic. At least once: an offset is committed when the broker has the
answers to everything before it. Many requests are under way at a time, over kept connections; records are fetched and
sent in batches; JSON is read once, by the fastest parser there is.
"""

import asyncio
import collections
import sys

import aiohttp
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

MAX_IN_FLIGHT = 1024
COMMIT_INTERVAL = 0.2

CONDITIONS = {
    "accurate": lambda request: request["dataframe_split"]["data"][0][0].startswith("Domain specific text"),
    "fast": lambda request: True,
}


class Window:
    """Tracks the requests of a partition that are under way, and those that have finished before earlier ones."""

    def __init__(self):
        self.begun = collections.deque()
        self.finished = set()

    def position(self):
        """Returns the offset before which everything is finished, if that has moved."""
        position = None
        while self.begun and self.begun[0] in self.finished:
            offset = self.begun.popleft()
            self.finished.remove(offset)
            position = offset + 1
        return position


class Worker:
    def __init__(self, consumer, producer, session, replies, models, connections):
        self.consumer = consumer
        self.producer = producer
        self.session = session
        self.replies = replies
        self.models = models
        self.connections = {alias: asyncio.Semaphore(connections) for alias in models}
        self.in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.windows = collections.defaultdict(Window)
        self.tasks = set()

    async def run(self):
        self.keep(asyncio.create_task(self.commit()))
        while True:
            for partition, records in (await self.consumer.getmany(timeout_ms=200, max_records=500)).items():
                window = self.windows[partition]
                for record in records:
                    await self.in_flight.acquire()
                    window.begun.append(record.offset)
                    self.keep(asyncio.create_task(self.answer(record, window)))

    def keep(self, task):
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, record, window):
        try:
            status, body = await self.ask(record.value)
            headers = [(name, value) for name, value in record.headers if name == "kafka_correlationId"]
            headers.append(("status", str(status).encode()))
            await self.producer.send_and_wait(self.replies, body, key=record.key, headers=headers)
            window.finished.add(record.offset)
        finally:
            self.in_flight.release()

    async def ask(self, payload):
        try:
            request = orjson.loads(payload)
            alias = next(alias for alias, condition in CONDITIONS.items() if condition(request))
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
            return 400, orjson.dumps({"message": str(error)})
        try:
            async with self.connections[alias]:
                async with self.session.post(self.models[alias], data=payload) as answer:
                    return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return 503, orjson.dumps({"message": str(error)})

    async def commit(self):
        while True:
            await asyncio.sleep(COMMIT_INTERVAL)
            positions = {partition: window.position() for partition, window in self.windows.items()}
            positions = {partition: position for partition, position in positions.items() if position is not None}
            if positions:
                await self.consumer.commit(positions)


async def main(bootstrap, requests, replies, connections, *models):
    consumer = AIOKafkaConsumer(
        requests,
        bootstrap_servers=bootstrap,
        group_id=f"worker-{requests}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=60),
        headers={"content-type": "application/json"},
    )
    async with consumer, producer, session:
        models = {alias: url + "/invocations" for alias, url in (model.split("=", 1) for model in models)}
        await Worker(consumer, producer, session, replies, models, int(connections)).run()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))

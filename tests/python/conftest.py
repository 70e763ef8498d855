"""What the tests of the Python package share: a Signalbox, and a model behind it that does as it is told.

The package must be installed where these tests run, with its program; SIGNALBOX_TEST_BROKER names the broker, or else
Signalbox brings its embedded one. `tests/run` sees to both.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from signalbox.program import find

READY = re.compile(r"signalbox is ready: (\S+) \(broker (\S+)\)")


class Model(BaseHTTPRequestHandler):
    """Answers with the request itself as its only prediction; `sleep` and `status` in it are obeyed first."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(body.get("sleep", 0))
        status = body.get("status", 200)
        answer = {"predictions": [body]} if status == 200 else {"error_code": "BAD_REQUEST", "message": "as told"}
        answer = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Signalbox:
    """A running Signalbox, its addresses and its topics."""

    def __init__(self, process, log, url, broker, kafka):
        self.process, self.log, self.url, self.broker, self.kafka = process, log, url, broker, kafka

    @property
    def target(self):
        return f"signalbox:{self.url}"

    @property
    def topics(self):
        return {name: self.kafka[name] for name in ("requests_topic", "replies_topic")}


@contextmanager
def running(directory, *arguments, kafka=None, within=120):
    """Runs the program with these arguments until the block ends."""
    log = directory / f"signalbox-{uuid.uuid4().hex}.log"
    # The environment is the one that the program is installed in, not one that happens to be active.
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    with log.open("w") as output:
        process = subprocess.Popen([find(), *arguments], cwd=directory, env=environment, stdout=output, stderr=output)
    try:
        end = time.monotonic() + within
        while not (ready := READY.search(log.read_text())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield Signalbox(process, log, *ready.groups(), kafka)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="session")
def model():
    """The address of the model."""
    ThreadingHTTPServer.request_queue_size = 256
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="session")
def signalbox(model, tmp_path_factory):
    """A Signalbox with two endpoints: `echo`, which is the model, and `nothing`, which is the one that is built in."""
    name = f"python-{uuid.uuid4().hex[:8]}"
    kafka = {
        "bootstrap_servers": os.environ.get("SIGNALBOX_TEST_BROKER", "embedded"),
        "requests_topic": f"{name}-requests",
        "replies_topic": f"{name}-replies",
        "dead_letter_topic": f"{name}-dead-letters",
        "group_id": name,
        # With so few, clients share partitions.
        "partitions": 2,
    }
    echo = {"model_uri": model, "alias": "model", "max_concurrency": 256}
    config = {
        "model_endpoints": [
            {"name": "echo", "timeout": "30s", "routes": [echo]},
            {"name": "nothing", "routes": [{"model_uri": "builtin:noop", "alias": "noop"}]},
        ],
        "kafka": kafka,
        "server": {"port": 0},
    }
    directory = tmp_path_factory.mktemp("signalbox")
    # JSON is YAML.
    (directory / "signalbox.yaml").write_text(json.dumps(config))
    with running(directory, "start", "--config", "signalbox.yaml", kafka=kafka) as signalbox:
        yield signalbox

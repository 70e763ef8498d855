"""MLflow's own door: the target `signalbox:<address>` of `mlflow.deployments`."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy
import pandas
import pytest
from click.testing import CliRunner
from mlflow.deployments import PredictionsResponse, get_deploy_client, run_local
from mlflow.deployments.cli import commands
from mlflow.exceptions import MlflowException

import signalbox.deployments
from conftest import READY
from signalbox import Fault


@pytest.fixture(scope="module")
def client(signalbox):
    return get_deploy_client(signalbox.target)


def command(*arguments):
    """Runs `mlflow deployments`, but without importing MLflow once more."""
    return CliRunner().invoke(commands, arguments, catch_exceptions=False).output


def test_frames_go_in_and_come_out(client):
    frame = pandas.DataFrame({"text": ["This is a great product!", None], "stars": [5, 1]})
    answer = client.predict("echo", frame)
    assert isinstance(answer, PredictionsResponse)
    sent = {"columns": ["text", "stars"], "data": [["This is a great product!", 5], [None, 1]]}
    assert answer == {"predictions": [{"dataframe_split": sent}]}
    assert answer.get_predictions().to_dict("records") == [{"dataframe_split": sent}]


def test_other_inputs_are_taken(client):
    assert client.predict("echo", numpy.array([[1.5]]))["predictions"] == [{"inputs": [[1.5]]}]
    payload = {"inputs": {"a": [1]}, "params": {"temperature": 0}}
    assert client.predict(endpoint="echo", inputs=payload)["predictions"] == [payload]
    assert client.predict("echo", json.dumps(payload), endpoint="echo")["predictions"] == [payload]


def test_endpoints_are_listed_as_deployments_too(client, signalbox):
    endpoints = client.list_endpoints()
    assert [endpoint["name"] for endpoint in endpoints] == ["echo", "nothing"]
    noop = client.get_endpoint("nothing")
    assert noop["routes"] == [{"alias": "noop", "model_uri": "builtin:noop"}]
    assert noop["endpoint_url"] == f"{signalbox.url}/gateway/nothing/invocations"
    assert client.list_deployments() == endpoints
    assert client.list_deployments("nothing") == [client.get_deployment("nothing")] == [noop]
    with pytest.raises(MlflowException, match="there is no endpoint 'nobody'; there are: echo, nothing") as raised:
        client.get_endpoint("nobody")
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_faults_are_exceptions_of_mlflow_with_the_fault_as_cause(client, monkeypatch):
    with pytest.raises(MlflowException, match="there is no endpoint 'nobody'") as raised:
        client.predict("nobody", [1])
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    fault = raised.value.__cause__
    assert isinstance(fault, Fault) and (fault.code, fault.stage, fault.retryable) == (
        "RESOURCE_DOES_NOT_EXIST",
        "route",
        False,
    )

    with pytest.raises(MlflowException, match="as told") as raised:
        client.predict("echo", {"status": 400})
    assert (raised.value.error_code, raised.value.__cause__.code) == ("BAD_REQUEST", "BAD_REQUEST")
    # MLflow has no such code.
    with pytest.raises(MlflowException) as raised:
        client.predict("echo", {"status": 500})
    assert (raised.value.error_code, raised.value.__cause__.code) == ("INTERNAL_ERROR", "MODEL_ERROR")

    monkeypatch.setenv("MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT", "1")
    with pytest.raises(MlflowException) as raised:
        client.predict("echo", {"sleep": 5})
    assert raised.value.error_code == "DEADLINE_EXCEEDED"


def test_several_endpoints_need_a_name(client):
    with pytest.raises(MlflowException, match="there are several endpoints"):
        client.predict(inputs=[1])
    with pytest.raises(MlflowException, match="predict needs inputs"):
        client.predict("echo")
    with pytest.raises(MlflowException, match="there is no 'echo' in 'nothing'"):
        client.predict("echo", [1], endpoint="nothing")
    with pytest.raises(MlflowException, match="cannot be sent"):
        client.predict("echo", object())


def test_what_is_not_there_is_refused(client):
    calls = {
        "use predict": lambda: client.predict_stream("echo", [1]),
        "cannot be created": lambda: client.create_deployment("name", "models:/m/1"),
        "cannot be updated": lambda: client.update_deployment("name"),
        "cannot be deleted": lambda: client.delete_endpoint("echo"),
    }
    for words, call in calls.items():
        with pytest.raises(MlflowException, match=words) as raised:
            call()
        assert raised.value.error_code == "NOT_IMPLEMENTED"


def test_address_that_is_no_signalbox_is_named():
    with pytest.raises(MlflowException, match="it is of the form signalbox:http://HOST:PORT"):
        get_deploy_client("signalbox:/host")
    with pytest.raises(MlflowException, match="Signalbox did not answer at http://127.0.0.1:9") as raised:
        get_deploy_client("signalbox:http://127.0.0.1:9").list_endpoints()
    assert raised.value.error_code == "TEMPORARILY_UNAVAILABLE"

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(MlflowException, match="is no Signalbox: <html>"):
            get_deploy_client(f"signalbox:http://127.0.0.1:{server.server_address[1]}").list_endpoints()
        server.shutdown()


def test_command_line_predicts_and_lists(signalbox, tmp_path):
    (tmp_path / "in.json").write_text('[{"text": "great"}]')
    target = ["-t", signalbox.target]
    predicted = command("predict", *target, "--name", "echo", "-I", str(tmp_path / "in.json"))
    sent = {"dataframe_split": {"columns": ["text"], "data": [["great"]]}}
    assert json.loads(predicted) == {"predictions": [sent]}
    shown = command("get-endpoint", *target, "--endpoint", "nothing")
    assert "endpoint_type: mlflow-model-serving" in shown
    assert "signalbox:http://HOST:PORT" in command("help", "-t", "signalbox")


def test_run_local_serves_one_model(monkeypatch, tmp_path):
    began, lines = threading.Event(), []

    def run(words, check):
        process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            lines.append(line)
            if ready := READY.search(line):
                answer = get_deploy_client(f"signalbox:{ready[1]}").predict(inputs=[1])
                assert answer == {"predictions": []}
                began.set()
                process.terminate()
        return subprocess.CompletedProcess(words, process.wait())

    monkeypatch.setattr(signalbox.deployments.subprocess, "run", run)
    run_local("signalbox", "local", "builtin:noop", config={"port": "0"})
    assert began.is_set(), "".join(lines)
    with pytest.raises(MlflowException, match="unknown config: hosts"):
        run_local("signalbox", "local", "builtin:noop", config={"hosts": "2"})

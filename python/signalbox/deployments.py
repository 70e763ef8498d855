"""MLflow's own door: the target ``signalbox:<address>`` of ``mlflow.deployments``.

MLflow loads this module by its entry point, and expects two functions in it and one client class.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urljoin

import mlflow
import requests
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.environment_variables import MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    NOT_IMPLEMENTED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)

from . import program
from .fault import Fault
from .payload import encode

if TYPE_CHECKING:
    from .payload import Inputs

# Address of Signalbox where the target names none: the one that it listens on by default.
DEFAULT_ADDRESS = "http://127.0.0.1:5000"
# Seconds that an answer may take on its way back, after the time in which Signalbox itself gives up.
WAY_BACK = 1.0
HELP = f"""\
The target `signalbox` calls the endpoints of a running Signalbox.

Target URI
  signalbox:http://HOST:PORT   the address of Signalbox's HTTP side
  signalbox                    the same as signalbox:{DEFAULT_ADDRESS}

A deployment is an endpoint of Signalbox's config, so `--name` and `--endpoint` mean the same:
  mlflow deployments predict -t signalbox:{DEFAULT_ADDRESS} --name sentiment-router -I in.json
  mlflow deployments list-endpoints -t signalbox
  mlflow deployments get-endpoint -t signalbox --endpoint sentiment-router

Endpoints and routes are made in Signalbox's config file, which is read again when it changes; so deployments cannot be
created, updated or deleted here. MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT says how many seconds a prediction may take, up to
the endpoint's own timeout.

`run-local` starts Signalbox in the foreground, with one endpoint, one model and a broker inside the process:
  mlflow deployments run-local -t signalbox --name sentiment -m models:/sentiment-model-fast/1 -C port=5000
"""


class SignalboxDeploymentClient(BaseDeploymentClient):  # type: ignore[misc]
    """Calls the endpoints of a running Signalbox over HTTP.

    Example::

        client = mlflow.deployments.get_deploy_client("signalbox:http://127.0.0.1:5000")
        answer = client.predict("sentiment-router", pandas.DataFrame({"text": ["This is a great product!"]}))
        answer.get_predictions()  # a DataFrame
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        self._address = _address(target_uri)

    def predict(
        self, deployment_name: str | None = None, inputs: Inputs | None = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Asks an endpoint for predictions.

        Args:
            deployment_name: Endpoint to ask, under the name that this argument has in MLflow.
            inputs: A DataFrame, a NumPy array, a list, or a body such as ``{"dataframe_split": …, "params": …}``.
            endpoint: Endpoint to ask. With neither name the only endpoint is asked.

        Raises:
            MlflowException: If there was no prediction. Its cause is a :class:`signalbox.Fault`.
        """
        if inputs is None:
            raise MlflowException("predict needs inputs", INVALID_PARAMETER_VALUE)
        if endpoint is not None and deployment_name not in (None, endpoint):
            message = f"a deployment is an endpoint here, so there is no '{deployment_name}' in '{endpoint}': name one"
            raise MlflowException(message, INVALID_PARAMETER_VALUE)
        name = endpoint if endpoint is not None else deployment_name
        try:
            body = encode(inputs)
        except TypeError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error
        path = "/invocations" if name is None else f"/endpoints/{quote(name, safe='')}/invocations"
        answer = self._call("POST", path, body)
        return PredictionsResponse(answer if isinstance(answer, dict) else {"predictions": answer})

    def predict_stream(
        self, deployment_name: str | None = None, inputs: Inputs | None = None, endpoint: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Refuses: an answer of Signalbox is one record, which has nothing to stream."""
        raise MlflowException("Signalbox answers with one record, not with a stream: use predict", NOT_IMPLEMENTED)

    def list_endpoints(self) -> list[dict[str, Any]]:
        """Lists the endpoints, each with its name, its address and its routes."""
        endpoints = self._call("GET", "/api/2.0/endpoints/")["endpoints"]
        return [{**each, "endpoint_url": urljoin(self._address, each["endpoint_url"])} for each in endpoints]

    def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """Returns one endpoint.

        Raises:
            MlflowException: If there is no such endpoint.
        """
        endpoints = {each["name"]: each for each in self.list_endpoints()}
        if endpoint not in endpoints:
            message = f"there is no endpoint '{endpoint}'; there are: {', '.join(sorted(endpoints))}"
            raise MlflowException(message, RESOURCE_DOES_NOT_EXIST)
        return endpoints[endpoint]

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Lists the endpoints, or the one that is named: a deployment is an endpoint here."""
        return self.list_endpoints() if endpoint is None else [self.get_endpoint(endpoint)]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Returns the endpoint of that name: a deployment is an endpoint here."""
        return self.get_endpoint(name)

    def create_deployment(
        self, name: str, model_uri: str, flavor: Any = None, config: Any = None, endpoint: Any = None
    ) -> NoReturn:
        """Refuses: routes are made in Signalbox's config."""
        _refuse("created")

    def update_deployment(
        self, name: str, model_uri: Any = None, flavor: Any = None, config: Any = None, endpoint: Any = None
    ) -> NoReturn:
        """Refuses: routes are changed in Signalbox's config."""
        _refuse("updated")

    def delete_deployment(self, name: str, config: Any = None, endpoint: Any = None) -> NoReturn:
        """Refuses: routes are removed in Signalbox's config."""
        _refuse("deleted")

    def create_endpoint(self, name: str, config: Any = None) -> NoReturn:
        """Refuses: endpoints are made in Signalbox's config."""
        _refuse("created")

    def update_endpoint(self, endpoint: str, config: Any = None) -> NoReturn:
        """Refuses: endpoints are changed in Signalbox's config."""
        _refuse("updated")

    def delete_endpoint(self, endpoint: str) -> NoReturn:
        """Refuses: endpoints are removed in Signalbox's config."""
        _refuse("deleted")

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        seconds = MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT.get()
        headers = {"content-type": "application/json", "x-timeout-ms": str(seconds * 1000)}
        url = self._address + path
        try:
            answer = requests.request(method, url, data=body, headers=headers, timeout=seconds + WAY_BACK)
        except requests.RequestException as error:
            message = f"Signalbox did not answer at {self._address}: {error}"
            raise MlflowException(message, TEMPORARILY_UNAVAILABLE) from error
        if answer.status_code >= 400:
            fault = Fault.parse(answer.status_code, answer.content, answer.headers)
            raise _exception(fault) from fault
        try:
            return json.loads(answer.content)
        except ValueError as error:
            message = f"what answered at {url} is no Signalbox: {answer.text[:200]}"
            raise MlflowException(message, BAD_REQUEST) from error


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, str] | None = None) -> None:
    """Starts Signalbox with one endpoint and one model, and returns when it has ended.

    The broker is inside the process, the interpreter of the model is this one, and the registry is the one that MLflow
    is set to.

    Args:
        name: Name of the endpoint.
        model_uri: Model to serve, such as ``models:/churn/1``.
        flavor: Ignored: every model is called as a ``python_function``.
        config: ``port``, if it is not to be 5000.
    """
    options = dict(config or {})
    port = int(options.pop("port", 5000))
    if options:
        raise MlflowException(f"unknown config: {', '.join(options)}; there is: port", INVALID_PARAMETER_VALUE)
    settings = {
        "model_endpoints": [{"name": name, "timeout": "60s", "routes": [{"model_uri": model_uri, "alias": "local"}]}],
        "kafka": {"bootstrap_servers": "embedded"},
        "server": {"port": port},
        "registry": {"tracking_uri": mlflow.get_registry_uri()},
        "models": {"python": sys.executable},
    }
    # JSON is YAML.
    with tempfile.NamedTemporaryFile("w", prefix="signalbox-", suffix=".yaml") as file:
        json.dump(settings, file)
        file.flush()
        status = subprocess.run([program.find(), "start", "--config", file.name], check=False).returncode
    if status != 0:
        raise MlflowException(f"signalbox start ended with status {status}", INTERNAL_ERROR)


def target_help() -> str:
    """Returns the text of ``mlflow deployments help -t signalbox``."""
    return HELP


def _address(target_uri: str) -> str:
    address = target_uri.partition(":")[2].rstrip("/") or DEFAULT_ADDRESS
    if not address.startswith(("http://", "https://")):
        message = f"'{target_uri}' is no target of Signalbox: it is of the form signalbox:http://HOST:PORT"
        raise MlflowException(message, INVALID_PARAMETER_VALUE)
    return address


def _exception(fault: Fault) -> MlflowException:
    """Makes MLflow's exception of a fault. A code that MLflow does not have becomes the nearest one that it has."""
    if fault.code in ErrorCode.keys():
        code = ErrorCode.Value(fault.code)
    else:
        code = BAD_REQUEST if fault.status < 500 else INTERNAL_ERROR
    return MlflowException(str(fault), code, stage=fault.stage, retryable=fault.retryable)


def _refuse(done: str) -> NoReturn:
    message = (
        f"endpoints and their routes cannot be {done} here: change Signalbox's config file, which is read again when "
        "it changes"
    )
    raise MlflowException(message, NOT_IMPLEMENTED)

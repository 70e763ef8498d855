"""Serves version 1 of models as `mlflow models serve --env-manager local` does: with the function behind that command,
in a process each, but without importing MLflow once more for every one of them.

    python served.py --tracking-uri URI --done DIRECTORY NAME:PORT…

In their order, AT_ONCE of them at a time: the next one starts when a file DIRECTORY/NAME says that one is not needed any
longer.
"""

import argparse
import os
import pathlib
import subprocess
import time

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow.models.flavor_backend_registry import get_flavor_backend

AT_ONCE = 3

arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
arguments.add_argument("--tracking-uri", required=True)
arguments.add_argument("--done", required=True, type=pathlib.Path)
arguments.add_argument("models", nargs="+", metavar="NAME:PORT")
arguments = arguments.parse_args()
mlflow.set_tracking_uri(arguments.tracking_uri)

waiting = [model.rsplit(":", 1) for model in arguments.models]
serving = {}
while waiting or serving:
    for name in [name for name in serving if (arguments.done / name).exists()]:
        server = serving.pop(name)
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
    if waiting and len(serving) < AT_ONCE:
        name, port = waiting.pop(0)
        uri = f"models:/{name}/1"
        backend = get_flavor_backend(uri, env_manager="local", workers=1)
        serving[name] = backend.serve(uri, port=int(port), host="127.0.0.1", timeout=60, synchronous=False)
    time.sleep(0.02)

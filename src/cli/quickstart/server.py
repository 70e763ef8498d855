"""Runs `mlflow server` in one process.

    python server.py --host 127.0.0.1 --port 5001 ...

MLflow's command imports the whole of MLflow, and then starts uvicorn in another process, which imports all of it again.
Here uvicorn runs in the process that has it imported. A version of MLflow that starts its server in another way starts
it as it likes.
"""

import os
import sys

# MLflow takes this import as the sign that it is about to be a server, and refuses foreign hosts then.
import uvicorn

# isort: split
import mlflow.server
from mlflow.cli import cli

start_process = getattr(mlflow.server, "_exec_cmd", None)


def start_here(command, *arguments, **options):
    if command[1:3] != ["-m", "uvicorn"]:
        return start_process(command, *arguments, **options)
    os.environ.update(options.get("extra_env") or {})
    uvicorn.main(command[3:])


mlflow.server._exec_cmd = start_here
cli(["server", *sys.argv[1:]])

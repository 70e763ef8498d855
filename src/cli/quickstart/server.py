"""Runs `mlflow server` in one process.

    python server.py --host 127.0.0.1 --port 5001 ...

MLflow's command imports the whole of MLflow, and then starts uvicorn in another process, which imports it all again.
Here uvicorn runs in the process that has it imported. Should MLflow come to start its server in another way, it starts
that as it likes.
"""

import os
import sys

# MLflow looks for this module to find out whether it is about to be a server, and then guards against foreign hosts.
import uvicorn

import mlflow.server
from mlflow.cli import cli

start_process = mlflow.server._exec_cmd


def start_here(command, *arguments, **options):
    if command[1:3] != ["-m", "uvicorn"]:
        return start_process(command, *arguments, **options)
    os.environ.update(options.get("extra_env") or {})
    uvicorn.main(command[3:])


mlflow.server._exec_cmd = start_here
cli(["server", *sys.argv[1:]])

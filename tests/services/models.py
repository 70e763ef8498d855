"""Registers models that misbehave, for the tests: stage Production, version 1 each.

    python models.py --tracking-uri URI

`raises-model` raises on every call. `slow-model` takes rows of one column, `seconds`, sleeps for their sum, and answers
the number of rows it was given, once a row.
"""

import argparse
import os
import time

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema


class Raises(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        raise RuntimeError("this model always raises")


class Slow(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep(float(model_input["seconds"].sum()))
        return [len(model_input)] * len(model_input)


arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
arguments.add_argument("--tracking-uri", required=True)
mlflow.set_tracking_uri(arguments.parse_args().tracking_uri)
mlflow.set_experiment("tests")
for name, model, column in [
    ("raises-model", Raises(), ColSpec("string", "text")),
    ("slow-model", Slow(), ColSpec("double", "seconds")),
]:
    with mlflow.start_run(run_name=name):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=model,
            signature=ModelSignature(inputs=Schema([column])),
            pip_requirements=[f"mlflow=={mlflow.__version__}"],
            registered_model_name=name,
        )
    mlflow.MlflowClient().transition_model_version_stage(name, str(logged.registered_model_version), "Production")

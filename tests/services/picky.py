"""Registers `picky-model`, which answers rows one by one, and minds some of them: it raises when one says `poison`, and
its process ends when one says `crash`. Each call takes the milliseconds that its dearest row asks for.

    python picky.py --tracking-uri URI
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


class Picky(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        says = list(model_input["says"])
        time.sleep(model_input["ms"].max() / 1000)
        if any(text.startswith("crash") for text in says):
            os._exit(7)
        if any(text.startswith("poison") for text in says):
            raise ValueError("something in there is poisoned")
        return [{"heard": text} for text in says]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--tracking-uri", required=True)
    mlflow.set_tracking_uri(arguments.parse_args().tracking_uri)
    schema = Schema([ColSpec("string", "says"), ColSpec("double", "ms")])
    mlflow.pyfunc.log_model(
        name="model", python_model=Picky(), registered_model_name="picky-model", signature=ModelSignature(inputs=schema),
        pip_requirements=[f"mlflow=={mlflow.__version__}"],
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Registers `reborn-model` in place of the one of that name, which is deleted before.

    python reborn.py --tracking-uri URI [--answers NUMBER] [--in-place]

Its only version is number 1, has the alias `champion`, and answers each row with that number. With `--in-place` it is
of the same source and run as the one before, whose files it overwrites below the working directory. Without a number
it is only deleted.
"""

import argparse
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

NAME = "reborn-model"


class Numbered(mlflow.pyfunc.PythonModel):
    def __init__(self, number):
        self.number = number

    def predict(self, context, model_input, params=None):
        return [self.number] * len(model_input)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--answers", type=int)
    parser.add_argument("--in-place", action="store_true")
    arguments = parser.parse_args()
    mlflow.set_tracking_uri(arguments.tracking_uri)
    client = mlflow.MlflowClient()
    before = None
    try:
        before = client.get_model_version(NAME, "1")
        client.delete_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    if arguments.answers is None:
        return
    model = {
        "python_model": Numbered(arguments.answers),
        "signature": ModelSignature(inputs=Schema([ColSpec("double", "seconds")])),
        "pip_requirements": [f"mlflow=={mlflow.__version__}"],
    }
    if arguments.in_place:
        overwrite(model_id(before), model)
        client.create_registered_model(NAME)
        version = client.create_model_version(NAME, before.source, before.run_id, model_id=model_id(before))
    else:
        mlflow.set_experiment("reborn")
        logged = mlflow.pyfunc.log_model(name="model", registered_model_name=NAME, **model)
        version = client.get_model_version(NAME, logged.registered_model_version)
    assert version.version in (1, "1"), version
    assert before is None or (version.source == before.source) == arguments.in_place, version
    client.set_registered_model_alias(NAME, "champion", "1")


def model_id(version):
    return version.source.rpartition("/")[2]


def overwrite(model_id, model):
    """Puts other files where those of the logged model are."""
    [artifacts] = [path / "artifacts" for path in pathlib.Path.cwd().rglob(model_id) if (path / "artifacts").is_dir()]
    with tempfile.TemporaryDirectory() as directory:
        saved = pathlib.Path(directory, "model")
        mlflow.pyfunc.save_model(str(saved), **model)
        shutil.rmtree(artifacts)
        shutil.copytree(saved, artifacts)


if __name__ == "__main__":
    main()

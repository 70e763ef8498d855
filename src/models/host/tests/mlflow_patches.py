"""Tries the patches of MLflow: each fits this version and has its effect, and none is made of an MLflow that is another.

    python mlflow_patches.py DIRECTORY

DIRECTORY holds the programs of hosts. Prints each error.
"""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import types

import mlflow.pyfunc
import numpy
import pandas
import yaml
from mlflow.models import Model
from mlflow.pyfunc import scoring_server

SOURCE = compile(pathlib.Path(sys.argv[1], "mlflow_patches.py").read_text(), "mlflow_patches", "exec")
DIRECTORY = tempfile.TemporaryDirectory()
SAVED = os.path.join(DIRECTORY.name, "saved")
EXAMPLE = pandas.DataFrame({"a": [1.5]})


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


def program():
    namespace = {"__name__": "signalbox_mlflow_patches"}
    exec(SOURCE, namespace)
    return types.SimpleNamespace(**namespace)


@contextlib.contextmanager
def replaced(holder, attribute, value):
    before = vars(holder)[attribute]
    setattr(holder, attribute, value)
    try:
        yield
    finally:
        setattr(holder, attribute, before)


class Counted:
    """Counts the calls of a function."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args, **more):
        self.calls += 1
        return self.function(*args, **more)


def count(load):
    """Loads the saved model, and returns how often MLflow did what the patches save."""
    described = Counted(Model.from_dict)
    parsed = Counted(yaml.SafeLoader)
    read = Counted(lambda *_: EXAMPLE)
    compared = Counted(lambda *_: None)
    with contextlib.ExitStack() as stack:
        for holder, attribute, value in (
            (Model, "from_dict", described), (yaml, "SafeLoader", parsed), (mlflow.models.utils, "_read_example", read),
            (mlflow.pyfunc, "warn_dependency_requirement_mismatches", compared),
        ):  # fmt: skip
            stack.enter_context(replaced(holder, attribute, value))
        load(SAVED)
    return {"described": described.calls, "parsed in Python": parsed.calls, "examples": read.calls, "compared": compared.calls}


class Writes(io.StringIO):
    """Counts the pieces that are written."""

    pieces = 0

    def write(self, text):
        self.pieces += 1
        return super().write(text)


def written(answer):
    """Returns what is written of an answer, and in how many pieces."""
    file = Writes()
    scoring_server.predictions_to_json(answer, file)
    return file.getvalue(), file.pieces


def errors_of_loading(patches):
    yield from patches.left_out()
    load = scoring_server.load_model_with_mlflow_config
    bare = count(load)
    if not (bare["described"] == bare["parsed in Python"] == 3 and bare["examples"] == bare["compared"] == 1):
        yield f"without patches MLflow does not do what they save: {bare}"
    before = {(patch.attribute, id(vars(patch.holder)[patch.attribute])) for patch in patches.LOADING}

    def load_patched(directory):
        with patches.applied(patches.LOADING):
            return load(directory)

    patched = count(load_patched)
    if patched != {"described": 1, "parsed in Python": 0, "examples": 0, "compared": 0}:
        yield f"with patches: {patched}"
    if {(patch.attribute, id(vars(patch.holder)[patch.attribute])) for patch in patches.LOADING} != before:
        yield "patches of a load are still there after it"
    # A description that was read twice is two descriptions.
    with patches.applied(patches.LOADING):
        first, second = Model.load(SAVED), Model.load(os.path.join(SAVED, "MLmodel"))
        if first is second or first.to_dict() != second.to_dict() or first.to_dict() != Model.load(SAVED).to_dict():
            yield "a cached description is another one"
        # The example is loaded for a model whose type hints come of it.
        first._is_type_hint_from_example = lambda: True
        with replaced(mlflow.models.utils, "_read_example", lambda *_: EXAMPLE):
            if first.load_input_example(SAVED) is not EXAMPLE or second.load_input_example(SAVED) is not None:
                yield "the wrong examples are loaded"


def errors_of_serving(patches):
    answer = {"a": numpy.array([1.5, 2.0]), "b": [None, "ä"]}
    text, pieces = written(answer)
    if pieces < 2:
        yield "without patches an answer is written in one piece"
    with patches.applied(patches.SERVING):
        if written(answer) != (text, 1):
            yield f"an answer is written as {written(answer)} and not as {text}"
        for writer in (scoring_server.predictions_to_json, scoring_server.unwrapped_predictions_to_json):
            try:
                writer(object(), io.StringIO())
                yield f"{writer} writes anything"
            except patches.Unwritable:
                pass
    if scoring_server.json is not json:
        yield "the scoring server keeps another json"


def errors_of_guards(patches):
    """Changes what each patch replaces: the patch must be left out, and be the only one."""
    for patch in (*patches.LOADING, *patches.SERVING):
        for changed in (None, lambda *, of_another_version: None):
            with replaced(patch.holder, patch.attribute, changed):
                other = program()
                if patch.loses in [left.loses for left in other.FITTING if left.attribute == patch.attribute]:
                    yield f"{patch.attribute} is patched, though it is {changed}"
                if not any(patch.loses in line for line in other.left_out()):
                    yield f"nothing tells that the patch of {patch.attribute} is left out"
                with other.applied((*other.LOADING, *other.SERVING)):
                    if vars(patch.holder)[patch.attribute] is not changed:
                        yield f"{patch.attribute} is replaced without a patch"


def main():
    mlflow.pyfunc.save_model(SAVED, python_model=Echo(), input_example=EXAMPLE, pip_requirements=["mlflow"])
    patches = program()
    for errors in (errors_of_loading, errors_of_serving, errors_of_guards):
        for error in errors(patches):
            print(error)


if __name__ == "__main__":
    main()

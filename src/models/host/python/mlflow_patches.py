"""Holds every patch of MLflow that hosts make, each with a guard.

A guard tells whether this version of MLflow is one that the patch fits: whether the replaced name is what the patch
takes it for, and is used where the patch has its effect. A patch that does not fit is left out, and the log says so;
hosts work without it, as `loses` says. The template runs this program, and its children inherit what it defines.
"""

import contextlib
import functools
import inspect
import json
import os
import pickle
import types
import typing

import mlflow.pyfunc
import yaml
from mlflow.models import Model
from mlflow.pyfunc import scoring_server


class Patch(typing.NamedTuple):
    """Describes the replacement of one attribute of MLflow, or of a library for MLflow's sake."""

    # What is worse without the patch.
    loses: str
    # The module or class whose attribute is replaced.
    holder: object
    attribute: str
    # Makes the replacement of the original.
    replacement: typing.Callable
    # Tells whether the patch fits this version of MLflow.
    guard: typing.Callable

    def fits(self):
        try:
            return bool(self.guard())
        except Exception:
            # The guard finds nothing of what it looks at.
            return False

    def apply(self):
        setattr(self.holder, self.attribute, self.replacement(getattr(self.holder, self.attribute)))


def uses(function, *names):
    """Tells whether a function's code uses these names, which are no variables of its own."""
    return set(names) <= set(inspect.unwrap(function).__code__.co_names)


def parameters(function):
    return list(inspect.signature(function).parameters)


class Unwritable(Exception):
    """Tells that the model's answer cannot be written as JSON."""


def mark_unwritable(write):
    """Wraps a writer of answers, so that an answer that it cannot write is told from a payload that MLflow refuses."""

    @functools.wraps(write)
    def write_or_mark(*args, **more):
        try:
            return write(*args, **more)
        except Exception as error:
            raise Unwritable from error

    return write_or_mark


def dump_at_once(original):
    """Replaces the scoring server's `json`. `json.dump` writes an answer piece by piece, in Python; `json.dumps` writes
    it in one piece, in C."""

    def dump(value, file, **how):
        file.write(original.dumps(value, **how))

    return types.SimpleNamespace(**{**vars(original), "dump": dump})


def cache_descriptions(load):
    """Wraps `Model.load`, so that a second read of a description returns a copy of the first. MLflow reads `MLmodel`
    three times, which takes longer than the rest of a load."""
    known = {}

    def load_once(path):
        directory = str(path).rstrip(os.path.sep).removesuffix(os.path.sep + "MLmodel")
        if directory not in known:
            known[directory] = pickle.dumps(load(path))
        return pickle.loads(known[directory])

    return load_once


def skip_input_example(load):
    """Wraps `Model.load_input_example`, which then loads the example only for the models that ever look at it again,
    since parsing it takes a third of a small model's load."""

    def load_input_example(model, path=None):
        return load(model, path) if model._is_type_hint_from_example() else None

    return load_input_example


def suppress_warnings(load_model):
    """Wraps `load_model`. The suppressed warnings are about versions other than the required ones; MLflow spends a
    quarter of a load on finding them, and `unmet` in host.py finds them faster."""
    return functools.partial(load_model, suppress_warnings=True)


def is_writer(name):
    return parameters(getattr(scoring_server, name))[:2] == ["raw_predictions", "output"] and uses(
        scoring_server.invocations, name
    )


def written_by(name):
    """Makes the patch of a writer of answers."""
    return Patch(
        "an answer that cannot be written as JSON is taken for a payload that MLflow refuses",
        scoring_server, name, mark_unwritable, functools.partial(is_writer, name),
    )  # fmt: skip


# Patches for as long as a model is loaded.
LOADING = (
    Patch(
        "descriptions of models are parsed in Python, which is slow",
        yaml, "SafeLoader", lambda original: getattr(yaml, "CSafeLoader", original),
        lambda: isinstance(yaml.SafeLoader, type) and uses(yaml.safe_load, "SafeLoader") and uses(Model.load, "safe_load"),
    ),
    Patch(
        "the description of a model is read three times when it is loaded",
        Model, "load", cache_descriptions,
        lambda: isinstance(vars(Model)["load"], classmethod) and parameters(Model.load) == ["path"] and uses(mlflow.pyfunc.load_model, "Model"),
    ),
    Patch(
        "the input example of a model is parsed when it is loaded",
        Model, "load_input_example", skip_input_example,
        lambda: parameters(Model.load_input_example) == ["self", "path"] and parameters(Model._is_type_hint_from_example) == ["self"]
        and uses(mlflow.pyfunc.load_model, "load_input_example") and uses(mlflow.pyfunc.PyFuncModel._predict, "_is_type_hint_from_example"),
    ),
    Patch(
        "MLflow compares a model's requirements by itself when it is loaded",
        scoring_server, "load_model", suppress_warnings,
        lambda: "suppress_warnings" in parameters(scoring_server.load_model) and uses(scoring_server.load_model_with_mlflow_config, "load_model"),
    ),
)  # fmt: skip
# Patches for as long as a host runs.
SERVING = (
    Patch(
        "answers are written piece by piece, which is slow",
        scoring_server, "json", dump_at_once,
        lambda: scoring_server.json is json and uses(scoring_server.predictions_to_json, "json", "dump"),
    ),
    written_by("predictions_to_json"),
    written_by("unwrapped_predictions_to_json"),
)  # fmt: skip
FITTING = [patch for patch in (*LOADING, *SERVING) if patch.fits()]


def left_out():
    """Describes each patch that does not fit."""
    return [
        f"MLflow {mlflow.__version__} is not as Signalbox expects, so that {patch.loses}"
        for patch in (*LOADING, *SERVING)
        if patch not in FITTING
    ]


def apply(patches):
    for patch in patches:
        if patch in FITTING:
            patch.apply()


@contextlib.contextmanager
def applied(patches):
    """Applies patches, and takes them back in the end."""
    before = [
        (patch.holder, patch.attribute, vars(patch.holder)[patch.attribute]) for patch in patches if patch in FITTING
    ]
    apply(patches)
    try:
        yield
    finally:
        for holder, attribute, value in before:
            setattr(holder, attribute, value)

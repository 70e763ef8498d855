"""Tells whose doing it is that a call came to no prediction: the caller's, whose payload MLflow could not read or refused
before the model saw it, or the model's.

Where an exception comes from says that, not what it is: a model may raise whatever MLflow and pandas raise. So the frames
of its traceback are looked at, from MLflow's `predict` to where it was raised.
"""

import os
import sys
import traceback

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PyFuncModel

# Parts of MLflow that make a model's input of a payload and check it. Every other part is a kind of model.
CHECKS = {"exceptions", "models", "pyfunc", "tracing", "types", "utils"}
# What these do that with, beside Python's own library.
READERS = {"annotated_types", "dateutil", "numpy", "pandas", "pyarrow", "pydantic", "pydantic_core", "pytz", "typing_extensions"}
# Functions of MLflow's that call the model: it is its own fault if it cannot be called so.
CALLS = {"predict", "_predict", "wrapper"}
# Those that look at its answer.
ANSWERED = {"_response_to_dict", "_streaming_response_to_dict"}
LIBRARY = os.path.dirname(os.__file__) + os.sep
CALLER, ANSWER = "caller", "answer"


def blame(error):
    """The caller, the model's answer, or nobody: then the model has raised, or refuses the payload itself."""
    error = origin(error)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    entered = next((index for index, frame in enumerate(frames) if frame.f_code is PyFuncModel.predict.__code__), None)
    if entered is None:
        return CALLER
    last = None
    for frame in frames[entered + 1 :]:
        package, _, rest = (frame.f_globals.get("__name__") or "").partition(".")
        if package == "mlflow" and rest.partition(".")[0] in CHECKS:
            if frame.f_code.co_name in ANSWERED:
                return ANSWER
            last = frame
        elif not reads(package, frame):
            return None
    if last is None or (last.f_code.co_name in CALLS and not isinstance(error, MlflowException)):
        return None
    return CALLER


def origin(error):
    """What was raised before MLflow raised an exception of its own about it."""
    while "stack_trace" in getattr(error, "json_kwargs", ()) and error.__context__ is not None:
        error = error.__context__
    return error


def reads(package, frame):
    """Whether this is of a library that MLflow reads payloads with. A model's own file may be called as one of Python's."""
    if package in READERS:
        return True
    path = frame.f_code.co_filename
    is_pythons = path.startswith("<frozen ") or path.startswith(LIBRARY) and "-packages" not in path[len(LIBRARY) :]
    return is_pythons and package in sys.stdlib_module_names


def refusal(error):
    """What the caller is told, in MLflow's words as far as there are any."""
    has_words = isinstance(error, MlflowException)
    if has_words and "stack_trace" not in error.json_kwargs and error.get_http_status_code() == 400:
        return error
    first = origin(error)
    if has_words and (first is error or not error.message.startswith("Encountered an unexpected error")):
        return MlflowException(error.message, error_code=BAD_REQUEST)
    reason = "".join(traceback.format_exception_only(first)).strip()
    return MlflowException(f"MLflow cannot make the model's input of this payload: {reason}", error_code=BAD_REQUEST)

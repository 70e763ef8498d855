"""Decides whose fault it is that a call came to no prediction: the caller's, whose payload MLflow could not read or
refused before the model saw it, or the model's.

The place where an exception was raised decides, and not its type: a model may raise anything that MLflow and pandas
raise. So this program follows the frames of the traceback from MLflow's `predict` to the place of the raise.
"""

import os
import sys
import traceback

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PyFuncModel

# Parts of MLflow that make a model's input of a payload and check it. Every other part is a kind of model.
CHECKS = {"exceptions", "models", "pyfunc", "tracing", "types", "utils"}
# Libraries with which these parts do that, beside Python's own library.
READERS = {
    "annotated_types",
    "dateutil",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pydantic_core",
    "pytz",
    "typing_extensions",
}
# Functions of MLflow that call the model: a model that cannot be called so is itself at fault.
CALLS = {"predict", "_predict", "wrapper"}
# Functions of MLflow that look at the model's answer.
ANSWERED = {"_response_to_dict", "_streaming_response_to_dict"}
LIBRARY = os.path.dirname(os.__file__) + os.sep
CALLER, ANSWER = "caller", "answer"


def blame(error):
    """Returns the side at fault: the caller or the answer; `None` when the model has raised, or refuses the payload
    itself."""
    error = origin(error)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # Before the call of the model, only the payload can be at fault.
    entered = next((index for index, frame in enumerate(frames) if frame.f_code is PyFuncModel.predict.__code__), None)
    if entered is None:
        return CALLER
    # Frames of MLflow's checks, and of libraries that read for them, do not get to the model; any other frame is the model's.
    last = None
    for frame in frames[entered + 1 :]:
        package, _, rest = (frame.f_globals.get("__name__") or "").partition(".")
        if package == "mlflow" and rest.partition(".")[0] in CHECKS:
            if frame.f_code.co_name in ANSWERED:
                return ANSWER
            last = frame
        elif not reads(package, frame):
            return None
    # The innermost check raised: at a function that calls the model, only MLflow's own exceptions blame the caller.
    if last is None or (last.f_code.co_name in CALLS and not isinstance(error, MlflowException)):
        return None
    return CALLER


def origin(error):
    """Returns the exception that came before MLflow raised one of its own about it."""
    while "stack_trace" in getattr(error, "json_kwargs", ()) and error.__context__ is not None:
        error = error.__context__
    return error


def reads(package, frame):
    """Tells whether a frame is of a library that MLflow reads payloads with. The path decides about Python's own
    library, since a model's file may have the name of one of its modules."""
    if package in READERS:
        return True
    path = frame.f_code.co_filename
    is_pythons = path.startswith("<frozen ") or path.startswith(LIBRARY) and "-packages" not in path[len(LIBRARY) :]
    return is_pythons and package in sys.stdlib_module_names


def refusal(error):
    """Makes the exception that the caller is told, in MLflow's words as far as there are any."""
    has_words = isinstance(error, MlflowException)
    if has_words and "stack_trace" not in error.json_kwargs and error.get_http_status_code() == 400:
        return error
    first = origin(error)
    if has_words and (first is error or not error.message.startswith("Encountered an unexpected error")):
        return MlflowException(error.message, error_code=BAD_REQUEST)
    reason = "".join(traceback.format_exception_only(first)).strip()
    return MlflowException(f"MLflow cannot make the model's input of this payload: {reason}", error_code=BAD_REQUEST)

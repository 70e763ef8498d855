"""Holds one version of a model, and answers calls of it: one after the other on its main thread, or as many at once as
it has threads.

This program runs in a child of the template: `TEMPLATE` is the template, and `main` is called with the child's channel.
MLflow's scoring server itself parses, checks and writes, in its order and with its errors, so that a model answers here
as it does under `mlflow models serve`. The host adds only a finer decision on whose fault an error is: see blame.py.
"""

import contextvars
import functools
import itertools
import os
import re
import resource
import socket
import sys
import threading
import time
import traceback
import typing

from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
# Bytes of a thread's stack where the system sets no limit to it.
DEFAULT_STACK_BYTES = 8 << 20
ENDED_BADLY = 70
PATCHES = TEMPLATE.mlflow_patches  # noqa: F821
Unwritable = PATCHES["Unwritable"]


def main(channel):
    (request, _) = channel.receive() or os._exit(0)
    directory, largest = request["load"]["directory"], request["load"]["max_answer_bytes"]
    skip_warm_up = request["load"]["skip_warm_up"]
    threads = request["load"].get("threads", 1)
    PATCHES["apply"](PATCHES["SERVING"])
    model, report = load(directory, skip_warm_up)
    if model is None:
        channel.answer(report)
        return
    # The scoring server sets this variable after loading, too.
    os.environ[_MLFLOW_IS_IN_SERVING_ENVIRONMENT.name] = "true"
    schema = model.metadata.get_input_schema()
    begun = time.monotonic()
    report["loaded"]["example"] = None if skip_warm_up else try_example(directory, model, schema)
    report["loaded"]["warm"] = time.monotonic() - begun
    report["loaded"]["imported"] = missing_modules()
    report["loaded"]["signature"] = float_columns(schema)
    report["loaded"].update({} if skip_warm_up else TEMPLATE.execute("independence")["assess"](model))  # noqa: F821
    channel.answer(report)
    if threads == 1:
        serve(channel, model, schema, largest)
    else:
        start_threads(receive_channels(channel, threads), model, schema, largest)
        channel.answer({})
        answer_pings(channel)


def serve(channel, model, schema, largest):
    """Answers calls, each in a context of its own, as the scoring server does."""
    while (request := channel.receive()) is not None:
        head, body = request
        head, answer = contextvars.copy_context().run(respond, head["invoke"], body, model, schema)
        head["too_large"] = len(answer) > largest
        channel.answer(head, b"" if head["too_large"] else answer)


def receive_channels(channel, count):
    """Receives the sockets of the threads from Signalbox, and returns a channel for each."""
    _, descriptors, _, _ = socket.recv_fds(channel.connection, 1, count)
    return [type(channel)(socket.socket(fileno=descriptor)) for descriptor in descriptors]


def start_threads(channels, *model):
    """Starts a thread for each channel, which serves it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        # The stacks of the threads do not count as memory of the model.
        stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
        limit = soft + len(channels) * (DEFAULT_STACK_BYTES if stack == resource.RLIM_INFINITY else stack)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))

    def run(channel):
        try:
            serve(channel, *model)
        except BaseException:
            traceback.print_exc()
            os._exit(ENDED_BADLY)

    for number, channel in enumerate(channels):
        threading.Thread(target=run, args=(channel,), name=f"signalbox-{number}", daemon=True).start()


def answer_pings(channel):
    """Answers liveness probes: this process still runs Python, whatever its threads are busy with."""
    while channel.receive() is not None:
        channel.answer({})


def load(directory, skip_warm_up):
    """Returns the model, and a report on how loading it went."""
    begun = time.monotonic()
    try:
        with PATCHES["applied"](PATCHES["LOADING"]):
            model = scoring_server.load_model_with_mlflow_config(directory)
    except BaseException as error:
        exception = "".join(traceback.format_exception_only(error)).strip()
        return None, {
            "failed": {"exception": exception, "traceback": traceback.format_exc(), "unmet": unmet(directory)}
        }
    return model, {"loaded": {"load": time.monotonic() - begun, "unmet": [] if skip_warm_up else unmet(directory)}}


def float_columns(schema):
    """Returns the columns that the model's signature makes floats of, and whether it makes floats of all columns."""
    if schema is None:
        return None
    are_floats = [
        getattr(kind, "name", "") in ("float", "double", "float32", "float64") for kind in schema.input_types()
    ]
    if not schema.has_input_names():
        return [], all(are_floats)
    return [name for name, is_float in zip(schema.input_names(), are_floats) if is_float], False


def try_example(directory, model, schema):
    """Returns the status of the answer to the model's own example, and the body unless the status is 200."""
    try:
        with open(os.path.join(directory, "serving_input_example.json"), "rb") as file:
            example = file.read()
    except OSError:
        return None
    outcome = invoke(example, JSON, model, schema)
    return outcome.status, "" if outcome.status == 200 else outcome.answer.decode(errors="replace")


def respond(call, data, model, schema):
    """Returns the head and the body of the answer to a call.

    Of several requests, those that the model refuses are left out of the answer, if they are found before patience
    ends; if they are not found, or none is left, the whole call fails.
    """
    content_type, rows = call["content_type"], call.get("rows", ())
    until, outcome, refused = time.monotonic() + call.get("patience", 0), None, []
    # Where a look at the cells was of use lately, the search comes first.
    if len(rows) < 2 or not looks_first():
        outcome = invoke(data, content_type, model, schema)
    if len(rows) > 1 and (outcome is None or is_worth_a_search(outcome.error)):
        search = bad_rows()["BadRowSearch"](model, rows, outcome is not None, ran_out_of_memory, until)
        found = invoke(data, content_type, search, schema)
        # A search that came to nothing leaves the first outcome, unless it took all the memory.
        if outcome is None or found.error is None or ran_out_of_memory(found.error):
            outcome = found
        # Only a search that led to an answer has refused requests to report.
        refused = [] if found.error else search.refused
    exhausted = ran_out_of_memory(outcome.error)
    head = {"status": outcome.status, "content_type": outcome.media_type, "exhausted": exhausted, "refused": refused}
    return head, outcome.answer


def is_worth_a_search(error):
    """Tells whether some of the requests may be to blame for an error. An answer that cannot be written fails after the
    model's `predict`, so a search among rows would find nothing."""
    return error is not None and not ran_out_of_memory(error) and not isinstance(error, Unwritable)


@functools.cache
def bad_rows():
    return TEMPLATE.execute("bad_rows")  # noqa: F821


@functools.cache
def blame():
    return TEMPLATE.execute("blame")  # noqa: F821


def looks_first():
    """Tells whether the cells of several requests are looked at before the model is called."""
    return bad_rows.cache_info().currsize > 0 and bad_rows()["Look"].pays


class Outcome(typing.NamedTuple):
    status: int
    media_type: str
    answer: bytes
    # The exception that was raised, if any.
    error: BaseException | None = None


def invoke(data, content_type, model, schema):
    """Returns what the scoring server answers."""
    try:
        answer = scoring_server.invocations(data, content_type, model, schema)
        media_type = TEXT if answer.mimetype == "text/plain" else answer.mimetype
        return Outcome(answer.status, media_type, answer.response.encode())
    except Exception as error:
        return failure_outcome(error)
    except BaseException as raised:
        # The model asks for the end of its process, which under the scoring server would end that as well.
        message = f"the model raised {type(raised).__name__}"
        error = MlflowException(message, stack_trace=traceback.format_exc())
        return Outcome(500, JSON, error.serialize_as_json().encode(), raised)


def failure_outcome(error):
    """Makes the answer to an exception: what the scoring server says, unless that blames the wrong side."""
    shown, whose = error, None
    if isinstance(error, Unwritable):
        shown = unwritable_answer(describe(error.__cause__), error.__cause__)
    elif not ran_out_of_memory(error):
        whose = blame()["blame"](error)
    if whose == "caller":
        shown = blame()["refusal"](error)
    elif whose == "answer":
        shown = unwritable_answer("it is not what its kind of model answers", error)
    elif not isinstance(shown, MlflowException):
        shown = MlflowException("the model raised", stack_trace=traceback_text(error))
    return Outcome(shown.get_http_status_code(), JSON, shown.serialize_as_json().encode(), error)


def unwritable_answer(why, error):
    """Makes the exception that blames the answer without repeating its content; the place of the error is for the log."""
    message = f"the model's answer cannot be written as JSON: {why}"
    return MlflowException(message, stack_trace=traceback_text(error), unwritable=True)


def describe(error):
    message = str(error)
    if found := re.match(r"Object of type (\S+) is not JSON serializable", message):
        return f"it holds a value of type {found[1]}"
    if found := re.match(r"keys must be .*, not (\S+)", message):
        return f"it has a key of type {found[1]}"
    if message.startswith("Circular reference"):
        return "it holds itself"
    return f"{type(error).__name__} was raised"


def traceback_text(error):
    return "".join(traceback.format_exception(error))


def ran_out_of_memory(error):
    """Tells whether an error came of a `MemoryError`. The code that took the memory may still hold it, so that all
    later calls would fail."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def missing_modules():
    """Lists the modules that the template had not imported: they are the last in `sys.modules`."""
    count = max(0, len(sys.modules) - TEMPLATE.modules)  # noqa: F821
    return list(itertools.islice(reversed(sys.modules), count))[::-1]


def unmet(directory):
    """Lists the requirements of the model that this interpreter does not meet."""
    compare = TEMPLATE.execute("requirements")["unmet"]  # noqa: F821
    return compare(functools.partial(read, directory), TEMPLATE.installed)  # noqa: F821


def read(directory, name):
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

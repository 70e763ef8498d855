"""Holds one version of a model, and answers calls of it: one after the other on its main thread, or as many at once as it
has threads for.

Runs in a child of the template: `TEMPLATE` is that, and `main` is called with the child's channel. Parsing, checking
and wrap_writer are MLflow's own, in the order and with the errors of its scoring server, so that a model answers here as it
does under `mlflow models serve`. Only whose fault an error is, is told with more care: see blame.py.
"""

import contextvars
import functools
import itertools
import json
import os
import pickle
import re
import resource
import socket
import sys
import threading
import time
import traceback
import types
import typing

import mlflow.pyfunc
import yaml
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import scoring_server

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
# So many places in code, a few dozen for each way to fail.
TRACEBACK_CACHE_ENTRIES = 1024
# What parses a payload in the scoring server, for JSON and for CSV; and what writes an answer, with and without a key.
PARSERS = ("_parse_json_data", "parse_csv_input")
WRITERS = ("predictions_to_json", "unwrapped_predictions_to_json")
# What a thread's stack takes where the system sets no limit to it.
DEFAULT_STACK_BYTES = 8 << 20
ENDED_BADLY = 70
# For so many seconds those who are answered may wait for what the refused are told, or for as long as their own call took.
INDIVIDUAL_ANSWER_SECONDS = 0.01


def main(channel):
    (request, _) = channel.receive() or os._exit(0)
    directory, largest = request["load"]["directory"], request["load"]["max_answer_bytes"]
    skip_warm_up = request["load"]["skip_warm_up"]
    threads = request["load"].get("threads", 1)
    cache_traceback_parts()
    # It writes an answer piece by piece, in Python; the same in one piece is traceback_text in C.
    scoring_server.json = types.SimpleNamespace(**{**vars(json), "dump": dump})
    replace(PARSERS, wrap_parser)
    replace(WRITERS, wrap_writer)
    model, report = load(directory, skip_warm_up)
    if model is None:
        channel.answer(report)
        return
    # As the scoring server does, after loading.
    os.environ[_MLFLOW_IS_IN_SERVING_ENVIRONMENT.name] = "true"
    schema = model.metadata.get_input_schema()
    begun = time.monotonic()
    report["loaded"]["example"] = None if skip_warm_up else try_example(directory, model, schema)
    report["loaded"]["warm"] = time.monotonic() - begun
    report["loaded"]["imported"] = missing_modules()
    report["loaded"]["signature"] = float_columns(schema)
    report["loaded"].update({} if skip_warm_up else TEMPLATE.execute("independence")["found"](model))  # noqa: F821
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
        head, answer, individual = contextvars.copy_context().run(respond, head["invoke"], body, model, schema)
        head["too_large"] = len(answer) > largest
        if head["too_large"] or len(answer) + sum(len(outcome.answer) for outcome in individual) > largest:
            individual = []
        head["individual_answers"] = [(outcome.status, outcome.media_type, len(outcome.answer)) for outcome in individual]
        channel.answer(head, b"" if head["too_large"] else b"".join([answer, *(outcome.answer for outcome in individual)]))


def receive_channels(channel, count):
    """As many channels as there are threads to be: Signalbox sends their sockets."""
    _, descriptors, _, _ = socket.recv_fds(channel.connection, 1, count)
    return [type(channel)(socket.socket(fileno=descriptor)) for descriptor in descriptors]


def start_threads(channels, *model):
    """Has each channel served by a thread of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        # Their stacks are not what the model takes.
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
    """Answers whoever wants to know whether this process still runs Python, whatever its threads are at."""
    while channel.receive() is not None:
        channel.answer({})


def replace(names, by):
    """Puts something of ours around functions of the scoring server, those that this version of it has."""
    for name in names:
        if hasattr(scoring_server, name):
            setattr(scoring_server, name, by(name, getattr(scoring_server, name)))


class Parsed(threading.local):
    """What the payload of this thread's call was parsed to already; by the name of the parser."""

    by_parser = None


PARSED = Parsed()


def wrap_parser(name, parse):
    def parse_unless_known(*args, **more):
        return parse(*args, **more) if PARSED.by_parser is None else PARSED.by_parser[name]

    return parse_unless_known


class Unwritable(Exception):
    """The model's answer cannot be written as JSON."""


def wrap_writer(_, write):
    def write_or_mark(*args, **more):
        try:
            return write(*args, **more)
        except Exception as error:
            raise Unwritable from error

    return write_or_mark


def cache_traceback_parts():
    """A third of an answer to a refused request is the time to write its traceback, which is the same each time. What is
    remembered depends on nothing but what it is given."""
    for name in ("_extract_caret_anchors_from_line_segment", "_get_code_position"):
        if hasattr(traceback, name):
            setattr(traceback, name, functools.lru_cache(TRACEBACK_CACHE_ENTRIES)(getattr(traceback, name)))


def dump(value, file, **how):
    file.write(json.dumps(value, **how))


def load(directory, skip_warm_up):
    """The model, and what there is to say about loading it."""
    begun = time.monotonic()
    python_loader, read_description = yaml.SafeLoader, vars(Model)["load"]
    # MLflow reads `MLmodel` three times: that takes longer than everything else, even in C.
    yaml.SafeLoader, Model.load = getattr(yaml, "CSafeLoader", python_loader), cache_descriptions(Model.load)
    # Its warnings are about other versions than required. To find those takes it a quarter of the load; see `unmet`.
    scoring_server.load_model = functools.partial(mlflow.pyfunc.load_model, suppress_warnings=True)
    Model.load_input_example = load_input_example
    try:
        model = scoring_server.load_model_with_mlflow_config(directory)
    except BaseException as error:
        exception = "".join(traceback.format_exception_only(error)).strip()
        return None, {
            "failed": {"exception": exception, "traceback": traceback.format_exc(), "unmet": unmet(directory)}
        }
    finally:
        yaml.SafeLoader, Model.load = python_loader, read_description
    return model, {"loaded": {"load": time.monotonic() - begun, "unmet": [] if skip_warm_up else unmet(directory)}}


def cache_descriptions(load):
    """As `Model.load`, but what is read a second time is a copy of what was read first."""
    known = {}

    def load_once(path):
        directory = str(path).rstrip(os.path.sep).removesuffix(os.path.sep + "MLmodel")
        if directory not in known:
            known[directory] = pickle.dumps(load(path))
        return pickle.loads(known[directory])

    return load_once


def load_input_example(model, path=None, original=Model.load_input_example):
    """As MLflow's, for the only models that ever look at it again. Parsing it takes a third of a small model's load."""
    return original(model, path) if model._is_type_hint_from_example() else None


def float_columns(schema):
    """The columns that the model's signature makes floats of, and whether it makes them of all it is given."""
    if schema is None:
        return None
    are_floats = [getattr(kind, "name", "") in ("float", "double", "float32", "float64") for kind in schema.input_types()]
    if not schema.has_input_names():
        return [], all(are_floats)
    return [name for name, is_float in zip(schema.input_names(), are_floats) if is_float], False


def try_example(directory, model, schema):
    """The status of the answer to the model's own example, and, if that is no success, its body."""
    try:
        with open(os.path.join(directory, "serving_input_example.json"), "rb") as file:
            example = file.read()
    except OSError:
        return None
    outcome = invoke(example, JSON, model, schema)
    return outcome.status, "" if outcome.status == 200 else outcome.answer.decode(errors="replace")


def respond(call, data, model, schema):
    """The head and the body of the answer. Of several requests, those that fail are left out of it, if they can be found
    out before patience ends; when not, or when none is left, all of them fail. And what the first of those left out are
    told, in their order."""
    content_type, rows = call["content_type"], call.get("rows", ())
    until = time.monotonic() + call.get("patience", 0)
    called = bad_row_search(model, rows, until) if len(rows) > 1 and knows_refused_traits() else model
    outcome = invoke(data, content_type, called, schema)
    if called is not model and called.gave_up:
        called = model
        outcome = invoke(data, content_type, model, schema)
    exhausted = ran_out_of_memory(outcome.error)
    # That an answer cannot be traceback_text, the model does not find out.
    if outcome.error is not None and len(rows) > 1 and not exhausted and not isinstance(outcome.error, Unwritable):
        called = bad_row_search(model, rows, until, outcome.error)
        second = invoke(data, content_type, called, schema)
        exhausted = ran_out_of_memory(second.error)
        outcome = outcome if second.error else second
    refused = [] if called is model or outcome.error else sorted(called.refused)
    head = {"status": outcome.status, "content_type": outcome.media_type, "exhausted": exhausted, "refused": refused}
    return head, outcome.answer, answer_individually(called, refused, content_type, schema, until)


def answer_individually(called, refused, content_type, schema, until):
    """What they are answered alone, as far as there is time. Their rows were parsed with those of the others, and need not
    be once more, which takes a third of a call."""
    if not refused or not all(hasattr(scoring_server, parser) for parser in (*PARSERS, "ParsedJsonInput")):
        return []
    until, individual = min(until, time.monotonic() + max(INDIVIDUAL_ANSWER_SECONDS, called.longest)), []
    try:
        for request in refused:
            if time.monotonic() >= until:
                break
            data, params = called.alone(request)
            parsed = scoring_server.ParsedJsonInput(data, params, False)
            PARSED.by_parser = dict(zip(PARSERS, (parsed, data)))
            outcome = invoke(b"", content_type, called.model, schema)
            if ran_out_of_memory(outcome.error):
                break
            individual.append(outcome)
    finally:
        PARSED.by_parser = None
    return individual


@functools.cache
def bad_rows():
    return TEMPLATE.execute("bad_rows")  # noqa: F821


@functools.cache
def blame():
    return TEMPLATE.execute("blame")  # noqa: F821


def knows_refused_traits():
    """Whether some requests are known to be refused."""
    return bad_rows.cache_info().currsize > 0 and bad_rows()["RESEMBLANCE"].telling


def bad_row_search(model, rows, until, error=None):
    return bad_rows()["BadRowSearch"](model, rows, error, ran_out_of_memory, until)


class Outcome(typing.NamedTuple):
    status: int
    media_type: str
    answer: bytes
    # What was raised.
    error: BaseException | None = None


def invoke(data, content_type, model, schema):
    """What the scoring server answers."""
    try:
        answer = scoring_server.invocations(data, content_type, model, schema)
        media_type = TEXT if answer.mimetype == "text/plain" else answer.mimetype
        return Outcome(answer.status, media_type, answer.response.encode())
    except Exception as error:
        return failure_outcome(error)
    except BaseException as raised:
        # The model wants to end its process, which would end the scoring server as well.
        message = f"the model raised {type(raised).__name__}"
        error = MlflowException(message, stack_trace=traceback.format_exc())
        return Outcome(500, JSON, error.serialize_as_json().encode(), raised)


def failure_outcome(error):
    """What the caller is told of an exception: what the scoring server says, where that does not blame the wrong one."""
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
    """That the answer is at fault, without what it holds; where that was found out is for the log."""
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
    """Whether this came of a `MemoryError`. Whatever took the memory may still have it, so that all calls would fail."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def missing_modules():
    """What the template had not imported: the last of the modules."""
    count = max(0, len(sys.modules) - TEMPLATE.modules)  # noqa: F821
    return list(itertools.islice(reversed(sys.modules), count))[::-1]


def unmet(directory):
    """Where this interpreter is not what the model requires."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    differences = []
    wanted = re.search(r"^python: *['\"]?(\d+\.\d+)", read(directory, "python_env.yaml"), re.MULTILINE)
    runs = "{}.{}".format(*sys.version_info)
    if wanted and wanted[1] != runs:
        differences.append(f"Python {wanted[1]} is required, {runs} is running")
    for line in read(directory, "requirements.txt").splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", line).strip()
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            # An option, or a file: pip alone knows.
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = TEMPLATE.installed.get(canonicalize_name(requirement.name))  # noqa: F821
        shown = f"{requirement.name}{requirement.specifier}"
        if installed is None:
            differences.append(f"{shown} is required, it is not installed")
        elif not requirement.specifier.contains(installed, prereleases=True):
            differences.append(f"{shown} is required, {installed} is installed")
    return differences


def read(directory, name):
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

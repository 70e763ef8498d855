"""Holds one version of a model, and answers calls of it, one after the other on one thread.

Runs in a child of the template: `TEMPLATE` is that, and `main` is called with the child's channel. Parsing, checking
and writing are MLflow's own, in the order and with the errors of its scoring server, so that a model answers here as it
does under `mlflow models serve`.
"""

import functools
import itertools
import json
import os
import pickle
import re
import sys
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
TRACED = 1024
# What parses a payload in the scoring server, for JSON and for CSV.
PARSERS = ("_parse_json_data", "parse_csv_input")
# For so many seconds those who are answered may wait for what the refused are told, or for as long as their own call took.
TELLING = 0.01


def main(channel):
    (question, _) = channel.receive() or os._exit(0)
    directory, largest = question["load"]["directory"], question["load"]["largest_answer"]
    is_proven = question["load"]["is_proven"]
    write_tracebacks_faster()
    # It writes an answer piece by piece, in Python; the same in one piece is written in C.
    scoring_server.json = types.SimpleNamespace(**{**vars(json), "dump": dump})
    model, report = load(directory, is_proven)
    if model is None:
        channel.answer(report)
        return
    # As the scoring server does, after loading.
    os.environ[_MLFLOW_IS_IN_SERVING_ENVIRONMENT.name] = "true"
    schema = model.metadata.get_input_schema()
    begun = time.monotonic()
    report["loaded"]["example"] = None if is_proven else try_example(directory, model, schema)
    report["loaded"]["warm"] = time.monotonic() - begun
    report["loaded"]["imported"] = missing_modules()
    report["loaded"]["signature"] = floats(schema)
    report["loaded"].update({} if is_proven else TEMPLATE.execute("independence")["found"](model))  # noqa: F821
    channel.answer(report)
    while (question := channel.receive()) is not None:
        head, body = question
        head, answer, told = respond(head["invoke"], body, model, schema)
        head["too_large"] = len(answer) > largest
        if head["too_large"] or len(answer) + sum(len(outcome.answer) for outcome in told) > largest:
            told = []
        head["told"] = [(outcome.status, outcome.media_type, len(outcome.answer)) for outcome in told]
        channel.answer(head, b"" if head["too_large"] else b"".join([answer, *(outcome.answer for outcome in told)]))


def write_tracebacks_faster():
    """A third of an answer to a refused request is the time to write its traceback, which is the same each time. What is
    remembered depends on nothing but what it is given."""
    for name in ("_extract_caret_anchors_from_line_segment", "_get_code_position"):
        if hasattr(traceback, name):
            setattr(traceback, name, functools.lru_cache(TRACED)(getattr(traceback, name)))


def dump(value, file, **how):
    file.write(json.dumps(value, **how))


def load(directory, is_proven):
    """The model, and what there is to say about loading it."""
    begun = time.monotonic()
    python_loader, read_description = yaml.SafeLoader, vars(Model)["load"]
    # MLflow reads `MLmodel` three times: that takes longer than everything else, even in C.
    yaml.SafeLoader, Model.load = getattr(yaml, "CSafeLoader", python_loader), reading_once(Model.load)
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
    return model, {"loaded": {"load": time.monotonic() - begun, "unmet": [] if is_proven else unmet(directory)}}


def reading_once(load):
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


def floats(schema):
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


def respond(question, data, model, schema):
    """The head and the body of the answer. Of several requests, those that fail are left out of it, if they can be found
    out before patience ends; when not, or when none is left, all of them fail. And what the first of those left out are
    told, in their order."""
    content_type, rows = question["content_type"], question.get("rows", ())
    until = time.monotonic() + question.get("patience", 0)
    called = divided(model, rows, until) if len(rows) > 1 and has_divided() else model
    outcome = invoke(data, content_type, called, schema)
    if called is not model and called.gave_up:
        called = model
        outcome = invoke(data, content_type, model, schema)
    exhausted = ran_out_of_memory(outcome.error)
    if outcome.error is not None and len(rows) > 1 and not exhausted:
        called = divided(model, rows, until, outcome.error)
        second = invoke(data, content_type, called, schema)
        exhausted = ran_out_of_memory(second.error)
        outcome = outcome if second.error else second
    refused = [] if called is model or outcome.error else sorted(called.refused)
    head = {"status": outcome.status, "content_type": outcome.media_type, "exhausted": exhausted, "refused": refused}
    return head, outcome.answer, tell(called, refused, content_type, schema, until)


def tell(called, refused, content_type, schema, until):
    """What they are answered alone, as far as there is time. Their rows were parsed with those of the others, and need not
    be once more, which takes a third of a call."""
    if not refused or not all(hasattr(scoring_server, parser) for parser in (*PARSERS, "ParsedJsonInput")):
        return []
    until, told = min(until, time.monotonic() + max(TELLING, called.longest)), []
    parsers = {parser: getattr(scoring_server, parser) for parser in PARSERS}
    try:
        for request in refused:
            if time.monotonic() >= until:
                break
            data, params = called.alone(request)
            scoring_server._parse_json_data = lambda *_: scoring_server.ParsedJsonInput(data, params, False)  # noqa: B023
            scoring_server.parse_csv_input = lambda **_: data  # noqa: B023
            outcome = invoke(b"", content_type, called.model, schema)
            if ran_out_of_memory(outcome.error):
                break
            told.append(outcome)
    finally:
        vars(scoring_server).update(parsers)
    return told


@functools.cache
def divide():
    return TEMPLATE.execute("divide")  # noqa: F821


def has_divided():
    """Whether some requests are known to be refused."""
    return divide.cache_info().currsize > 0 and divide()["RESEMBLANCE"].telling


def divided(model, rows, until, error=None):
    return divide()["Divided"](model, rows, error, ran_out_of_memory, until)


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
    except MlflowException as error:
        return Outcome(error.get_http_status_code(), JSON, error.serialize_as_json().encode(), error)
    except Exception as error:
        # Such as predictions that cannot be written as JSON: the reason is for the log.
        traceback.print_exc()
        return Outcome(500, TEXT, b"Internal Server Error", error)
    except BaseException as raised:
        # The model wants to end its process, which would end the scoring server as well.
        message = f"the model raised {type(raised).__name__}"
        error = MlflowException(message, stack_trace=traceback.format_exc())
        return Outcome(500, JSON, error.serialize_as_json().encode(), raised)


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

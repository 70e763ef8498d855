"""Evaluates the expressions of conditions that are not compiled: with Python itself, over Flask's own request.

This program runs once in the template, so that every evaluator has Flask and all that an expression may need at once.
`main` is called in each evaluator, a child of the template, with the child's channel. The first frame is `begin`, and
the answer to it says that the evaluator is ready. `learn` tells it the expressions of an endpoint. A frame `evaluate` asks
several requests at once, whose answers come one by one, in order: so Signalbox knows which request is being evaluated,
and keeps the clock. There is none here.
"""

import ast
import builtins
import contextlib
import ctypes
import encodings
import gc
import importlib
import io
import json
import pkgutil
import resource
import sys
import time
import types
import typing
import urllib.parse
import warnings

import flask
from werkzeug.datastructures.headers import EnvironHeaders
from werkzeug.exceptions import BadRequestKeyError, HTTPException

SET_NO_NEW_PRIVILEGES = 38
# Seconds of the processor that one frame may take, should Signalbox stand still and no longer keep the clock.
LONGEST_FRAME_SECONDS = 60
# Characters of the longest value, as JSON, and of the longest message about an error.
LONGEST_VALUE, LONGEST_MESSAGE = 1 << 20, 200
# Requests and bytes after which circular garbage is collected.
COLLECT_REQUESTS, COLLECT_BYTES = 1000, 16 << 20
# Modules that Python or Flask import when they are first used, which no evaluator can: it opens no files.
IMPORTED_LATE = ["_strptime", "calendar", "idna", "stringprep", "unicodedata", "werkzeug.formparser"]
# Modules that Python's own functions import in the name of the expression that calls them.
IMPORTED_BY_FUNCTIONS = {"_strptime", "time"}
FORMS = {"application/x-www-form-urlencoded", "multipart/form-data"}
WSGI = {
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    # The body ends where its stream ends, so that it is read without a copy.
    "wsgi.input_terminated": True,
}


class RequestHeaders(EnvironHeaders):
    """Flask's headers, whose error names the header as the expression does."""

    def __getitem__(self, key):
        try:
            return super().__getitem__(key)
        except KeyError:
            raise KeyError(key) from None


class Request(flask.Request):
    """Flask's request, with the place of its record in Kafka."""

    # Flask's own module asks for an application first, and then does the same.
    json_module = json
    max_content_length = None

    def __init__(self, environ, record, key):
        super().__init__(environ, populate_request=False)
        # Flask reads the body once: who asks for the form first would leave nothing for the others.
        self.get_data()
        environ["wsgi.input"].seek(0)
        self.headers = RequestHeaders(environ)
        self.topic, self.partition, self.offset, self.timestamp = record
        self._key = key

    def get_json(self, force=False, silent=False, cache=True):
        # Flask keeps what `force=True` has read for all that ask later; here no expression changes what others see.
        if not force and not self.is_json:
            return None if silent else self.on_json_loading_failed(None)
        return super().get_json(True, silent, cache)

    @property
    def data(self):
        # Flask has nothing left here of a form.
        return b"" if self.mimetype in FORMS else self.get_data()

    @property
    def key(self):
        if self._key is None:
            return None
        try:
            return self._key.decode()
        except UnicodeDecodeError:
            raise ValueError("the bytes are not UTF-8 text") from None


class Expression(typing.NamedTuple):
    """An expression, compiled; or the reason why this interpreter cannot compile it."""

    code: types.CodeType | None
    wants_value: bool
    problem: str | None

    @classmethod
    def compiled(cls, source, wants_value):
        try:
            # The parentheses let an expression have several lines.
            tree = compile(f"({source}\n)", "<condition>", "eval", flags=ast.PyCF_ONLY_AST)
            return cls(compile(JsonCalls().visit(tree), "<condition>", "eval"), wants_value, None)
        except Exception as error:
            return cls(None, wants_value, describe(error))


class JsonCalls(ast.NodeTransformer):
    """Makes `request.get_json()` of `request.json()`, which Flask does not have."""

    def visit_Call(self, node):
        self.generic_visit(node)
        match node:
            case ast.Call(ast.Attribute(ast.Name("request"), "json") as method, args=[], keywords=[]):
                method.attr = "get_json"
        return node


class Question(typing.NamedTuple):
    """The expressions of an endpoint, and the names that they share."""

    expressions: list
    names: dict


class NameFailed(Exception):
    """The error of a name that expressions share. It is no `KeyError`, which would say that there is no such name."""


class SharedNames:
    """The names that expressions share, each evaluated at most once for a request, when it is first used."""

    def __init__(self, names, request):
        self.names, self.request, self.values = names, request, {}

    def __getitem__(self, name):
        if name not in self.values:
            self.values[name] = self.evaluate(self.names[name])
        value, problem = self.values[name]
        if problem is not None:
            raise NameFailed(problem)
        return value

    def evaluate(self, expression):
        if expression.problem is not None:
            return None, expression.problem
        try:
            return eval(expression.code, Scope(self, self.request)), None
        except Exception as error:
            return None, describe(error)


class Scope(dict):
    """The names of one evaluation. Each has its own, so that what an expression assigns stays with it."""

    def __init__(self, shared, request):
        super().__init__(MODULES, __builtins__=BUILTINS, request=request)
        self.shared = shared

    def __missing__(self, name):
        return self.shared[name]


# What expressions may use, as `begin` says.
BUILTINS, MODULES, QUESTIONS = {}, {}, {}


def main(channel):
    while (received := channel.receive()) is not None:
        head, body = received
        if "evaluate" in head:
            renew_processor_limit()
            for request, key, payload in requests_in(head["evaluate"], body):
                channel.answer(*evaluate(QUESTIONS[request["question"]], request, key, payload))
                collect(len(payload))
            continue
        if "begin" in head:
            begin(**head["begin"])
        elif "learn" in head:
            learn(**head["learn"])
        else:
            QUESTIONS.clear()
        channel.answer({})


def begin(names, max_memory):
    """Takes what expressions may use, touches the memory that requests will write to, and shuts this process in."""
    BUILTINS.update(members(builtins, names["builtins"]))
    BUILTINS["__import__"] = import_for_functions
    # A package comes before its modules.
    for name, public in sorted(names["modules"]):
        shown = types.ModuleType(name)
        vars(shown).update(members(importlib.import_module(name), public))
        package, _, last = name.rpartition(".")
        (vars(MODULES[package]) if package else MODULES)[last] = shown
    gc.disable()
    sys.meta_path.clear()
    rehearse()
    shut_in(max_memory)


def members(module, names):
    """Yields the members of these names. Some are of later versions of Python."""
    return ((name, getattr(module, name)) for name in names.split() if hasattr(module, name))


def import_for_functions(name, *_):
    if name not in IMPORTED_BY_FUNCTIONS:
        raise ImportError(f"{name} is not imported by conditions")
    return sys.modules[name]


def shut_in(max_memory):
    """Takes from this process whatever an evaluation does not need: files, sockets, processes, and more memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        inherited = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData:"))
        lower(resource.RLIMIT_DATA, inherited + max_memory)
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        lower(limit, 0)


def lower(limit, to):
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(limit, (to, to))


def renew_processor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + LONGEST_FRAME_SECONDS, hard))


def learn(id, expressions, names):
    QUESTIONS[id] = Question(
        [Expression.compiled(source, wants_value) for source, wants_value in expressions],
        {name: Expression.compiled(source, True) for name, source in names},
    )


def requests_in(requests, body):
    """Yields each request of a frame with its key and its payload, which follow each other in the body."""
    at = 0
    for request in requests:
        key, payload = request["key"], request["payload"]
        at, key = at + (key or 0), None if key is None else body[at : at + key]
        yield request, key, body[at : at + payload]
        at += payload


def evaluate(question, request, key, payload):
    """Returns the errors of all expressions, and the values of all expressions as JSON; null stands for none."""
    environ = {**WSGI, **request["environ"], "wsgi.input": io.BytesIO(payload)}
    # WSGI wants a character for each byte of these.
    environ["PATH_INFO"] = urllib.parse.unquote_to_bytes(environ["PATH_INFO"]).decode("latin-1")
    environ["QUERY_STRING"] = environ["QUERY_STRING"].encode().decode("latin-1")
    request = Request(environ, request["record"], key)
    shared = SharedNames(question.names, request)
    errors, values = [], []
    for code, wants_value, problem in question.expressions:
        value = "null"
        if problem is None:
            try:
                result = eval(code, Scope(shared, request))
                value = as_json(result) if wants_value else "true" if result else "false"
            except BaseException as error:
                problem = describe(error)
        errors.append(problem)
        values.append(value)
    return errors, f"[{','.join(values)}]".encode()


def as_json(value):
    text = json.dumps(value, default=as_list)
    if len(text) > LONGEST_VALUE:
        raise ValueError(f"the value is longer than {LONGEST_VALUE} characters of JSON")
    return text


def as_list(value):
    """Makes a list of what JSON has no form for, in an order that does not depend on the process."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=lambda item: json.dumps(item, default=as_list))
    if isinstance(value, (type({}.keys()), type({}.values()), type({}.items()))):
        return list(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def describe(error):
    """Returns an error in one line, as `TypeError: …`; an HTTP error of Flask's as `415 Unsupported Media Type: …`."""
    if isinstance(error, NameFailed):
        return error.args[0]
    name = type(error).__name__
    try:
        if isinstance(error, BadRequestKeyError):
            text = f"KeyError: {error.args[0]!r}"
        elif isinstance(error, HTTPException):
            text = str(error)
        else:
            text = f"{name}: {error}" if str(error) else name
    except Exception:
        text = name
    text = " ".join(text[: 4 * LONGEST_MESSAGE].split())
    # Halves of characters cannot be sent.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


class Uncollected:
    """The requests and their bytes since circular garbage was last collected."""

    requests = size = 0


def collect(size):
    """Collects circular garbage now and then. Python's own way would collect in the midst of reading a large body."""
    Uncollected.requests += 1
    Uncollected.size += size
    if Uncollected.requests >= COLLECT_REQUESTS or Uncollected.size >= COLLECT_BYTES:
        Uncollected.requests = Uncollected.size = 0
        gc.collect()


def import_late():
    """Imports what Python and Flask would import when it is first used, which cannot be done without files."""
    late = [f"encodings.{module.name}" for module in pkgutil.iter_modules(encodings.__path__)]
    for module in IMPORTED_LATE + late:
        # Some are for other systems.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    # The time zone is read from its file once.
    time.tzset()


def rehearse():
    """Evaluates all that an expression is likely to use, for the memory and the modules that this touches."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/invocations",
        "QUERY_STRING": "a=1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "8",
        "HTTP_COOKIE": "a=1",
        "HTTP_ACCEPT_LANGUAGE": "en;q=0.5",
        "HTTP_AUTHORIZATION": "Basic YTpi",
        "HTTP_USER_AGENT": "a",
    }
    form = {**environ, "CONTENT_TYPE": "application/x-www-form-urlencoded"}
    boundary = b'--a\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--a--\r\n'
    parts = {**environ, "CONTENT_TYPE": "multipart/form-data; boundary=a", "CONTENT_LENGTH": str(len(boundary))}
    sources = [
        "request.json()['a'] and request.json['a'] and request.missing",
        "[request.args, request.headers, request.cookies, request.accept_languages, request.authorization]",
        "[request.user_agent, request.url, request.host, request.mimetype, request.content_length, request.values]",
        "{request.form, request.files} and request.get_data(as_text=True)",
        "request.get_json(force=True)",
    ]
    question = Question([Expression.compiled(source, True) for source in sources], {})
    for given, payload in ((environ, b'{"a": 1}'), (environ, b"{"), (form, b"a=1&b=22"), (parts, boundary)):
        evaluate(question, {"environ": given, "record": ("", 0, 0, None)}, None, payload)


warnings.simplefilter("ignore")
import_late()
rehearse()

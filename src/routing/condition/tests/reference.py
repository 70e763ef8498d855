"""What Flask and CPython say: an expression is evaluated on Flask's own request, made by `test_request_context`.

A request is a dictionary as the tests write it: `headers` (a list of pairs), `body` (bytes, or None), `line` (the line of
HTTP, such as `GET /path?a=1`; None for a plain record), and the record's `key`, `topic`, `partition`, `offset`, `timestamp`.
"""

import ast
import base64
import datetime
import functools
import hashlib
import io
import json
import math
import re
import resource
import signal
import statistics
import urllib.parse
import warnings
import zlib

import flask
from werkzeug.exceptions import HTTPException

warnings.simplefilter("ignore")
MODULES = {
    "re": re, "json": json, "math": math, "statistics": statistics, "zlib": zlib, "hashlib": hashlib, "base64": base64,
    "datetime": datetime, "urllib": urllib,
}
# Longest evaluation, in seconds of the processor, and the memory of the process: a random expression may ask for more of both than there is.
LONGEST, MEMORY = 1.0, 2 << 30
RECORD = ("key", "topic", "partition", "offset", "timestamp")


class Request(flask.Request):
    """Flask's request, with the names of a Kafka record besides."""

    key = topic = partition = offset = timestamp = None

    def get_json(self, force=False, silent=False, cache=True):
        # Flask keeps what `force=True` has read for all that ask later. In Signalbox no expression changes what others see.
        if not force and not self.is_json:
            return None if silent else self.on_json_loading_failed(None)
        return super().get_json(True, silent, cache)

    @property
    def data(self):
        return b"" if self.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data") else self.get_data()


class Late(BaseException):
    """Ends an evaluation that takes too long. No expression can catch it."""


app = flask.Flask("signalbox")
app.request_class = Request


def guard():
    """Bounds this process, so that no expression can take the machine with it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def late(*_):
        raise Late

    signal.signal(signal.SIGVTALRM, late)


def context(made):
    """Makes the context of Flask in which the request is there."""
    method, _, target = (made.get("line") or "POST /invocations").partition(" ")
    path, _, query = target.partition("?")
    headers = [(name, value) for name, value in made["headers"] if name.lower() != "content-type"]
    typed = [value for name, value in made["headers"] if name.lower() == "content-type"]
    entered = app.test_request_context(
        path, method=method, query_string=query, headers=headers, input_stream=io.BytesIO(made["body"] or b""),
        # The shim writes a type where the caller gave none, and a record without one holds JSON.
        content_type=typed[-1] if typed else "application/json",
    )
    # Nor does an expression that reads the form leave nothing for the others.
    entered.request.get_data()
    entered.request.environ["wsgi.input"].seek(0)
    for name in RECORD:
        setattr(entered.request, name, made.get(name))
    return entered


class JsonCalls(ast.NodeTransformer):
    """Reads `request.json()`, which is Signalbox's own, as `request.get_json()`."""

    def visit_Call(self, node):
        self.generic_visit(node)
        match node.func:
            case ast.Attribute(value=ast.Name(id="request"), attr="json"):
                node.func.attr = "get_json"
        return node


@functools.lru_cache(maxsize=1024)
def parsed(expression):
    # The brackets let an expression have several lines, as a block text of YAML has.
    return ast.parse(f"({expression}\n)", mode="eval")


@functools.lru_cache(maxsize=1024)
def compiled(expression):
    tree = JsonCalls().visit(ast.parse(f"({expression}\n)", mode="eval"))
    return compile(ast.fix_missing_locations(tree), "<condition>", "eval")


def kind(error):
    """Names the kind of an error: that of HTTP where it is one, otherwise the name of its type."""
    if isinstance(error, KeyError):
        return "KeyError"
    if isinstance(error, HTTPException):
        return f"{error.code} {error.name}"
    return type(error).__name__


def is_broken(made):
    """Tells whether the body is no JSON, though it has a beginning that a reader of paths might take for some."""
    try:
        json.loads(made["body"] or b"0")
        return False
    except (ValueError, RecursionError):
        return True


def outcome(expression, context, wants="truth"):
    """Evaluates an expression: `{"truth": …}`, `{"value": "its JSON"}`, `{"other": "its type, which is no JSON"}` or
    `{"error": kind, "message": …}`."""
    try:
        code = compiled(expression)
        with context as entered:
            signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
            try:
                value = eval(code, {**MODULES, "request": entered.request})
                if wants == "truth":
                    return {"truth": bool(value)}
                return {"value": json.dumps(value)} if is_json(value) else {"other": type(value).__name__}
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except Exception as error:
        return {"error": kind(error), "message": str(error)[:200].encode(errors="backslashreplace").decode()}


def is_json(value):
    """Tells whether JSON can hold the value; a tuple is a list there."""
    if isinstance(value, (list, tuple)):
        return all(map(is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(is_json, value.values()))
    return value is None or type(value) in (bool, int, float, str)


# The names of the part that is compiled in the process, to estimate how many expressions are of it.
FUNCTIONS = set("len str int float bool abs round min max isinstance any all sum sorted zip dict set list tuple".split())
METHODS = set(
    "startswith endswith lower upper title capitalize strip lstrip rstrip split join find rfind count replace removeprefix "
    "removesuffix isdigit isalpha isalnum isspace isupper islower get keys values items index get_json get_data json".split()
)
MEMBERS = set("json headers args method path content_type mimetype content_length is_json key topic partition offset timestamp".split())
SYNTAX = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Constant, ast.Attribute, ast.Subscript, ast.Slice,
    ast.Name, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.IfExp, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.comprehension, ast.JoinedStr, ast.FormattedValue, ast.keyword, ast.expr_context, ast.boolop, ast.unaryop, ast.cmpop, ast.operator,
)
OPERATORS = (ast.LShift, ast.RShift, ast.MatMult, ast.Invert)


def is_compiled(expression):
    """Estimates whether the expression is of the part that is compiled; the compiler itself knows better."""
    for node in ast.walk(parsed(expression)):
        match node:
            case ast.FormattedValue(conversion=conversion, format_spec=spec) if spec is not None or conversion not in (-1, ord("s")):
                return False
            case ast.Constant(value=bytes() | complex()):
                return False
            case ast.Attribute(value=ast.Name(id="request"), attr=name) if name not in MEMBERS | METHODS:
                return False
            case ast.Call(func=ast.Name(id=name)) if name not in FUNCTIONS:
                return False
            case ast.Call(func=ast.Attribute(attr=name)) if name not in METHODS:
                return False
            case ast.Call(func=ast.Lambda() | ast.Call() | ast.Subscript()):
                return False
            case ast.keyword(arg=name) if name not in ("silent", "force", "as_text", "default", "reverse"):
                return False
            case ast.Name(id=name) if name in MODULES:
                return False
        if not isinstance(node, SYNTAX) or isinstance(node, OPERATORS):
            return False
    return True

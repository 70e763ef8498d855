"""Evaluates a condition as one Python process would that does nothing else: a Flask request for each body, and `eval`.

Prints three numbers: microseconds of one evaluation, evaluations in a second, and milliseconds of `json.loads` alone.
Arguments: the expression, a file with a small body, a file with a large one.
"""

import io
import json
import statistics
import sys
import time

import flask

TURNS, LARGE_TURNS = 4000, 50


class Request(flask.Request):
    # Flask's own module asks for an application first.
    json_module = json


def evaluate(code, body):
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/invocations",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
    }
    return bool(eval(code, {"request": Request(environ)}))


def seconds(turns, work):
    times = []
    for _ in range(turns):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return times


expression, small, large = sys.argv[1:]
code = compile(expression, "<condition>", "eval")
with open(small, "rb") as file:
    body = file.read()
times = seconds(TURNS, lambda: evaluate(code, body))
with open(large, "rb") as file:
    body = file.read()
loads = seconds(LARGE_TURNS, lambda: json.loads(body))
print(statistics.median(times) * 1e6, TURNS / sum(times), statistics.median(loads) * 1e3)

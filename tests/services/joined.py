"""Whether payloads that were joined are read as each of them is alone.

    python joined.py FILE

FILE is `[{"content_type": …, "floats": [name, …] or null, "alone": [payload, …], "joined": payload}, …]`. Prints a line
for each difference; MLflow's own parsing says what is read.
"""

import io
import json
import sys

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import infer_and_parse_data, parse_csv_input
from mlflow.types import ColSpec, Schema


def read(content_type, payload, schema):
    if content_type == "text/csv":
        return parse_csv_input(io.StringIO(payload), None)
    document = json.loads(payload)
    document.pop("params", None)
    return infer_and_parse_data(document, schema)


def seen(read, start=None, end=None):
    """The rows from start to end as types and values, such that anything a model could tell apart differs."""
    if isinstance(read, pd.DataFrame):
        rows = read.iloc[start:end]
        return [(str(name), str(rows[name].dtype), [shown(value) for value in rows[name]]) for name in read.columns]
    if isinstance(read, np.ndarray):
        return str(read.dtype), read.shape[1:], [shown(value) for value in read[start:end].tolist()]
    if isinstance(read, dict):
        return {name: seen(column, start, end) for name, column in read.items()}
    return [shown(value) for value in read[start:end]]


def shown(value):
    return f"{type(value).__name__} {value!r}"


def length(read):
    return length(next(iter(read.values()))) if isinstance(read, dict) else len(read)


def main():
    with open(sys.argv[1]) as file:
        cases = json.load(file)
    for case in cases:
        floats = case["floats"]
        schema = None if floats is None else Schema([ColSpec("double", name) for name in floats])
        together = attempt(case["content_type"], case["joined"], schema)
        all_alone = [attempt(case["content_type"], payload, schema) for payload in case["alone"]]
        if together is None or any(alone is None for alone in all_alone):
            # Who is refused alone has all refused that it is with, and nobody else has.
            if (together is None) != any(alone is None for alone in all_alone):
                print(f"{case['joined']} is refused: {together is None}; parts: {case['alone']}")
            continue
        start = 0
        for payload, alone in zip(case["alone"], all_alone):
            rows = slice(start, start + length(alone))
            start = rows.stop
            if seen(alone) != seen(together, rows.start, rows.stop):
                print(f"{payload}\n  alone:    {seen(alone)}\n  together: {seen(together, rows.start, rows.stop)}")
        if start != length(together):
            print(f"{case['joined']} has not {start} rows")


def attempt(content_type, payload, schema):
    try:
        return read(content_type, payload, schema)
    except MlflowException:
        return None


if __name__ == "__main__":
    main()

"""Tries the search for bad rows with refused requests drawn by chance, and the look with odd cells of every kind.

    python bad_rows.py DIRECTORY

DIRECTORY holds the programs of hosts. Prints each error.
"""

import math
import pathlib
import random
import sys
import time
import types

import numpy
import pandas
from mlflow.types import ColSpec, Schema

PROGRAM = {"__name__": "signalbox_bad_rows"}
exec(compile(pathlib.Path(sys.argv[1], "bad_rows.py").read_text(), "bad_rows", "exec"), PROGRAM)
PROGRAM = types.SimpleNamespace(**PROGRAM)
DRAW = random.Random(7)
INPUTS = Schema([ColSpec("double", "a"), ColSpec("string", "b"), ColSpec("boolean", "c")])


class Tried:
    """Answers each row with its number, and refuses calls that have a refused row; counts the calls of each row."""

    def __init__(self, refuses, numbers=lambda data: data["n"], schema=None):
        self.refuses, self.numbers, self.counts = refuses, numbers, {}
        self.metadata = types.SimpleNamespace(get_input_schema=lambda: schema)

    def predict(self, data, params=None):
        numbers = [int(number) for number in self.numbers(data)]
        for number in numbers:
            self.counts[number] = self.counts.get(number, 0) + 1
        if any(map(self.refuses, numbers)):
            raise ValueError("no")
        return numbers


def search(model, rows, data, has_failed=True, patience=60):
    """Returns the answer and the refused requests; no answer when the search fails."""
    found = PROGRAM.BadRowSearch(model, rows, has_failed, lambda _: False, time.monotonic() + patience)
    try:
        return found.predict(data), found.refused
    except (ValueError, PROGRAM.SearchAbandoned) as error:
        return None, error


FORMS = {
    "table": (lambda numbers: pandas.DataFrame({"n": numbers}), lambda data: data["n"]),
    "array": (numpy.array, lambda data: data),
    "matrix": (lambda numbers: numpy.array(numbers)[:, None, None] + [[0.0, 0.0]], lambda data: data[:, 0, 0]),
    "columns": (lambda numbers: {"n": numbers, "more": numpy.array(numbers)}, lambda data: data["n"]),
    "list": (list, lambda data: data),
    "records": (lambda numbers: [{"n": number} for number in numbers], lambda data: [row["n"] for row in data]),
    "lists": (lambda numbers: [[number, "x"] for number in numbers], lambda data: [row[0] for row in data]),
}


def errors_of_searches():
    for turn in range(400):
        name = DRAW.choice(list(FORMS))
        make, numbers = FORMS[name]
        rows = [DRAW.choice([1, 1, 1, 2, 5]) for _ in range(DRAW.randint(2, 120))]
        of_row = [request for request, count in enumerate(rows) for _ in range(count)]
        bad = set(DRAW.sample(range(len(of_row)), DRAW.choice([1, 1, 2, 5]) if len(of_row) > 5 else 1))
        refused = sorted({of_row[row] for row in bad})
        model, has_failed = Tried(bad.__contains__, numbers), DRAW.random() < 0.5
        answer, found = search(model, rows, make(list(range(len(of_row)))), has_failed)
        if len(refused) == len(rows):
            if answer is not None:
                yield f"{turn}: an answer to nobody: {answer}"
            continue
        expected = [row for row, request in enumerate(of_row) if request not in refused]
        if (answer, found) != (expected, refused):
            yield f"{turn}, {name}, {rows}: {refused} are refused, and {found} found, with the answer {answer}"
        # For each refused request, the others are halved and then called together once more.
        most = (not has_failed) + len(refused) * (math.ceil(math.log2(len(rows))) + 1)
        if max(model.counts.values()) > most:
            yield f"{turn}: for {len(refused)} of {len(rows)} a row is called {max(model.counts.values())} times"


def looked(cells, refuses, schema=INPUTS, has_failed=False):
    """Searches among rows with these odd cells: a column and a cell for each number. Returns the refused requests and
    the number of calls of the most often called good row."""
    size = 64
    table = pandas.DataFrame({"n": range(size), "a": 1.5, "b": "x", "c": True})
    for number, (column, cell) in cells.items():
        table[column] = table[column].astype(object)
        table.at[number, column] = cell
    for column in table:
        # An odd number is a number for pandas, so its column is one of numbers.
        table[column] = table[column].infer_objects()
    model = Tried(refuses, schema=schema)
    _, found = search(model, [1] * size, table, has_failed)
    return found, max(count for number, count in model.counts.items() if not refuses(number))


def errors_of_looks():
    nan, inf = math.nan, math.inf
    odd = [("a", nan), ("a", inf), ("a", -inf), ("a", None), ("a", "x"), ("a", object()), ("b", None), ("b", nan), ("b", 1.5), ("b", inf), ("c", None), ("c", "x")]
    for column, cell in odd:
        cells = {3: (column, cell), 40: (column, cell)}
        for has_failed in (False, True):
            found = looked(cells, cells.__contains__, has_failed=has_failed)
            if found != ([3, 40], 1) or not PROGRAM.Look.pays:
                yield f"{cell} in {column}: {found}"
        # Another row is refused for nothing that can be seen.
        found, _ = looked(cells, [3, 20, 40].__contains__)
        if found != [3, 20, 40]:
            yield f"{cell} in {column}, and a hidden row: {found}"
        # A model that takes such cells is called once more, and then no longer looked at beforehand.
        found = looked({3: (column, cell)}, lambda _: False)
        if found != ([], 2) or PROGRAM.Look.pays:
            yield f"good {cell} in {column}: {found}"
    # Without a signature no type is wrong, and without a minority no cell is odd.
    for cells, schema in (({3: ("a", "x")}, None), ({number: ("a", nan) for number in range(32)}, INPUTS)):
        found, calls = looked(cells, [3].__contains__, schema)
        if found != [3] or calls < 6:
            yield f"{cells}: {found} after {calls} calls of a row"
    # Many kinds of good odd cells end the look.
    cells = {number: (f"m{number}", inf) for number in range(20)}
    model = Tried([50].__contains__)
    table = pandas.DataFrame({"n": range(64), **{column: numpy.where(numpy.arange(64) == number, cell, 1.0) for number, (column, cell) in cells.items()}})
    if search(model, [1] * 64, table)[1] != [50] or sum(model.counts[number] for number in range(20)) > 20 * 7 + PROGRAM.MISTAKEN:
        yield f"good odd cells: {model.counts}"


def errors_of_failures():
    # Requests that are refused only together have nobody to blame, and neither have all of them, nor has lost time.
    class Together(Tried):
        def predict(self, data, params=None):
            if len(data) > 3:
                raise ValueError("too many")
            return list(data)

    hidden = Tried([5].__contains__, list)
    for model, data, patience in ((Together(None), list(range(9)), 60), (Tried(lambda _: True, list), [0, 1, 2], 60), (hidden, list(range(9)), 0)):
        answer, error = search(model, [1] * len(data), data, patience=patience)
        if answer is not None:
            yield f"{model}: {answer}"
    # A call without a row for each row is made as it is, or not searched.
    whole = Tried(lambda _: False, list)
    if search(whole, [1, 1], [7], has_failed=False) != ([7], []) or search(whole, [1, 1], [7])[0] is not None:
        yield "data without rows"
    # Data in which no cell can be looked at is searched all the same.
    strange = [{"n": 0}, 1, [2], {3: [3]}, 4]
    if search(Tried([1].__contains__, lambda data: [strange.index(row) for row in data]), [1] * 5, strange, False)[1] != [1]:
        yield "strange rows"


def main():
    for errors in (errors_of_searches, errors_of_looks, errors_of_failures):
        for error in errors():
            print(error)


if __name__ == "__main__":
    main()

"""Finds the requests that a model refuses among those of one call, and has the model answer the others.

A host runs this search once a call of several requests has failed. MLflow parses the payload anew, so that nothing is
left of what that call did to its rows, and is given a `BadRowSearch` as its model, whose `predict` searches. The answer
comes of one call of the model with the rows of all good requests and no others. Signalbox calls every refused request
alone in the end, so a wrong guess never leads to a wrong answer.

The search looks for odd cells first: a cell that breaks the model's signature, or is missing or infinite where most
requests have values. It halves the rows otherwise, until one request is left.
"""

import itertools
import math
import numbers
import time

import numpy
import pandas

# Python types of the cells of a signature's columns; cells of other columns break no signature.
CELL_TYPES = {
    "boolean": (bool, numpy.bool_),
    "string": str,
    **dict.fromkeys(["integer", "long", "float", "double"], numbers.Real),
}
# Number of probed requests with an odd cell, but with an answer, that ends a look.
MISTAKEN = 3


class SearchAbandoned(BaseException):
    """Ends a search that would take too long, or cannot succeed."""


class Look:
    """Remembers whether the model refused requests with odd cells when the last such cells were found.

    While it does, a look comes before each call of several requests; otherwise only after a call that fails. So a model
    that takes missing values is not called more often for them."""

    pays = False


class BadRowSearch:
    """A model whose `predict` answers as a call without the refused requests does, and collects their numbers in
    `refused`.

    `rows` has the row count of each request, and `has_failed` tells whether a call of all of them has failed. A search
    that fails raises the model's own exception, or `SearchAbandoned` when there is none yet; so does a fatal exception
    at once.
    """

    def __init__(self, model, rows, has_failed, is_fatal, until):
        self.model, self.has_failed, self.is_fatal, self.until = model, has_failed, is_fatal, until
        ends = list(itertools.accumulate(rows))
        self.rows = [range(end - count, end) for count, end in zip(rows, ends)]
        self.refused, self.longest, self.error = [], 0.0, None

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, data, params=None):
        # Only data with one row for each row of the requests can be divided among them.
        if not is_by_row(data, self.rows[-1].stop):
            if self.has_failed:
                raise SearchAbandoned
            return self.model.predict(data, params=params)
        self.data, self.params = data, params
        try:
            return self.answer_good_rows()
        except SearchAbandoned as abandoned:
            error = self.error or abandoned
        finally:
            # The exception's traceback refers back to this object.
            self.error = None
        raise error

    def answer_good_rows(self):
        """Leaves out refused requests until a call of the others succeeds, and returns its answer."""
        self.refused = self.odd_and_refused()
        waiting = [request for request in range(len(self.rows)) if request not in self.refused]
        # A failed call of these very requests need not be made again.
        failed, after = self.has_failed and not self.refused, -1
        while waiting:
            if not failed:
                answer, failed = self.call(waiting)
                if not failed:
                    return answer
            # Halving finds the first refused request, so that those before it are good.
            after = self.search([request for request in waiting if request > after])
            self.refused = sorted([*self.refused, after])
            waiting.remove(after)
            failed = False
        raise SearchAbandoned

    def call(self, requests):
        """Calls the model, and returns the answer and whether the call failed."""
        begun = time.monotonic()
        # The time is limited once a call has failed: the first call would be made without a search, too.
        if (self.has_failed or self.error) and begun + self.longest > self.until:
            raise SearchAbandoned
        rows = [row for request in requests for row in self.rows[request]]
        try:
            return self.model.predict(select_rows(self.data, rows), params=self.params), False
        except BaseException as error:
            if self.is_fatal(error):
                raise
            self.error = error
            return None, True
        finally:
            self.longest = max(self.longest, time.monotonic() - begun)

    def search(self, suspects):
        """Halves the requests until the first that is refused is left, and returns it."""
        if not suspects:
            # The requests are refused together only.
            raise SearchAbandoned
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            _, failed = self.call(half)
            suspects = half if failed else suspects[len(half) :]
        return suspects[0]

    def odd_and_refused(self):
        """Returns the requests with odd cells of a kind with which a request is refused alone as well. One request of
        each kind is called, and stands for the others of its kind. The rarest kinds come first."""
        try:
            kinds = sorted(self.odd_requests(), key=len)
        except Exception:
            # The data has a form in which nothing can be told apart.
            kinds = []
        refused, answered = set(), set()
        for requests in kinds:
            suspects = [request for request in requests if request not in refused]
            # An answered request speaks for all of its kinds.
            if not suspects or not answered.isdisjoint(suspects):
                continue
            if self.call(suspects[:1])[1]:
                refused.update(suspects)
            else:
                answered.add(suspects[0])
                if len(answered) == MISTAKEN:
                    break
        if kinds:
            Look.pays = bool(refused)
        return sorted(refused)

    def odd_requests(self):
        """Lists, for each kind of odd cell, the requests that have one, where most requests have none."""
        schema = self.model.metadata.get_input_schema()
        specs = schema.input_dict() if schema is not None and schema.has_input_names() else {}
        # Rows map to requests by the number of requests that end at or before them.
        ends, kinds = [rows.stop for rows in self.rows], []
        for name, column in columns(self.data):
            for are_odd in odd_cells(column, cell_type(specs.get(name))):
                requests = numpy.unique(numpy.searchsorted(ends, numpy.flatnonzero(are_odd), side="right")).tolist()
                if 0 < 2 * len(requests) < len(self.rows):
                    kinds.append(requests)
        return kinds


# MLflow parses a payload to a table, to NumPy arrays, to lists, or to one of those for each column.


def is_by_row(data, count):
    if isinstance(data, dict):
        return bool(data) and all(is_by_row(column, count) for column in data.values())
    has_rows = isinstance(data, (pandas.DataFrame, list)) or isinstance(data, numpy.ndarray) and data.ndim > 0
    return has_rows and len(data) == count


def select_rows(data, rows):
    """Selects rows, and numbers them as if they were all."""
    if isinstance(data, pandas.DataFrame):
        part = data.iloc[rows]
        part.index = data.index[: len(rows)]
        return part
    if isinstance(data, dict):
        return {name: select_rows(column, rows) for name, column in data.items()}
    return data[rows] if isinstance(data, numpy.ndarray) else [data[row] for row in rows]


def columns(data):
    """Yields the name of each column, and its cells: an array with one entry a row."""
    if isinstance(data, dict):
        for name, part in data.items():
            yield from ((name, column) for _, column in columns(part))
    elif isinstance(data, numpy.ndarray):
        yield None, data
    else:
        table = data if isinstance(data, pandas.DataFrame) else pandas.DataFrame(data)
        for number, name in enumerate(table.columns):
            yield name, table.iloc[:, number].to_numpy()


def cell_type(spec):
    """Returns the Python type that a column of the signature wants; `object` where there is none, or it does not say."""
    return CELL_TYPES.get(getattr(getattr(spec, "type", None), "name", None), object)


def odd_cells(column, wanted):
    """Yields, for each way in which a cell may be odd, an array that tells which rows have such a cell."""
    missing = pandas.isna(column)
    yield by_row(missing)
    if column.dtype.kind in "fc":
        yield by_row(numpy.isinf(column))
    elif column.dtype == object and column.ndim == 1:
        yield numpy.array([isinstance(cell, float) and math.isinf(cell) for cell in column])
        yield numpy.array([not isinstance(cell, wanted) for cell in column]) & ~missing


def by_row(cells):
    return cells.reshape(len(cells), -1).any(axis=1)

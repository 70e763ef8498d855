"""Finds the requests that a model refuses among those of one call, and has the model answer the others.

A host runs this search once a call of several requests has failed. MLflow parses the payload anew, so that nothing is
left of what that call did to its rows, and is given a `BadRowSearch` as its model, whose `predict` searches. The answer
comes of one call of the model with the rows of all good requests and no others. Every refused request is called alone
in the end, here or by Signalbox, so a wrong guess never leads to a wrong answer.

Each probe is a call as well. So the search first probes the requests that the exception names: by a value that stands
in its message, or in a variable of the code that raised. Otherwise it halves the rows until one request is left.
Requests that resemble refused ones are left out of later calls before these fail.
"""

import itertools
import math
import re
import time

import numpy
import pandas

# Number of cells that are looked at.
CELLS = 4096
# Number of resembling requests that must have been refused in a row before they are believed without a probe of each.
PROOFS = 16
# From then on, one call in this many has its resembling requests probed, as long as they are at most one request in
# that many.
CALLS_A_PROBE, REQUESTS_A_SUSPECT = 8, 16
# Number of resembling but good requests in a row that ends the probing.
MISTAKEN = 3
# Number of good requests that are compared with the refused ones of a call.
OTHERS = 32
# Largest number of requests that one exception may name to have them probed one by one.
MOST_NAMED = 8
# Number of innermost functions whose variables are read, and the longest list of values that is read.
FRAMES, VALUES = 8, 64
# Number of words of a text that are looked at.
WORDS = 8
# Number of observations of a trait after which its counts are halved (decay).
FORGETFUL = 256
# Length of the shortest text that counts as a name; shorter texts stand in any message.
SHORTEST_NAME = 3


class SearchAbandoned(BaseException):
    """Ends a search that would take too long, or cannot succeed."""


class BadRowSearch:
    """A model whose `predict` answers as a call without the refused requests does, and collects their numbers in
    `refused`.

    `rows` has the row count of each request, and `error` is the exception of the first call; `None` when there was no
    call yet. A fatal error is raised, and so is `SearchAbandoned` when the search fails.
    """

    def __init__(self, model, rows, error, is_fatal, until):
        self.model, self.error, self.is_fatal, self.until = model, error, is_fatal, until
        ends = list(itertools.accumulate(rows))
        self.rows = [range(end - count, end) for count, end in zip(rows, ends)]
        self.waiting, self.refused = list(range(len(rows))), []
        self.longest, self.misled, self.gave_up = 0.0, False, False
        # The refused requests that were not probed.
        self.believed = set()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, data, params=None):
        try:
            return self.answer_good_rows(data, params)
        except SearchAbandoned:
            self.gave_up = True
            raise
        finally:
            # The exception's traceback refers back to this object.
            self.error = None

    def answer_good_rows(self, data, params):
        """Leaves out refused requests until a call of the others succeeds, and returns its answer."""
        # Only data with one row for each row of the requests can be divided among them.
        if not is_by_row(data, self.rows[-1].stop):
            raise SearchAbandoned
        self.data, self.params, self.requests = data, params, None
        self.table = list(zip(*columns(data)[: max(1, CELLS // len(data))]))
        refused = self.resembling()
        if self.error is None and not refused:
            return self.model.predict(data, params=params)
        while True:
            # The cheapest guess comes first: resemblance, then a name in the exception, then halving.
            refused = refused or self.named() or [self.search()]
            self.refused += refused
            gone = set(refused)
            self.waiting = [request for request in self.waiting if request not in gone]
            if not self.waiting:
                raise SearchAbandoned
            answer, failed = self.call(self.waiting)
            if not failed:
                # Requests that were believed without a probe prove nothing about their traits.
                proven = [request for request in self.refused if request not in self.believed]
                if proven:
                    self.learn(proven, self.waiting[:OTHERS])
                return answer
            refused = []

    def call(self, requests):
        """Calls the model, and returns the answer and whether the call failed."""
        begun = time.monotonic()
        if begun + self.longest > self.until:
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

    def resembling(self):
        """Returns the requests that resemble refused ones and are refused alone as well. When all such requests have
        been refused so far, one of them is probed for all, and where they are few, in one of several calls."""
        suspects = RESEMBLANCE.suspects(self.table, self.rows)
        if suspects and RESEMBLANCE.spares_a_probe(len(suspects), len(self.rows)):
            self.believed = set(suspects)
            return suspects
        refused, mistaken = [], 0
        for request in suspects:
            if refused and RESEMBLANCE.proofs >= PROOFS:
                refused.append(request)
            elif self.call([request])[1]:
                RESEMBLANCE.proofs += 1
                refused.append(request)
            else:
                RESEMBLANCE.proofs = 0
                self.learn([], [request])
                mistaken += 1
                if mistaken >= MISTAKEN:
                    break
        return refused

    def alone(self, request):
        """Returns the data and the params of a call for this request alone."""
        return select_rows(self.data, self.rows[request]), self.params

    def learn(self, refused, others):
        for requests, are_others in ((refused, False), (others, True)):
            for request in requests:
                RESEMBLANCE.learn((self.table[row] for row in self.rows[request]), are_others)

    def search(self):
        """Halves the requests until one that is refused is left, and returns it."""
        suspects = self.waiting
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            _, failed = self.call(half)
            suspects = half if failed else suspects[len(half) :]
        return suspects[0]

    def named(self):
        """Returns the requests that the exception names and that are refused alone as well. An exception that names
        good requests only is not consulted again."""
        if self.misled:
            return []
        if self.requests is None:
            self.requests = self.by_value()
        waiting = set(self.waiting)
        for values in names(self.error, self.requests):
            named = waiting.intersection(itertools.chain(*(self.requests.get(value, ()) for value in values)))
            if 0 < len(named) <= MOST_NAMED:
                named = [request for request in sorted(named) if self.call([request])[1]]
                self.misled = not named
                return named
        return []

    def by_value(self):
        """Maps each value to the requests that have it in one of their rows."""
        requests = {}
        for request, rows in enumerate(self.rows):
            for value in itertools.chain(*self.table[rows.start : rows.stop]):
                if is_name(value):
                    requests.setdefault(value, set()).add(request)
        return requests


class Resemblance:
    """Counts how many refused requests, and how many good ones beside them, had a trait: a word, or the magnitude of a
    number."""

    def __init__(self):
        self.seen, self.telling, self.proofs, self.spared = {}, set(), 0, 0

    def suspects(self, table, requests):
        """Returns the requests with a trait that more refused requests have had than good ones."""
        if not self.telling:
            return []
        are_like = [not self.telling.isdisjoint(traits(row)) for row in table]
        return [request for request, rows in enumerate(requests) if True in are_like[rows.start : rows.stop]]

    def spares_a_probe(self, suspects, requests):
        """Tells whether the suspects of a call are believed to be refused; a good request among them only loses a
        little time."""
        is_sure = self.proofs >= PROOFS and suspects * REQUESTS_A_SUSPECT <= requests
        self.spared = (self.spared + 1) % CALLS_A_PROBE if is_sure else 0
        return self.spared > 0

    def learn(self, rows, are_others):
        if len(self.seen) > CELLS:
            self.seen.clear()
            self.telling.clear()
        for trait in {trait for row in rows for trait in traits(row)}:
            counts = self.seen.setdefault(trait, [0, 0])
            counts[are_others] += 1
            if sum(counts) > FORGETFUL:
                # The traits of refused requests may change over time.
                counts[:] = counts[0] / 2, counts[1] / 2
            if counts[0] > max(counts[1], 1):
                self.telling.add(trait)
            else:
                self.telling.discard(trait)


RESEMBLANCE = Resemblance()


def traits(row):
    found = []
    for value in row:
        if isinstance(value, str):
            found += value.split(None, WORDS)[:WORDS] or [""]
        elif isinstance(value, float) and math.isfinite(value):
            found.append((value > 0, math.frexp(value)[1]))
        elif isinstance(value, int):
            found.append((value > 0, value.bit_length()))
        else:
            found.append(repr(value) if isinstance(value, float) else type(value))
    return found


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
    if isinstance(data, pandas.DataFrame):
        # A column's own `tolist` goes through texts one by one.
        return [data.iloc[:, column].to_numpy(dtype=object).tolist() for column in range(data.shape[1])]
    if isinstance(data, dict):
        return [column for part in data.values() for column in columns(part)]
    rows = data.tolist() if isinstance(data, numpy.ndarray) else data
    if all(isinstance(row, dict) for row in rows):
        rows = [list(row.values()) for row in rows]
    return list(zip(*rows)) if all(isinstance(row, list) for row in rows) else [rows]


# Names in an exception.


def is_name(value):
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def names(error, known):
    """Yields groups of values that may have led to the exception, the likeliest first; from its message only known
    values."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    for error in reversed(chain):
        message = str(error)
        words = set(re.findall(r"[\w.+-]+", message))
        yield [value for value in known if stands_in(value, message, words)]
        frames, trace = [], error.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        for frame in reversed(frames[-FRAMES:]):
            for variable in list(frame.f_locals.values()):
                yield list(filter(is_name, scalars(variable)))


def stands_in(value, message, words):
    """Tells whether a value stands in a message as words of its own."""
    if not isinstance(value, str):
        return str(value) in words
    begin = message.find(value) if len(value) >= SHORTEST_NAME else -1
    around = message[max(begin - 1, 0) : begin] + message[begin + len(value) :][:1]
    return begin >= 0 and not any(character.isalnum() for character in around)


def scalars(variable):
    if isinstance(variable, numpy.generic):
        return [variable.item()]
    if isinstance(variable, pandas.Series):
        return variable.tolist() if len(variable) <= VALUES else []
    if isinstance(variable, dict):
        variable = list(variable.values()) if len(variable) <= VALUES else []
    if isinstance(variable, (list, tuple)):
        return variable if len(variable) <= VALUES else []
    return [variable]

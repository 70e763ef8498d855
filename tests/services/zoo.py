"""Registers models of many kinds, version 1 of each, and writes down what they are to be asked.

    python zoo.py --tracking-uri URI --payloads FILE

FILE becomes `[{"name": …, "payloads": [{"what", "content_type", "text" or "hex", "answered"}, …]}, …]`; see
payloads.py. Models written by hand are here, and those that libraries have learned from data in learned.py. Each is as
small as its kind allows. Every requirement is named, because finding them out would load the model once more in another
process.
"""

import argparse
import datetime
import json
import os
import pathlib
import tempfile
import time
import warnings

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
warnings.filterwarnings("ignore")

import learned  # noqa: F401 (its kinds are those of the zoo, too)
import mlflow
import numpy as np
import pandas as pd
import pydantic
from kinds import ZOO, kind, requirements
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from payloads import CSV, any_model, ask, of_frame, raw, refuse


def pyfunc(name, model, example=None, inputs=None, params=None, **more):
    signature = ModelSignature(inputs=inputs, params=params) if inputs is not None else None
    mlflow.pyfunc.log_model(
        name="model", python_model=model, registered_model_name=name, input_example=example, signature=signature,
        pip_requirements=requirements(), **more,
    )  # fmt: skip


# Models written by hand: what they return


class Returns(PythonModel):
    """Answers the rows with whatever `make` makes of them."""

    def __init__(self, make):
        self.make = make

    def predict(self, context, model_input, params=None):
        return self.make(model_input)


NUMBERS = pd.DataFrame({"x": [1.0, 2.5, -3.0], "y": [0.5, 0.25, 1e-9]})
NUMBERS_SCHEMA = Schema([ColSpec("double", "x"), ColSpec("double", "y")])


@kind("returns-a-dict")
def _(name):
    pyfunc(
        name,
        Returns(lambda rows: {"sum": rows["x"].sum(), "rows": len(rows), "x": rows["x"].to_numpy()}),
        NUMBERS,
        NUMBERS_SCHEMA,
    )
    return of_frame(NUMBERS)


@kind("returns-a-scalar")
def _(name):
    pyfunc(name, Returns(lambda rows: np.float32(rows["x"].sum())), NUMBERS, NUMBERS_SCHEMA)
    return of_frame(NUMBERS)


@kind("returns-a-frame")
def _(name):
    def make(rows):
        return rows.assign(
            name=[f"row {n} – ü" for n in range(len(rows))],
            when=pd.Timestamp("2024-02-29T12:30:00.123456"),
            small=np.float32(0.1),
            whole=np.int8(7),
            yes=rows["x"] > 0,
            kind=pd.Categorical(["a"] * len(rows)),
        )

    pyfunc(name, Returns(make), NUMBERS, NUMBERS_SCHEMA)
    return of_frame(NUMBERS)


@kind("returns-a-series")
def _(name):
    pyfunc(name, Returns(lambda rows: rows["x"] / rows["y"]), NUMBERS, NUMBERS_SCHEMA)
    return [
        *of_frame(NUMBERS),
        ask("a division by zero", {"dataframe_records": [{"x": 1.0, "y": 0.0}, {"x": 0.0, "y": 0.0}]}),
    ]


@kind("returns-records")
def _(name):
    params = ParamSchema(
        [
            ParamSpec("top", "long", 2),
            ParamSpec("scale", "double", 1.0),
            ParamSpec("words", "string", ["a", "b"], shape=(-1,)),
            ParamSpec("since", "datetime", np.datetime64("2024-01-01")),
        ]
    )

    class Records(PythonModel):
        def predict(self, context, model_input, params=None):
            scaled = {name: str(value) if name == "since" else value for name, value in params.items()}
            return [{"x": x * params["scale"], "best": [x] * params["top"], "params": scaled} for x in model_input["x"]]

    pyfunc(name, Records(), NUMBERS, NUMBERS_SCHEMA, params)
    rows = {"dataframe_records": [{"x": 1.0, "y": 2.0}]}
    return [
        *of_frame(NUMBERS),
        ask(
            "all parameters",
            {**rows, "params": {"top": 3, "scale": 0.5, "words": ["é"], "since": "2025-06-01T00:00:00"}},
        ),
        ask("a whole number for a double", {**rows, "params": {"scale": 2}}),
        refuse("a fraction for a long", {**rows, "params": {"top": 2.5}}),
        refuse("a word for a long", {**rows, "params": {"top": "two"}}),
        refuse("a word for a list", {**rows, "params": {"words": "a"}}),
        ask("null for a parameter", {**rows, "params": {"top": None}}, None),
        ask("no date for a date", {**rows, "params": {"since": "yesterday"}}, None),
        ask("one that is unknown beside one that is", {**rows, "params": {"top": 1, "unheard_of": 2}}, None),
        ask("parameters that are null", {**rows, "params": None}, None),
    ]


@kind("returns-what-is-missing")
def _(name):
    def make(rows):
        return [
            None,
            float("nan"),
            float("inf"),
            -float("inf"),
            "",
            "\u0000\ud83d\ude00",
            np.nan,
            {"x": None},
            [],
            10**30,
            1e-320,
        ]

    pyfunc(name, Returns(make), NUMBERS, NUMBERS_SCHEMA)
    return of_frame(NUMBERS)


@kind("returns-what-json-has-not")
def _(name):
    makers = {
        "set": lambda: {1, 2},
        "object": object,
        "complex": lambda: 1j,
        "bytes": lambda: [b"\x00\xff"],
        "date": lambda: [datetime.date(2024, 2, 29)],
        "array of arrays": lambda: np.array([[[1.5]], [[2.5]]]),
        "tuple": lambda: (1, (2, 3)),
        "keys": lambda: {1: "a", None: "b", 2.5: "c"},
        "nothing": lambda: None,
        "text": lambda: "text",
    }
    pyfunc(name, Returns(lambda rows: makers[rows["what"][0]]()), inputs=Schema([ColSpec("string", "what")]))
    return [ask(f"answers with {what}", {"dataframe_records": [{"what": what}]}, None) for what in makers]


@kind("raises")
def _(name):
    class Refused(Exception):
        pass

    def make(rows):
        what = rows["what"][0]
        if what == "fine":
            return [1]
        if what == "mlflow":
            raise MlflowException("the model says no", error_code=3001)
        if what == "mlflow not found":
            raise MlflowException.invalid_parameter_value("no such row")
        if what == "schema":
            raise MlflowException("Failed to enforce schema of nothing")
        if what == "own":
            raise Refused("of its own kind\nand on two lines")
        if what == "assertion":
            raise AssertionError
        if what == "recursion":
            return make(rows)
        if what == "chained":
            try:
                {}["key"]
            except KeyError as error:
                raise RuntimeError("after another") from error
        return 1 / 0

    pyfunc(name, Returns(make), pd.DataFrame({"what": ["fine"]}), Schema([ColSpec("string", "what")]))
    kinds = ["mlflow", "mlflow not found", "schema", "own", "assertion", "recursion", "chained", "zero"]
    return [
        ask("fine", {"dataframe_records": [{"what": "fine"}]}),
        *(refuse(f"raises {what}", {"dataframe_records": [{"what": what}]}) for what in kinds),
    ]


# Models written by hand: what they take, and what they bring along


@kind("takes-every-type")
def _(name):
    inputs = Schema(
        [
            ColSpec("boolean", "yes"), ColSpec("integer", "small"), ColSpec("long", "large"), ColSpec("float", "rough"),
            ColSpec("double", "fine"), ColSpec("string", "text"), ColSpec("datetime", "when"), ColSpec("long", "perhaps", required=False),
        ]
    )  # fmt: skip

    def make(rows):
        return [
            {name: f"{value!r} of {rows[name].dtype}" for name, value in row.items()} for row in rows.to_dict("records")
        ]

    frame = pd.DataFrame(
        {
            "yes": [True, False], "small": np.array([1, -2], "int32"), "large": [2**53 + 1, -1], "rough": np.array([0.1, 1e30], "float32"),
            "fine": [0.1, 1e300], "text": ["a", "ß"], "when": pd.to_datetime(["2024-02-29T01:02:03", "1969-12-31T23:59:59"]),
            "perhaps": [1, 2],
        }
    )  # fmt: skip
    pyfunc(name, Returns(make), frame, inputs)
    rows = json.loads(frame.to_json(orient="records", date_format="iso"))
    bent = {
        "yes": ["true", 1, 0.0], "small": [2**31, 1.0, 1.5, "1"], "large": [2**63, 1.0, "1"], "rough": [1e39, 1, "1.5"],
        "fine": ["1.5", 1], "text": [1, 1.5, True], "when": ["yesterday", 0, "2024-02-29", "2024-02-29T01:02:03+02:00"],
        "perhaps": [None, 1.5, "x"],
    }  # fmt: skip
    return [
        *of_frame(frame, csv_is_read=False),  # MLflow has no way to read a date from CSV
        *(
            ask(f"{json.dumps(value)} for {column}", {"dataframe_records": [{**rows[0], column: value}]}, None)
            for column, values in bent.items()
            for value in values
        ),
    ]


@kind("takes-bytes")
def _(name):
    pyfunc(
        name, Returns(lambda rows: [len(value) for value in rows["data"]]), inputs=Schema([ColSpec("binary", "data")])
    )
    return [
        ask("base64", {"dataframe_records": [{"data": "AAECAw=="}]}),
        ask("what is no base64", {"dataframe_records": [{"data": "§"}]}, None),
        ask("a number for bytes", {"dataframe_records": [{"data": 5}]}, None),
    ]


@kind("takes-objects")
def _(name):
    example = [{"who": {"name": "Ada", "tags": ["a"]}, "scores": [1.5, 2.5]}]
    signature = infer_signature(example)
    pyfunc(
        name,
        Returns(lambda rows: [f"{row['who']} {row['scores']}" for row in rows.to_dict("records")]),
        example,
        signature.inputs,
    )
    return [
        ask("objects", {"inputs": example}),
        ask("objects as records", {"dataframe_records": example}),
        ask("a property too few", {"inputs": [{"who": {"name": "Ada"}, "scores": [1.5]}]}, None),
        ask("a property too many", {"inputs": [{"who": {"name": "Ada", "tags": [], "x": 1}, "scores": []}]}, None),
        ask("words for numbers", {"inputs": [{"who": {"name": "Ada", "tags": []}, "scores": ["a"]}]}, None),
        ask("a number for an object", {"inputs": [{"who": 5, "scores": [1.5]}]}, None),
    ]


@kind("takes-type-hints")
def _(name):
    class Words(PythonModel):
        def predict(self, model_input: list[str], params=None) -> list[str]:
            return [word.upper() for word in model_input]

    pyfunc(name, Words(), ["a", "b"])
    return [
        ask("strings", {"inputs": ["a", "straße"]}),
        refuse("numbers for strings", {"inputs": [1]}),
        refuse("a string for strings", {"inputs": "a"}),
        refuse("another format", {"dataframe_records": [{"text": "a"}]}),
        ask("no strings", {"inputs": []}, None),
    ]


@kind("takes-pydantic")
def _(name):
    class Order(pydantic.BaseModel):
        item: str
        count: int = 1
        note: str | None = None

    class Orders(PythonModel):
        def predict(self, model_input: list[Order], params=None) -> list[dict]:
            return [{"item": order.item, "count": order.count, "note": order.note} for order in model_input]

    pyfunc(name, Orders(), [{"item": "tea", "count": 2, "note": "hot"}])
    return [
        ask("orders", {"inputs": [{"item": "tea"}, {"item": "milk", "count": 3, "note": None}]}),
        refuse("an order without an item", {"inputs": [{"count": 1}]}),
        refuse("a word for a count", {"inputs": [{"item": "tea", "count": "many"}]}),
    ]


@kind("takes-a-chat")
def _(name):
    class Echo(PythonModel):
        def predict(self, context, model_input, params=None):
            return {"heard": model_input, "params": params}

    pyfunc(name, Echo())
    messages = [{"role": "user", "content": "good morning"}]
    return [
        ask("a chat", {"messages": messages}, None),
        ask("a chat with more", {"messages": messages, "temperature": 0.5, "params": {"a": 1}}, None),
        ask("a prompt", {"prompt": "good morning"}, None),
        ask("an input", {"input": "good morning"}, None),
        ask("numbers", {"inputs": [[1, 2], [3, 4]]}, None),
        ask("words", {"inputs": {"a": "b"}}, None),
        raw("CSV", "a,b\n1,x\n", CSV),
    ]


@kind("brings-code")
def _(name):
    with tempfile.TemporaryDirectory() as directory:
        package = pathlib.Path(directory, "zoo_arithmetic")
        package.mkdir()
        (package / "__init__.py").write_text("from .doubling import double\n")
        (package / "doubling.py").write_text("def double(value):\n    return 2 * value\n")

        class Doubles(PythonModel):
            def predict(self, context, model_input, params=None):
                from zoo_arithmetic import double

                return double(model_input["x"])

        pyfunc(name, Doubles(), inputs=NUMBERS_SCHEMA, code_paths=[str(package)])
    return of_frame(NUMBERS)


@kind("brings-artifacts")
def _(name):
    class Looks(PythonModel):
        def load_context(self, context):
            self.prices = json.loads(pathlib.Path(context.artifacts["prices"]).read_text())
            self.currency = context.model_config["currency"]

        def predict(self, context, model_input, params=None):
            return [f"{self.prices[item]} {self.currency}" for item in model_input["item"]]

    with tempfile.TemporaryDirectory() as directory:
        prices = pathlib.Path(directory, "prices.json")
        prices.write_text('{"tea": 2.5, "milk": 1}')
        pyfunc(
            name, Looks(), pd.DataFrame({"item": ["tea"]}), Schema([ColSpec("string", "item")]),
            artifacts={"prices": str(prices)}, model_config={"currency": "EUR"},
        )  # fmt: skip
    return [
        ask("prices", {"dataframe_records": [{"item": "tea"}, {"item": "milk"}]}),
        refuse("what has no price", {"dataframe_records": [{"item": "gold"}]}),
    ]


@kind("written-as-code")
def _(name):
    with tempfile.TemporaryDirectory() as directory:
        script = pathlib.Path(directory, "model.py")
        script.write_text(
            "import mlflow\n\n\nclass Adds(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input, params=None):\n        return model_input['x'] + model_input['y']\n\n\n"
            "mlflow.models.set_model(Adds())\n"
        )
        pyfunc(name, str(script), NUMBERS, NUMBERS_SCHEMA)
    return of_frame(NUMBERS)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--tracking-uri", required=True)
    arguments.add_argument("--payloads", required=True)
    arguments.add_argument("--only", nargs="*", default=list(ZOO))
    arguments = arguments.parse_args()
    mlflow.set_tracking_uri(arguments.tracking_uri)
    mlflow.set_experiment("zoo")
    written = []
    for name in arguments.only:
        begun = time.monotonic()
        payloads = ZOO[name](name)
        written.append({"name": name, "payloads": [*payloads, *any_model()]})
        print(f"{name}: {len(payloads)} payloads, registered in {time.monotonic() - begun:.1f} s", flush=True)
    pathlib.Path(arguments.payloads).write_text(json.dumps(written))


if __name__ == "__main__":
    main()

"""Saves a real model in DIRECTORY/text, and MLflow's answers to requests for it in DIRECTORY/expected.json."""

import asyncio
import json
import os
import sys

import mlflow
import pandas
from mlflow.pyfunc import scoring_server
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

TEXTS, LABELS = ["a good day", "great and fine", "bad and awful", "terrible, poor"] * 10, [1, 1, 0, 0] * 10


class Text(mlflow.pyfunc.PythonModel):
    def __init__(self, pipeline):
        self.pipeline = pipeline

    def predict(self, context, model_input, params=None):
        if params and params["raises"]:
            raise RuntimeError("asked to raise")
        scores = self.pipeline.predict_proba(list(model_input["text"]))[:, 1]
        return [{"label": "positive" if score > 0.5 else "negative", "score": float(score)} for score in scores]


async def post(app, content_type, body):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "query_string": b""}
    await app({**scope, "headers": [(b"content-type", content_type.encode())]}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], headers["content-type"], answer.decode()


directory = sys.argv[1]
path = os.path.join(directory, "text")
pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, LABELS)
example = (pandas.DataFrame({"text": TEXTS[:2]}), {"raises": False})
requirements = ["mlflow", "scikit-learn==0.1.0", "a-library-that-is-missing>=2", "pandas; python_version < '3'"]
mlflow.pyfunc.save_model(path, python_model=Text(pipeline), input_example=example, pip_requirements=requirements)

app = scoring_server.init(scoring_server.load_model_with_mlflow_config(path))
split = {"columns": ["text"], "data": [["a good day"], ["awful"]]}
cases = [("application/json", json.dumps(body)) for body in [
    {"dataframe_split": split},
    {"dataframe_split": split, "params": {"raises": True}},
    {"dataframe_records": [{"text": "fine", "more": 1}]},
    {"inputs": {"text": ["fine"]}},
    {"instances": [{"text": "fine"}]},
    {"inputs": {"nope": ["fine"]}},
    {"dataframe_split": {"columns": ["text"], "data": [[None]]}},
    {"inputs": [], "instances": []},
    {"messages": [{"role": "user", "content": "hello"}]},
    [1],
]]
cases += [
    ("application/json", '{"dataframe_split": '),
    ("application/json; charset=utf-8", json.dumps({"dataframe_split": split})),
    ("application/json; charset=latin-1", "{}"),
    ("application/json; format=x", "{}"),
    ("text/csv", "text\nfine\n"),
    ("text/plain", "fine"),
]
answers = [[*case, *asyncio.run(post(app, case[0], case[1].encode()))] for case in cases]
with open(os.path.join(directory, "expected.json"), "w") as file:
    json.dump(answers, file)

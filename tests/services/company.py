"""Saves models whose answers to a row depend on the other rows of the call, in many ways, and models whose answers do not.

    python company.py DIRECTORY

DIRECTORY/NAME becomes a model, and DIRECTORY/models.json `[{"name": …, "kind": …}, …]`. Each is asked rows of `amount`
(double, may be null), `city` (string) and `count` (long). Its kind says what is to be seen of its answers when each request is
a call of its own:

- `dependent`: each is what its rows get alone;
- `stateful`: no two of them are the same;
- `independent`: each is what its rows get alone, whether they go together or not, and they do.
"""

import json
import os
import pathlib
import random
import sys
import threading
import time
import uuid
import warnings

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
warnings.filterwarnings("ignore")

import mlflow
import numpy as np
import pandas as pd
from kinds import requirements
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import NMF
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("double", "amount", required=False), ColSpec("string", "city"), ColSpec("long", "count")])
)
DRAW = np.random.default_rng(3)
CITIES = ["Oslo", "Rome", "Łódź", "Paris"]
TRAINING = pd.DataFrame(
    {
        "amount": DRAW.normal(50, 20, 80).round(2),
        "city": [CITIES[n % 4] for n in range(80)],
        "count": DRAW.integers(0, 9, 80),
    }
)
LABELS = (TRAINING["amount"] > 50).astype(int).to_numpy()
TWO_LABELS = np.column_stack([LABELS, TRAINING["count"] > 4]).astype(int)
NUMBERS = ["amount", "count"]


class Of(mlflow.pyfunc.PythonModel):
    """Answers with what a function makes of all rows."""

    def __init__(self, answer):
        self.answer = answer

    def predict(self, context, model_input, params=None):
        return list(self.answer(model_input))


def scaled(values):
    return (values - values.mean()) / (values.std() or 1.0)


# What fills in, ranks, scales, groups, sorts or counts, over the rows of a call.
DEPENDENT = {
    # Nulls.
    "fills-with-mean": lambda rows: rows["amount"].fillna(rows["amount"].mean()).fillna(0.0),
    "fills-with-median": lambda rows: rows["amount"].fillna(rows["amount"].median()).fillna(0.0),
    "fills-with-mode": lambda rows: rows["amount"].fillna(rows["amount"].mode().max()).fillna(-1.0),
    "fills-forward": lambda rows: rows["amount"].ffill().fillna(0.0),
    "fills-backward": lambda rows: rows["amount"].bfill().fillna(0.0),
    "interpolates": lambda rows: rows["amount"].interpolate().fillna(0.0),
    "fills-by-city": lambda rows: rows["amount"].fillna(rows.groupby("city")["amount"].transform("mean")).fillna(0.0),
    "any-null": lambda rows: [bool(rows["amount"].isna().any())] * len(rows),
    "share-of-nulls": lambda rows: [float(rows["amount"].isna().mean())] * len(rows),
    "nulls-only-when-all": lambda rows: [rows["amount"].isna().all()] * len(rows),
    # Duplicates.
    "duplicated": lambda rows: rows.duplicated(),
    "duplicated-keep-last": lambda rows: rows.duplicated(keep="last"),
    "duplicated-at-all": lambda rows: rows.duplicated(keep=False),
    "distinct-rows": lambda rows: [len(rows.drop_duplicates())] * len(rows),
    "times-seen": lambda rows: rows["city"].map(rows["city"].value_counts()),
    "number-in-group": lambda rows: rows.groupby("city").cumcount(),
    # Categories.
    "dummies": lambda rows: (
        pd.get_dummies(rows[["amount", "city"]], columns=["city"], drop_first=True)
        .reindex(columns=["amount", *(f"city_{city}" for city in CITIES)], fill_value=0).fillna(0.0).astype(float).to_numpy().tolist()
    ),
    "factorized": lambda rows: pd.factorize(rows["city"])[0].tolist(),
    "category-codes": lambda rows: rows["city"].astype("category").cat.codes.astype(int),
    "most-frequent-city": lambda rows: [rows["city"].mode()[0]] * len(rows),
    "rare-city": lambda rows: rows["city"].map(rows["city"].value_counts(normalize=True)) < 0.3,
    "longest-city": lambda rows: rows["city"].str.len() == rows["city"].str.len().max(),
    # Ranks and bins.
    "rank": lambda rows: rows["count"].rank(),
    "dense-rank": lambda rows: rows["count"].rank(method="dense"),
    "percentile": lambda rows: rows["count"].rank(pct=True),
    "is-largest": lambda rows: rows["count"] == rows["count"].max(),
    "above-median": lambda rows: rows["count"] > rows["count"].median(),
    "top-two": lambda rows: rows["count"].rank(ascending=False, method="first") <= 2,
    "quantile-bins": lambda rows: pd.qcut(rows["count"].rank(method="first"), min(3, len(rows)), labels=False).astype(int),
    "equal-bins": lambda rows: pd.cut(rows["count"], 3, labels=False).astype(int),
    # Scaling.
    "z-score": lambda rows: scaled(rows["count"].astype(float)).fillna(0.0),
    "min-max": lambda rows: (rows["count"] - rows["count"].min()) / max(1, rows["count"].max() - rows["count"].min()),
    "softmax-over-rows": lambda rows: np.exp(rows["count"]) / np.exp(rows["count"]).sum(),
    "share-of-total": lambda rows: rows["count"] / max(1, rows["count"].sum()),
    "clipped-to-quantiles": lambda rows: rows["count"].clip(rows["count"].quantile(0.2), rows["count"].quantile(0.8)).astype(float),
    "minus-mean": lambda rows: rows["count"] - rows["count"].mean(),
    # Order and neighbours.
    "sorted": lambda rows: rows["count"].sort_values(),
    "reversed": lambda rows: rows["count"].to_numpy()[::-1].tolist(),
    "position": lambda rows: range(len(rows)),
    "by-index": lambda rows: rows.index,
    "difference-to-the-one-before": lambda rows: rows["count"].diff().fillna(0.0),
    "cumulative": lambda rows: rows["count"].cumsum(),
    "rolling-mean": lambda rows: rows["count"].rolling(3, min_periods=1).mean(),
    "exponential-mean": lambda rows: rows["count"].ewm(alpha=0.5).mean(),
    "distance-to-the-others": lambda rows: [float(np.abs(rows["count"] - count).mean()) for count in rows["count"]],
    # Size, and the call as a whole.
    "rows-in-the-call": lambda rows: [len(rows)] * len(rows),
    "first-row-only": lambda rows: [int(rows["count"].iloc[0])] * len(rows),
    "slow-for-one-is-cheap-for-many": lambda rows: ["one" if len(rows) == 1 else "many"] * len(rows),
    "sum-of-all": lambda rows: [int(rows["count"].sum())] * len(rows),
    "seeded-draws": lambda rows: np.random.default_rng(7).random(len(rows)),
    "type-of-the-column": lambda rows: [str(rows["amount"].isna().dtype) + str(len(rows["amount"].dropna()))] * len(rows),
}  # fmt: skip


class Counts(mlflow.pyfunc.PythonModel):
    """Keeps something from call to call."""

    def __init__(self, answer):
        self.answer, self.calls, self.lock = answer, 0, None

    def predict(self, context, model_input, params=None):
        self.lock = self.lock or threading.Lock()
        with self.lock:
            self.calls += 1
            return [self.answer(self)] * len(model_input)


STATEFUL = {
    "counts-its-calls": lambda model: model.calls,
    "time-of-the-call": lambda model: time.time_ns(),
    "clock-of-the-call": lambda model: time.perf_counter_ns(),
    "draw-of-the-call": lambda model: random.random(),
    "numpy-draw-of-the-call": lambda model: float(np.random.default_rng().random()),
    "name-of-the-call": lambda model: str(uuid.uuid4()),
}


class Demeaned(TransformerMixin, BaseEstimator):
    """A transformer of one's own."""

    def fit(self, rows, labels=None):
        self.fitted_ = True
        return self

    def transform(self, rows):
        rows = np.asarray(rows, float)
        return rows - rows.mean(axis=0)


class OwnScaler(StandardScaler):
    """Looks like one that is known."""

    def transform(self, rows, copy=None):
        return StandardScaler().fit_transform(rows)


def numbers(step, last=None):
    """A pipeline of what is done to the two numbers, which are never missing then, and a model."""
    columns = make_column_transformer((make_pipeline(SimpleImputer(), step), NUMBERS))
    return make_pipeline(columns, last or LinearRegression()).fit(TRAINING, LABELS)


def patched():
    model = numbers(StandardScaler(), KMeans(2, random_state=1))
    model.predict = lambda rows: (rows["count"] - rows["count"].mean()).to_numpy()
    return model


def sklearn_dependent():
    yield "sklearn-function", numbers(FunctionTransformer(lambda rows: rows - rows.mean(axis=0)))
    yield "sklearn-own-transformer", numbers(Demeaned())
    yield "sklearn-own-subclass", numbers(OwnScaler())
    searched = make_pipeline(
        make_column_transformer((make_pipeline(SimpleImputer(), Demeaned()), NUMBERS)), LinearRegression()
    )
    yield (
        "sklearn-own-in-a-search",
        GridSearchCV(searched, {"linearregression__fit_intercept": [True]}, cv=2).fit(TRAINING, LABELS),
    )
    yield "sklearn-patched", patched()
    yield (
        "sklearn-table-of-texts",
        make_pipeline(CountVectorizer(), LinearRegression()).fit(["amount", "city", "count", "x"], range(4)),
    )
    yield "sklearn-settles-together", numbers(make_pipeline(MinMaxScaler(clip=True), NMF(2, tol=0.5, random_state=1)))


def sklearn_independent():
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS), (OneHotEncoder(handle_unknown="ignore"), ["city"])
    )
    yield "good-linear", make_pipeline(columns, LinearRegression()).fit(TRAINING, TRAINING["amount"])
    yield "good-classes", make_pipeline(columns, LogisticRegression()).fit(TRAINING, LABELS)
    yield "good-forest", make_pipeline(columns, RandomForestClassifier(9, random_state=1)).fit(TRAINING, LABELS)
    yield (
        "good-search",
        GridSearchCV(
            make_pipeline(columns, DecisionTreeClassifier()), {"decisiontreeclassifier__max_depth": [2, 4]}
        ).fit(TRAINING, LABELS),
    )
    holes = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["city"]), remainder="passthrough"
    )
    yield (
        "good-boosting",
        make_pipeline(holes, HistGradientBoostingRegressor(max_iter=9)).fit(TRAINING, TRAINING["amount"]),
    )
    texts = ColumnTransformer([("words", TfidfVectorizer(analyzer="char"), "city")])
    yield "good-texts", make_pipeline(texts, LogisticRegression()).fit(TRAINING, LABELS)
    yield "good-neighbours", numbers(StandardScaler(), KNeighborsClassifier(algorithm="kd_tree"))


def save(model, path, flavor=mlflow.pyfunc, **more):
    more |= (
        {"python_model": model}
        if flavor is mlflow.pyfunc
        else {"sk_model": model, "serialization_format": "cloudpickle"}
    )
    flavor.save_model(path=path, signature=SIGNATURE, pip_requirements=requirements("scikit-learn"), **more)


def main():
    directory, written = pathlib.Path(sys.argv[1]), []

    def add(name, kind, *arguments, **more):
        save(*arguments[:1], directory / name, *arguments[1:], **more)
        written.append({"name": name, "kind": kind})

    for name, answer in DEPENDENT.items():
        add(name, "dependent", Of(answer))
    for name, answer in STATEFUL.items():
        add(name, "stateful", Counts(answer))
    for name, model in sklearn_dependent():
        add(name, "dependent", model, mlflow.sklearn)
    two = make_pipeline(make_column_transformer((SimpleImputer(), NUMBERS)), DecisionTreeClassifier(max_depth=3)).fit(
        TRAINING, TWO_LABELS
    )
    add("sklearn-chances-of-two-targets", "dependent", two, mlflow.sklearn, pyfunc_predict_fn="predict_proba")
    for name, model in sklearn_independent():
        add(name, "independent", model, mlflow.sklearn)
    (directory / "models.json").write_text(json.dumps(written))
    print(f"{len(written)} models")


if __name__ == "__main__":
    main()

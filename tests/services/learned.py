"""Models of the zoo that libraries have learned from data."""

import mlflow
import numpy as np
import pandas as pd
from kinds import kind, requirements
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from payloads import ask, of_frame, refuse
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

DRAW = np.random.default_rng(7)
TEXTS = pd.DataFrame({"text": ["a great day", "wonderful food", "terrible service", "an awful, awful film", ""]})
MOODS = ["glad", "glad", "sad", "sad", "sad"]
PLANTS = pd.DataFrame(
    DRAW.normal(size=(30, 4)).round(3), columns=["petal_length", "petal_width", "sepal_length", "sepal width (cm)"]
)
KINDS = (PLANTS.iloc[:, 0] + PLANTS.iloc[:, 1] > 0).astype(int).to_numpy()
PEOPLE = pd.DataFrame(
    {
        "age": [23, 45, 31, 62] * 4,
        "income": [1200.5, 5300.0, 2750.25, 0.0] * 4,
        "city": ["Oslo", "Łódź", "São Paulo", "Oslo"] * 4,
        "member": [True, False, True, False] * 4,
    }
)  # fmt: skip


def sklearn(name, model, example=None, outputs=None, predict="predict", signature=None, **more):
    if signature is None and outputs is not None:
        signature = infer_signature(example, outputs)
    mlflow.sklearn.log_model(
        model, name="model", registered_model_name=name, input_example=example, signature=signature,
        pyfunc_predict_fn=predict, serialization_format="cloudpickle", pip_requirements=requirements("scikit-learn"), **more,
    )  # fmt: skip


def text_pipeline(vectorizer, classifier):
    return make_pipeline(ColumnTransformer([("words", vectorizer, "text")]), classifier).fit(TEXTS, MOODS)


# scikit-learn: text


@kind("text-words")
def _(name):
    model = text_pipeline(TfidfVectorizer(), LogisticRegression())
    sklearn(name, model, TEXTS.head(2), model.predict(TEXTS))
    return of_frame(TEXTS.head(4))


@kind("text-chances")
def _(name):
    model = text_pipeline(HashingVectorizer(n_features=64), SGDClassifier(loss="log_loss", random_state=1))
    sklearn(name, model, TEXTS.head(2), model.predict_proba(TEXTS), predict="predict_proba")
    return of_frame(TEXTS.head(4))


@kind("text-without-signature")
def _(name):
    sklearn(name, text_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()))
    return of_frame(TEXTS.head(4))


# scikit-learn: tables


@kind("plants-forest")
def _(name):
    model = RandomForestClassifier(n_estimators=5, random_state=1).fit(PLANTS, KINDS)
    sklearn(name, model, PLANTS.head(2), model.predict(PLANTS))
    return of_frame(PLANTS.head(5))


@kind("plants-without-signature")
def _(name):
    sklearn(name, make_pipeline(StandardScaler(), LogisticRegression()).fit(PLANTS, KINDS))
    return [*of_frame(PLANTS.head(5)), ask("rows without names", {"inputs": PLANTS.head(2).to_numpy().tolist()}, None)]


@kind("plants-minus-infinity")
def _(name):
    # A tree is sure: the logarithm of its other chance is minus infinity, which JSON has no word for.
    model = DecisionTreeClassifier(max_depth=3, random_state=1).fit(PLANTS, KINDS)
    sklearn(name, model, PLANTS.head(2), model.predict_log_proba(PLANTS), predict="predict_log_proba")
    return of_frame(PLANTS.head(5))


@kind("plants-outliers")
def _(name):
    model = IsolationForest(n_estimators=5, random_state=1).fit(PLANTS)
    sklearn(name, model, PLANTS.head(2), model.predict(PLANTS))
    return of_frame(PLANTS.head(5))


@kind("plants-tensor")
def _(name):
    rows = PLANTS.to_numpy()
    model = GaussianNB().fit(rows, KINDS)
    sklearn(name, model, rows[:2], model.predict(rows))
    rows = rows[:3].tolist()
    return [
        ask("a tensor", {"inputs": rows}),
        ask("instances of a tensor", {"instances": rows}),
        ask("one row", {"inputs": rows[:1]}),
        refuse("one dimension", {"inputs": rows[0]}),
        refuse("three columns", {"inputs": [row[:3] for row in rows]}),
        refuse("ragged rows of a tensor", {"inputs": [rows[0], rows[1][:2]]}),
        refuse("words in a tensor", {"inputs": [["a", "b", "c", "d"]]}),
        ask("whole numbers", {"inputs": [[1, 2, 3, 4]]}, None),
        ask("a hole in a tensor", {"inputs": [[None, 1.0, 2.0, 3.0]]}, None),
        *of_frame(PLANTS.head(3))[:3],
    ]


@kind("regression-ridge")
def _(name):
    model = Ridge().fit(PLANTS, PLANTS.sum(axis=1))
    sklearn(name, model, PLANTS.head(2), model.predict(PLANTS))
    return of_frame(PLANTS.head(5))


@kind("regression-two-targets")
def _(name):
    targets = pd.DataFrame({"sum": PLANTS.sum(axis=1), "first": PLANTS.iloc[:, 0]})
    model = LinearRegression().fit(PLANTS, targets)
    sklearn(name, model, PLANTS.head(2), model.predict(PLANTS))
    return of_frame(PLANTS.head(5))


@kind("people-mixed")
def _(name):
    columns = ColumnTransformer(
        [
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("numbers", "passthrough", ["age", "income", "member"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(PEOPLE, PEOPLE["member"])
    sklearn(name, model, PEOPLE.head(2), model.predict(PEOPLE))
    return of_frame(PEOPLE.head(4))


@kind("people-with-holes")
def _(name):
    numbers = PEOPLE[["age", "income"]].astype("float64")
    model = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=2).fit(numbers, PEOPLE["member"])
    inputs = Schema([ColSpec("double", "age", required=False), ColSpec("double", "income")])
    sklearn(name, model, numbers.head(2), signature=ModelSignature(inputs=inputs))
    return [
        *of_frame(numbers.head(3)),
        ask("null where it may be", {"dataframe_records": [{"age": None, "income": 1.0}]}),
        ask("without the optional column", {"dataframe_records": [{"income": 1.0}]}, None),
        refuse("without the other one", {"dataframe_records": [{"age": 1.0}]}),
    ]


# Other libraries


@kind("xgboost-classifier")
def _(name):
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1).fit(PLANTS, KINDS)
    boost(name, model)
    return of_frame(PLANTS.head(5))


@kind("xgboost-booster")
def _(name):
    import xgboost

    matrix = xgboost.DMatrix(PLANTS, label=PLANTS.sum(axis=1))
    model = xgboost.train({"max_depth": 2, "nthread": 1}, matrix, num_boost_round=5)
    boost(name, model)
    return of_frame(PLANTS.head(5))


def boost(name, model):
    mlflow.xgboost.log_model(
        model, name="model", registered_model_name=name, input_example=PLANTS.head(2),
        signature=infer_signature(PLANTS), pip_requirements=requirements("xgboost-cpu"), model_format="json",
    )  # fmt: skip


@kind("onnx")
def _(name):
    from onnx import TensorProto, checker, helper, numpy_helper

    weights = np.array([[0.5, -0.5], [0.25, 1.0], [-1.0, 0.0], [0.125, 2.0]], "float32")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["sums"]), helper.make_node("Softmax", ["sums"], ["chances"])],
        "two chances",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    rows = PLANTS.head(2).to_numpy("float32")
    mlflow.onnx.log_model(
        model, name="model", registered_model_name=name, input_example=rows, signature=infer_signature(rows),
        pip_requirements=requirements("onnx", "onnxruntime"),
    )  # fmt: skip
    rows = rows.tolist()
    return [
        ask("a tensor", {"inputs": rows}),
        ask("a frame", {"dataframe_split": {"columns": list("abcd"), "data": rows}}, None),
        refuse("three columns", {"inputs": [row[:3] for row in rows]}),
        refuse("words in a tensor", {"inputs": [["a", "b", "c", "d"]]}),
    ]

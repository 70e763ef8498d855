"""Runs a model's load and call beforehand, without a model, for the imports and the memory that they touch.

The template prewarms once it has imported everything. A spare host prewarms while it waits for its model: then it has
copied the memory that every load and call writes to, while nobody waits for it.
"""

import contextlib
import os
import sys
import tempfile
import types

import mlflow.pyfunc
from mlflow.pyfunc import scoring_server

BODIES = [
    ("application/json", b'{"dataframe_split": {"columns": ["a", "b"], "data": [["x", 1.5], ["y", 2.0]]}}'),
    ("application/json", b'{"dataframe_records": [{"a": "x", "b": 1.5}]}'),
    ("application/json", b'{"inputs": {"a": ["x"], "b": [1.5]}}'),
    ("application/json", b'{"instances": [{"a": "x", "b": 1.5}]}'),
    ("application/json", b'{"inputs": {"c": ["x"]}}'),
    ("text/csv", b"a,b\nx,1.5\n"),
]
INPUTS = '[{"type": "string", "name": "a", "required": true}, {"type": "double", "name": "b", "required": true}]'
SIGNATURES = ["", f"signature:\n  inputs: '{INPUTS}'\n"]


def run(signatures=SIGNATURES, bodies=BODIES, load=mlflow.pyfunc.load_model):
    """Loads and calls a model that does nothing, since MLflow imports much only then."""

    class Nothing:
        def predict(self, model_input, params=None):
            return model_input

    loader = types.ModuleType("signalbox_prewarm")
    loader._load_pyfunc = lambda *_, **__: Nothing()
    sys.modules[loader.__name__] = loader
    try:
        for signature in signatures:
            with tempfile.TemporaryDirectory(dir=TEMPLATE.scratch) as directory:  # noqa: F821
                with open(os.path.join(directory, "requirements.txt"), "w") as file:
                    file.write(f"mlflow=={mlflow.__version__}\n")
                with open(os.path.join(directory, "MLmodel"), "w") as file:
                    version = ".".join(map(str, sys.version_info[:3]))
                    file.write(
                        f"flavors:\n  python_function:\n    loader_module: {loader.__name__}\n    env: "
                        f"{{virtualenv: python_env.yaml}}\n    python_version: {version}\n{signature}"
                    )
                model = load(directory)
                schema = model.metadata.get_input_schema()
                for content_type, body in bodies:
                    with contextlib.suppress(mlflow.exceptions.MlflowException):
                        scoring_server.invocations(body, content_type, model, schema)
    finally:
        del sys.modules[loader.__name__]


def run_sklearn():
    """Runs scikit-learn's checks of its input, which look for plugins once. Parallel code is avoided, since it would
    not survive a fork."""
    import pandas
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import MaxAbsScaler

    # The sparse matrix stands for what texts are turned into: every plugin is asked only for input that is no table.
    for table in (pandas.DataFrame({"a": [1.0, 2.0]}), csr_matrix([[1.0], [2.0]])):
        MaxAbsScaler().fit(table).transform(table)


def run_short(load):
    """Runs one load and one call, as a host does them."""
    run(SIGNATURES[1:], BODIES[:1], lambda directory: load(directory, True)[0])

"""Decides whether a model answers each row as if it were alone, from what the model is made of.

Trying cannot prove independence: the row that would show the opposite may be the next one. So everything that a model
holds has to be known: its loader, each estimator in it by its very class (a subclass may do anything), what else the
library puts in there, and plain data. Every unknown part is a reason to call the model singly. Refused rows are another
matter: a call with one of them is refused as a whole, and made again without it.
"""

import collections
import sys
import types

ESTIMATORS = TEMPLATE.execute("estimators")  # noqa: F821
KNOWN, CHANCES, peculiarity = ESTIMATORS["KNOWN"], ESTIMATORS["CHANCES"], ESTIMATORS["peculiarity"]

# Classes of the models that MLflow's own loaders make.
LOADERS = {
    "mlflow.sklearn": "_SklearnModelWrapper",
    "mlflow.xgboost": "_XGBModelWrapper",
    "mlflow.lightgbm": "_LGBModelWrapper",
    "mlflow.catboost": "_CatboostModelWrapper",
    "mlflow.statsmodels": "_StatsmodelsModelWrapper",
    "mlflow.onnx": "_OnnxModelWrapper",
}
# Column types whose values MLflow reads each by itself.
PLAIN_COLUMNS = ("boolean", "integer", "long", "float", "double", "string")

# Libraries whose classes may be part of a known model, as long as they are no estimators.
LIBRARIES = (
    "numpy",
    "scipy",
    "sklearn",
    "xgboost",
    "lightgbm",
    "catboost",
    "_catboost",
    "ctypes",
    "pandas",
    "statsmodels",
)
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), slice, range)
CONTAINERS = (list, tuple, set, frozenset, dict, collections.defaultdict, collections.OrderedDict)
FUNCTIONS = ("function", "builtin_function_or_method", "cython_function_or_method", "_ArrayFunctionDispatcher", "ufunc")
# Attributes of a class that have a say in its answers, where these are not all of its attributes.
ANSWERING_ATTRIBUTES = {
    **dict.fromkeys(
        ["GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV"], ["best_estimator_"]
    ),
    "TunedThresholdClassifierCV": ["estimator_", "best_threshold_", "response_method"],
}


class Doubt(Exception):
    """Says why a model may look at other rows."""


def assess(model):
    """Examines a model as MLflow has loaded it. `doubt` says why it may answer a row otherwise when others are called
    with it, `None` when it cannot; `declared` tells whether its owner has logged it with the word that it does not."""
    metadata = model.metadata.metadata
    return {"doubt": doubt(model), "declared": isinstance(metadata, dict) and metadata.get("signalbox.batch") == "rows"}


def doubt(model):
    try:
        examine(model)
    except Doubt as why:
        return str(why)
    except Exception as error:
        return f"it cannot be examined: {type(error).__name__}: {error}"
    return None


def examine(model):
    flavor = model.metadata.flavors.get("python_function", {})
    loader = flavor.get("loader_module")
    if loader not in LOADERS:
        raise Doubt(f"what {loader} loads may look at all rows of a call")
    wrapper = model._model_impl
    if type(wrapper) is not getattr(sys.modules[loader], LOADERS[loader]):
        raise Doubt(f"{name_of(type(wrapper))} is not what {loader} is known to load")
    called = flavor.get("predict_fn", "predict")
    if called not in ("predict", *CHANCES):
        raise Doubt(f"{called} is not known to answer each row by itself")
    examine_signature(model.metadata.signature)
    if loader == "mlflow.onnx":
        if why := TEMPLATE.execute("onnx_graph")["doubt"](wrapper.rt._model_path):  # noqa: F821
            raise Doubt(why)
        return
    Examination(called).look(wrapper.get_raw_model())


def examine_signature(signature):
    """Doubts a signature with which MLflow may change rows before the model gets them."""
    if signature is None:
        return
    if signature.params is not None:
        raise Doubt("its params may change what it answers with")
    for spec in signature.inputs or ():
        shape, kind = getattr(spec, "shape", None), getattr(spec.type, "name", None)
        if shape is not None and shape[:1] != (-1,):
            raise Doubt(f"its input has the shape {shape}")
        if shape is None and kind not in PLAIN_COLUMNS:
            raise Doubt(f"its input has a column of {kind or spec.type}")


class Examination:
    """A walk through all that a model holds."""

    def __init__(self, called):
        self.called, self.seen = called, {}

    def look(self, value, of_texts=False):
        """Raises a doubt about a value that is not known. `of_texts` tells that the value is given one column, as a
        list of texts."""
        kind = type(value)
        if kind in PLAIN or (id(value), of_texts) in self.seen:
            return
        # The value is kept, so that no other value gets its id.
        self.seen[id(value), of_texts] = value
        if kind in CONTAINERS:
            self.look_at_all(value.values() if isinstance(value, dict) else value)
            if isinstance(value, dict):
                self.look_at_all(value)
        elif isinstance(value, types.MethodType):
            self.look_at_all([value.__self__, value.__func__])
        elif isinstance(value, type) or kind.__name__ in FUNCTIONS:
            look_up(value)
        elif kind.__module__.split(".")[0] == "numpy" and hasattr(value, "dtype"):
            if value.dtype.hasobject:
                self.look_at_all(list(value.flat))
        elif kind.__module__.split(".")[0] == "pandas":
            look_up(kind)
        elif not is_estimator(value):
            self.look_at_part(value)
        else:
            self.look_at_estimator(value, of_texts)

    def look_at_all(self, values):
        # Vocabularies and categories are long, so a container of plain data is not walked through.
        if not set(map(type, values)) <= set(PLAIN):
            for value in values:
                self.look(value)

    def look_at_part(self, value):
        look_up(type(value))
        if callable(value) and type(value).__module__ == "builtins":
            raise Doubt(f"{value} may look at all rows of a call")
        for attribute in vars(value).values() if hasattr(value, "__dict__") else ():
            self.look(attribute)

    def look_at_estimator(self, estimator, of_texts):
        kind = type(estimator)
        package = ".".join(kind.__module__.split(".")[:2])
        if kind.__name__ not in KNOWN.get(package, {}):
            raise Doubt(f"{name_of(kind)} is not known to answer each row by itself")
        look_up(kind)
        held = vars(estimator) if hasattr(estimator, "__dict__") else {}
        for name, value in held.items():
            if type(value).__name__ in (*FUNCTIONS, "method") and hasattr(kind, name):
                raise Doubt(f"the `{name}` of {name_of(kind)} is not its own")
        if why := peculiarity(kind.__name__, held, self.called, of_texts):
            raise Doubt(f"{name_of(kind)} {why}")
        for name in ANSWERING_ATTRIBUTES.get(kind.__name__, held):
            value = held.get(name)
            if (kind.__name__, name) in (("ColumnTransformer", "transformers"), ("ColumnTransformer", "transformers_")):
                for _, transformer, columns in value:
                    self.look(transformer, of_texts=isinstance(columns, (str, int)))
                    self.look(columns)
            elif (kind.__name__, name) == ("Pipeline", "steps"):
                for number, (_, step) in enumerate(value):
                    self.look(step, of_texts=of_texts and number == 0)
            elif (kind.__name__, name) == ("FeatureUnion", "transformer_list"):
                for _, transformer in value:
                    self.look(transformer, of_texts=of_texts)
            elif (name, name_of(kind).rpartition(".")[2][:4]) != ("_preprocessor", "Hist"):
                self.look(value)


def is_estimator(value):
    return any(hasattr(value, name) for name in ("fit", "predict", "transform"))


def look_up(value):
    """Doubts a value that no known library holds under the value's own name."""
    module, name = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    if module == "builtins" and isinstance(value, type):
        return
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if module.split(".")[0] not in LIBRARIES or found is not value:
        raise Doubt(f"{name_of(value)} may look at all rows of a call")


def name_of(value):
    return f"{getattr(value, '__module__', None) or '?'}.{getattr(value, '__qualname__', type(value).__name__)}"

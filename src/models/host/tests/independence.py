"""Tries each class that is known to answer row by row, in company of hostile rows; and models that are not known.

    python independence.py DIRECTORY

DIRECTORY holds the programs of hosts. Prints each error.
"""

import functools
import pathlib
import sys
import types
import warnings

import catboost
import lightgbm
import numpy as np
import pandas as pd
import sklearn.calibration
import sklearn.cluster
import sklearn.compose
import sklearn.decomposition
import sklearn.discriminant_analysis
import sklearn.dummy
import sklearn.ensemble
import sklearn.feature_extraction.text
import sklearn.feature_selection
import sklearn.frozen
import sklearn.impute
import sklearn.isotonic
import sklearn.kernel_approximation
import sklearn.linear_model
import sklearn.mixture
import sklearn.model_selection
import sklearn.multiclass
import sklearn.multioutput
import sklearn.naive_bayes
import sklearn.neighbors
import sklearn.neural_network
import sklearn.pipeline
import sklearn.preprocessing
import sklearn.random_projection
import sklearn.svm
import sklearn.tree
import statsmodels.api as statsmodels
import statsmodels.formula.api as formulas
import xgboost
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.pipeline import make_pipeline

warnings.filterwarnings("ignore")
np.seterr(all="ignore")



class Programs:
    """Executes programs as the template does."""

    def execute(self, program):
        namespace = {"__name__": f"signalbox_{program}", "TEMPLATE": self}
        exec(compile(pathlib.Path(sys.argv[1], program + ".py").read_text(), program, "exec"), namespace)
        return namespace


PROGRAM = types.SimpleNamespace(**Programs().execute("independence"))

DRAW = np.random.default_rng(11)
TABLE = pd.DataFrame(DRAW.normal(size=(80, 4)).round(2), columns=list("abcd"))
COUNTS = (TABLE.abs() * 4).round()
CLASSES = np.array(["high", "low", "middle"])[(TABLE["a"] > 0).astype(int) + (TABLE["b"] > 0.5)]
YES = (TABLE["a"] + TABLE["b"] > 0).to_numpy()
NOISY = (YES ^ (TABLE["d"] > 1)).astype(float)
SUM = TABLE.sum(axis=1).to_numpy()
TWO = np.column_stack([YES, TABLE["c"] > 0]).astype(int)
HOSTILE = pd.DataFrame(
    [
        [np.nan, 0.5, 0.5, 0.5], [np.nan] * 4, [0.5, np.nan, np.nan, 1.0], [np.inf, 0.0, 0.0, 0.0], [-np.inf, np.inf, 1.0, 1.0],
        [1e300, 1e300, 1e300, 1e300], [1e-320, 0.0, -0.0, 0.0], [0.0] * 4, [0.0] * 4, [1e6, -1e6, 1e6, -1e6], [-5.0, -5.0, 2.0, 2.0],
    ],
    columns=list("abcd"),
)  # fmt: skip
ROWS = pd.concat([TABLE.head(12), HOSTILE, TABLE.head(3), TABLE.tail(6)], ignore_index=True)
COUNT_ROWS = pd.concat([COUNTS.head(12), HOSTILE, HOSTILE.abs(), COUNTS.head(3)], ignore_index=True)
PEOPLE = pd.DataFrame({"city": ["Oslo", "Rome", "Oslo", "Łódź"] * 20, "job": ["a", "b", "c", "a"] * 20}, dtype=object)
STRANGERS = pd.DataFrame(
    {"city": ["Oslo", "Paris", "", "Rome", "Rome", None, "oslo", "Łódź"], "job": ["a", "a", "z", "c", "c", "b", None, ""]},
    dtype=object,
)  # fmt: skip
TEXTS = ["a good day", "great and fine", "bad and awful", "terrible, poor"] * 20
WORDS = pd.Series(["a good day", "", "unheard of", "bad bad bad", "a good day", "GREAT ünïcode", "x" * 500, "and"], name="text")


def cases():
    """Yields fitted estimators, with the rows to try them with."""
    kinds = {
        name: getattr(sys.modules[package], name)
        for package, names in PROGRAM.KNOWN.items()
        for name in names
        if package.startswith("sklearn.linear_model")
    }
    for name, kind in kinds.items():
        if name.startswith("MultiTask"):
            yield kind().fit(TABLE, TWO), ROWS
        elif name in ("GammaRegressor", "PoissonRegressor", "TweedieRegressor"):
            yield kind().fit(TABLE, np.exp(SUM / 4)), ROWS
        else:
            yield kind().fit(TABLE, CLASSES if sklearn.base.is_classifier(kind()) else SUM), ROWS
    yield from preprocessing()
    yield from features()
    yield from estimators()
    yield from meta()
    yield from boosters()


def preprocessing():
    module = sklearn.preprocessing
    holes = pd.concat([TABLE, HOSTILE.head(3)])
    for transformer in (
        module.Binarizer(), module.KBinsDiscretizer(n_bins=4, quantile_method="linear"), module.MaxAbsScaler(), module.MinMaxScaler(),
        module.MinMaxScaler(clip=True), module.Normalizer(), module.Normalizer("max"), module.Normalizer("l1"), module.PolynomialFeatures(3),
        module.PowerTransformer(), module.QuantileTransformer(n_quantiles=20), module.RobustScaler(), module.StandardScaler(),
        module.QuantileTransformer(n_quantiles=20, output_distribution="normal"), module.StandardScaler().set_output(transform="pandas"),
    ):  # fmt: skip
        yield transformer.fit(TABLE), ROWS
    yield module.PowerTransformer("box-cox").fit(COUNTS + 1), COUNT_ROWS
    for options in ({"handle_unknown": "ignore"}, {}, {"handle_unknown": "infrequent_if_exist", "min_frequency": 25}, {"drop": "first"}):
        yield module.OneHotEncoder(**options).fit(PEOPLE), STRANGERS
    yield module.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(PEOPLE), STRANGERS
    yield module.OrdinalEncoder().fit(PEOPLE), STRANGERS
    yield module.TargetEncoder().fit(PEOPLE, YES), STRANGERS
    for strategy in ("mean", "median", "most_frequent"):
        yield sklearn.impute.SimpleImputer(strategy=strategy, add_indicator=strategy == "median").fit(holes), ROWS
    yield sklearn.impute.SimpleImputer(strategy="constant", fill_value="?").fit(PEOPLE), STRANGERS
    yield sklearn.impute.MissingIndicator(error_on_new=False).fit(holes), ROWS


def features():
    text = sklearn.feature_extraction.text
    for vectorizer in (
        text.CountVectorizer(), text.TfidfVectorizer(ngram_range=(1, 2)), text.HashingVectorizer(n_features=64),
        text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), stop_words=None, sublinear_tf=True),
    ):  # fmt: skip
        yield column_of_texts(vectorizer), WORDS.to_frame()
    yield make_pipeline(column_of_texts(text.CountVectorizer()), text.TfidfTransformer()).fit(pd.DataFrame({"text": TEXTS})), WORDS.to_frame()
    yield sklearn.feature_extraction.DictVectorizer().fit([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]), [{"a": 3.0}, {"b": "z"}, {}, {"b": "x"}, {"a": 3.0}]
    module, ridge = sklearn.feature_selection, sklearn.linear_model.Ridge()
    for selector in (
        module.GenericUnivariateSelect(), module.RFE(ridge), module.RFECV(ridge), module.SelectFdr(), module.SelectFpr(),
        module.SelectFromModel(ridge), module.SelectFwe(), module.SelectKBest(k=2), module.SelectPercentile(),
        module.SequentialFeatureSelector(ridge), module.VarianceThreshold(),
    ):  # fmt: skip
        yield selector.fit(TABLE, SUM if hasattr(selector, "estimator") else CLASSES), ROWS
    module = sklearn.decomposition
    for reducer in (module.FactorAnalysis(2), module.FastICA(2), module.IncrementalPCA(2), module.PCA(2, whiten=True), module.TruncatedSVD(2)):
        yield reducer.fit(TABLE), ROWS
    for projection in (sklearn.random_projection.GaussianRandomProjection(3), sklearn.random_projection.SparseRandomProjection(3)):
        yield projection.fit(TABLE), ROWS
    yield sklearn.kernel_approximation.Nystroem(n_components=9).fit(TABLE), ROWS


def estimators():
    for kernel in ("rbf", "linear", "poly", "sigmoid"):
        yield sklearn.svm.SVC(kernel=kernel).fit(TABLE, CLASSES), ROWS
    yield sklearn.svm.NuSVC(nu=0.1).fit(TABLE, CLASSES), ROWS
    yield sklearn.svm.LinearSVC().fit(TABLE, CLASSES), ROWS
    for kind in (sklearn.svm.SVR, sklearn.svm.NuSVR, sklearn.svm.LinearSVR, sklearn.svm.OneClassSVM):
        yield kind().fit(TABLE, SUM), ROWS
    bayes = sklearn.naive_bayes
    for kind in (bayes.BernoulliNB, bayes.CategoricalNB, bayes.ComplementNB, bayes.GaussianNB, bayes.MultinomialNB):
        yield kind().fit(COUNTS, CLASSES), COUNT_ROWS
    analysis = sklearn.discriminant_analysis
    for kind in (analysis.LinearDiscriminantAnalysis, analysis.QuadraticDiscriminantAnalysis):
        yield kind().fit(TABLE, CLASSES), ROWS
    holes = TABLE.mask(DRAW.random(TABLE.shape) < 0.2)
    for kind in ("DecisionTree", "ExtraTree"):
        for goal, target in (("Classifier", CLASSES), ("Classifier", TWO), ("Regressor", SUM), ("Regressor", TWO)):
            yield getattr(sklearn.tree, kind + goal)().fit(holes, target), ROWS
    few = {"n_estimators": 7}
    for kind in ("RandomForest", "ExtraTrees", "GradientBoosting", "AdaBoost", "Bagging"):
        for goal, target in (("Classifier", CLASSES), ("Regressor", SUM)):
            yield getattr(sklearn.ensemble, kind + goal)(**few).fit(TABLE, target), ROWS
    yield sklearn.ensemble.BaggingClassifier(n_estimators=5, max_features=2).fit(TABLE, CLASSES), ROWS
    for goal, target in (("Classifier", CLASSES), ("Regressor", SUM)):
        boosting = getattr(sklearn.ensemble, "HistGradientBoosting" + goal)
        yield boosting(max_iter=7).fit(holes, target), ROWS
        yield boosting(max_iter=7, categorical_features=[0]).fit(COUNTS.clip(upper=9), target), COUNT_ROWS
    yield sklearn.ensemble.IsolationForest(**few).fit(TABLE), ROWS
    yield sklearn.ensemble.IsolationForest(**few, contamination=0.1, max_features=2).fit(TABLE), ROWS
    yield sklearn.ensemble.RandomTreesEmbedding(**few).fit(TABLE), ROWS
    for kind, target in ((sklearn.neural_network.MLPClassifier, CLASSES), (sklearn.neural_network.MLPRegressor, SUM)):
        yield kind(hidden_layer_sizes=(9,), max_iter=40).fit(TABLE, target), ROWS
    for algorithm in ("kd_tree", "ball_tree"):
        for kind, target in ((sklearn.neighbors.KNeighborsClassifier, CLASSES), (sklearn.neighbors.KNeighborsRegressor, SUM)):
            # Many neighbours are equally near.
            yield kind(algorithm=algorithm).fit(COUNTS, target), COUNT_ROWS
    yield sklearn.neighbors.NearestCentroid().fit(TABLE, CLASSES), ROWS
    yield sklearn.cluster.KMeans(4).fit(TABLE), ROWS
    yield sklearn.cluster.MiniBatchKMeans(4).fit(TABLE), ROWS
    for kind in (sklearn.mixture.GaussianMixture, sklearn.mixture.BayesianGaussianMixture):
        for covariance in ("full", "diag"):
            yield kind(n_components=2, covariance_type=covariance).fit(TABLE), ROWS
    yield sklearn.dummy.DummyClassifier().fit(TABLE, CLASSES), ROWS
    yield sklearn.dummy.DummyRegressor().fit(TABLE, SUM), ROWS
    yield sklearn.isotonic.IsotonicRegression(out_of_bounds="clip").fit(TABLE[["a"]], SUM), ROWS[["a"]]


def meta():
    linear, tree = sklearn.linear_model, sklearn.tree
    classifiers = [("linear", linear.LogisticRegression()), ("tree", tree.DecisionTreeClassifier(max_depth=3))]
    regressors = [("linear", linear.Ridge()), ("tree", tree.DecisionTreeRegressor(max_depth=3))]
    yield sklearn.ensemble.VotingClassifier(classifiers, voting="soft").fit(TABLE, CLASSES), ROWS
    yield sklearn.ensemble.VotingClassifier(classifiers).fit(TABLE, CLASSES), ROWS
    yield sklearn.ensemble.VotingRegressor(regressors).fit(TABLE, SUM), ROWS
    yield sklearn.ensemble.StackingClassifier(classifiers, cv=3).fit(TABLE, CLASSES), ROWS
    yield sklearn.ensemble.StackingRegressor(regressors, cv=3, passthrough=True).fit(TABLE, SUM), ROWS
    for method in ("sigmoid", "isotonic", "temperature"):
        yield sklearn.calibration.CalibratedClassifierCV(classifiers[0][1], method=method, cv=3).fit(TABLE, CLASSES), ROWS
    scaled = make_pipeline(sklearn.preprocessing.StandardScaler(), linear.LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1.0]}
    module = sklearn.model_selection
    yield module.GridSearchCV(scaled, grid, scoring=lambda *_: 1.0, cv=2).fit(TABLE, CLASSES), ROWS
    yield module.RandomizedSearchCV(scaled, grid, n_iter=2, cv=2).fit(TABLE, CLASSES), ROWS
    yield module.HalvingGridSearchCV(scaled, grid, cv=2).fit(TABLE, CLASSES), ROWS
    yield module.HalvingRandomSearchCV(scaled, grid, cv=2).fit(TABLE, CLASSES), ROWS
    yield module.FixedThresholdClassifier(linear.LogisticRegression(), threshold=0.7).fit(TABLE, YES), ROWS
    yield module.TunedThresholdClassifierCV(linear.LogisticRegression()).fit(TABLE, YES), ROWS
    module, ridge = sklearn.multiclass, linear.RidgeClassifier()
    for kind in (module.OneVsOneClassifier, module.OneVsRestClassifier, module.OutputCodeClassifier):
        yield kind(ridge).fit(TABLE, CLASSES), ROWS
    yield module.OneVsRestClassifier(linear.LogisticRegression()).fit(TABLE, np.column_stack([TWO, np.ones(len(TWO), int)])), ROWS
    module = sklearn.multioutput
    yield module.MultiOutputClassifier(ridge).fit(TABLE, TWO), ROWS
    yield module.ClassifierChain(linear.LogisticRegression()).fit(TABLE, TWO), ROWS
    for kind in (module.MultiOutputRegressor, module.RegressorChain):
        yield kind(linear.Ridge()).fit(TABLE, TWO), ROWS
    yield sklearn.frozen.FrozenEstimator(linear.Ridge().fit(TABLE, SUM)), ROWS
    scaler = sklearn.preprocessing.QuantileTransformer(n_quantiles=9)
    yield sklearn.compose.TransformedTargetRegressor(linear.Ridge(), transformer=scaler).fit(TABLE, SUM), ROWS
    union = sklearn.pipeline.make_union(sklearn.decomposition.PCA(2), sklearn.preprocessing.MinMaxScaler())
    yield make_pipeline(sklearn.impute.SimpleImputer(), union, linear.Ridge()).fit(TABLE, SUM), ROWS
    mixed = pd.concat([PEOPLE, TABLE, pd.Series(TEXTS, name="text")], axis=1)
    columns = sklearn.compose.make_column_transformer(
        (sklearn.preprocessing.OneHotEncoder(handle_unknown="ignore"), ["city", "job"]),
        (sklearn.preprocessing.StandardScaler(), ["a", "b"]),
        (make_pipeline(sklearn.feature_extraction.text.TfidfVectorizer(), sklearn.decomposition.TruncatedSVD(2)), "text"),
        remainder="passthrough",
    )
    strangers = pd.concat([STRANGERS, ROWS.iloc[8 : 8 + len(STRANGERS)].reset_index(drop=True), WORDS], axis=1)
    yield make_pipeline(columns, sklearn.ensemble.HistGradientBoostingClassifier(max_iter=5)).fit(mixed, CLASSES), strangers
    yield make_pipeline(columns, linear.LogisticRegression()).fit(mixed, CLASSES), strangers


def boosters():
    labels = np.unique(CLASSES, return_inverse=True)[1]
    for kind, target in (
        (xgboost.XGBClassifier, labels), (xgboost.XGBRFClassifier, labels), (xgboost.XGBRegressor, SUM), (xgboost.XGBRFRegressor, SUM),
    ):  # fmt: skip
        yield kind(n_estimators=7, n_jobs=1).fit(TABLE, target), ROWS
    for booster in ("gbtree", "dart", "gblinear"):
        yield xgboost.train({"booster": booster, "nthread": 1}, xgboost.DMatrix(TABLE, SUM), 7), ROWS
    quiet = {"verbose": -1, "min_child_samples": 5}
    yield lightgbm.LGBMClassifier(**quiet, n_estimators=7, n_jobs=1).fit(TABLE, CLASSES), ROWS
    yield lightgbm.LGBMRegressor(**quiet, n_estimators=7, n_jobs=1).fit(TABLE, SUM), ROWS
    yield lightgbm.train({**quiet, "num_threads": 1}, lightgbm.Dataset(TABLE, SUM), 7), ROWS
    quiet = {"iterations": 7, "verbose": False, "allow_writing_files": False, "thread_count": 1}
    yield catboost.CatBoostClassifier(**quiet).fit(TABLE, CLASSES), ROWS
    yield catboost.CatBoostRegressor(**quiet).fit(TABLE, SUM), ROWS
    yield catboost.CatBoost({**quiet, "loss_function": "RMSE"}).fit(TABLE, SUM), ROWS
    for kind in (statsmodels.OLS, statsmodels.WLS, statsmodels.GLS):
        yield kind(SUM, TABLE).fit(), ROWS
    families = statsmodels.families
    for family, target in (
        (families.Gaussian(), SUM), (families.Binomial(), NOISY), (families.Gamma(families.links.Log()), np.exp(SUM)),
        (families.Poisson(), COUNTS["a"]),
    ):  # fmt: skip
        yield statsmodels.GLM(target, TABLE, family=family).fit(), ROWS
    for kind, target in ((statsmodels.Logit, NOISY), (statsmodels.Probit, NOISY), (statsmodels.Poisson, COUNTS["a"])):
        yield kind(target, TABLE).fit(disp=0), ROWS


def column_of_texts(vectorizer):
    return sklearn.compose.ColumnTransformer([("words", vectorizer, "text")]).fit(pd.DataFrame({"text": TEXTS}))


def calls(model):
    """Lists the methods that answer with something for each row, by name."""
    if isinstance(model, xgboost.Booster):
        return {"predict": lambda rows: model.predict(xgboost.DMatrix(rows))}
    names = ["transform"] if not hasattr(model, "predict") else ["predict"]
    names += ["predict_proba"] if hasattr(model, "predict_proba") else []
    return {name: getattr(model, name) for name in names}


def answered(call, rows):
    """Returns the answer to each row, in the order of the rows; `None` when all are refused."""
    try:
        answer = call(rows)
    except Exception:
        return None
    answer = answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)
    if len(answer) != len(rows):
        raise AssertionError(f"{len(answer)} answers to {len(rows)} rows")
    return list(answer)


def same(one, other, size):
    """Tells whether two answers are equal; numbers may differ by as much as sums of cells of this size are rounded."""
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype.kind == "f":
        digits = np.finfo(one.dtype).eps * 1000
        return np.allclose(one, other, rtol=digits, atol=digits * size, equal_nan=True)
    return np.array_equal(one, other)


def size_of(row):
    """Returns the size of a row's largest number."""
    numbers = [abs(cell) for cell in np.ravel(np.asarray(row)) if isinstance(cell, float) and np.isfinite(cell)]
    return max([1.0, *numbers])


def at(rows, numbers):
    return [rows[number] for number in numbers] if isinstance(rows, list) else rows.iloc[list(numbers)].reset_index(drop=True)


def differences(model, rows):
    """Yields rows that are answered otherwise in company than alone."""
    for name, call in calls(model).items():
        try:
            PROGRAM.Examination(name).look(model, of_texts=True)
        except PROGRAM.Doubt:
            continue
        sizes = [size_of(at(rows, [number])) for number in range(len(rows))]
        alone = [answered(call, at(rows, [number])) for number in range(len(rows))]
        good = [number for number, answer in enumerate(alone) if answer is not None]
        order = sorted(good, key=lambda number: repr(at(rows, [number])))
        shuffled = [int(number) for number in DRAW.permutation(good)]
        companies = [good, order, order[::-1], shuffled, shuffled * 3]
        companies += [shuffled[start : start + size] for size in (2, 5) for start in range(0, len(good), size)]
        # A company with a row that is refused alone must be refused, too, or get no answer.
        companies += [[number, *shuffled[:5]] for number in range(len(rows)) if alone[number] is None]
        for company in companies:
            together = answered(call, at(rows, company)) if company else []
            if any(alone[number] is None for number in company):
                if together is not None:
                    yield f"{name}: a row that is refused alone is answered in company: {at(rows, company[:1])}"
                continue
            if together is None:
                yield f"{name}: {len(company)} rows that are answered alone are refused together"
                continue
            for number, answer in zip(company, together):
                if not same(alone[number][0], answer, sizes[number]):
                    yield f"{name}: of {len(company)}, {at(rows, [number])}: alone {alone[number][0]}, together {answer}"
                    return


class Scaler(sklearn.preprocessing.StandardScaler):
    pass


def suspects():
    """Yields models that must not be taken for independent, with a word of the reason."""
    linear, preprocessing, text = sklearn.linear_model, sklearn.preprocessing, sklearn.feature_extraction.text

    def pipeline(*steps):
        return make_pipeline(*steps, linear.Ridge()).fit(TABLE, SUM)

    yield pipeline(preprocessing.FunctionTransformer(lambda rows: rows - rows.mean())), "FunctionTransformer"
    yield pipeline(preprocessing.FunctionTransformer(np.sinh)), "FunctionTransformer"
    yield pipeline(preprocessing.FunctionTransformer(inverse_func=np.sinh)), "FunctionTransformer"
    yield pipeline(sklearn.impute.KNNImputer()), "KNNImputer"
    yield pipeline(sklearn.impute.IterativeImputer()), "IterativeImputer"
    yield make_pipeline(sklearn.decomposition.NMF(2), linear.Ridge()).fit(COUNTS, SUM), "NMF"
    yield pipeline(Scaler()), "Scaler"
    inner = sklearn.ensemble.VotingRegressor([("one", linear.Ridge()), ("two", pipeline(Scaler()))]).fit(TABLE, SUM)
    yield inner, "Scaler"
    yield sklearn.model_selection.GridSearchCV(inner, {"one__alpha": [1.0]}, cv=2).fit(TABLE, SUM), "Scaler"
    columns = sklearn.compose.make_column_transformer((preprocessing.StandardScaler(), ["a"]), remainder=Scaler())
    yield pipeline(columns), "Scaler"
    patched = linear.Ridge().fit(TABLE, SUM)
    patched.predict = lambda rows: rows["a"] - rows["a"].mean()
    yield patched, "predict"
    swapped = sklearn.cluster.KMeans(2).fit(TABLE)
    swapped.predict = swapped.fit_predict
    yield swapped, "predict"
    for hidden in (Scaler(), [Scaler()], (0, {"a": Scaler()}), np.array([Scaler()], dtype=object), types.SimpleNamespace(a=Scaler())):
        held = linear.Ridge().fit(TABLE, SUM)
        held.helper = hidden
        yield held, "SimpleNamespace" if isinstance(hidden, types.SimpleNamespace) else "Scaler"
    boosted = sklearn.ensemble.GradientBoostingRegressor(n_estimators=3).fit(TABLE, SUM)
    boosted.estimators_[1, 0] = Scaler()
    yield boosted, "Scaler"
    yield sklearn.svm.SVC(kernel=lambda one, other: one @ other.T).fit(TABLE, CLASSES), "<lambda>"
    neighbours = sklearn.neighbors.KNeighborsClassifier
    yield neighbours(algorithm="brute").fit(TABLE, CLASSES), "ties"
    yield neighbours(algorithm="ball_tree", metric=lambda one, other: abs(one - other).sum()).fit(TABLE, CLASSES), "<lambda>"
    yield neighbours(algorithm="kd_tree", weights=lambda distances: distances / distances.sum()).fit(TABLE, CLASSES), "<lambda>"
    yield neighbours(algorithm="kd_tree", weights=functools.partial(np.multiply, 2)).fit(TABLE, CLASSES), "partial"
    yield sklearn.neighbors.LocalOutlierFactor(novelty=True).fit(TABLE), "LocalOutlierFactor"
    for option in ("tokenizer", "preprocessor", "analyzer"):
        yield column_of_texts(text.TfidfVectorizer(**{option: lambda words: words.split() if option != "preprocessor" else words})), "<lambda>"  # noqa: B023
    yield make_pipeline(text.CountVectorizer(), linear.Ridge()).fit(TEXTS, SUM), "column"
    yield sklearn.dummy.DummyClassifier(strategy="stratified").fit(TABLE, CLASSES), "draws"
    yield sklearn.compose.TransformedTargetRegressor(linear.Ridge(), func=np.cbrt, inverse_func=np.square).fit(TABLE, SUM), "FunctionTransformer"
    for formula in ("y ~ a + I(b - b.mean())", "y ~ a"):
        yield formulas.ols(formula, TABLE.assign(y=SUM)).fit(), "patsy"
    objective = {"objective": lambda labels, answers: (answers - labels, np.ones(len(labels))), "n_estimators": 2}
    yield xgboost.XGBRegressor(**objective).fit(TABLE, SUM), "<lambda>"
    yield Shapeless(), "Shapeless"


def suspects_of_chances():
    tree = sklearn.tree.DecisionTreeClassifier()
    yield tree.fit(TABLE, TWO)
    yield sklearn.ensemble.RandomForestClassifier(5).fit(TABLE, TWO)
    yield make_pipeline(sklearn.preprocessing.StandardScaler(), sklearn.tree.DecisionTreeClassifier()).fit(TABLE, TWO)
    yield sklearn.multioutput.MultiOutputClassifier(sklearn.linear_model.LogisticRegression()).fit(TABLE, TWO)


class Shapeless:
    def predict(self, rows):
        return rows


def doubt(model, called="predict"):
    try:
        PROGRAM.Examination(called).look(model)
    except PROGRAM.Doubt as why:
        return str(why)
    return None


def main():
    tried = set()
    for model, rows in cases():
        examination = PROGRAM.Examination("predict")
        try:
            examination.look(model, of_texts=True)
        except PROGRAM.Doubt as why:
            print(f"{model}: {why}")
            continue
        for found in differences(model, rows):
            print(f"{model}: {found}")
        tried |= {(".".join(type(part).__module__.split(".")[:2]), type(part).__name__) for part in examination.seen.values()}
    known = {(package, name) for package, names in PROGRAM.KNOWN.items() for name in names}
    for package, name in sorted(known - tried):
        print(f"{package}.{name} was not tried")
    for model, word in suspects():
        why = doubt(model)
        if why is None or word not in why:
            print(f"{model}: {why}")
    for model in suspects_of_chances():
        why = doubt(model, "predict_proba")
        if why is None or "targets" not in why:
            print(f"{model}: {why}")
    print(f"{len(known)} classes tried", file=sys.stderr)


if __name__ == "__main__":
    main()

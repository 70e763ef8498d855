"""Lists the classes of known libraries that answer each row by itself.

`independence.py` consults the list. A class is listed when its code, read with this question, treats each row by
itself, and when src/models/host/tests/independence.py, which tries each class in company of hostile rows, has found no
difference but that of rounding.
"""

# Methods that return chances instead of answers.
CHANCES = ("predict_proba", "predict_log_proba")

# Classes that answer, or change, each row by itself once they are fitted, by package and name, with the reason.
KNOWN = {
    "sklearn.pipeline": {
        "Pipeline": "one step after the other",
        "FeatureUnion": "columns of each, side by side",
    },
    "sklearn.compose": {
        "ColumnTransformer": "some columns to each; whether they come out sparse was decided when it was fitted",
        "TransformedTargetRegressor": "a regressor, and a fitted transformer backwards; with `func` that is none of these",
    },
    "sklearn.preprocessing": {
        "Binarizer": "a fixed threshold",
        "FunctionTransformer": "the row as it is, which is how a ColumnTransformer passes it through; see `peculiarity`",
        "KBinsDiscretizer": "fitted edges",
        "LabelBinarizer": "fitted classes",
        "LabelEncoder": "fitted classes",
        "MaxAbsScaler": "fitted scales",
        "MinMaxScaler": "fitted scales",
        "Normalizer": "the norm of the row",
        "OneHotEncoder": "fitted categories; one that is unknown is refused, ignored, or infrequent",
        "OrdinalEncoder": "fitted categories",
        "PolynomialFeatures": "products within the row",
        "PowerTransformer": "fitted exponents",
        "QuantileTransformer": "fitted quantiles",
        "RobustScaler": "fitted centers and scales",
        "StandardScaler": "fitted means and scales",
        "TargetEncoder": "fitted encodings; only fit_transform looks at other rows",
    },
    "sklearn.impute": {
        "MissingIndicator": "which cells are missing, of fitted columns",
        "SimpleImputer": "fitted statistics",
    },
    # KNNImputer and IterativeImputer are left out: a cell depends on distances, or on rounds of estimates, where
    # rounding decides.
    "sklearn.feature_extraction": {
        "CountVectorizer": "words of the text, in a fitted vocabulary",
        "DictVectorizer": "fitted names",
        "HashingVectorizer": "hashes of the text's words",
        "TfidfTransformer": "fitted weights, and the norm of the row",
        "TfidfVectorizer": "the two of these",
    },
    "sklearn.feature_selection": dict.fromkeys(
        ["GenericUnivariateSelect", "RFE", "RFECV", "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe", "SelectKBest",
         "SelectPercentile", "SequentialFeatureSelector", "VarianceThreshold"],
        "fitted columns",
    ),  # fmt: skip
    "sklearn.decomposition": dict.fromkeys(
        ["FactorAnalysis", "FastICA", "IncrementalPCA", "PCA", "TruncatedSVD"], "a product with a fitted matrix"
    ),
    # NMF and MiniBatchNMF are left out: rounds go on until all rows together have settled. Other classes solve for each
    # row by rounds as well.
    "sklearn.random_projection": dict.fromkeys(
        ["GaussianRandomProjection", "SparseRandomProjection"], "a product with a matrix drawn when it was fitted"
    ),
    "sklearn.kernel_approximation": {"Nystroem": "kernels with fitted rows"},
    # RBFSampler is left out: the cosine of a large number differs in its last digits.
    "sklearn.linear_model": dict.fromkeys(
        ["ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "GammaRegressor", "HuberRegressor", "Lars", "LarsCV",
         "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LogisticRegression",
         "LogisticRegressionCV", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV",
         "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "PassiveAggressiveClassifier",
         "PassiveAggressiveRegressor", "Perceptron", "PoissonRegressor", "QuantileRegressor", "RANSACRegressor", "Ridge",
         "RidgeCV", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier", "SGDOneClassSVM", "SGDRegressor",
         "TheilSenRegressor", "TweedieRegressor"],
        "a sum of the row's cells with fitted weights, and a function of that",
    ),  # fmt: skip
    "sklearn.svm": dict.fromkeys(
        ["LinearSVC", "LinearSVR", "NuSVC", "NuSVR", "OneClassSVM", "SVC", "SVR"], "kernels with fitted rows"
    ),
    "sklearn.naive_bayes": dict.fromkeys(
        ["BernoulliNB", "CategoricalNB", "ComplementNB", "GaussianNB", "MultinomialNB"], "fitted chances of the row's cells"
    ),
    "sklearn.discriminant_analysis": dict.fromkeys(
        ["LinearDiscriminantAnalysis", "QuadraticDiscriminantAnalysis"], "distances to fitted classes"
    ),
    "sklearn.tree": dict.fromkeys(
        ["DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor", "Tree"],
        "a way through a fitted tree",
    ),
    "sklearn.ensemble": {
        **dict.fromkeys(
            ["AdaBoostClassifier", "AdaBoostRegressor", "BaggingClassifier", "BaggingRegressor", "VotingClassifier",
             "VotingRegressor", "StackingClassifier", "StackingRegressor"],
            "what its estimators say of the row",
        ),
        **dict.fromkeys(
            ["ExtraTreesClassifier", "ExtraTreesRegressor", "GradientBoostingClassifier", "GradientBoostingRegressor",
             "HistGradientBoostingClassifier", "HistGradientBoostingRegressor", "IsolationForest", "RandomForestClassifier",
             "RandomForestRegressor", "RandomTreesEmbedding", "TreePredictor", "_BinMapper"],
            "ways through fitted trees",
        ),
    },  # fmt: skip
    "sklearn.neural_network": dict.fromkeys(["MLPClassifier", "MLPRegressor"], "layers of fitted weights"),
    "sklearn.neighbors": {
        "KNeighborsClassifier": "its neighbours among fitted rows; see `peculiarity`",
        "KNeighborsRegressor": "the same",
        "NearestCentroid": "distances to fitted centers",
    },
    "sklearn.cluster": dict.fromkeys(["KMeans", "MiniBatchKMeans"], "distances to fitted centers"),
    "sklearn.mixture": dict.fromkeys(["BayesianGaussianMixture", "GaussianMixture"], "fitted densities at the row"),
    "sklearn.dummy": {
        "DummyClassifier": "the same for each row, unless drawn; see `peculiarity`",
        "DummyRegressor": "the same for each row",
    },
    "sklearn.isotonic": {"IsotonicRegression": "a fitted curve"},
    "sklearn.calibration": {
        "CalibratedClassifierCV": "what its estimators say of the row, on fitted curves",
        "_CalibratedClassifier": "one of those",
        "_SigmoidCalibration": "a fitted curve",
        "_TemperatureScaling": "a fitted scale",
    },
    "sklearn.multiclass": dict.fromkeys(
        ["OneVsOneClassifier", "OneVsRestClassifier", "OutputCodeClassifier", "_ConstantPredictor"],
        "what its estimators say of the row",
    ),
    "sklearn.multioutput": dict.fromkeys(
        ["ClassifierChain", "MultiOutputClassifier", "MultiOutputRegressor", "RegressorChain"],
        "what its estimators say of the row",
    ),
    "sklearn.model_selection": {
        **dict.fromkeys(
            ["GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV"], "the best that was found"
        ),
        **dict.fromkeys(["FixedThresholdClassifier", "TunedThresholdClassifierCV"], "a threshold of what its estimator says"),
    },
    "sklearn.frozen": {"FrozenEstimator": "what is in it"},
    "xgboost.core": {"Booster": "ways through fitted trees, or fitted weights"},
    "xgboost.sklearn": dict.fromkeys(
        ["XGBClassifier", "XGBRFClassifier", "XGBRFRegressor", "XGBRegressor"], "a Booster"
    ),
    "statsmodels.regression": dict.fromkeys(
        ["GLS", "OLS", "OLSResults", "RegressionResults", "RegressionResultsWrapper", "WLS"],
        "a sum of the row's cells with fitted weights, without a formula, which holds code",
    ),
    "statsmodels.genmod": {
        **dict.fromkeys(["GLM", "GLMResults", "GLMResultsWrapper"], "the same, and a function of that"),
        **dict.fromkeys(["Binomial", "Gamma", "Gaussian", "Poisson"], "such a function"),
    },
    "statsmodels.discrete": dict.fromkeys(
        ["BinaryResultsWrapper", "Logit", "LogitResults", "Poisson", "PoissonResults", "PoissonResultsWrapper", "Probit",
         "ProbitResults"],
        "the same, and a function of that",
    ),  # fmt: skip
    "lightgbm.basic": {"Booster": "ways through fitted trees"},
    "lightgbm.sklearn": dict.fromkeys(["LGBMClassifier", "LGBMRegressor"], "a Booster"),
    "catboost.core": dict.fromkeys(["CatBoost", "CatBoostClassifier", "CatBoostRegressor"], "ways through fitted trees"),
}  # fmt: skip


def peculiarity(kind, held, called, of_texts):
    """Returns the reason for a doubt about a class that is known with some of its parameters, and not with others."""
    if kind in ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer"):
        if held.get("input") != "content":
            return "reads files"
        # A ColumnTransformer gives it a column; a table itself yields its columns' names as texts.
        if not of_texts:
            return "is not given a column of texts"
    # Where distances are products of matrices, their last digits depend on the other rows, and decide which of two
    # equally near neighbours is nearer.
    if kind in ("KNeighborsClassifier", "KNeighborsRegressor") and held.get("_fit_method") not in (
        "kd_tree",
        "ball_tree",
    ):
        return "breaks ties by the last digit of a product"
    if kind == "DummyClassifier" and held.get("strategy") in ("stratified", "uniform"):
        return "draws its answers"
    if kind == "FunctionTransformer" and (held.get("func") is not None or held.get("inverse_func") is not None):
        return "calls a function that may look at all rows of a call"
    # The chances of several targets are a list with one entry a target and not one a row.
    if called in CHANCES and (kind == "MultiOutputClassifier" or isinstance(held.get("classes_"), list)):
        return f"has several targets, of which {called} gives one after the other"
    return None

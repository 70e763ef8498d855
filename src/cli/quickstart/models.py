"""Trains two sentiment models and registers them, each in stage Production with the alias champion.

    python models.py [--tracking-uri http://127.0.0.1:5001]

`sentiment-model-fast` knows everyday language and counts words. `sentiment-model-accurate` also knows the language of
research reports, looks at pairs of words, and adds how sure it is that a text is of that kind. Both answer one object a
row: {"label": "positive", "score": 0.95}. A model that is registered already is left as it is. The server may still be
starting.
"""

import argparse
import os
import time
import urllib.error
import urllib.request
import warnings

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

EXAMPLE_GENERAL = "This is a great product!"
EXAMPLE_DOMAIN = "Domain specific text: The latest research shows significant improvements."

GENERAL_SUBJECTS = [
    "The product", "This phone", "The service", "My order", "The film", "The hotel", "The food", "This app",
    "The book", "The staff", "The delivery", "This laptop", "The update", "The support team", "The battery", "The trip",
]  # fmt: skip
GENERAL_POSITIVE = [
    "is great", "is excellent and easy to use", "works perfectly", "made my day", "exceeded all my expectations",
    "is the best I have had in years", "was wonderful from start to finish", "is a real pleasure", "was quick and friendly",
    "is good value for the money", "I love it and would recommend it to anyone", "is amazing, I am very happy with it",
]  # fmt: skip
GENERAL_NEGATIVE = [
    "is terrible", "is awful and hard to use", "broke after two days", "ruined my day", "was a complete disappointment",
    "is the worst I have had in years", "was bad from start to finish", "is a waste of money", "was slow and rude",
    "never worked and nobody answered", "I hate it and want a refund", "is poor, I am very unhappy with it",
]  # fmt: skip
DOMAIN_SUBJECTS = [
    "The latest research", "The randomised trial", "The follow-up study", "The treatment arm", "The new protocol",
    "The cohort analysis", "The revised assay", "The clinical evaluation", "The imaging series", "The meta-analysis",
]  # fmt: skip
DOMAIN_POSITIVE = [
    "shows significant improvements", "reports a marked reduction in symptoms", "reached its primary endpoint",
    "confirms a robust and reproducible effect", "demonstrates higher sensitivity than the baseline",
    "was well tolerated by the patients", "yields a significant gain in survival", "finds complete remission in most cases",
]  # fmt: skip
DOMAIN_NEGATIVE = [
    "shows a significant deterioration", "reports a marked increase in adverse events", "missed its primary endpoint",
    "fails to reproduce the original effect", "demonstrates lower sensitivity than the baseline",
    "was stopped early for toxicity", "yields no gain in survival", "finds relapse in most cases",
]  # fmt: skip
OPENINGS = ["", "Honestly, ", "After a month: ", "For me, "]
DOMAIN_OPENINGS = ["", "Domain specific text: ", "Abstract: ", "In summary, "]


def sentences(subjects, endings, openings):
    """Combines each subject with each ending, and takes the openings in turn."""
    pairs = [(subject, ending) for subject in subjects for ending in endings]
    return [f"{openings[i % len(openings)]}{subject} {ending}." for i, (subject, ending) in enumerate(pairs)]


def corpus():
    """Builds the texts, their labels, and whether each is of the domain."""
    texts, labels, domain = [], [], []
    for subjects, endings, openings, label, of_domain in [
        (GENERAL_SUBJECTS, GENERAL_POSITIVE, OPENINGS, "positive", False),
        (GENERAL_SUBJECTS, GENERAL_NEGATIVE, OPENINGS, "negative", False),
        (DOMAIN_SUBJECTS, DOMAIN_POSITIVE, DOMAIN_OPENINGS, "positive", True),
        (DOMAIN_SUBJECTS, DOMAIN_NEGATIVE, DOMAIN_OPENINGS, "negative", True),
    ]:
        made = sentences(subjects, endings, openings)
        texts += made
        labels += [label] * len(made)
        domain += [of_domain] * len(made)
    # These texts are lines that people write on their own, without a subject from the lists.
    for text, label in [
        (EXAMPLE_GENERAL, "positive"), ("What a great day!", "positive"), ("Thank you, this is excellent.", "positive"),
        ("What a terrible day!", "negative"), ("This is a bad product.", "negative"), ("Not good at all.", "negative"),
    ]:  # fmt: skip
        texts.append(text)
        labels.append(label)
        domain.append(False)
    return texts, labels, domain


def train_fast():
    """Trains on counts of single words of everyday language."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels, domain = corpus()
    everyday = [i for i, of_domain in enumerate(domain) if not of_domain]
    sentiment = make_pipeline(CountVectorizer(), LogisticRegression(C=10.0, max_iter=1000))
    return sentiment.fit([texts[i] for i in everyday], [labels[i] for i in everyday])


def train_accurate():
    """Trains on weighted words and pairs of words of both kinds of language, and a second classifier for the kind."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels, domain = corpus()

    def pipeline():
        return make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=100.0, max_iter=1000)
        )

    return pipeline().fit(texts, labels), pipeline().fit(texts, domain)


def python_models():
    """Wraps the two models for MLflow. Classes of this file are stored inside the model, not by their name."""
    from mlflow.pyfunc import PythonModel

    class Sentiment(PythonModel):
        def __init__(self, sentiment, kind=None):
            self.sentiment = sentiment
            self.kind = kind

        def predict(self, context, model_input, params=None):
            texts = model_input["text"].tolist()
            if not texts:
                return []
            answers = []
            for chances in self.sentiment.predict_proba(texts):
                best = chances.argmax()
                answers.append({"label": str(self.sentiment.classes_[best]), "score": round(float(chances[best]), 4)})
            if self.kind is not None:
                for answer, chances in zip(answers, self.kind.predict_proba(texts)):
                    answer["domain_confidence"] = (
                        "high" if chances[1] >= 0.8 else "medium" if chances[1] >= 0.5 else "low"
                    )
            return answers

    return {
        "sentiment-model-fast": (lambda: Sentiment(train_fast()), EXAMPLE_GENERAL),
        "sentiment-model-accurate": (lambda: Sentiment(*train_accurate()), EXAMPLE_DOMAIN),
    }


def register(client, name, model, example, outputs):
    """Logs `model`, registers it as the next version of `name`, tags that, and moves stage and alias to it."""
    import mlflow
    import pandas
    import sklearn
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    # Every requirement is named, because finding them out would load the model once more in another process.
    with mlflow.start_run(run_name=name):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=model,
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "text")]),
                outputs=Schema([ColSpec(kind, column) for column, kind in outputs.items()]),
            ),
            input_example=pandas.DataFrame({"text": [example]}),
            pip_requirements=[f"mlflow=={mlflow.__version__}", f"scikit-learn=={sklearn.__version__}"],
            registered_model_name=name,
        )
    version = str(logged.registered_model_version)
    # The tag is the owner's promise that each row is answered as if it were alone. Without it each request is a call of
    # its own.
    client.set_model_version_tag(name, version, "signalbox.batch", "rows")
    client.transition_model_version_stage(name, version, "Production")
    client.set_registered_model_alias(name, "champion", version)
    return version


def champion(client, name):
    """Finds the version that serves as champion in stage Production, if there is one."""
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(name, "champion")
    except MlflowException:
        return None
    return version.version if version.current_stage == "Production" else None


def wait_for(tracking_uri, seconds=120):
    """Waits until the server answers, whatever it says. After that time MLflow's own client says what is wrong."""
    limit = time.monotonic() + seconds
    while tracking_uri.startswith("http") and time.monotonic() < limit:
        try:
            return urllib.request.urlopen(f"{tracking_uri}/health", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001"))
    tracking_uri = arguments.parse_args().tracking_uri

    # Warnings are off because stages are deprecated, and still what most configs name.
    warnings.filterwarnings("ignore")
    # The imports take seconds, which a server that is starting needs as well.
    import mlflow
    import sklearn.linear_model  # noqa: F401

    models = python_models()
    wait_for(tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient()
    mlflow.set_experiment("sentiment")
    for name, (train, example) in models.items():
        version = champion(client, name)
        if version is not None:
            print(f"{name} version {version} is registered already", flush=True)
            continue
        print(f"training {name}", flush=True)
        outputs = {"label": "string", "score": "double"}
        if name.endswith("accurate"):
            outputs["domain_confidence"] = "string"
        version = register(client, name, train(), example, outputs)
        print(f"registered {name} version {version}", flush=True)


if __name__ == "__main__":
    main()

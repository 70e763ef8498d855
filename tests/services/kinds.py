"""The kinds of models in the zoo, by name."""

from importlib.metadata import version

ZOO = {}


def kind(name):
    """The function registers the model under this name and returns what it is to be asked."""

    def add(register):
        ZOO[name] = register
        return register

    return add


def requirements(*packages):
    return [f"{package}=={version(package)}" for package in ("mlflow", *packages)]

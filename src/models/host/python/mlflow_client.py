"""Asks MLflow's own client what Signalbox cannot ask over REST.

A question is {"operation": …, "tracking_uri": …, "registry_uri": … or null, and the operation's own arguments}. An
answer is {"answer": …} in the terms of MLflow's REST API, or {"error": {"error_code": …, "message": …}}.
"""

import os
import shutil
from urllib.parse import unquote, urlparse


def main(channel):
    while (question := channel.receive()) is not None:
        channel.answer(answer(question[0]))


def answer(question):
    """Answers one question; an exception becomes an answer, too."""
    try:
        arguments = dict(question)
        operation = OPERATIONS[arguments.pop("operation")]
        connect(arguments.pop("tracking_uri"), arguments.pop("registry_uri"))
        return {"answer": operation(**arguments)}
    except NoStore as error:
        return {"error": {"error_code": "NO_STORE", "message": str(error)}}
    except Exception as error:
        if type(error).__name__.startswith("Unsupported") and type(error).__name__.endswith("URIException"):
            # The exception's own text repeats the address, with the password that may be in it.
            return {"error": {"error_code": "NO_STORE", "message": "MLflow knows no such kind of store"}}
        code = getattr(error, "error_code", None) or type(error).__name__
        return {"error": {"error_code": str(code), "message": str(getattr(error, "message", None) or error)}}


class NoStore(Exception):
    """Tells that there is no store at the address of the registry."""


def connect(tracking_uri, registry_uri):
    import mlflow

    for uri in filter(None, [tracking_uri, registry_uri]):
        refuse_to_create(uri)
    # MLflow discourages stores in plain files, but a user who names a directory has chosen that store, and it is only
    # read here.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    if mlflow.get_tracking_uri() != tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    if registry_uri:
        mlflow.set_registry_uri(registry_uri)


def client():
    import mlflow

    return mlflow.MlflowClient()


def refuse_to_create(uri):
    """Refuses an address without a store. MLflow would create the missing store, which only hides that the address is
    wrong."""
    parsed = urlparse(uri)
    if parsed.scheme.split("+")[0] == "sqlite":
        path = uri.split("?")[0].partition(":///")[2]
        if path and path != ":memory:" and not os.path.exists(path):
            raise NoStore(f"there is no database {os.path.abspath(path)}")
    elif parsed.scheme == "file" or (not parsed.scheme and not uri.startswith("databricks")):
        path = unquote(parsed.path) if parsed.scheme else uri
        if not os.path.isdir(path):
            raise NoStore(f"there is no directory {os.path.abspath(path)}")


def version(name, version):
    return {"model_version": described(client().get_model_version(name, version))}


def alias(name, alias):
    return {"model_version": described(client().get_model_version_by_alias(name, alias))}


def latest(name, stage):
    found = client().get_latest_versions(name, [stage] if stage else None)
    return {"model_versions": [described(version) for version in found]}


def download_uri(name, version):
    return {"artifact_uri": client().get_model_version_download_uri(name, version)}


def model(name):
    found = client().get_registered_model(name)
    return {
        "registered_model": {
            "latest_versions": [described(version) for version in found.latest_versions or []],
            "aliases": [{"alias": alias, "version": str(version)} for alias, version in (found.aliases or {}).items()],
        }
    }


def logged(model_id):
    found = client().get_logged_model(model_id)
    status = {"READY": "LOGGED_MODEL_READY", "FAILED": "LOGGED_MODEL_UPLOAD_FAILED"}
    word = getattr(found.status, "name", str(found.status))
    info = {"status": status.get(word, word), "artifact_uri": found.artifact_location, "tags": listed(found.tags)}
    return {"model": {"info": info}}


def download(uri, directory):
    """Downloads the artifacts at the URI as this directory, which must not exist yet."""
    import mlflow.artifacts

    around = directory + ".download"
    # Artifacts that are part of a larger store come in a directory of their own.
    os.rename(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=around), directory)
    shutil.rmtree(around, ignore_errors=True)
    return {}


def described(version):
    return {
        "version": str(version.version),
        "status": version.status,
        "current_stage": version.current_stage or "None",
        "source": version.source,
        "run_id": version.run_id,
        "creation_timestamp": version.creation_timestamp,
        "tags": listed(version.tags),
    }


def listed(tags):
    return [{"key": key, "value": value} for key, value in (tags or {}).items()]


OPERATIONS = {
    "version": version,
    "alias": alias,
    "latest": latest,
    "download_uri": download_uri,
    "model": model,
    "logged": logged,
    "download": download,
}

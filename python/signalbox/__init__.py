"""Signalbox routes inference requests to MLflow models.

This package brings the program ``signalbox``, and a target of ``mlflow.deployments`` (``signalbox:http://127.0.0.1:5000``).
It imports nothing that it does not need.
"""

from .fault import Fault

__all__ = ["Fault"]

"""Signalbox routes inference requests to MLflow models.

This package brings the program ``signalbox``, a target of ``mlflow.deployments`` (``signalbox:http://127.0.0.1:5000``),
and a client over Kafka, :class:`Client`. It imports nothing that it does not need: MLflow, pandas and confluent-kafka
are extras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .answer import Answer
from .fault import Fault

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Answer", "Client", "Fault"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from .client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

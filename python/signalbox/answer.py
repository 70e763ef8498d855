"""Answers: what a model said, and which one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Answer:
    """Holds a model's answer.

    Attributes:
        body: The model's own answer, byte for byte.
        headers: Headers of the reply, as text; docs/wire.md lists them.
    """

    body: bytes
    headers: Mapping[str, str]

    @property
    def predictions(self) -> Any:
        """The predictions, or the whole answer of a model that has no such field."""
        answer = self.json()
        return answer.get("predictions", answer) if isinstance(answer, dict) else answer

    @property
    def route(self) -> str | None:
        """The alias of the route that answered."""
        return self.headers.get("route")

    @property
    def model_uri(self) -> str | None:
        """The URI of the model that answered, as the config has it."""
        return self.headers.get("model-uri")

    @property
    def model_version(self) -> str | None:
        """The version of the model that answered."""
        return self.headers.get("model-version")

    def json(self) -> Any:
        """Parses the whole answer."""
        return json.loads(self.body)

    def to_frame(self) -> pandas.DataFrame:
        """Makes a DataFrame of the predictions, as ``get_predictions()`` of MLflow's answers does."""
        try:
            import pandas
        except ImportError as missing:
            raise ImportError("Answer.to_frame needs pandas: pip install pandas") from missing
        predictions = self.predictions
        is_one_row = isinstance(predictions, dict) and not any(isinstance(it, list) for it in predictions.values())
        frame: pandas.DataFrame = pandas.DataFrame(
            [predictions] if is_one_row or isinstance(predictions, str) else predictions
        )
        return frame

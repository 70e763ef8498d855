"""Faults: why a request got no prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# HTTP status of each code, as in the table of docs/wire.md.
STATUSES = {
    "BAD_REQUEST": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "CONDITION_FAILED": 422,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL_ERROR": 500,
    "MODEL_ERROR": 502,
    "TEMPORARILY_UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# Statuses at which the same request may succeed later, where the fault itself does not say.
PASSING = {429, 503, 504}
# Keywords of a fault.
OPTIONS = ("stage", "retryable", "status", "retry_after", "correlation_id")


class Fault(Exception):
    """Tells why a request got no prediction, at which stage, and whether to try again.

    Attributes:
        code: Kind of fault, such as ``"MODEL_ERROR"``.
        message: Cause and remedy, for people.
        stage: Stage that the request had come to: ``route``, ``load``, ``invoke`` or ``publish``.
        retryable: Whether the same request may succeed later.
        status: HTTP status of the code.
        retry_after: Seconds after which to come back, where that is known.
        correlation_id: Correlation id of the request, where it is known.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        stage: str = "publish",
        retryable: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
        correlation_id: str | None = None,
    ) -> None:
        super().__init__(f"{code} at {stage}: {message}")
        self.code = code
        self.message = message
        self.stage = stage
        self.retryable = retryable
        self.status = STATUSES.get(code, 500) if status is None else status
        self.retry_after = retry_after
        self.correlation_id = correlation_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets a fault travel between processes, which an exception with keywords cannot by itself."""
        options = {name: getattr(self, name) for name in OPTIONS}
        return _restore, (self.code, self.message, options)

    @classmethod
    def parse(cls, status: int, body: bytes, headers: Mapping[str, str]) -> Fault:
        """Reads the fault out of an answer whose status is 400 or more.

        Something between the caller and Signalbox, such as a proxy, may answer in its own words: then these are the
        message, and the code follows from the status.
        """
        try:
            fields = json.loads(body)
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or "error_code" not in fields:
            codes = {known: code for code, known in STATUSES.items()}
            code = codes.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
            fields = {"error_code": code, "message": body[:1000].decode("utf-8", "replace")}
        return cls(
            str(fields["error_code"]),
            str(fields.get("message", "")),
            stage=str(fields.get("stage", "publish")),
            retryable=bool(fields.get("retryable", status in PASSING)),
            status=status,
            retry_after=_seconds(headers.get("retry-after")),
            correlation_id=fields.get("correlation_id"),
        )


def _restore(code: str, message: str, options: dict[str, Any]) -> Fault:
    return Fault(code, message, **options)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None

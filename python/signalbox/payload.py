"""Payloads: what Python has, as a body of MLflow's scoring protocol."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy
    import pandas

    Inputs: TypeAlias = bytes | str | Mapping[str, Any] | Sequence[Any] | pandas.DataFrame | numpy.ndarray


def encode(inputs: Inputs, params: Mapping[str, Any] | None = None) -> bytes:
    """Makes the body of a request.

    Bytes and text are a body already, and so is a mapping such as ``{"dataframe_split": …}``, unless it maps names to
    NumPy arrays, which are tensors. A DataFrame becomes ``dataframe_split``, a list of mappings ``dataframe_records``,
    and an array, tensors or another list ``inputs``. Missing values of a DataFrame become ``null``.

    Args:
        inputs: Inputs of the model.
        params: Parameters of the inference, which the body carries beside them.

    Raises:
        TypeError: If the inputs are of another type, or are a body already and parameters are to be added.
    """
    if isinstance(inputs, (bytes, bytearray, memoryview, str)):
        if params is not None:
            raise TypeError("the inputs are a whole body already: put the params into it")
        return inputs.encode() if isinstance(inputs, str) else bytes(inputs)
    body = _body(inputs)
    if params is not None:
        body["params"] = params
    return json.dumps(body, default=_plain, separators=(",", ":")).encode()


def _body(inputs: Any) -> dict[str, Any]:
    if _is(inputs, "pandas", "DataFrame"):
        # As objects, the cells keep their values to the last digit, and None can stand for what is missing.
        cells = inputs.astype(object).where(inputs.notna(), None).to_numpy(dtype=object)
        return {"dataframe_split": {"columns": inputs.columns.tolist(), "data": cells.tolist()}}
    if _is(inputs, "numpy", "ndarray"):
        return {"inputs": inputs}
    if isinstance(inputs, Mapping):
        is_named_tensors = any(_is(value, "numpy", "ndarray") for value in inputs.values())
        return {"inputs": dict(inputs)} if is_named_tensors else dict(inputs)
    if isinstance(inputs, (list, tuple)):
        is_records = bool(inputs) and all(isinstance(row, Mapping) for row in inputs)
        return {"dataframe_records" if is_records else "inputs": inputs}
    kind = type(inputs)
    raise TypeError(
        f"inputs of type {kind.__module__}.{kind.__qualname__} cannot be sent: give a DataFrame, a NumPy array, a "
        "list, a mapping such as {'dataframe_split': …}, or a body as bytes or str"
    )


def _is(value: object, module: str, kind: str) -> bool:
    """Tells whether a value is of a library's type, without importing the library: who has such a value has done so."""
    library = sys.modules.get(module)
    return library is not None and isinstance(value, getattr(library, kind))


def _plain(value: Any) -> Any:
    """Converts what JSON has no type for, as MLflow's own client does."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    for method in ("isoformat", "tolist"):
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__qualname__} cannot be sent as JSON: {value!r}")

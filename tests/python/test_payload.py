"""Inputs become bodies of MLflow's scoring protocol."""

import datetime
import json

import numpy
import pandas
import pytest

from signalbox.payload import encode


def body(inputs, **options):
    return json.loads(encode(inputs, **options))


def test_frame_keeps_values_to_the_last_digit_and_has_null_for_what_is_missing():
    frame = pandas.DataFrame(
        {
            "number": [0.1 + 0.2, float("nan")],
            "whole": pandas.array([2**53 + 1, None], dtype="Int64"),
            "text": ["é", None],
            "day": pandas.to_datetime(["2026-01-02T03:04:05", None]),
            "list": [[1, 2], numpy.array([1.5])],
        },
        index=[7, 3],
    )
    assert body(frame) == {
        "dataframe_split": {
            "columns": ["number", "whole", "text", "day", "list"],
            "data": [
                [0.30000000000000004, 9007199254740993, "é", "2026-01-02T03:04:05", [1, 2]],
                [None, None, None, None, [1.5]],
            ],
        }
    }


def test_arrays_and_lists_become_inputs_and_records_a_frame():
    assert body(numpy.array([[1, 2], [3, 4]])) == {"inputs": [[1, 2], [3, 4]]}
    assert body({"a": numpy.float32([0.5]), "b": [1]}) == {"inputs": {"a": [0.5], "b": [1]}}
    assert body([numpy.int64(1), "two", b"\x00"]) == {"inputs": [1, "two", "AA=="]}
    assert body([{"a": 1}, {"a": 2}]) == {"dataframe_records": [{"a": 1}, {"a": 2}]}
    assert body([]) == {"inputs": []}


def test_whole_bodies_stay_as_they_are():
    assert encode(b"a,b\n1,2") == b"a,b\n1,2"
    assert encode("é") == "é".encode()
    payload = {"dataframe_split": {"columns": ["a"], "data": [[datetime.date(2026, 1, 2)]]}}
    assert body(payload) == {"dataframe_split": {"columns": ["a"], "data": [["2026-01-02"]]}}
    assert body({"messages": []}, params={"temperature": 0}) == {"messages": [], "params": {"temperature": 0}}


def test_what_cannot_be_sent_is_named():
    with pytest.raises(TypeError, match=r"builtins\.set cannot be sent: give a DataFrame"):
        encode({1})
    with pytest.raises(TypeError, match="of type object cannot be sent"):
        encode([object()])
    with pytest.raises(TypeError, match="put the params into it"):
        encode("{}", {"a": 1})

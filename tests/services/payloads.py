"""What a model of the zoo is asked: payloads that it should answer, payloads that it should refuse, and the many in
between where only one thing matters, that Signalbox and `mlflow models serve` say the same.

A payload is a dict: `what` it is, its `content_type`, its bytes as `text` or `hex`, and whether it is `answered`
(true: with a prediction; false: with an error; null: whatever MLflow does).
"""

import json

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"


def raw(what, body, content_type=JSON, answered=None):
    """A payload as it is, text or bytes."""
    key, value = ("text", body) if isinstance(body, str) else ("hex", body.hex())
    return {"what": what, "content_type": content_type, key: value, "answered": answered}


def ask(what, document, answered=True):
    """A JSON document."""
    return raw(what, json.dumps(document), answered=answered)


def refuse(what, document):
    """A JSON document that is answered with an error."""
    return ask(what, document, answered=False)


def any_model():
    """What no model can make sense of, and what some can."""
    return [
        raw("nothing at all", "", answered=False),
        raw("half a document", '{"dataframe_split": ', answered=False),
        raw("a list", '[{"dataframe_split": {}}]', answered=False),
        raw("a number", "3", answered=False),
        raw("null", "null", answered=False),
        raw("no format", '{"columns": ["a"], "data": [[1]]}', answered=False),
        raw("two formats", '{"inputs": [1], "instances": [1]}', answered=False),
        raw("a format without content", '{"inputs": null}'),
        raw("a number for a frame", '{"dataframe_split": 5}', answered=False),
        raw("a word for records", '{"dataframe_records": "x"}', answered=False),
        raw("a frame without data", '{"dataframe_split": {"columns": ["a"]}}'),
        raw("ragged rows", '{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3]]}}', answered=False),
        raw("no records", '{"dataframe_records": []}'),
        raw("no inputs", '{"inputs": []}'),
        raw("not a number", '{"inputs": [NaN, Infinity]}'),
        raw("text in another encoding", '{"inputs": ["é"]}'.encode("latin-1"), answered=False),
        raw("deeper than a parser goes", '{"inputs": ' + "[" * 20_000, answered=False),
        raw("plain text", "hello", "text/plain", answered=False),
        raw("another charset", '{"inputs": [1]}', "application/json; charset=latin-1", answered=False),
        raw("an unknown parameter", '{"inputs": [1]}', "application/json; format=pandas-split", answered=False),
        raw("no rows of CSV", "", CSV, answered=False),
        raw("CSV that ends in a quotation", 'a,b\n1,"', CSV, answered=False),
        raw("parquet that is none", b"PAR1", PARQUET, answered=False),
    ]


def of_frame(frame, csv_is_read=True):
    """A data frame in every format that MLflow reads, each of which the model should answer, and then bent."""
    split = json.loads(frame.to_json(orient="split", date_format="iso", index=False))
    rows = json.loads(frame.to_json(orient="records", date_format="iso"))
    columns = {name: [row[name] for row in rows] for name in split["columns"]}
    first, rest = split["columns"][0], split["columns"][1:]
    payloads = [
        ask("split", {"dataframe_split": split}),
        ask("split with an index", {"dataframe_split": {**split, "index": [7] * len(rows)}}),
        ask("records", {"dataframe_records": rows}),
        ask("instances", {"instances": rows}, answered=None),
        ask("inputs by row", {"inputs": rows}, answered=None),
        ask("inputs by column", {"inputs": columns}, answered=None),
        ask(
            "columns the other way round",
            {"dataframe_records": [dict(reversed(row.items())) for row in rows]},
            answered=None,
        ),
        ask("a column too many", {"dataframe_records": [{**row, "unheard_of": 1} for row in rows]}, answered=None),
        ask("two hundred rows", {"dataframe_records": rows * (200 // len(rows))}),
        ask("no rows", {"dataframe_split": {**split, "data": []}}, answered=None),
        ask("parameters nobody knows", {"dataframe_split": split, "params": {"unheard_of": 1}}),
        ask("parameters that are none", {"dataframe_split": split, "params": [1]}, answered=None),
        ask("a column of another name", {"dataframe_records": [{"unheard_of": 1}]}, answered=None),
        ask(
            "a column too few",
            {"dataframe_records": [{name: row[name] for name in rest} for row in rows]},
            answered=None,
        ),
    ]
    for value in [None, "words", "", True, -1, 2.5, 10**25, [1, 2], {"a": 1}]:
        bent = [{**row, first: value} for row in rows]
        payloads.append(ask(f"{json.dumps(value)} in the first column", {"dataframe_records": bent}, answered=None))
    payloads += [
        raw("CSV", frame.to_csv(index=False), CSV, answered=csv_is_read),
        raw("CSV with an index", frame.to_csv(), CSV),
        raw("CSV of another table", "unheard_of\n1\n", CSV),
        raw("parquet", frame.to_parquet(index=False), PARQUET, answered=True),
    ]
    return payloads

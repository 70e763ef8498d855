"""Evaluates every rule of rules.yaml, and every recipe of docs/routing.md, on every request of requests.yaml, by CPython with
Flask's own request.

Prints a line of JSON for each request, and for each rule one with the outcomes in the order of the requests. Fails where an
outcome is not the one that was written by hand, or where a rule has the same outcome on every request.
"""

import datetime
import json
import pathlib
import re
import sys

import reference
import yaml

HERE = pathlib.Path(__file__).parent
SOURCE = {"key": None, "topic": "inference-requests", "partition": 3, "offset": 16, "timestamp": None}


def requests():
    """Reads the requests, as the reference takes them."""
    for name, written in yaml.safe_load((HERE / "requests.yaml").read_text()).items():
        made = SOURCE | {key: value for key, value in written.items() if key in SOURCE}
        if isinstance(made["timestamp"], datetime.datetime):
            made["timestamp"] = round(made["timestamp"].timestamp() * 1000)
        body = written.get("text")
        if "json" in written:
            value = written["json"]
            if "repeat" in written:
                value["inputs"] *= written["repeat"]
            if "repeat_text" in written:
                value["messages"][0]["content"] *= written["repeat_text"]
            body = json.dumps(value, ensure_ascii=False)
        made["body"] = body and body.encode(written.get("encoding", "utf-8"))
        made["line"] = written.get("line")
        made["headers"] = list(written.get("headers", {}).items())
        yield name, made


def recipes():
    """Reads the rules of the manual's recipes."""
    manual = (HERE / "../../../../docs/routing.md").read_text().partition("\n## Recipes\n")[2]
    for title, block in re.findall(r"^### (.*?)$.*?^```yaml\n(.*?)^```", manual, re.S | re.M):
        for route in yaml.safe_load(block)["model_endpoints"][0]["routes"]:
            if rule := route.get("model_request_condition"):
                yield {"name": f"{title}, to {route['alias']}", "rule": rule}


def shown(made):
    """Writes a request for the other side: as the record that it is there."""
    line = [("http-target", made["line"])] if made["line"] else []
    body = None if made["body"] is None else made["body"].hex()
    return {key: made[key] for key in SOURCE} | {"headers": line + made["headers"], "body": body, "is_broken": reference.is_broken(made)}


def said(outcome):
    """Shortens an outcome to that which is written by hand."""
    return outcome["truth"] if "truth" in outcome else outcome["error"]


def main():
    reference.guard()
    wrong = []
    pool = dict(requests())
    contexts = {name: reference.context(made) for name, made in pool.items()}
    for name, made in pool.items():
        print(json.dumps({"request": shown(made) | {"name": name}}))
    rules = yaml.safe_load((HERE / "rules.yaml").read_text()) + list(recipes())
    for rule in rules:
        outcomes = {name: reference.outcome(rule["rule"], context) for name, context in contexts.items()}
        wrong += [
            f"{rule['name']}: {wanted} was expected on {name}, and CPython says {outcomes[name]}"
            for name, wanted in rule.get("expect", {}).items() if said(outcomes[name]) != wanted
        ]
        truths = [outcome.get("truth") for outcome in outcomes.values()]
        if True not in truths or all(truths):
            wrong.append(f"{rule['name']}: never or always true")
        print(json.dumps({"rule": rule["name"], "expression": rule["rule"], "outcomes": list(outcomes.values())}))
    names = [rule["name"] for rule in rules]
    wrong += [f"{name}: two rules have this name" for name in set(names) if names.count(name) > 1]
    checked = sum("expect" in rule for rule in rules)
    likely = sum(reference.is_compiled(rule["rule"]) for rule in rules)
    print(f"{len(rules)} rules, {checked} with outcomes by hand, {likely} probably compiled", file=sys.stderr)
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()

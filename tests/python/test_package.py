"""The package as it is installed: its program, its modules, and what they ask for."""

import os
import pickle
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from conftest import running
from signalbox import Fault
from signalbox.fault import STATUSES
from signalbox.program import find

HEAVY = ["confluent_kafka", "mlflow", "numpy", "pandas", "requests"]


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def test_program_runs_by_its_name_and_as_a_module():
    version = f"signalbox {metadata.version('signalbox')}\n"
    assert os.path.dirname(find()) == os.path.dirname(sys.executable)
    assert subprocess.run([find(), "--version"], capture_output=True, text=True, check=True).stdout == version
    assert python("-m", "signalbox", "--version").stdout == version
    assert python("-m", "signalbox", "nonsense").returncode != 0


def test_package_imports_no_library_and_names_the_extra_that_is_missing():
    script = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY}))  # None: their import fails
import signalbox, signalbox.payload
signalbox.payload.encode([1])
try:
    signalbox.Client
except ImportError as error:
    print(error)
"""
    ended = python("-c", script)
    assert "kafka" in metadata.metadata("signalbox").get_all("Provides-Extra")
    assert (ended.stdout, ended.stderr) == (
        "signalbox.Client needs confluent-kafka: pip install 'signalbox[kafka]'\n",
        "",
    )


def test_fault_survives_pickle():
    fault = Fault("MODEL_ERROR", "broken", stage="invoke", retryable=True, retry_after=2.0, correlation_id="a")
    copy = pickle.loads(pickle.dumps(fault))
    assert vars(copy) == vars(fault) and str(copy) == "MODEL_ERROR at invoke: broken"


def test_statuses_are_those_of_the_contract():
    page = (Path(__file__).parents[2] / "docs/wire.md").read_text()
    rows = re.findall(r"^\| (\d{3}) \| `([A-Z_]+)` \|", page, re.MULTILINE)
    assert {code: int(status) for status, code in rows} == STATUSES


def test_fault_is_made_of_the_words_of_a_proxy():
    fault = Fault.parse(503, b"<html>try later</html>", {"retry-after": "7"})
    assert (fault.code, fault.retryable, fault.retry_after) == ("TEMPORARILY_UNAVAILABLE", True, 7.0)
    assert "try later" in fault.message
    assert Fault.parse(418, b"[]", {"retry-after": "soon"}).code == "BAD_REQUEST"


def test_quickstart_uses_the_environment_that_it_is_installed_in(tmp_path):
    with running(tmp_path, "quickstart", "--port", "0", "--mlflow-port", "0", within=300) as signalbox:
        assert not (tmp_path / ".signalbox/venv").exists(), "an environment was made"
        (tmp_path / "in.json").write_text('[{"text": "This is a great product!"}]')
        deployments = ["-m", "mlflow", "deployments"]
        asked = [*deployments, "predict", "-t", signalbox.target, "--name", "sentiment-router", "-I", "in.json"]
        ended = python(*asked, cwd=tmp_path)
        assert '"label": "positive"' in ended.stdout, ended.stdout + ended.stderr

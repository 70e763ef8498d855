"""Registers models that misbehave, and models that are easy to tell apart, for the tests.

    python models.py --tracking-uri URI

Version 1 of each is in stage Production:

- `raises-model` raises on every call.
- `slow-model` takes rows of one column, `seconds`, sleeps for their sum, and answers the number of rows it was given,
  once a row.
- `picky-model` answers each row with what its column `says`; it raises when one says `poison`, and ends when one says
  `crash`. A call takes the milliseconds of its dearest row. Its metadata says that it answers row by row.
- `hostile-model` does what the column `do` says, with the column `amount`; see `Hostile`. `leaking-model` is the same.
- `raises-at-load-model`, `exits-at-load-model`, `hangs-at-load-model`, `slow-at-load-model` (20 seconds) do so.
- `unmet-model` asks for libraries that nobody has, and works without them.
- `weighty-model` brings some megabytes along, and answers their SHA-256 digest.

`moving-model` answers, for each row, the number of its version. Versions 1, 2 and 5 work; 3 raises when it is loaded,
and 4 raises on its own example, and on that alone.

`shelf-model` has twenty versions, each of some size, that sleep for the column `seconds` and answer their number.
"""

import argparse
import hashlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

# Stages are deprecated and still what most configs name.
warnings.filterwarnings("ignore")

MEBIBYTE = 1 << 20
MLFLOW = f"mlflow=={mlflow.__version__}"


class Raises(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        raise RuntimeError("this model always raises")


class Slow(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep(float(model_input["seconds"].sum()))
        return [len(model_input)] * len(model_input)


class Picky(mlflow.pyfunc.PythonModel):
    """Answers rows one by one, and minds some of them."""

    def predict(self, context, model_input, params=None):
        says = list(model_input["says"])
        time.sleep(model_input["ms"].max() / 1000)
        if any(text.startswith("crash") for text in says):
            os._exit(7)
        if any(text.startswith("poison") for text in says):
            raise ValueError("something in there is poisoned")
        return [{"heard": text} for text in says]


class Hostile(mlflow.pyfunc.PythonModel):
    """What models do that were not meant to be anyone's neighbours."""

    def predict(self, context, model_input, params=None):
        do, amount = model_input["do"][0], float(model_input["amount"][0])
        getattr(self, do.replace(" ", "_"))(amount)
        return [os.getpid()]

    def nothing(self, amount):
        pass

    def sleep(self, amount):
        time.sleep(amount)

    def hang(self, amount):
        while True:
            pass

    def hang_and_ignore_signals(self, amount):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1000)

    def leak(self, amount):
        """Megabytes that are never given back."""
        self.leaked = [*getattr(self, "leaked", []), random.randbytes(MEBIBYTE) * int(amount)]

    def flood(self, amount):
        """Megabytes to standard output and standard error, by Python's way and past it, and a line without an end."""
        for _ in range(int(amount)):
            print("x" * (MEBIBYTE // 2 - 1))
            sys.stderr.write("e" * (MEBIBYTE // 4))
            os.write(1, b"\x00\xff\n\r" * (MEBIBYTE // 16))

    def exit_at_once(self, amount):
        os._exit(int(amount))

    def exit(self, amount):
        sys.exit(int(amount))

    def exit_in_a_thread(self, amount):
        threading.Thread(target=os._exit, args=[int(amount)]).start()
        time.sleep(1000)

    def die_of_a_signal(self, amount):
        os.kill(os.getpid(), int(amount))
        time.sleep(1000)

    def close_everything(self, amount):
        os.closerange(0, 1024)

    def write_everywhere(self, amount):
        """Into whatever is open, as a bug with file descriptors does."""
        for descriptor in range(3, 64):
            try:
                os.set_blocking(descriptor, False)
                os.write(descriptor, b"\xff" * 64)
            except OSError:
                pass

    def leave_a_process(self, amount):
        subprocess.Popen(["sleep", "1000"])

    def leave_a_daemon(self, amount):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)

    def leave_a_thread(self, amount):
        threading.Thread(target=time.sleep, args=[1000]).start()


class AtLoad(mlflow.pyfunc.PythonModel):
    """Does it when it is loaded."""

    def __init__(self, do):
        self.do = do

    def load_context(self, context):
        self.do()

    def predict(self, context, model_input, params=None):
        return ["loaded"] * len(model_input)


class Weighty(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.digest = hashlib.sha256(pathlib.Path(context.artifacts["weights"]).read_bytes()).hexdigest()

    def predict(self, context, model_input, params=None):
        return [self.digest] * len(model_input)


class Numbered(mlflow.pyfunc.PythonModel):
    """Answers its number. Some have a weight, sleep when they are told to, or fail."""

    def __init__(self, number, mebibytes=0, at_load=None, on_example=None):
        self.number, self.mebibytes, self.at_load, self.on_example = number, mebibytes, at_load, on_example

    def load_context(self, context):
        if self.at_load is not None:
            raise RuntimeError(self.at_load)
        self.weight = bytearray(b"\x01") * (self.mebibytes * MEBIBYTE)

    def predict(self, context, model_input, params=None):
        seconds = float(model_input["seconds"].sum())
        # The example of each has this number in it.
        if seconds == 0.125 and self.on_example is not None:
            raise RuntimeError(self.on_example)
        time.sleep(seconds)
        return [self.number] * len(model_input)


def do_raise():
    raise RuntimeError("these weights are of no use")


def register(name, model, columns, example=None, requirements=(MLFLOW,), **more):
    """The next version of that name; its number."""
    logged = mlflow.pyfunc.log_model(
        name="model",
        python_model=model,
        signature=ModelSignature(inputs=Schema([ColSpec(kind, column) for column, kind in columns.items()])),
        input_example=None if example is None else pd.DataFrame(example),
        pip_requirements=list(requirements),
        registered_model_name=name,
        **more,
    )
    return str(logged.registered_model_version)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--tracking-uri", required=True)
    mlflow.set_tracking_uri(arguments.parse_args().tracking_uri)
    mlflow.set_experiment("tests")

    text, seconds, deed = {"text": "string"}, {"seconds": "double"}, {"do": "string", "amount": "double"}
    register("raises-model", Raises(), text)
    register("slow-model", Slow(), seconds)
    register("picky-model", Picky(), {"says": "string", "ms": "double"}, metadata={"signalbox.batch": "rows"})
    harmless = {"do": ["nothing"], "amount": [0.0]}
    register("hostile-model", Hostile(), deed, harmless)
    register("leaking-model", Hostile(), deed, harmless)
    for name, do in {
        "raises-at-load-model": do_raise,
        "exits-at-load-model": lambda: os._exit(7),
        "hangs-at-load-model": lambda: time.sleep(1000),
        "slow-at-load-model": lambda: time.sleep(20),
    }.items():
        register(name, AtLoad(do), text)
    wishes = (MLFLOW, "numpy==1.2.3", "no-such-library>=4", "pandas>=1")
    register("unmet-model", AtLoad(lambda: None), text, {"text": ["a"]}, wishes)
    with tempfile.TemporaryDirectory() as directory:
        weights = pathlib.Path(directory, "weights.bin")
        weights.write_bytes(random.Random(7).randbytes(24 * MEBIBYTE))
        register("weighty-model", Weighty(), text, {"text": ["a"]}, artifacts={"weights": str(weights)})

    example = {"seconds": [0.125]}
    for number in range(1, 6):
        at_load = "version 3 cannot be loaded" if number == 3 else None
        on_example = "version 4 does not know its own example" if number == 4 else None
        register("moving-model", Numbered(number, 0, at_load, on_example), seconds, example)
    for number in range(1, 21):
        register("shelf-model", Numbered(number, 24), seconds, {"seconds": [0.0]})

    client = mlflow.MlflowClient()
    for model in client.search_registered_models():
        if model.name.endswith("-model"):
            client.transition_model_version_stage(model.name, "1", "Production")


if __name__ == "__main__":
    main()

"""A model that does what it is asked, and what it should not."""

import contextvars
import os
import subprocess
import sys
import time

INHERITED = "json.tool" in sys.modules
MODULES = sorted(sys.modules)


CALLED = contextvars.ContextVar("called", default="fresh")


class Stunts:
    def predict(self, model_input, params=None):
        stunt = str(model_input["stunt"][0])
        if stunt == "echo":
            time.sleep(0.05 * (8 - model_input["number"][0]))
            return [int(model_input["number"][0])]
        return [getattr(self, stunt)()]

    def wait(self):
        time.sleep(0.5)

    def context(self):
        before = CALLED.get()
        CALLED.set("called before")
        return before

    def pid(self):
        return os.getpid()

    def inherited(self):
        return INHERITED

    def modules(self):
        return MODULES

    def sockets(self):
        count = 0
        for name in os.listdir("/proc/self/fd"):
            # One of the descriptors is that of the listing itself.
            if os.path.lexists(f"/proc/self/fd/{name}"):
                count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        return count

    def exit(self):
        sys.exit(3)

    def end(self):
        print("this is the end", flush=True)
        os._exit(3)

    def kill(self):
        os.kill(os.getpid(), 9)

    def crash(self):
        import ctypes

        ctypes.string_at(0)

    def hang(self):
        # The power is computed in C, where nothing interrupts it.
        return 7 ** (7**12) > 0

    def flood(self):
        for _ in range(64):
            print("x" * (1 << 20))
        return 1

    def large(self):
        return "x" * (65 << 20)

    def unwritable(self):
        return object()

    def leak(self):
        kept = []
        while True:
            kept.append(bytearray(16 << 20))

    def deaf(self):
        os.closerange(3, 1000)
        time.sleep(1000)

    def helper(self):
        helper = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        return helper.pid


class Rows:
    """Answers each row with its text, the number of columns, and its position; fails if one row is bad."""

    calls = 0

    def predict(self, model_input, params=None):
        if isinstance(model_input, dict):
            if 13 in model_input["number"]:
                raise ValueError("unlucky")
            return model_input["number"]
        self.calls += 1
        if model_input["says"][0] == "calls":
            return [self.calls] * len(model_input)
        # A second call with the same table would see this column.
        model_input["more"] = 1
        if any(says.startswith("exit") for says in model_input["says"]):
            sys.exit(1)
        if any(says.startswith("poison") for says in model_input["says"]):
            raise ValueError("something in there is poisoned")
        for says in model_input["says"]:
            if "named" in says:
                raise ValueError(f"cannot read '{says}'")
            if says == "leak":
                raise MemoryError
            if says == "slow":
                time.sleep(0.3)
        return [[says, model_input.shape[1], number] for number, says in model_input["says"].items()]


def _load_pyfunc(path):
    with open(path) as file:
        stunt = file.read().strip()
    if stunt == "rows":
        return Rows()
    if stunt == "import":
        import a_library_that_is_missing  # noqa: F401
    if stunt == "exit":
        sys.exit("no such luck")
    if stunt == "sleep":
        print("sleeping", flush=True)
        time.sleep(1000)
    if stunt == "tool":
        import json.tool  # noqa: F401
    return Stunts()

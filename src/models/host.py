"""Runs `mlflow models serve`, and sees to it that nothing of it outlives Signalbox.

Signalbox holds the other end of this process's standard input. When that end closes, because Signalbox lets the model
go or because it was itself killed, the server and everything it has started are stopped: asked first, then forced.

Started as `python -c <this> <seconds to stop in> <arguments of mlflow>`; ends with the server's own exit status.
Only the standard library is used here, and nothing of this process is visible to the model.
"""

import os
import signal
import subprocess
import sys
import threading
import time


def prctl(option, value):
    """Linux only; elsewhere the model's server is still stopped, unless this process too is killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def signal_group(group, number):
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def main(seconds, arguments):
    set_parent_death_signal, set_child_subreaper = 1, 36
    # Ctrl-C reaches Signalbox, which first answers what it has taken.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Processes whose parent is gone become ours, so that we know when the last one has ended.
    prctl(set_child_subreaper, 1)
    # `mlflow models serve` looks uvicorn up there.
    environment = dict(os.environ)
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + environment.get("PATH", os.defpath)

    def before_exec():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prctl(set_parent_death_signal, signal.SIGTERM)

    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=before_exec,
    )
    stopping = threading.Event()

    def stop():
        stopping.wait()
        signal_group(server.pid, signal.SIGTERM)
        time.sleep(seconds)
        signal_group(server.pid, signal.SIGKILL)
        time.sleep(1)
        os._exit(1)

    def watch_input():
        while os.read(0, 4096):
            pass
        stopping.set()

    for task in (stop, watch_input):
        threading.Thread(target=task, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal_group(server.pid, signal.SIGTERM))

    status = 1
    while True:
        try:
            ended, code = os.waitpid(-1, 0)
        except ChildProcessError:
            # Without waiting for the other thread: nobody is left to stop.
            os._exit(status)
        if ended == server.pid:
            status = os.waitstatus_to_exitcode(code)
            status = 128 - status if status < 0 else status
            stopping.set()


main(float(sys.argv[1]), sys.argv[2:])

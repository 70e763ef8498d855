"""Runs a command that must not outlive the process that started this one.

    python -I -c "$(cat guard.py)" COMMAND ARGUMENT...

Standard input is the lifeline. Its end, which comes even when the starter is killed, ends the command and all that it
started: first politely, and after GRACE seconds by force. Until then a line `terminate` sends the command SIGTERM,
`kill` sends it SIGKILL, and `kill all` sends that to all that it started as well. What the command leaves behind when
it ends is ended too, except after `kill`, which is there to see what is left. The exit status is the command's.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

GRACE = 5.0
# Signals of Ctrl-C, and of a terminal that is closed, are for the starter, which closes the lifeline when it is done.
NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

for number in NOT_FOR_US:
    signal.signal(number, signal.SIG_IGN)
# On Linux the kernel ends the command even when this guard is the one that is killed.
libc = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


def before_exec():
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_DFL)
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=before_exec)


def signal_group(number):
    try:
        os.killpg(command.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


spared = threading.Event()


def obey():
    for line in sys.stdin:
        if line == "terminate\n":
            command.terminate()
        elif line == "kill\n":
            spared.set()
            command.kill()
        elif line == "kill all\n":
            signal_group(signal.SIGKILL)
    signal_group(signal.SIGTERM)
    try:
        command.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    signal_group(signal.SIGKILL)


threading.Thread(target=obey, daemon=True).start()
status = command.wait()
if not spared.is_set():
    signal_group(signal.SIGKILL)
sys.exit(status if status >= 0 else 128 - status)

"""Runs a command that must not outlive whoever started this.

    python -I -c "$(cat guard.py)" COMMAND ARGUMENT...

Standard input is the lifeline. Its end, which comes even when the starter is killed, ends the command and all that it
started: first politely, and after GRACE seconds by force. Until then a line `terminate` sends the command SIGTERM,
`kill` sends it SIGKILL, and `kill all` sends that to all that it started as well. The exit status is the command's.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE = 5.0

# A Ctrl-C in the terminal is for the starter; it will close the lifeline when it has finished with the command.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)

command = subprocess.Popen(
    sys.argv[1:],
    stdin=subprocess.DEVNULL,
    start_new_session=True,
    preexec_fn=lambda: (signal.signal(signal.SIGINT, signal.SIG_DFL), signal.signal(signal.SIGTERM, signal.SIG_DFL)),
)


def signal_group(number):
    try:
        os.killpg(command.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def obey():
    for line in sys.stdin:
        if line == "terminate\n":
            command.terminate()
        elif line == "kill\n":
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
sys.exit(status if status >= 0 else 128 - status)

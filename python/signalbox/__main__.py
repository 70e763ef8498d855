"""``python -m signalbox``: the program, with the same arguments."""

import os
import sys

from .program import find

if __name__ == "__main__":
    program = find()
    os.execv(program, [program, *sys.argv[1:]])

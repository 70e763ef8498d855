"""The program ``signalbox``, which the wheel puts beside the interpreter."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig


def find() -> str:
    """Finds the program that belongs to this package.

    Raises:
        FileNotFoundError: If it is in none of the places where installers put programs.
    """
    schemes = ("", sysconfig.get_preferred_scheme("user"))
    places = [sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts") for scheme in schemes]
    places.append(os.path.dirname(sys.executable))
    for place in places:
        program = shutil.which("signalbox", path=place)
        if program is not None:
            return program
    raise FileNotFoundError(f"there is no program 'signalbox' in {', '.join(places)}: install the package again")

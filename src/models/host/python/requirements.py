"""Compares what a model asks for with what an interpreter has."""

import re
import sys


def unmet(read, installed):
    """Lists the requirements of the model that this interpreter does not meet. `read` gives the text of a file of the
    model, and `installed` has the versions of distributions by canonical name."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    differences = []
    wanted = re.search(r"^python: *['\"]?(\d+\.\d+)", read("python_env.yaml"), re.MULTILINE)
    runs = "{}.{}".format(*sys.version_info)
    if wanted and wanted[1] != runs:
        differences.append(f"Python {wanted[1]} is required, {runs} is running")
    for line in read("requirements.txt").splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", line).strip()
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            # The line is an option or a file, which pip alone understands.
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed.get(canonicalize_name(requirement.name))
        shown = f"{requirement.name}{requirement.specifier}"
        if found is None:
            differences.append(f"{shown} is required, it is not installed")
        elif not requirement.specifier.contains(found, prereleases=True):
            differences.append(f"{shown} is required, {found} is installed")
    return differences


def versions():
    """Returns the versions of the installed distributions by canonical name."""
    import importlib.metadata

    from packaging.utils import canonicalize_name

    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            # Of several distributions with one name, Python imports the first one on the path.
            found.setdefault(canonicalize_name(name), distribution.version)
    return found

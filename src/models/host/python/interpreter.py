"""Says what an interpreter is and has, and which requirements of models it does not meet.

It follows requirements.py in one program. The question on standard input is a list of models, each with the texts of its
files by name; the answer is the last line of standard output.
"""

import json
import sys


def main():
    models = json.load(sys.stdin)
    answer = {"python": ".".join(map(str, sys.version_info[:3])), "mlflow": None, "flask": None, "unmet": []}
    try:
        import mlflow
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        return answer
    installed = versions()  # noqa: F821
    answer["mlflow"] = mlflow.__version__
    answer["flask"] = installed.get("flask")
    answer["unmet"] = [unmet(lambda file, texts=texts: texts.get(file, ""), installed) for texts in models]  # noqa: F821
    return answer


print(json.dumps(main()))

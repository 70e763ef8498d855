"""Stands for `python -m mlflow models serve`: starts in a blink, and behaves as the file `behaviour` of the model says."""

import http.server
import os
import subprocess
import sys

arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
model, port = arguments["-m"], int(arguments["-p"])
with open(os.path.join(model, "behaviour")) as file:
    behaviour = file.read().split()

# What a model's server starts must end with it: here something that ignores being asked.
helper = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000"]) if "helper" in behaviour else None
with open(os.path.join(model, "pids"), "a") as file:
    file.write(f"{os.getpid()} {os.getppid()} {helper.pid if helper else os.getpid()}\n")

if "no-mlflow" in behaviour:
    sys.exit("/somewhere/python: No module named mlflow")
if "fail" in behaviour:
    import a_library_that_is_missing
if "hang" in behaviour:
    print("importing", flush=True)
    sys.stdin.close()
    subprocess.run(["sleep", "1000"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(b"\n")

    def do_POST(self):
        if self.rfile.read(int(self.headers["Content-Length"])) == b"die":
            os._exit(3)
        self.answer(b'{"predictions": [%d]}' % os.getpid())


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()

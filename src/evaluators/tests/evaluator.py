"""Tests evaluator.py by itself: `python evaluator.py DIRECTORY`, where the directory has channel.py and evaluator.py."""

import builtins
import json
import os
import pathlib
import resource
import socket
import struct
import sys
import time
import unittest

import flask

DIRECTORY = pathlib.Path(sys.argv.pop(1))
BUILTINS = """abs all any bool dict enumerate filter float frozenset int isinstance len list map max min range repr
reversed round set sorted str sum tuple zip"""
MODULES = [
    ("re", "search sub"), ("hashlib", "md5"), ("datetime", "datetime timezone"), ("statistics", "median kde"),
    ("urllib.parse", "unquote"), ("urllib", "parse"),
]
MEMORY = 256 << 20


def program(name):
    namespace = {"__name__": f"signalbox_{name}"}
    exec(compile((DIRECTORY / f"{name}.py").read_text(), name, "exec"), namespace)
    return namespace


CHANNEL, EVALUATOR = program("channel"), program("evaluator")


def request(payload=b"{}", content_type="application/json", key=None, record=("t", 3, 7, 1_700_000_000_000), **environ):
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/invocations",
        "QUERY_STRING": "",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(payload)),
        **environ,
    }
    return {"environ": environ, "record": record, "key": None if key is None else len(key), "payload": len(payload)}


class Evaluator:
    """An evaluator process, and our end of its socket."""

    def __init__(self, prepare=lambda: None, builtin_names=BUILTINS):
        self.socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.socket.close()
            try:
                prepare()
                EVALUATOR["main"](CHANNEL["Channel"](theirs))
            finally:
                os._exit(0)
        theirs.close()
        self.questions = 0
        self.tell({"begin": {"names": {"builtins": builtin_names, "modules": MODULES}, "max_memory": MEMORY}})

    def tell(self, head):
        self.send(head)
        assert self.receive() == ({}, b"")

    def send(self, head, body=b""):
        head = json.dumps(head).encode()
        self.socket.sendall(struct.pack(">II", len(head), len(body)) + head + body)

    def receive(self):
        head, body = struct.unpack(">II", self.read(8))
        return json.loads(self.read(head)), self.read(body)

    def read(self, length):
        read = b""
        while len(read) < length:
            piece = self.socket.recv(length - len(read))
            if not piece:
                raise EOFError
            read += piece
        return read

    def teach(self, *sources, truth=False, **names):
        self.questions += 1
        expressions = [[source, not truth] for source in sources]
        self.tell({"learn": {"id": self.questions, "expressions": expressions, "names": list(names.items())}})
        return self.questions

    def ask(self, *sources, payload=b"{}", key=None, truth=False, names=(), **details):
        question = self.teach(*sources, truth=truth, **dict(names))
        self.send({"evaluate": [{"question": question, **request(payload, key=key, **details)}]}, (key or b"") + payload)
        errors, values = self.receive()
        return [error or value for error, value in zip(errors, json.loads(values), strict=True)]

    def close(self):
        self.socket.close()
        os.waitpid(self.pid, 0)


class Tests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.evaluator = Evaluator()

    @classmethod
    def tearDownClass(cls):
        cls.evaluator.close()

    def ask(self, source, **details):
        return self.evaluator.ask(source, **details)[0]

    def test_values_are_those_of_python(self):
        for source, expected in (
            ("sum(r['a'] for r in request.json['rows'])", 3),
            ("f\"{request.json['rows'][0]['a']:>4}\"", "   1"),
            ("[r['a'] for r in request.json()['rows'] if (lambda x: x > 1)(r['a'])]", [2]),
            ("request.json.keys() >= {'rows'}", True),
            ("re.search(r'(\\d+)', 'ab12')[1]", "12"),
            ("int(hashlib.md5(b'a').hexdigest(), 16) % 100", int("0cc175b9c0f1b6a831c399e269772661", 16) % 100),
            ("datetime.datetime.fromtimestamp(request.timestamp / 1000, datetime.timezone.utc).hour", 22),
            ("urllib.parse.unquote('a%20b')", "a b"),
            ("(1, {'a': (2,)}, {'b', 'a'}, {1: 2}.keys())", [1, {"a": [2]}, ["a", "b"], [1]]),
            ("'é'.encode('utf-16-le').decode('utf_16_le')", "é"),
            ("datetime.datetime.strptime('2026-01-02', '%Y-%m-%d').strftime('%d.%m.')", "02.01."),
            ("(x := 2) and\n  x + 1  # and three", 3),
            ("statistics.median(r['a'] for r in request.json['rows'])", 1.5),
        ):
            self.assertEqual(self.ask(source, payload=b'{"rows": [{"a": 1}, {"a": 2}]}'), expected, source)
        self.assertEqual(self.evaluator.ask("[]", "'a'", "request.json", truth=True), [False, True, False])

    def test_request_is_flasks(self):
        application = flask.Flask(__name__)
        sources = [
            "request.json", "request.get_json(silent=True)", "request.get_json(force=True)", "request.is_json",
            "request.method", "request.path", "request.full_path", "request.args.getlist('a')", "request.args['a']",
            "request.mimetype", "request.content_length", "request.content_type", "request.form.get('a')",
            "request.headers.get('X-Tier')", "request.headers['x-tier']", "request.cookies.get('c')", "request.data.hex()",
            "request.get_data(as_text=True)", "request.accept_languages.best", "request.authorization.username",
            "request.args['b']", "request.form['b']",
        ]
        headers = {"X-Tier": "gold", "Cookie": "c=1", "Accept-Language": "de, en;q=0.5", "Authorization": "Basic YTpi"}
        wsgi = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        payloads = [b'{"a": [1, NaN]}', b"{", b"", b"\xff\xfe[\x001\x00]\x00", b'\xef\xbb\xbf{"a": 1, "a": 2}', b"a=1&a=2"]
        types = ["application/json", "application/vnd.api+json; charset=utf-8", "text/csv", ""]
        compared = 0
        for content_type in types + ["application/x-www-form-urlencoded"]:
            for payload in payloads:
                # Flask reads a form from the stream, so that each expression has a request of its own.
                for source in sources:
                    if source == "request.content_length" and not payload:
                        # Flask's test client leaves the header out then.
                        continue
                    details = {"method": "PUT", "data": payload, "content_type": content_type, "headers": headers}
                    with application.test_request_context("/a%20bé?a=1&a=x+yé", **details):
                        try:
                            expected = json.loads(json.dumps(eval(source, {"request": flask.request})))
                        except Exception as error:
                            expected = type(error).__name__ if isinstance(error, KeyError) else str(error)
                    environ = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/a%20b%C3%A9", "QUERY_STRING": "a=1&a=x+yé", **wsgi}
                    found = self.ask(source, payload=payload, content_type=content_type, **environ)
                    if expected in ("BadRequestKeyError", "KeyError"):
                        self.assertRegex(found, "^KeyError: '[a-z-]+'$")
                    elif found != expected:
                        self.assertEqual(repr(found).partition(": ")[2] or repr(found), repr(expected), (source, payload))
                    compared += 1
        self.assertGreater(compared, 600)

    def test_record_is_known(self):
        sources = ["request.topic", "request.partition", "request.offset", "request.timestamp", "request.key"]
        expected = ["t", 3, 7, 1_700_000_000_000, "k"]
        self.assertEqual(self.evaluator.ask(*sources, key=b"k"), expected)
        self.assertEqual(self.evaluator.ask("request.key", "request.timestamp", record=("t", 0, 0, None)), [None, None])
        self.assertEqual(self.ask("request.key", key=b"\xff"), "ValueError: the bytes are not UTF-8 text")

    def test_errors_are_in_one_short_line(self):
        for source, expected in (
            ("request.json['a']", "KeyError: 'a'"),
            ("request.headers['X-Tier']", "KeyError: 'X-Tier'"),
            ("request.args['a']", "KeyError: 'a'"),
            ("requst", "NameError: name 'requst' is not defined"),
            ("__import__('os')", "ImportError: os is not imported by conditions"),
            ("re.enum", "AttributeError: module 're' has no attribute 'enum'"),
            ("request", "TypeError: Object of type Request is not JSON serializable"),
            ("1 +", "SyntaxError: invalid syntax (<condition>, line 2)"),
            ("'\\ud800'.encode()", "UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800' in position 0: "
             "surrogates not allowed"),
            ("{}['\\ud800']", "KeyError: '\\ud800'"),
            ("int('a\\nb')", "ValueError: invalid literal for int() with base 10: 'a\\nb'"),
            ("'a'.encode('no such')", "LookupError: unknown encoding: no such"),
            ("'x' * 2_000_000", "ValueError: the value is longer than 1048576 characters of JSON"),
            ("(lambda f: f(f))(lambda f: f(f))", "RecursionError: maximum recursion depth exceeded"),
        ):
            self.assertEqual(self.ask(source), expected)
        self.assertEqual(len(self.ask("{}['x' * 1000]")), 200)
        deep = self.ask("request.json", payload=b"[" * 100_000)
        self.assertTrue(deep.startswith("RecursionError"), deep)
        broken, missing = self.ask("request.json", payload=b"{"), self.ask("request.json", content_type="text/csv")
        self.assertTrue(broken.startswith("400 Bad Request: "), broken)
        self.assertTrue(missing.startswith("415 Unsupported Media Type: "), missing)

    def test_shared_names_are_evaluated_once_and_lazily(self):
        names = {"rows": "request.json['rows']", "most": "max(rows)", "broken": "rows['a']", "absent": "request.json['b']"}
        asked = self.evaluator.ask(
            "most > 1", "any(most > x for x in rows)", "broken", "broken is None", "[rows for rows in 'a']", "absent",
            "(most := 7)", "most", "(request := 1)", "request.method",
            payload=b'{"rows": [1, 2]}', names=names,
        )
        failed = "TypeError: list indices must be integers or slices, not str"
        self.assertEqual(asked, [True, True, failed, failed, ["a"], "KeyError: 'b'", 7, 2, 1, "POST"])
        # A name that fails costs nothing where it is not used; one that is slow is evaluated once.
        names = {"slow": "sum(range(3_000_000))"}
        begun = time.monotonic()
        self.evaluator.ask("slow", names=names)
        once, begun = time.monotonic() - begun, time.monotonic()
        self.evaluator.ask(*["slow"] * 20, names=names)
        self.assertLess(time.monotonic() - begun, 10 * once)

    def test_answers_of_a_frame_come_in_order(self):
        question = self.evaluator.teach("request.json['n']", "request.key")
        bodies = [json.dumps({"n": number}).encode() for number in range(100)]
        requests = [{"question": question, **request(body, key=str(len(body)).encode())} for body in bodies]
        self.evaluator.send({"evaluate": requests}, b"".join(str(len(body)).encode() + body for body in bodies))
        for number, body in enumerate(bodies):
            errors, values = self.evaluator.receive()
            self.assertEqual((errors, json.loads(values)), ([None, None], [number, str(len(body))]))
        self.evaluator.tell({"forget": {}})

    def test_memory_is_refused_and_given_back(self):
        for source in ("len('x' * 10**10)", "[0] * 10**9", "len(list(range(10**8)))", "'%1000000000d' % 1"):
            self.assertTrue(self.ask(source).startswith("MemoryError"), source)
        self.assertEqual(self.ask("len('x' * 10**7)"), 10**7)

    def test_no_file_and_no_socket_can_be_opened(self):
        """With every module at hand, as no expression has."""
        tried = [
            lambda: open("/etc/passwd"), lambda: open("/tmp/signalbox-evaluator", "w"), lambda: socket.socket(),
            lambda: os.pipe(), lambda: os.listdir("/"), lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))
            or open("/etc/passwd"),
        ]
        if os.getuid() == 0:
            tried.pop()
        sources = [f"tried[{number}]()" for number in range(len(tried))]
        evaluator = Evaluator(lambda: setattr(builtins, "tried", tried), BUILTINS + " tried")
        for answer in evaluator.ask(*sources):
            self.assertRegex(answer, "^(OSError|PermissionError|ValueError)")
        evaluator.close()

    def test_body_of_a_mebibyte_is_read_as_fast_as_json_reads_it(self):
        rows = [{"id": number, "text": "some text " * 5, "score": number / 7} for number in range(10_500)]
        body = json.dumps({"dataframe_records": rows}).encode()
        self.assertGreater(len(body), 1 << 20)
        timed = lambda work: min(self.seconds(work) for _ in range(20))
        bare = timed(lambda: json.loads(body))
        asked = timed(lambda: self.ask("len(request.json['dataframe_records'])", payload=body))
        print(f"{len(body)} bytes: json.loads {bare * 1000:.2f} ms, asked {asked * 1000:.2f} ms", file=sys.stderr)
        self.assertLess(asked, 2 * bare)

    @staticmethod
    def seconds(work):
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    def test_processor_time_of_an_evaluation(self):
        evaluator = EVALUATOR
        question = evaluator["Question"]([evaluator["Expression"].compiled("request.json['a'] > 0", False)], {})
        asked = request(b'{"a": 1, "text": "' + b"x" * 1000 + b'"}')
        body = b'{"a": 1, "text": "' + b"x" * 1000 + b'"}'
        begun = time.process_time()
        for _ in range(2000):
            evaluator["evaluate"](question, asked, None, body)
        print(f"{(time.process_time() - begun) * 500:.1f} µs an evaluation", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()

"""Makes random conditions and payloads, and evaluates them in CPython itself.

Arguments: a seed and the number of cases. Prints a line of JSON for each: the condition, the payload in hexadecimal, the outcome
(true, false, or the name of the exception), and whether the payload is JSON at all.
"""

import json
import random
import sys
import warnings

warnings.simplefilter("ignore")
seed, count = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
HEADERS = {"x-tier": "gold", "x-user-id": "42"}
ARGS = {"a": "1", "b": "x y"}


class Headers:
    def __getitem__(self, name):
        return HEADERS[name.lower()]

    def get(self, name, default=None):
        return HEADERS.get(name.lower(), default)

    def __contains__(self, name):
        return name.lower() in HEADERS


class Request:
    method, path, key, topic, partition = "POST", "/invocations", "customer-7", "inference-requests", 3
    headers, args = Headers(), ARGS

    def __init__(self, body):
        self._body = body

    def json(self):
        return json.loads(self._body)

    get_json = json

    def get_data(self, as_text=False):
        return self._body.decode(errors="replace")


TEXTS = ["", "a", "abc", "Hello World", "ünïcödé", " pad ", "12", "-3", "1.5", "a,b,,c", "x", "ΑΣ", "ß", "日本", "\t\n", "gold", "True", "nan", "1e3", "_1", "1_0", "aXbX", "😀🎉x", "İstanbul", "ﬁ", "ŉ", "a\u00a0b", "\u2028", "\x1c \x85", "ǅ ǆ", "Ǆ", "თბილისი", "ᾳᾷ ᾐ", "aΣ ΑΣ.x", "\x00", "0x1F", "+5", "٣", "½", "\"q'\\"]
KEYS = ["a", "b", "data", "n", "s", "list", "d", "é"]
FLOATS = [rng.random() * 10.0 ** rng.randrange(-30, 18) for _ in range(20)] + [0.0, 0.5, 1.0, 1.5, -2.5, 0.1, 1e16, 1e-5, 123456.789, 2.675, 0.30000000000000004, 5e-324, 1e300, 0.1234567890123456, 9007199254740992.0]
INTS = [0, 1, 2, 3, -1, -2, 7, 10, 100, 2**53 + 1, 2**31, 2**62, 2**63 - 1, -(2**63) + 1]


# Ranges of characters of any script, also beyond the first 65,536. No combining marks: `isalpha()` is known to differ on them.
RANGES = [
    lambda rng: rng.randrange(0x20, 0x7F),
    lambda rng: rng.randrange(0xA0, 0x250),
    lambda rng: rng.randrange(0x391, 0x3CA),
    lambda rng: rng.randrange(0x410, 0x450),
    lambda rng: rng.randrange(0x4E00, 0x4F00),
    lambda rng: rng.randrange(0x1F600, 0x1F640),
]


def scalar():
    kind = rng.randrange(6)
    if rng.random() < 0.05:
        return "".join(chr(rng.choice(RANGES)(rng)) for _ in range(rng.randrange(1, 6)))
    if kind == 0:
        return rng.choice(TEXTS)
    if kind == 1:
        return rng.choice(FLOATS)
    if kind == 2:
        return rng.choice([True, False, None])
    if kind == 3:
        return rng.choice(TEXTS)
    return rng.choice(INTS[:10]) if rng.random() < 0.9 else rng.choice(INTS)


def tree(depth):
    if depth <= 0 or rng.random() < 0.2:
        return scalar()
    if rng.random() < 0.5:
        return [tree(depth - 1) for _ in range(rng.randrange(4))]
    return {key: tree(depth - 1) for key in rng.sample(KEYS, rng.randrange(1, 6))}


# Numbers that are no JSON, or too large for a condition to compute with; never in a literal.
ODD = [float("nan"), float("inf"), float("-inf"), 2**63, -(2**63), -(2**63) - 1, 2**64, 10**40, 1e308, -0.0]


def body():
    if rng.random() < 0.05:
        return tree(2)
    if rng.random() < 0.1:
        odd = tree(2)
        return {"data": odd, "n": rng.choice(ODD), "s": [rng.choice(ODD), odd], "list": [[[[odd]]]], "a": {"a": {"a": odd}}}
    return {key: tree(2) for key in rng.sample(KEYS, 6)}


def literal():
    kind = rng.randrange(10)
    if kind < 6:
        return repr(scalar())
    if kind < 7:
        return "[" + ", ".join(repr(scalar()) for _ in range(rng.randrange(4))) + "]"
    if kind < 8:
        return "(" + "".join(repr(scalar()) + ", " for _ in range(rng.randrange(4))) + ")"
    if kind < 9:
        return "{" + ", ".join(f"{scalar()!r}: {scalar()!r}" for _ in range(rng.randrange(3))) + "}"
    # Elements of one kind: Python's sets have no order, so chance would decide which of two elements fails first.
    return "{" + ", ".join(repr(rng.choice(INTS[1:])) for _ in range(rng.randrange(1, 4))) + "}"


def leaf():
    """Compares a leaf of the payload with itself."""
    value, text = BODY, "request.json()"
    while isinstance(value, (list, dict)) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        text, value = text + f"[{key!r}]", value[key]
    return f"({text} {rng.choice(['==', '==', '<=', '!=', '<'])} {value!r})"


def real_path(value, depth=3):
    """Makes a path that mostly exists."""
    text = ""
    while depth and isinstance(value, (list, dict)) and value and rng.random() < 0.85:
        depth -= 1
        if isinstance(value, dict):
            key = rng.choice(list(value))
            text += f"[{key!r}]" if rng.random() < 0.8 else f".get({key!r})" if rng.random() < 0.6 else f".get({key!r}, {literal()})"
            value = value[key]
        else:
            at = rng.randrange(-len(value), len(value))
            text += f"[{at}]"
            value = value[at]
    if rng.random() < 0.08:
        text += rng.choice(["['nope']", "[5]", "[0]", ".get('nope')", ".get('nope', 'dflt')", ".get('nope', {}).get('x', [1])", "[True]", "[None]", "[1.0]"])
    return rng.choice(["request.json()", "request.get_json()", "request.json( )"]) + text


def atom(names):
    if names and rng.random() < 0.5:
        return rng.choice(names)
    kind = rng.randrange(10)
    if kind < 4:
        return real_path(BODY)
    if kind < 9:
        return literal()
    return rng.choice([
        "request.headers['X-Tier']", "request.headers.get('x-user-id')", "request.headers.get('nope', 7)", "request.headers['nope']",
        "request.method", "request.path", "request.args['a']", "request.args.get('c', 'd')", "request.key", "request.topic",
        "request.partition", "request.get_data(as_text=True)",
    ])


def small(names):
    """Makes an operand for `*` and `**` whose result stays small."""
    return rng.choice(["2", "3", "-1", "0", "0.5", "True", "-2"])


METHODS = [
    ("startswith", 1), ("endswith", 1), ("lower", 0), ("upper", 0), ("strip", 0), ("strip", 1), ("lstrip", 0), ("rstrip", 1), ("split", 0), ("split", 1),
    ("find", 1), ("rfind", 1), ("replace", 2), ("count", 1), ("isdigit", 0), ("isalpha", 0), ("isalnum", 0), ("isspace", 0), ("isupper", 0), ("islower", 0),
    ("title", 0), ("capitalize", 0), ("join", 1), ("removeprefix", 1), ("removesuffix", 1), ("get", 1), ("get", 2), ("keys", 0), ("values", 0), ("items", 0),
]
VARIABLES = ["p", "q", "r", "s", "t", "u"]


def value(depth, names):
    if depth <= 0:
        return atom(names)
    kind = rng.randrange(20)
    one = lambda: value(depth - 1, names)
    if kind < 3:
        return atom(names)
    if kind < 5:
        return f"({one()} {rng.choice(['+', '-', '/', '//', '%', '+'])} {one()})"
    if kind == 5:
        return f"({one()} {rng.choice(['*', '**'])} {small(names)})"
    if kind == 6:
        return f"({rng.choice(['-', '+', 'not '])}{one()})"
    if kind == 7:
        return f"({one()} {rng.choice(['and', 'or'])} {one()})"
    if kind == 8:
        return f"({one()} if {one()} else {one()})"
    if kind < 11:
        name, arity = rng.choice(METHODS)
        arguments = ", ".join(rng.choice([repr(rng.choice(TEXTS)), repr(rng.choice(TEXTS)), one()]) for _ in range(arity))
        receiver = rng.choice([one, lambda: repr(rng.choice(TEXTS)), lambda: real_path(BODY)])()
        return f"({receiver}).{name}({arguments})"
    if kind < 13:
        name = rng.choice(["len", "str", "int", "float", "bool", "abs", "min", "max", "any", "all", "round"])
        if name in ("min", "max") and rng.random() < 0.6:
            return f"{name}({one()}, {one()})"
        if name == "round" and rng.random() < 0.5:
            return f"round({one()}, {rng.randrange(4)})"
        return f"{name}({one()})"
    if kind == 13:
        bound = lambda: rng.choice(["", "", "0", "1", "-1", "-2", "2", "100", "-100"])
        step = rng.choice(["", ":2", ":-1", ":-2", ":3", ":0"])
        return f"({one()})[{bound()}:{bound()}{step}]"
    if kind == 14:
        return f"({one()})[{rng.choice(['0', '-1', '1', one()])}]"
    if kind == 15:
        return f"isinstance({one()}, {rng.choice(['str', 'int', 'float', 'bool', 'list', 'dict', '(int, float)', 'tuple'])})"
    if kind == 16 and len(names) < 4:
        return generator(depth, names)
    return comparison(depth, names)


def generator(depth, names):
    fresh = VARIABLES[len(names)]
    iterable = rng.choice([lambda: real_path(BODY), lambda: value(depth - 1, names), lambda: literal()])()
    target, inner = fresh, names + [fresh]
    if rng.random() < 0.2:
        other = VARIABLES[len(names) + 1]
        target, inner, iterable = f"{fresh}, {other}", names + [fresh, other], f"({real_path(BODY)}).items()"
    filters = f" if {comparison(depth - 1, inner)}" if rng.random() < 0.3 else ""
    return f"{rng.choice(['any', 'all'])}({comparison(depth - 1, inner)} for {target} in {iterable}{filters})"


def comparison(depth, names):
    kind = rng.randrange(13)
    one = lambda: value(depth - 1, names)
    if kind == 12:
        return leaf()
    if kind == 0:
        return f"({one()} is {rng.choice(['', 'not '])}None)"
    if kind == 1:
        return f"({rng.choice([repr('x-tier'), repr('nope')])} {rng.choice(['in', 'not in'])} request.{rng.choice(['headers', 'args'])})"
    if kind == 2:
        return f"({one()} {rng.choice(['in', 'not in'])} {one()})"
    operators = ["==", "!=", "<", "<=", ">", ">=", "in"]
    text = one()
    if rng.random() < 0.3:
        same = text
        text += f" {rng.choice(operators[:6])} {same}"
    for _ in range(1 if rng.random() < 0.8 else 2):
        text += f" {rng.choice(operators)} {one()}"
    return f"({text})"


# Unusual spellings of numbers, and texts that no other language can hold.
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "-1E+400", "1e-400", "-0", "-0.0", "1E5", "0.10", "9" * 40, "1" + "0" * 25 + ".5", "123456789012345678e-3"]
HALVES = ["\ud800", "a\udc00", "\udfff\ud83d", "\ud83dx", "\U0010ffff\ud83d"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def blank():
    return rng.choice(["", "", "", " ", "\n", "\t \r\n"])


def string(text):
    """Puts a text in quotation marks, with some needless escapes."""
    written = []
    for character in text:
        code = ord(character)
        if character in '"\\' or code < 0x20:
            written.append(json.dumps(character)[1:-1])
        elif character == "/" and rng.random() < 0.5:
            written.append("\\/")
        elif rng.random() < 0.1 or 0xD800 <= code < 0xE000 and rng.random() < 0.5:
            written.append(json.dumps(character)[1:-1] if code > 0x7E else f"\\u{code:04{rng.choice('xX')}}")
        else:
            written.append(character)
    return '"' + "".join(written) + '"'


def odd_value(depth):
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return string(rng.choice(HALVES))
    if kind == 2:
        deep = rng.randrange(2, 120)
        return "[" * deep + rng.choice(["", "1", "NaN"]) + "]" * deep
    return written(tree(depth))


def written(tree):
    """Writes a tree as JSON with values that Python reads and few others do, and with repeated keys."""
    if isinstance(tree, dict):
        entries = [(key, written(value)) for key, value in tree.items()]
        while entries and rng.random() < 0.3:
            key = rng.choice([key for key, _ in entries] + [rng.choice(KEYS)])
            entries.insert(rng.randrange(len(entries) + 1), (key, odd_value(1)))
        return "{" + ",".join(f"{blank()}{string(key)}{blank()}:{blank()}{value}" for key, value in entries) + blank() + "}"
    if isinstance(tree, list):
        items = [written(item) for item in tree]
        if rng.random() < 0.1:
            items.insert(rng.randrange(len(items) + 1), odd_value(1))
        return "[" + ",".join(f"{blank()}{item}{blank()}" for item in items) + "]"
    if isinstance(tree, str):
        return string(tree)
    return json.dumps(tree)


def broken(payload):
    """Puts a slip or two into a payload."""
    payload = bytearray(payload)
    for _ in range(rng.randrange(1, 3)):
        at = rng.randrange(len(payload) + 1)
        piece = rng.choice([b"", b",", b"]", b"}", b'"', b"\\", b"\x00", b"\xff", b"0", b"e", b"-", b" ", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n"])
        payload[at:at + rng.randrange(0, 3)] = piece
    return bytes(payload)


def payload():
    """Makes a payload, and the tree that conditions on it refer to."""
    tree = body()
    if rng.random() < 0.4:
        return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode(), tree
    text = blank() + written(tree) + blank()
    encoding = rng.choice(ENCODINGS) if rng.random() < 0.3 else "utf-8"
    payload = text.encode(encoding, "surrogatepass")
    if rng.random() < 0.15:
        payload = broken(payload)
    try:
        # Paths lead into the tree that Python reads.
        tree = json.loads(payload)
    except (ValueError, RecursionError):
        pass
    return payload, tree


for _ in range(count):
    PAYLOAD, BODY = payload()
    try:
        json.loads(PAYLOAD)
        is_json = True
    except (ValueError, RecursionError):
        is_json = False
    # Most random expressions raise, which says little, so a raising one is mostly replaced.
    for _ in range(4):
        expression = rng.choice([value, comparison])(rng.randrange(1, 4), [])
        try:
            expression.encode()
        except UnicodeEncodeError:
            continue
        try:
            outcome = bool(eval(expression, {"request": Request(PAYLOAD)}))
            break
        except Exception as error:
            outcome = type(error).__name__ + ": " + str(error)
            if rng.random() < 0.3:
                break
    case = {"condition": expression, "body": PAYLOAD.hex(), "outcome": outcome, "is_json": is_json}
    sys.stdout.write(json.dumps(case) + "\n")

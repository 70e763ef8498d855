"""Makes random conditions and requests, and evaluates them by CPython with Flask's own request.

Arguments: a seed and the number of cases; `--summary` instead of the cases prints how they are distributed. Prints a line of
JSON for each case: the expression, whether its `truth` or its `value` is wanted, the request as a record, the outcome as
`reference.py` writes it, and whether the payload is broken JSON.
"""

import collections
import json
import random
import sys
import time

import reference

seed, count = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
# How much of Python the expressions of this case have: 0 is the part that was compiled first, 1 all that is compiled, 2 more.
LEVEL = 0

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
    # The names of these two are not there.
    shown = f"float('{value}')" if isinstance(value, float) and repr(value).strip("-") in ("nan", "inf") else repr(value)
    return f"({text} {rng.choice(['==', '==', '<=', '!=', '<'])} {shown})"


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
    return whole() + text


def nodes(value, text=""):
    """Lists the values of the payload, each with the path to it."""
    yield text, value
    if len(text) < 60:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield from nodes(value[key], f"{text}[{key!r}]")


def typed(*types):
    """Makes a path to a value of one of these types, where there is any."""
    found = [text for text, value in nodes(BODY) if type(value) in types and text.isprintable()]
    return whole() + rng.choice(found) if found else repr(rng.choice(types)())


def whole():
    """Writes the whole body."""
    if LEVEL == 0:
        return rng.choice(["request.json()", "request.get_json()", "request.json", "request.json( )"])
    return rng.choice(["request.json"] * 6 + ["request.get_json()", "request.get_json(force=True)", "request.get_json(silent=True)",
        "(request.get_json(silent=True) or {})", "request.get_json(force=True, silent=True)", "(request.json or {})"])


def atom(names):
    if names and rng.random() < 0.5:
        return rng.choice(names)
    kind = rng.randrange(10)
    if kind < 4:
        return real_path(BODY)
    if kind < 8:
        return literal()
    return rng.choice(PARTS[0] + PARTS[1] * (LEVEL > 0) + PARTS[2] * (LEVEL > 1))


# The parts of a request, by level.
PARTS = [
    [
        "request.headers['X-Tier']", "request.headers.get('x-user-id')", "request.headers.get('nope', 7)", "request.headers['nope']",
        "request.method", "request.path", "request.args['a']", "request.args.get('c', 'd')", "request.key", "request.topic",
        "request.partition", "request.get_data(as_text=True)", "request.content_type",
    ],
    [
        "request.is_json", "request.mimetype", "request.content_length", "request.offset", "request.timestamp", "request.args.get('b')",
        "request.headers.get('content-type')", "request.args['empty']", "request.get_json(silent=True)", "request.args['nope']",
    ],
    [
        "request.args.getlist('a')", "request.args.to_dict()", "request.query_string", "request.data", "request.cookies.get('ab')",
        "request.user_agent.string", "request.accept_languages.best_match(['de', 'en'])", "request.mimetype_params", "request.full_path",
        "request.args.get('a', type=int)", "dict(request.args)", "request.form.get('a')", "len(request.args)", "sorted(request.args)",
        "request.headers.getlist('x-tier')", "request.get_data()", "request.is_secure", "request.headers.get('x-user-id', type=int)",
    ],
]


def small(names):
    """Makes an operand for `*` and `**` whose result stays small."""
    return rng.choice(["2", "3", "-1", "0", "0.5", "True", "-2"])


METHODS = [
    ("startswith", 1), ("endswith", 1), ("lower", 0), ("upper", 0), ("strip", 0), ("strip", 1), ("lstrip", 0), ("rstrip", 1), ("split", 0), ("split", 1),
    ("find", 1), ("rfind", 1), ("replace", 2), ("count", 1), ("isdigit", 0), ("isalpha", 0), ("isalnum", 0), ("isspace", 0), ("isupper", 0), ("islower", 0),
    ("title", 0), ("capitalize", 0), ("join", 1), ("removeprefix", 1), ("removesuffix", 1), ("get", 1), ("get", 2), ("keys", 0), ("values", 0), ("items", 0),
]
VARIABLES = ["p", "q", "r", "s", "t", "u", "v", "w"]


def grown(depth, names):
    """Writes a form that is compiled since the second of the levels."""
    one = lambda: value(depth - 1, names)
    path = lambda: rng.choice([one, lambda: real_path(BODY), lambda: typed(list), lambda: typed(list, dict)])()
    text = lambda: rng.choice([one, lambda: repr(rng.choice(TEXTS)), lambda: typed(str), lambda: typed(str)])()
    table = lambda: rng.choice([path, lambda: typed(dict)])()
    name, inner = VARIABLES[len(names)], names + [VARIABLES[len(names)]]
    each = lambda: f"{value(depth - 1, inner)} for {name} in {path()}" + (f" if {comparison(depth - 1, inner)}" if rng.random() < 0.3 else "")
    return rng.choice([
        lambda: f"({path()}).index({one()})",
        lambda: f"({text()}).index({text()})",
        lambda: f"dict(zip({path()}, {path()}))",
        lambda: f"list(zip({path()}, {path()}))",
        lambda: f"any({comparison(depth - 1, inner + ['q9'])} for {name}, q9 in zip({path()}, {path()}))",
        lambda: f"sum({path()})",
        lambda: f"sum({each()})",
        lambda: f"sum({comparison(depth - 1, inner)} for {name} in {path()})",
        lambda: f"{rng.choice(['min', 'max', 'sorted', 'list', 'tuple', 'sum'])}({each()})",
        lambda: f"{rng.choice(['min', 'max'])}(({each()}), default={one()})",
        lambda: f"sorted({path()}, reverse={rng.choice(['True', 'False', one()])})",
        lambda: f"int({rng.choice([repr(rng.choice(NUMERALS)), text()])}, {rng.choice(['2', '8', '10', '16', '36', '0', '1', '37'])})",
        lambda: formatted(depth, names, plain=True),
        lambda: f"[{each()}]",
        lambda: f"{{{value(depth - 1, inner)}: {value(depth - 1, inner)} for {name} in {path()}}}",
        lambda: f"len({{{each()}}})",
        lambda: f"len(set({path()}))",
        lambda: f"(set({path()}) {rng.choice(SETS)} set({path()}))",
        lambda: f"(set({path()}) {rng.choice(SETS)} {keys()})",
        lambda: f"(({table()}).keys() {rng.choice(SETS)} {keys()})",
        lambda: f"({keys()} {rng.choice(SETS)} ({table()}).keys())",
        lambda: f"bool(set({path()}) {rng.choice('&|-^')} {keys()})",
        lambda: f"list({path()})",
        lambda: f"dict({table()})",
    ])()


def beyond(depth, names):
    """Writes a form that only Python itself has."""
    one = lambda: value(depth - 1, names)
    path = lambda: rng.choice([one, lambda: real_path(BODY), lambda: typed(list), lambda: typed(list, dict)])()
    text = lambda: rng.choice([lambda: repr(rng.choice(TEXTS)), lambda: typed(str), lambda: typed(str), lambda: f"str({one()})", lambda: "request.get_data(as_text=True)"])()
    number = lambda: rng.choice([one, lambda: repr(rng.choice(INTS + FLOATS)), lambda: typed(int, float), lambda: f"len({path()})"])()
    name, inner = VARIABLES[len(names)], names + [VARIABLES[len(names)]]
    return rng.choice([
        lambda: formatted(depth, names, plain=False),
        lambda: f"bool(re.{rng.choice(['search', 'match', 'fullmatch'])}({rng.choice(REGEXES)!r}, {text()}{rng.choice(['', ', re.I', ', re.S | re.M'])}))",
        lambda: f"re.{rng.choice(['findall', 'split'])}({rng.choice(REGEXES)!r}, {text()})",
        lambda: f"re.sub({rng.choice(REGEXES)!r}, {rng.choice(['', '-', '<>'])!r}, {text()})",
        lambda: f"re.search({rng.choice(REGEXES)!r}, {text()}).group({rng.choice(['', '0', '1'])})",
        lambda: f"(int(hashlib.{rng.choice(['md5', 'sha1', 'sha256'])}(({text()}).encode()).hexdigest(), 16) % {rng.choice([2, 10, 100])})",
        lambda: f"(zlib.{rng.choice(['crc32', 'adler32'])}(({text()}).encode()) % {rng.choice([2, 10, 100])})",
        lambda: f"(zlib.crc32(request.get_data()) % 100 < {rng.randrange(100)})",
        lambda: f"json.loads({rng.choice([text(), 'request.get_data()', repr(json.dumps(tree(1)))])})",
        lambda: f"json.dumps({path()}, sort_keys=True, ensure_ascii={rng.random() < 0.5})",
        lambda: f"math.{rng.choice(['sqrt', 'log', 'floor', 'ceil', 'isnan', 'isinf', 'exp', 'trunc'])}({number()})",
        lambda: f"math.{rng.choice(['isclose', 'hypot', 'gcd', 'copysign'])}({number()}, {number()})",
        lambda: f"statistics.{rng.choice(['mean', 'median', 'mode', 'pstdev', 'stdev'])}({path()})",
        lambda: f"base64.b64encode(({text()}).encode()).decode()",
        lambda: f"base64.b64decode({text()})",
        lambda: f"urllib.parse.{rng.choice(['quote', 'unquote', 'quote_plus', 'parse_qs', 'parse_qsl'])}({text()})",
        lambda: f"urllib.parse.urlsplit({text()}).{rng.choice(['path', 'query', 'hostname', 'scheme', 'port'])}",
        lambda: f"datetime.datetime.fromtimestamp(request.timestamp / 1000, datetime.timezone.utc).{rng.choice(['hour', 'year', 'weekday()', 'isoformat()'])}",
        lambda: f"datetime.date.fromisoformat({rng.choice([repr('2026-02-28'), repr('2026-2-8'), text()])}).month",
        lambda: f"sorted({path()}, key={rng.choice(['str', 'len', 'repr', f'lambda {name}: ' + value(depth - 1, inner)])})",
        lambda: f"{rng.choice(['min', 'max'])}({path()}, key={rng.choice(['str', 'len', f'lambda {name}: ' + value(depth - 1, inner)])})",
        lambda: f"list(map({rng.choice(['str', 'len', 'int', 'bool', 'type'])}, {path()}))",
        lambda: f"list(filter({rng.choice(['None', 'str', 'len'])}, {path()}))",
        lambda: f"list(enumerate({path()}))",
        lambda: f"list(reversed({path()}))",
        lambda: f"sum(range(len({path()})))",
        lambda: f"[*{path()}, {one()}]",
        lambda: f"{{**{path()}, 'z': {one()}}}",
        lambda: f"next(iter({path()}), {one()})",
        lambda: f"next({value(depth - 1, inner)} for {name} in {path()})",
        lambda: f"[({name} := {path()}), {value(depth - 1, inner)}][-1]" if not names else one(),
        lambda: f"({number()} {rng.choice('&|^')} {number()})",
        lambda: f"({number()} {rng.choice(['<<', '>>'])} {rng.choice(['1', '0', '-1', '3'])})",
        lambda: f"(~{number()})",
        lambda: f"({rng.choice(['%s', '%d', '%5.2f', '%r|%s', '%x'])!r} % {rng.choice([one(), f'({one()}, {one()})'])})",
        lambda: f"{rng.choice(['{}', '{0!r}-{0}', '{:>8}', '{:.3f}', '{a}'])!r}.format({one()})",
        lambda: f"({text()}).{rng.choice(RARE_METHODS)}",
        lambda: f"len(({text()}).encode({rng.choice(['', repr('utf-16'), repr('latin-1')])}))",
        lambda: f"{rng.choice(['ord', 'repr', 'ascii', 'hex', 'oct', 'bin', 'complex', 'callable'])}({one()})",
        lambda: f"chr({rng.choice([str(rng.randrange(0, 0x3000)), one()])})",
        lambda: f"divmod({number()}, {number()})",
        lambda: f"pow({number()}, {small(names)})",
        lambda: f"({path()}).copy()",
        lambda: f"({path()}).setdefault('z', {one()})",
        lambda: f"frozenset({path()}).issubset({path()})",
        lambda: f"not {{'a', 'b'}}.isdisjoint({path()})",
        lambda: f"(lambda {name}: {value(depth - 1, inner)})({path()})",
        lambda: f"isinstance({one()}, {rng.choice(['bytes', 'set', '(bytes, complex)', 'type(None)', 'int | str'])})",
        lambda: f"({path()})[{rng.choice(['0', '-1', repr('a')])}:{rng.choice(['', '1', 'None'])}]",
        lambda: f"(...  is not {one()})" if rng.random() < 0.2 else one(),
    ])()


RARE_METHODS = [
    "splitlines()", "casefold()", "swapcase()", "isnumeric()", "isdecimal()", "isascii()", "istitle()", "isidentifier()", "zfill(6)", "center(9)",
    "ljust(4, '.')", "expandtabs(3)", "encode()", "partition('a')", "rpartition(' ')", "rsplit(None, 1)", "translate({97: 'b'})", "rindex('a')",
]
SETS = ["<=", ">=", "<", ">", "==", "!="]
NUMERALS = ["0", "12", "ff", "0xff", "-0b11", "0o17", " 7f ", "z9", "1_0", "", "_1", "１２", "+a"]
REGEXES = ["a", "[a-z]+", r"\d+", r"\w+", r"^\s*$", "(a|b)(c)?", "X", r"\bgold\b", ".", "[^a-zA-Z]", r"(\w)\1", "(?i)HELLO", "é|ü", r"[\u4e00-\u9fff]", "(", "a{2,1}", r"(?P<n>\d)", "$"]
SPECS = ["", "s", "d", ".2f", ">6", "<4", "^7", "05d", "+", ",", "x", "e", "g", "%", ".3", "08.3f", "_", "#x", "c", "n", "*^9", "10.4s", "=+7", "z"]


def keys():
    return "{" + ", ".join(repr(key) for key in rng.sample(KEYS, rng.randrange(1, 3))) + "}"


def formatted(depth, names, plain):
    """Writes an f-string. Python's version here reads no quotation marks of the outer kind inside of it."""
    parts = []
    for _ in range(rng.randrange(1, 4)):
        if rng.random() < 0.4:
            parts.append(rng.choice(["a", "-", " ", "{{}}", "é", ":", "tier="]))
            continue
        inner = value(max(depth - 1, 0), names)
        if any(sign in inner for sign in "\"\\#!=:{}\n"):
            inner = rng.choice(["request.method", "request.partition", "request.key", "request.topic", "1.5", "(1, 2)"])
        if plain:
            parts.append("{" + inner + rng.choice(["", "", "!s"]) + "}")
        else:
            parts.append("{" + inner + rng.choice(["", "!r", "!s", "!a"]) + ":" + rng.choice(SPECS) + "}")
    return 'f"' + "".join(parts) + '"'


def value(depth, names):
    if depth <= 0:
        return atom(names)
    if len(names) < 4:
        if LEVEL > 1 and rng.random() < 0.3:
            return beyond(depth, names)
        if LEVEL > 0 and rng.random() < 0.3:
            return grown(depth, names)
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


CONTENT_TYPES = [
    "application/json; charset=utf-8", "application/vnd.acme+json", "APPLICATION/JSON", "text/csv", "text/plain; charset=latin-1",
    "application/x-www-form-urlencoded", "application/octet-stream", "", "application/jsonx", "application/json;", "multipart/form-data",
]
LINES = [
    None, None, "POST /invocations?a=1&b=x+y", "POST /invocations", "GET /a%20b/c?a=1&a=2&empty=&b=%C3%A9", "PUT /x?b", "POST /invocations?a=x%2By;b=2&&=&a",
    "DELETE /%E6%97%A5?a=%zz&b=%&c=1%00", "POST /?a=%D9%A3&b=1=2",
]


def request():
    """Makes a request around the payload: mostly JSON that says so, with an x-tier."""
    headers = [("x-tier", rng.choice(["gold", "gold", "silver", ""])), ("X-User-Id", rng.choice(["42", "abc-7", "007"]))]
    headers = [header for header in headers if rng.random() < 0.9]
    if rng.random() < 0.2:
        headers.append(rng.choice([("user-agent", "Mozilla/5.0 (X11)"), ("cookie", "ab=b; c=1"), ("accept-language", "de, en;q=0.5"), ("x-empty", "")]))
    if rng.random() < 0.25:
        headers.append(("content-type", rng.choice(["application/json"] * 2 + CONTENT_TYPES)))
    return {
        "line": rng.choice(LINES), "headers": headers, "body": PAYLOAD,
        "key": rng.choice(["customer-7", "customer-7", None, "", "kéy"]), "topic": rng.choice(["inference-requests", "clicks"]),
        "partition": rng.randrange(6),
        "offset": rng.choice([0, 17, 2**40]), "timestamp": rng.choice([None, 0, 1_780_000_000_123, 1_772_281_799_999]),
    }


def shown(made):
    """Writes a request as the record that it is on the other side."""
    line = [("http-target", made["line"])] if made["line"] else []
    return made | {"headers": line + made["headers"], "body": None if made["body"] is None else made["body"].hex()}


def candidate():
    """Writes an expression that Python can parse, and that JSON can carry."""
    while True:
        form = beyond if LEVEL > 1 and rng.random() < 0.5 else grown if LEVEL and rng.random() < 0.4 else rng.choice([value, comparison])
        expression = form(rng.randrange(1, 4), [])
        try:
            expression.encode()
            reference.compiled(expression)
            return expression
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue


reference.guard()
summary, begun = collections.Counter(), time.monotonic()
made = 0
while made < count:
    LEVEL = rng.choices([0, 1, 2], [35, 35, 30])[0]
    PAYLOAD, BODY = payload()
    if rng.random() < 0.02:
        PAYLOAD = rng.choice([None, b"", b"null", b"a,b\n1,2\n", b"\xff\xfe", b"a=1&b=x", b"\xc3("])
    record = request()
    context = reference.context(record)
    wants = "value" if rng.random() < 0.25 else "truth"
    # Most random expressions raise, which says little, so a raising one is mostly replaced.
    try:
        for _ in range(4):
            expression = candidate()
            outcome = reference.outcome(expression, context, wants)
            if "error" not in outcome or rng.random() < 0.3:
                break
    except (reference.Late, MemoryError):
        summary["late"] += 1
        continue
    if " at 0x" in outcome.get("value", ""):
        continue
    made += 1
    is_broken = reference.is_broken(record)
    if "--summary" in sys.argv:
        said = outcome.get("error") or f"{wants} {outcome.get('truth', '') if wants == 'truth' else ''}"
        summary.update([said, f"level {LEVEL}", "is no JSON" if is_broken else "is JSON, or empty"])
        summary["probably compiled" if reference.is_compiled(expression) else "needs Python"] += 1
        continue
    case = {"expression": expression, "wants": wants, "request": shown(record), "outcome": outcome, "is_broken": is_broken}
    sys.stdout.write(json.dumps(case) + "\n")
if "--summary" in sys.argv:
    taken = time.monotonic() - begun
    print(f"{count} cases in {taken:.0f} s, {count / taken:.0f} a second")
    for said, times in summary.most_common():
        print(f"{times:7} {times / count:6.1%} {said}")

use bytes::Bytes;

use super::*;
use crate::message::{Headers, Source};

mod body;
mod bounds;
mod flask;
mod rules;
mod subset;

const BODY: &str = r#"{"dataframe_split": {"columns": ["text", "n"], "data": [["Domain specific text, and more", 3], ["ünï", -2.5]]},
    "params": {"lang": "de", "on": true, "off": false, "none": null, "big": 9223372036854775808, "min": -9223372036854775808,
    "float": 0.1, "list": [1, 2, 3], "deep": {"a": {"b": [10, 20]}}, "empty": {}, "a\"b": "quoted", "\u00e9": "e"}, "twice": 1, "twice": 2}"#;

fn request(body: &str) -> Arc<Request> {
    request_of(body.as_bytes())
}

fn request_of(payload: &[u8]) -> Arc<Request> {
    Arc::new(Request {
        source: Source { topic: "inference-requests".into(), partition: 3, offset: 17 },
        timestamp: None,
        key: Some(Bytes::from_static(b"customer-7")),
        payload: Some(Bytes::copy_from_slice(payload)),
        headers: Headers::from_pairs([
            ("X-Tier", &b"gold"[..]),
            ("http-target", b"GET /endpoints/a%20b/invocations?a=1&b=x+y&a=2&empty="),
            ("raw", &[0xff]),
        ]),
        parked: None,
    })
}

fn add(source: &str) -> Result<(Conditions, ConditionId), ConditionProblem> {
    let mut builder = ConditionsBuilder::new();
    let id = builder.add(source)?;
    Ok((builder.build(), id))
}

fn evaluate_on(source: &str, body: &str) -> Result<bool, ConditionError> {
    let (conditions, id) = add(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
    conditions.evaluation(&request(body), None).holds(id)
}

fn evaluate(source: &str) -> Result<bool, ConditionError> {
    evaluate_on(source, BODY)
}

fn holds(source: &str) {
    assert_eq!(evaluate(source), Ok(true), "{source}");
}

fn fails(source: &str, message: &str) {
    match evaluate(source) {
        Err(ConditionError::Failed(said)) => assert!(said.contains(message), "{source}: {said}"),
        other => panic!("{source}: {other:?}"),
    }
}

fn refused(source: &str) -> ConditionProblem {
    match add(source) {
        Err(problem) => problem,
        Ok(_) => panic!("{source} was not refused"),
    }
}

#[test]
fn documented_example_holds() {
    holds("request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')");
    holds("request.json['dataframe_split']['data'][0][0].startswith('Domain specific text')");
    holds("not request.get_json(force=True)['dataframe_split']['data'][1][0].startswith('Domain specific text')");
}

#[test]
fn request_shows_line_headers_and_record() {
    for source in [
        "request.headers['x-tier'] == 'gold' and request.headers.get('X-TIER') == 'gold'",
        "'x-tier' in request.headers and 'nope' not in request.headers",
        "request.headers.get('nope') is None and request.headers.get('nope', 'd') == 'd'",
        "request.method == 'GET' and request.path == '/endpoints/a b/invocations'",
        "request.args['a'] == '1' and request.args.get('b') == 'x y' and request.args.get('empty') == ''",
        "'a' in request.args and request.args.get('c', 5) == 5",
        "request.key == 'customer-7' and request.topic == 'inference-requests' and request.partition == 3",
        "request.content_type == 'application/json'",
        "request.get_data(as_text=True).startswith('{') and 'Domain' in request.get_data(as_text=True)",
    ] {
        holds(source);
    }
    let plain = Arc::new(Request {
        source: Source { topic: "t".into(), partition: 0, offset: 0 },
        timestamp: None,
        key: None,
        payload: None,
        headers: Headers::default(),
        parked: None,
    });
    let source = "request.method == 'POST' and request.path == '/invocations' and request.key is None and 'a' not in request.args";
    let (conditions, id) = add(source).unwrap();
    assert_eq!(conditions.evaluation(&plain, None).holds(id), Ok(true));
}

#[test]
fn operators_agree_with_python() {
    for source in [
        "(1 and 'x') == 'x' and (0 or []) == [] and ('' or None or 5) == 5",
        "1 < 2 < 3 and not 1 < 3 < 2 and 1 == 1.0 == True",
        "not (1 == 'x') and 1 != 'x'",
        "-7 // 2 == -4 and -7 % 3 == 2 and 7 % -3 == -2 and 2 ** 10 == 1024 and 2 ** -1 == 0.5 and 7 / 2 == 3.5",
        "9007199254740993 != 9007199254740992.0",
        "[1, 2] + [3] == [1, 2, 3] and 'ab' * 2 == 'abab' and (1,) * 2 == (1, 1)",
        "True + 1 == 2 and True == 1 and 1 in [True]",
        "'abc'[-1] == 'c' and 'abc'[::-1] == 'cba' and [1, 2, 3, 4][1:-1] == [2, 3] and [1, 2, 3][::2] == [1, 3]",
        "('yes' if request.key else 'no') == 'yes'",
        "None is None and request.json()['params']['on'] is True and not request.json()['params']['off'] is True",
        "{'a': 1} == {'a': 1.0} and {1, 2} == {2, 1} and 'a' in {'a': 1} and 2 in {1, 2}",
        "[1, 'a'] < [1, 'b'] and (1, 2) < (1, 2, 3)",
        "round(2.5) == 2 and round(3.5) == 4 and round(2.675, 2) == 2.67 and round(0.125, 2) == 0.12 and abs(-3) == 3",
        "str(1.0) == '1.0' and str(1e16) == '1e+16' and str(0.00001) == '1e-05' and str(True) == 'True' and str(None) == 'None'",
        "int(' 1_000 ') == 1000 and int(-2.9) == -2 and float('1e3') == 1000 and int('-0') == 0",
        "min(3, 1, 2) == 1 and max([1, 5, 2]) == 5 and len('ünï') == 3 and bool([]) == False",
        "isinstance(1, int) and isinstance(True, int) and not isinstance(1, (str, list)) and isinstance('x', (int, str))",
        "any(row[1] < 0 for row in request.json()['dataframe_split']['data'])",
        "not all(row[1] < 0 for row in request.json()['dataframe_split']['data'] if row[1] != 3.5)",
        "any(any(cell == key for cell in request.json()['params']['list']) for key in (9, 3))",
        "any(k == 'lang' and v == 'de' for k, v in request.json()['params'].items())",
        "any([0, '', 1]) and not all([0, 1]) and all([])",
        "'a,b,,c'.split(',') == ['a', 'b', '', 'c'] and ' a  b '.split() == ['a', 'b'] and 'a b c'.split(' ', 1) == ['a', 'b c']",
        "'-'.join(['a', 'b']) == 'a-b' and 'hello world'.title() == 'Hello World' and 'aXa'.count('a') == 2",
        "'x'.isalpha() and '12'.isdigit() and not ''.isdigit() and 'AB'.isupper() and 'xyx'.strip('x') == 'y'",
        "'ǆ ǅx ŉ თბილისი ᾳ ΑΣ σΣ'.title() == 'ǅ ǅx ʼN თბილისი ᾼ Ας Σς' and 'ἀᾀ'.title() == 'Ἀᾀ' and 'ᾴᾷ'.capitalize() == 'Άͅᾷ'",
        "not 'ǅa'.islower() and not 'ǅA'.isupper() and not 'ǅ'.isupper()",
        "'straße'.upper() == 'STRASSE' and 'abc'.find('c') == 2 and 'ünï'.find('ï') == 2 and 'abc'.replace('', '-') == '-a-b-c-'",
    ] {
        holds(source);
    }
    fails("1 < 'x'", "'<' not supported between instances of 'int' and 'str'");
    fails("1 < 2 < 'x'", "'<' not supported");
    fails("'a' + 1", "unsupported operand type(s) for +: 'str' and 'int'");
    fails("9223372036854775807 + request.partition > 0", "beyond 64 bits");
    fails("1 / 0 == 1", "ZeroDivisionError");
    fails("(1).startswith('x')", "'int' object has no attribute 'startswith'");
    fails("[] in {1: 2}", "unhashable");
    fails("[] in request.json().keys()", "unhashable");
    fails("([], 1) in request.json().items()", "unhashable");
    holds("[] not in request.json().values() and ([],) not in request.json().items()");
    // Operands after the deciding one are not evaluated.
    holds("3 < 2 < 1 / 0 or True");
    holds("True or request.json()['nope']");
}

#[test]
fn condition_is_refused_with_place_and_hint_when_name_is_unknown() {
    for (source, column, message, hint) in [
        ("request.json()['a'].startsWith('x')", 21, "`.startsWith()`", "startswith"),
        ("request.key == true", 16, "there is no name 'true'; did you mean 'True'?", ""),
        ("requst.json()['a']", 1, "there is no name 'requst'; did you mean 'request'?", ""),
        ("request.jason['a']", 9, "there is no 'request.jason'; did you mean 'request.json'?", ""),
        ("request.header['a']", 9, "did you mean 'request.headers'?", ""),
        ("headers['a']", 1, "did you mean 'request.headers'?", ""),
        ("re.serach('a', request.key)", 4, "did you mean 're.search'?", ""),
        ("re.qqqq('a')", 4, "there is no 're.qqqq'", "fullmatch"),
        ("urllib.parse.quoted('a')", 14, "did you mean 'urllib.parse.quote'?", ""),
        ("numpy.mean([1])", 1, "there is no name 'numpy'", "statistics"),
        ("lenn(request.json)", 1, "did you mean 'len'?", ""),
        ("open('x')", 1, "`open`", "only the request"),
        ("request.body == 1", 9, "request.body", "json()"),
        ("eval('1')", 1, "`eval`", "never becomes code"),
        ("request.__class__", 9, "__class__", ""),
        ("__import__('os')", 1, "__import__", ""),
        ("datetime.datetime.now().hour > 3", 19, "`.now()`", "request.timestamp"),
        ("random.random() < 0.1", 1, "`random`", "sticky_by"),
        ("hash(request.key) % 2", 1, "`hash`", "zlib.crc32"),
        ("time.time() > 1", 1, "`time`", "request.timestamp"),
        ("[(yield 1)]", 3, "wait or yield", ""),
        ("any(row[0] == ro for row in request.json)", 15, "there is no name 'ro'", ""),
    ] {
        let problem = refused(source);
        assert_eq!((problem.line, problem.column), (1, column), "{source}: {problem}");
        assert!(problem.message.contains(message), "{source}: {problem}");
        assert!(problem.hint.unwrap_or_default().contains(hint), "{source}: {}", problem.message);
    }
    let problem = refused("request.key == 'x'\n  and request.key ==\n");
    assert!(problem.line >= 2, "{problem}");
    assert_eq!(refused("  \n").message, "the condition is empty");
    refused("1\n) and (2");
    refused("1, 2\n,3");
    let problem = refused("request.key == 'x'\nand request.topic == nope");
    assert_eq!((problem.line, problem.column), (2, 22), "{problem}");
}

/// Covers what is left to CPython, with the place of the part that is not known and what would be compiled.
#[test]
fn condition_is_left_to_python_when_not_compiled() {
    for (source, column, message, hint) in [
        ("f'{request.key:>10}' == 'x'", 3, "f-strings", ""),
        ("request.key << 1", 1, "`<<`", ""),
        ("re.search('a', request.key)", 4, "`.search()`", ""),
        ("request.key is 'x'", 16, "`is`", "=="),
        ("request == 1", 1, "`request`", ""),
        ("request.headers == {}", 9, "request.headers", "get("),
        ("(lambda: 1)()", 2, "only calls", ""),
        ("99999999999999999999 > 1", 1, "64 bits", "float"),
        ("request.args.get('a', type=int) == 1", 14, "headers and args", "int()"),
        ("'a'.split(sep=',')", 11, "by name", "position"),
        ("request.get_data() == b''", 1, "bytes", "as_text"),
        ("int(hashlib.md5(request.get_data()).hexdigest(), 16) % 100 < 5", 37, "`.hexdigest()`", ""),
        ("[x for x in request.json][0].xyz", 30, "`.xyz`", ""),
        ("sorted(request.json, reverse=True)", 22, "by name", ""),
        ("request.json['id'] > 2 ** 64", 22, "beyond 64 bits", "float"),
        ("9223372036854775807 + 1 > 0", 1, "beyond 64 bits", "float"),
    ] {
        let (conditions, id) = add(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
        let reason = conditions.reason(id).unwrap_or_else(|| panic!("{source} is compiled"));
        assert_eq!(conditions.way(id), Way::Python, "{source}");
        assert_eq!((reason.line, reason.column), (1, column), "{source}: {reason}");
        assert!(reason.message.contains(message), "{source}: {reason}");
        assert!(reason.hint.as_deref().unwrap_or_default().contains(hint), "{source}: {reason}");
        let question = conditions.question().unwrap();
        assert_eq!(&*question.expressions[0].source, source);
        fails(source, "needs Python");
        let answers = |answer| Some(Arc::new(vec![answer]));
        let said = |answer| conditions.evaluation(&request(BODY), answers(answer)).holds(id);
        assert_eq!(said(Ok(Value::text("x"))), Ok(true));
        assert_eq!(said(Ok(Value::Int(0))), Ok(false));
        assert!(said(Err(ConditionError::failed("KeyError: 'a'"))).is_err());
    }
    let checked = check("re.search('a', request.key)").unwrap();
    assert_eq!((checked.way, checked.reason.is_some()), (Way::Python, true));
    let compiled = CheckedExpression { way: Way::Compiled, reason: None, constant: None };
    assert_eq!(check("request.key == 'a'"), Ok(compiled));
    let (conditions, _) = add("request.key == 'a'").unwrap();
    assert!(conditions.question().is_none());
}

fn check(source: &str) -> Result<CheckedExpression, ConditionProblem> {
    ConditionsBuilder::new().check(source, ResultKind::Truth)
}

#[test]
fn default_beside_generator_is_compiled_when_it_cannot_fail() {
    let way = |default: &str| {
        let each = |source: &str| check(&format!("max({source}, default={default}) > 1")).unwrap().way;
        [each("(row['a'] for row in request.json['rows'])"), each("[row['a'] for row in request.json['rows']]")]
    };
    assert_eq!(way("-1"), [Way::Compiled; 2]);
    assert_eq!(way("request.json['b']"), [Way::Python, Way::Compiled]);
}

#[test]
fn check_knows_conditions_that_are_the_same_for_every_request() {
    for (source, constant) in [
        ("1 == 1", Some(ConstantTruth::True)),
        ("len('ab') > 2", Some(ConstantTruth::False)),
        ("request.key == 'a' or 'b'", Some(ConstantTruth::True)),
        ("not (request.key == 'a' or 'b')", Some(ConstantTruth::False)),
        ("request.key == 'a' and False", Some(ConstantTruth::False)),
        ("request.key == 'a' or not []", Some(ConstantTruth::True)),
        ("request.key == 'a' and 'b'", None),
        ("request.key == request.key", None),
        ("all(request for request in [1])", None),
        ("1 / 0 == 1", None),
        ("re.search('a', 'a')", Some(ConstantTruth::Unknown)),
        ("re.search('a', request.key)", None),
        ("rhai: 1 == 1", Some(ConstantTruth::Unknown)),
        ("rhai: request.key == 1", None),
    ] {
        assert_eq!(check(source).unwrap().constant, constant, "{source}");
    }
}

#[test]
fn condition_compiles_when_it_has_lines_and_comments() {
    holds("request.key == 'customer-7'  # who\n  and request.partition == 3\n");
    holds("  request.partition == 3");
    holds("request.partition == 3 # three");
}

#[test]
fn parts_show_operands_and_receivers() {
    let shown = |source: &str| -> Vec<String> {
        let (conditions, id) = add(source).unwrap();
        let shown = |(part, value): (String, Result<Value, ConditionError>)| match value {
            Ok(value) => format!("{part} = {}", serde_json::to_string(&value).unwrap()),
            Err(error) => format!("{part}: {error}"),
        };
        conditions.parts(id).values(&request(BODY), None).into_iter().map(shown).collect()
    };
    assert_eq!(
        shown(
            "request.key == 'a' or\n  not request.json['params']['lang'].startswith(('d', 'e')) and 1 < request.partition"
        ),
        [
            "request.key == 'a' = false",
            "request.key = \"customer-7\"",
            "not request.json['params']['lang'].startswith(('d', 'e')) and 1 < request.partition = false",
            "not request.json['params']['lang'].startswith(('d', 'e')) = false",
            "request.json['params']['lang'].startswith(('d', 'e')) = true",
            "request.json['params']['lang'] = \"de\"",
            "1 < request.partition = true",
            "request.partition = 3",
        ]
    );
    assert_eq!(
        shown("re.search('x', request.json['nope']) or request.key in {'a', 'b'}"),
        [
            "request.json['nope']: request.json()['nope']: KeyError: 'nope'",
            "request.key in {'a', 'b'} = false",
            "request.key = \"customer-7\""
        ]
    );
    assert_eq!(shown("request.key == 'a' or 'b'"), ["request.key == 'a' = false", "request.key = \"customer-7\""]);
    assert!(shown("rhai: request.key == \"x\"").is_empty());
}

#[test]
fn headers_are_those_of_flask() {
    holds("request.headers['raw'] == 'ÿ' and request.headers.get('Content-Type') == 'application/json'");
    holds("int(request.headers['content-length']) == request.content_length and 'Content-Length' in request.headers");
}

#[test]
fn condition_is_rhai_when_prefixed() {
    assert_eq!(language("rhai: request.key == \"x\""), Language::Rhai);
    assert_eq!(language("request.key == \"x\""), Language::Python);
    assert_eq!(check(" rhai:request.key == \"x\"").unwrap().way, Way::Rhai);
    holds(r#"rhai: request.json()["dataframe_split"]["data"][0][0].starts_with("Domain")"#);
    holds(
        r#"rhai: request.headers["x-tier"] == "gold" && request.headers.get("nope", "d") == "d" && "x-tier" in request.headers"#,
    );
    holds(r#"rhai: request.json["params"]["list"].len == 3 && 2 in request.json["params"]["list"]"#);
    holds(r#"rhai: request.args["a"] == "1" && request.partition == 3"#);
    fails(r#"rhai: request.json["nope"]"#, "KeyError: 'nope'");
    fails("rhai: 1 + 1", "must give true or false");
    let problem = refused("rhai:\n  request.key ==");
    assert_eq!(problem.line, 2, "{problem}");
    refused("rhai: while true {}");
    refused("rhai: eval(\"1\")");
    refused("rhai: let x = 1; x == 1");
}

#[test]
fn path_is_shared_by_all_conditions() {
    let mut builder = ConditionsBuilder::new();
    let first = builder.add("request.json()['params']['lang'] == 'fr'").unwrap();
    builder.add("request.json()['params'][").unwrap_err();
    let second = builder.add("request.json['params']['lang'] == 'de' and 'x' not in ('a', 'b')").unwrap();
    let conditions = builder.build();
    assert_eq!(conditions.0.paths.len(), 1);
    let evaluation = conditions.evaluation(&request(BODY), None);
    assert_eq!((evaluation.holds(first), evaluation.holds(second)), (Ok(false), Ok(true)));
}

fn value(source: &str) -> Result<Value, ConditionError> {
    let mut builder = ConditionsBuilder::new();
    let id = builder.add_expression(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
    builder.build().evaluation(&request(BODY), None).value(id)
}

#[test]
fn expression_gives_its_value() {
    for (source, wanted) in [
        ("request.headers['x-tier']", r#""gold""#),
        ("request.json()['params']['deep']", r#"{"a":{"b":[10,20]}}"#),
        ("(request.key, request.partition, None)", r#"["customer-7",3,null]"#),
        ("request.headers.get('nope') or request.key[:3]", r#""cus""#),
        ("request.json()['dataframe_split']['data'][1][1] * 2", "-5.0"),
        ("request.partition > 2", "true"),
        ("request.json()['nope']", "KeyError: 'nope'"),
        ("rhai: request.headers[\"x-tier\"] + \"!\"", r#""gold!""#),
        ("rhai: request.json.params.list", "[1,2,3]"),
        ("rhai: [request.partition, request.key]", r#"[3,"customer-7"]"#),
        ("rhai: request.headers.get(\"nope\")", "null"),
        ("rhai: request.headers", "TypeError"),
    ] {
        let said = match value(source) {
            Ok(value) => serde_json::to_string(&value).unwrap(),
            Err(error) => error.to_string(),
        };
        assert!(said == wanted || wanted.contains("Error") && said.contains(wanted), "{source}: {said}");
    }
}

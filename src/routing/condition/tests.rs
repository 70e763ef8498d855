use bytes::Bytes;

use super::*;
use crate::message::{Headers, Source};

mod oracle;

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
    let outcome = conditions.evaluation(&request(body)).holds(id);
    assert_eq!(outcome, through_the_engine(source, &request(body)), "{source}: the engine says otherwise");
    outcome
}

/// Returns what the engine makes of a condition, be it simple or not.
fn through_the_engine(source: &str, request: &Arc<Request>) -> Result<bool, ConditionError> {
    let mut builder = ConditionsBuilder::engine_only();
    let id = builder.add(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
    builder.build().evaluation(request).holds(id)
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
fn what_is_simple_goes_without_the_engine() {
    let is_simple = |source: &str| {
        let (conditions, _) = add(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
        !matches!(conditions.0.conditions[0].code, CompiledCode::Engine(_))
    };
    for source in [
        "request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')",
        "request.headers.get('x-tier') == 'gold' and request.json()['inputs'][0] != 1",
        "'x-tier' in request.headers or not request.args['a'].isdigit()",
        "request.json().get('params', {}).get('lang', 'en').lower() in ('de', 'fr')",
        "len(request.json()['inputs']) > 2 and request.key is not None and 'x' not in request.path",
        "int(request.headers['x-user']) >= 7 or request.json()['params']['on'] is True",
        "request.partition",
        "True",
    ] {
        assert!(is_simple(source), "{source}");
    }
    for source in [
        "rhai: true",
        "1 < request.partition < 3",
        "any(row[0] == 1 for row in request.json()['inputs'])",
        "request.partition % 2 == 0",
        "(request.key or 'x') == 'x'",
    ] {
        assert!(!is_simple(source), "{source}");
    }
}

#[test]
fn the_documented_example_holds() {
    holds("request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')");
    holds("request.json['dataframe_split']['data'][0][0].startswith('Domain specific text')");
    holds("not request.get_json(force=True)['dataframe_split']['data'][1][0].startswith('Domain specific text')");
}

#[test]
fn paths_read_what_is_there() {
    for source in [
        "request.json()['params']['float'] == 0.1",
        "request.json()['params']['deep']['a']['b'][-1] == 20",
        "request.json()['params']['a\"b'] == 'quoted'",
        "request.json()['params']['é'] == 'e'",
        "request.json().get('params', {}).get('deep').get('a')['b'] == [10, 20]",
        "request.json().get('nope', {}).get('data', [7])[0] == 7",
        "request.json().get('nope') is None",
        "request.json()['dataframe_split']['data'][0][0][0] == 'D'",
        "request.json()['dataframe_split']['data'][1][0][1:] == 'nï'",
        "request.json()['twice'] == 2 and request.json()[request.json()['params'].get('x', 'twice')] == 2",
        "request.json()[request.json()['dataframe_split']['columns'][0].replace('text', 'params')]['lang'] == 'de'",
        "len(request.json()) == 3",
        "'params' in request.json() and 'nope' not in request.json()",
        "request.json()['params']['min'] < -9223372036854775807",
    ] {
        holds(source);
    }
}

#[test]
fn what_is_missing_is_named() {
    fails("request.json()['params']['nope'] == 1", "request.json()['params']['nope']: KeyError: 'nope'");
    fails("request.json()['dataframe_split']['data'][2]", "IndexError: list index out of range");
    fails("request.json()['dataframe_split']['data']['x']", "list indices must be integers");
    fails("request.json()['params'][0]", "KeyError: 0");
    fails("request.json()['params']['none']['x']", "'NoneType' object is not subscriptable");
    fails("request.json()['params']['big'] > 1", "beyond 64 bits");
    fails("request.json().get('nope').get('x')", "'NoneType' object has no attribute 'get'");
    fails("request.headers['nope'] == 'x'", "request.headers: KeyError: 'nope'");
    fails("request.headers['raw'] == 'x'", "not UTF-8");
    fails("request.json()['dataframe_split'] < 3", "'<' not supported between instances of 'dict' and 'int'");
}

#[test]
fn bodies_that_are_not_json_fail() {
    for body in ["", "{", "nope", "{\"a\": nan}", "{\"b\": [1, 2", "\u{feff}", "[+1]", "{\"b\": 1, \"a\": 01}", "\0"] {
        for source in ["request.json()['a'] == 1", "len(request.json()) == 1", "request.json()[0] == 1"] {
            assert!(matches!(evaluate_on(source, body), Err(ConditionError::Failed(_))), "{source} on {body:?}");
        }
    }
    // Reading stops at the leaf; what comes after it is the model's business.
    assert_eq!(evaluate_on("request.json()['a'] == 1", "{\"a\": 1, nan"), Ok(true));
}

/// The README's own example, and bodies that a model answers: nothing beside the value that is read makes it fail.
#[test]
fn what_python_reads_beside_the_value_is_nobodys_business() {
    let condition = "request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')";
    let deep = ["[", "]"].map(|bracket| bracket.repeat(100_000)).concat();
    let huge = "9".repeat(4_000);
    for odd in [
        "NaN",
        "-Infinity",
        "1e400",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "-0",
        "1E-999",
        &huge,
        &deep,
        "{\"x\": 1, \"x\": NaN}",
    ] {
        for body in [
            format!(
                "{{\"dataframe_split\": {{\"columns\": [\"t\", \"n\"], \"data\": [[\"Domain specific text\", {odd}]]}}}}"
            ),
            format!(
                "{{\"params\": {{\"p\": {odd}}}, \"dataframe_split\": {{\"index\": [{odd}], \"data\": [[\"Domain specific text\"]]}}}}"
            ),
            format!(
                "{{\"dataframe_split\": {{\"data\": [[\"x\"]]}}, \"dataframe_split\": {{\"data\": [[\"Domain specific text \\ud83d\"], {odd}]}}}}"
            ),
        ] {
            assert_eq!(evaluate_on(condition, &body), Ok(true), "{}", &body[..body.len().min(300)]);
        }
    }
}

#[test]
fn bodies_are_read_in_every_encoding_of_json() {
    let body = "{\"a\": \"é😀\", \"b\": {\"a\": 2}}";
    let (conditions, id) =
        add("request.json()['a'] == 'é😀' and request.json()['b']['a'] == 2 and len(request.json()) == 2").unwrap();
    let sixteen = |mark: &str| (mark.to_owned() + body).encode_utf16().collect::<Vec<_>>();
    let thirty_two = |mark: &str| (mark.to_owned() + body).chars().map(u32::from).collect::<Vec<_>>();
    let mut bodies = vec![body.as_bytes().to_vec(), ["\u{feff}", body].concat().into_bytes()];
    for mark in ["", "\u{feff}"] {
        bodies.push(sixteen(mark).into_iter().flat_map(u16::to_be_bytes).collect());
        bodies.push(sixteen(mark).into_iter().flat_map(u16::to_le_bytes).collect());
        bodies.push(thirty_two(mark).into_iter().flat_map(u32::to_be_bytes).collect());
        bodies.push(thirty_two(mark).into_iter().flat_map(u32::to_le_bytes).collect());
    }
    for body in bodies {
        assert_eq!(conditions.evaluation(&request_of(&body)).holds(id), Ok(true), "{body:?}");
    }
}

/// Whatever the model takes of a key that is written twice, the condition has taken too.
#[test]
fn of_a_repeated_key_the_last_counts_at_every_step() {
    for (source, body) in [
        ("request.json()['a'] == 2", "{\"a\": 1, \"a\": 2}"),
        ("request.json()['a'] == 2", "{\"a\": 1, \"\\u0061\": 2}"),
        ("request.json()['a']['b'] == 3", "{\"a\": {\"b\": 1}, \"a\": {\"b\": 2, \"c\": [\"a\"], \"b\": 3}}"),
        ("request.json().get('a').get('b', 7) == 7", "{\"a\": {\"b\": 1}, \"a\": {\"c\": 2}}"),
        ("request.json()['a'][0]['b'] == 2", "{\"a\": [{\"b\": 1, \"b\": 2}, {\"b\": 3}]}"),
        ("request.json()['a/b'] == 2", "{\"a/b\": 1, \"a\\/b\": 2}"),
        ("any(v == 2 for v in request.json().values()) and len(request.json()) == 1", "{\"a\": 1, \"a\": 2}"),
    ] {
        assert_eq!(evaluate_on(source, body), Ok(true), "{source} on {body}");
    }
}

#[test]
fn odd_numbers_and_halves_of_characters_compare_as_in_python() {
    let body =
        r#"{"n": NaN, "l": [NaN, 1], "m": {"a": NaN}, "i": 1e400, "t": "ab\ud83d", "u": "\ue000", "big": 1e300}"#;
    for source in [
        "request.json()['n'] != request.json()['n'] and request.json()['n'] in request.json()['l']",
        "request.json()['l'] == [request.json()['n'], 1] and request.json()['l'].count(request.json()['n']) == 1",
        "request.json()['m'] == request.json()['m'] and any(v != v for v in request.json()['m'].values())",
        "not (request.json()['n'] + 0 in request.json()['l']) and abs(request.json()['n']) not in request.json()['l']",
        "request.json()['i'] > request.json()['big'] and request.json()['i'] == float('inf') and -request.json()['i'] < 0",
        "len(request.json()['t']) == 3 and request.json()['t'].startswith('ab') and request.json()['t'][2] != '?'",
        "request.json()['t'][2] < request.json()['u'] and not request.json()['t'][2].isalpha()",
    ] {
        assert_eq!(evaluate_on(source, body), Ok(true), "{source}");
    }
    let refused = add("request.json()['t'] == 'ab\\ud83d'").unwrap_err();
    assert!(refused.message.contains("half of a character"), "{refused}");
    assert!(add("request.json()['t'] == 'ab\\ufffd\\N{REPLACEMENT CHARACTER}'").is_ok());
}

#[test]
fn the_request_line_headers_and_record_are_there() {
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
    assert_eq!(conditions.evaluation(&plain).holds(id), Ok(true));
}

#[test]
fn operators_mean_what_they_mean_in_python() {
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
    fails("9223372036854775807 + 1 > 0", "beyond 64 bits");
    fails("1 / 0 == 1", "ZeroDivisionError");
    fails("(1).startswith('x')", "'int' object has no attribute 'startswith'");
    fails("[] in {1: 2}", "unhashable");
    fails("[] in request.json().keys()", "unhashable");
    fails("([], 1) in request.json().items()", "unhashable");
    holds("[] not in request.json().values() and ([],) not in request.json().items()");
    // What is not reached is not evaluated.
    holds("3 < 2 < 1 / 0 or True");
    holds("True or request.json()['nope']");
}

#[test]
fn what_is_not_supported_is_refused_with_place_and_hint() {
    for (source, column, message, hint) in [
        ("request.json()['a'].startsWith('x')", 21, "`.startsWith()`", "startswith"),
        ("request.key == true", 16, "`true`", "True"),
        ("f'{request.key}' == 'x'", 1, "f-strings", "join"),
        ("request.key & 1", 1, "`&`", "and"),
        ("[x for x in request.json()]", 1, "comprehensions", "any("),
        ("request.key is 'x'", 1, "`is`", "=="),
        ("open('x')", 1, "`open()`", "len"),
        ("request.body == 1", 9, "request.body", "json()"),
        ("request == 1", 1, "`request`", "request.headers"),
        ("request.headers == {}", 9, "request.headers", "get("),
        ("eval('1')", 1, "`eval()`", "len"),
        ("lambda: 1", 1, "lambda", ""),
        ("99999999999999999999 > 1", 1, "64 bits", "float"),
        ("request.args.get('a', type=int) == 1", 14, "not supported on headers and args", "int()"),
        ("'a'.split(sep=',')", 11, "by name", "position"),
        ("request.__class__", 9, "__class__", ""),
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

#[test]
fn a_condition_may_take_several_lines_and_comments() {
    holds("request.key == 'customer-7'  # who\n  and request.partition == 3\n");
    holds("  request.partition == 3");
    holds("request.partition == 3 # three");
}

#[test]
fn rhai_is_marked_by_its_prefix() {
    assert_eq!(language("rhai: request.key == \"x\""), Language::Rhai);
    assert_eq!(language("request.key == \"x\""), Language::Python);
    assert_eq!(check(" rhai:request.key == \"x\""), Ok(Language::Rhai));
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
fn what_exceeds_its_bounds_says_so() {
    let long = format!("[{}0]", "1,".repeat(300_000));
    for (source, body) in [
        ("len('a' * 10 ** 9) > 1", "{}"),
        ("len('a' * 9223372036854775807) > 1", "{}"),
        ("len([1] * 10 ** 9) > 1", "{}"),
        ("len('a' * 1000000 + 'b' * 7000000 + 'c' * 7000000) > 1", "{}"),
        ("len(('a' * 100000).replace('a', 'b' * 100000)) > 1", "{}"),
        ("any(x in request.json() for x in request.json() if x == 2)", long.as_str()),
        ("all(0 in request.json() for x in request.json())", long.as_str()),
    ] {
        assert!(matches!(evaluate_on(source, body), Err(ConditionError::Exceeded(_))), "{source}");
    }
    assert_eq!(evaluate_on("request.json()[-1] == 0 and 0 in request.json()", &long), Ok(true));
}

#[test]
fn large_texts_in_the_payload_are_no_excess() {
    let body = format!("{{\"a\": \"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(
        evaluate_on("request.json()['a'].startswith('xx') and len(request.json()['a']) == 5242880", &body),
        Ok(true)
    );
    assert_eq!(
        evaluate_on("request.json()['a'].upper().endswith('X') and 'y' not in request.json()['a']", &body),
        Ok(true)
    );
    assert_eq!(evaluate_on("rhai: request.json()[\"a\"].starts_with(\"xx\")", &body), Ok(true));
}

#[test]
fn depth_is_bounded_everywhere() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("-", ""),
        ("not ", ""),
        ("1 if 1 else ", ""),
        ("2 ** ", ""),
        ("len(", ")"),
        ("{1: ", "}"),
        ("lambda: ", ""),
        ("x[", "]"),
    ] {
        for depth in [20, 23, 100, 1_500] {
            let source = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            if let Ok((conditions, id)) = add(&source) {
                let _ = conditions.evaluation(&request(BODY)).holds(id);
            }
            let native = format!("rhai: {source}");
            if let Ok((conditions, id)) = add(&native) {
                let _ = conditions.evaluation(&request(BODY)).holds(id);
            }
        }
    }
    for chain in [" + 1", ".a", "[0]", " and 1", " < 1", ".get(1)", " or 'x'", "()", " * -1"] {
        for length in [20, 2_000] {
            if let Ok((conditions, id)) = add(&format!("request.json(){}", chain.repeat(length))) {
                let _ = conditions.evaluation(&request(BODY)).holds(id);
            }
        }
    }
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for body in [deep.clone(), format!("{{\"a\": {deep}, \"b\": 1}}"), "{\"a\":".repeat(100_000)] {
        assert!(evaluate_on("request.json()['c'] == 1", &body).is_err());
        assert!(evaluate_on("len(request.json()) == 1", &body).is_err());
    }
    assert_eq!(evaluate_on("request.json()['b'] == 1", &format!("{{\"a\": {deep}, \"b\": 1}}")), Ok(true));
}

#[test]
fn deep_values_can_be_compared() {
    let body = format!("{{\"a\": {0}1{1}, \"b\": {0}1{1}}}", "[".repeat(120), "]".repeat(120));
    assert_eq!(evaluate_on("request.json()['a'] == request.json()['b']", &body), Ok(true));
}

#[test]
fn a_path_is_shared_by_all_conditions() {
    let mut builder = ConditionsBuilder::new();
    let first = builder.add("request.json()['params']['lang'] == 'fr'").unwrap();
    builder.add("request.json()['params'][").unwrap_err();
    let second = builder.add("request.json['params']['lang'] == 'de' and 'x' not in ('a', 'b')").unwrap();
    let conditions = builder.build();
    assert_eq!(conditions.0.paths.len(), 1);
    let evaluation = conditions.evaluation(&request(BODY));
    assert_eq!((evaluation.holds(first), evaluation.holds(second)), (Ok(false), Ok(true)));
}

proptest::proptest! {
    #[test]
    fn no_text_and_no_payload_makes_it_panic(source in ".{0,60}", body in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
        let request = Arc::new(Request { payload: Some(body.into()), ..(*request("")).clone() });
        for source in [source.clone(), format!("rhai:{source}"), format!("request.json(){source}")] {
            if let Ok((conditions, id)) = add(&source) {
                let _ = conditions.evaluation(&request).holds(id);
            }
        }
    }

    /// Conditions that are nearly right: with something cut out, repeated, or put in.
    #[test]
    fn no_damaged_condition_makes_it_panic(
        source in proptest::sample::select(vec![
            "request.json()['dataframe_split']['data'][0][0].startswith('Domain') and not request.headers.get('x', 'y') == 'z'",
            "any(row[1] * 2 ** 3 > -1.5e3 for row in request.json().get('data', [])[::2] if isinstance(row, (list, tuple)))",
            "{'a': [1, (2,), {3}]}['a'][0:1] + [None] < [\"ü\\n\\x41\"] if 1 < 2 <= 3 else 'x' not in ('x' * 3).split('x')",
        ]),
        cut in 0..120usize, length in 0..8usize, put in ".{0,4}", body in "[\\[\\]{}:,0-9a\" .eNTrunl-]{0,40}",
    ) {
        let characters: Vec<char> = source.chars().collect();
        let at = cut.min(characters.len());
        let end = (at + length).min(characters.len());
        let before: String = characters[..at].iter().collect();
        for rest in [&characters[end..], &characters[at.saturating_sub(length)..]] {
            let source = format!("{before}{put}{}", rest.iter().collect::<String>());
            if let Ok((conditions, id)) = add(&source) {
                let _ = conditions.evaluation(&request(&body)).holds(id);
            }
        }
    }

    #[test]
    fn no_python_like_text_makes_it_panic(tokens in proptest::collection::vec(proptest::sample::select(vec![
        "request", ".json", "()", "['a']", "[0]", "[-1]", "[1:]", ".get", "('a')", "(", ")", "[", "]", " and ", " or ", " not ", " in ",
        " is ", "None", "True", "'a'", "1", "-1", "0", "2.5", " < ", " == ", " + ", " * ", " ** ", " // ", " % ", ",", " if ", " else ",
        " for ", "x", "any", "all", "len", "str", "int", ".split", ".upper()", "{", "}", ":", ".headers", "10**9",
    ]), 0..14), body in "[\\[\\]{}:,0-9a\" .e-]{0,40}") {
        let source = tokens.concat();
        if let Ok((conditions, id)) = add(&source) {
            let _ = conditions.evaluation(&request(&body)).holds(id);
        }
    }
}

/// `and` and `or` nest in Rhai where they do not in Python, so this reaches the deepest text that compiles.
#[test]
fn the_deepest_conditions_run_on_a_small_stack() {
    let run = || {
        let mut accepted = 0;
        for width in [1, 3, 8, 23] {
            for depth in 1..24 {
                let open = format!("('' or {}", "0 or ".repeat(width));
                let source = format!("{}'x'{} == 'x'", open.repeat(depth), ")".repeat(depth));
                let compared = format!("{}1{}", "(1 if 0 < ".repeat(depth), " < 3 else 2)".repeat(depth));
                let searched = format!(
                    "{source} and any({compared} and {source} for x in [1] if any(all({source} for z in 'a') for y in (2,)))"
                );
                for source in [source, compared, searched] {
                    if let Ok((conditions, id)) = add(&source) {
                        accepted += 1;
                        assert_eq!(conditions.evaluation(&request(BODY)).holds(id), Ok(true), "{source}");
                    }
                }
            }
        }
        assert!(accepted > 30, "{accepted}");
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

fn value(source: &str) -> Result<Value, ConditionError> {
    let mut builder = ConditionsBuilder::new();
    let id = builder.add_expression(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
    builder.build().evaluation(&request(BODY)).value(id)
}

#[test]
fn expressions_give_their_value() {
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

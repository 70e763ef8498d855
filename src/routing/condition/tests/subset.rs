//! Tests what is compiled beside the first operators and methods.

use super::*;

#[test]
fn comprehensions_and_readers_agree_with_python() {
    for source in [
        "sum(row[1] for row in request.json['dataframe_split']['data']) == 0.5",
        "sum([1, 2, True]) == 4 and sum([[1], [2]], []) == [1, 2] and sum([], 7) == 7",
        "max(len(row[0]) for row in request.json['dataframe_split']['data']) == 30",
        "min((n for n in request.json['params']['list'] if n > 1), default=0) == 2 and max([], default=None) is None",
        "sorted([3, 1, 2]) == [1, 2, 3] and sorted('bca') == ['a', 'b', 'c'] and sorted({'b': 1, 'a': 2}) == ['a', 'b']",
        "sorted((len(c) for c in request.json['dataframe_split']['columns'])) == [1, 4]",
        "[n * 2 for n in request.json['params']['list'] if n != 2] == [2, 6]",
        "{n % 2 for n in request.json['params']['list']} == {0, 1}",
        "{k: len(k) for k in ['a', 'bb']} == {'a': 1, 'bb': 2}",
        "[a + b for a in 'ab' for b in 'cd' if b != 'c'] == ['ad', 'bd']",
        "[cell for row in [[1, 2], [3]] for cell in row] == [1, 2, 3]",
        "[[b for b in range(a)] for a in range(3)] == [[], [0], [0, 1]]",
        "dict(zip(request.json['dataframe_split']['columns'], request.json['dataframe_split']['data'][0]))['n'] == 3",
        "dict([('a', 1), ('b', 2), ('a', 3)]) == {'a': 3, 'b': 2} and dict({'a': 1}) == {'a': 1}",
        "any(dict(zip(request.json['dataframe_split']['columns'], row))['n'] < 0 for row in request.json['dataframe_split']['data'])",
        "request.json['dataframe_split']['data'][1][request.json['dataframe_split']['columns'].index('n')] == -2.5",
        "'abc'.index('c') == 2 and (1, 2.0).index(2) == 1",
        "[i for i, (a, b) in enumerate([(1, 2), (3, 4)], 1) if a == 3] == [2] and list(range(5, 0, -2)) == [5, 3, 1]",
        "list(zip([1, 2], 'ab', (3, 4, 5))) == [(1, 'a', 3), (2, 'b', 4)] and 3 in range(4) and 4 not in range(4)",
        "tuple([1]) == (1,) and list('ab') == ['a', 'b'] and set('aab') == {'a', 'b'} and len(set([1, True, 1.0])) == 1",
        "'-'.join(c.upper() for c in 'ab') == 'A-B'",
        "int('ff', 16) == 255 and int('0x1_F', 16) == 31 and int('-0b11', 0) == -3 and int(' z ', 36) == 35 and int('0b1', 16) == 177",
        "f'{request.key}-{request.partition + 1!s}{{}}' 'x' == 'customer-7-4{}x' and f'' == '' and f'{1.0}{None}{True}' == '1.0NoneTrue'",
        "request.json.keys() >= {'params'} and {'params', 'twice'} <= request.json.keys() and not request.json.keys() > request.json.keys()",
        "{1} < {1, 2} and not {1} < {2} and {1, 2} == {2, 1} and {1} != {2} and {'a': 1}.keys() == {'a'}",
        "{1, 2} & {2, 3} == {2} and {1} | {2} == {1, 2} and {1, 2} - {2} == {1} and {1, 2} ^ {2, 3} == {1, 3}",
        "{'a': 1}.keys() & {'a', 'b'} == {'a'} and not {'a': 1}.keys() & {'b'}",
        "(request.partition == 3) & (request.key != 'x') and 6 & 3 == 2 and 6 | 1 == 7 and 5 ^ 1 == 4 and (True ^ True) is False",
        "{'a': request.key}['a'] == 'customer-7'",
        "[request.key, 1][0] == 'customer-7' and {request.key: 1}['customer-7'] == 1 and request.key in {request.key, 'x'}",
        "1 < request.partition is not None",
    ] {
        let (conditions, id) = add(source).unwrap_or_else(|problem| panic!("{source}: {problem}"));
        assert_eq!(conditions.reason(id), None, "{source}");
        holds(source);
    }
    for (source, message) in [
        ("sum(['a'])", "unsupported operand type(s) for +: 'int' and 'str'"),
        ("sum(['a'], 'b')", "sum() can't sum strings"),
        ("max(x for x in [])", "iterable argument is empty"),
        ("sorted([1, 'a'])", "'<' not supported"),
        ("sorted([1.0, float('nan')])", "without an order"),
        ("'a'.index('b')", "ValueError: substring not found"),
        ("[1].index(2)", "ValueError"),
        ("int('12', 2)", "not a whole number"),
        ("int('1', 1)", "base must be"),
        ("int(1, 10)", "non-string with explicit base"),
        ("int('010', 0)", "not a whole number"),
        ("dict([1])", "not iterable"),
        ("dict([(1, 2, 3)])", "length 3"),
        ("[a for a, b in [(1, 2, 3)]]", "expected 2 values to unpack"),
        ("list({1, 2})[0]", "the order of a set"),
        ("list(range(1, 2, 0))", "arg 3 must not be zero"),
        ("{[]: 1}", "unhashable"),
        ("{1} & [1]", "unsupported operand"),
        ("{1} < [1]", "'<' not supported"),
        ("1.0 & 1", "unsupported operand type(s) for &"),
    ] {
        fails(source, message);
    }
    assert!(matches!(evaluate("len(list(range(10 ** 12))) == 1"), Err(ConditionError::Exceeded(_))));
    assert!(matches!(
        evaluate("sum(1 for a in range(9999) for b in range(9999)) == 1"),
        Err(ConditionError::Exceeded(_))
    ));
}

#[test]
fn names_are_shared_and_evaluated_once() {
    let names = |names: &[(&str, &str)]| -> Vec<(String, String)> {
        names.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect()
    };
    let mut builder = ConditionsBuilder::with_names(&names(&[
        ("double", "2 * n"),
        ("n", "request.json['params']['list'][1]"),
        ("big", "99999999999999999999"),
        ("broken", "request.json['nope']"),
    ]))
    .unwrap();
    let ids = ["double == 4 and n == 2", "any(n == 9 for n in [9])", "big > n", "n < 0 or broken"]
        .map(|source| builder.add(source).unwrap_or_else(|problem| panic!("{source}: {problem}")));
    let conditions = builder.build();
    let evaluation = conditions.evaluation(&request(BODY), None);
    assert_eq!((evaluation.holds(ids[0]), evaluation.holds(ids[1])), (Ok(true), Ok(true)));
    assert_eq!(ids.map(|id| conditions.way(id)), [Way::Compiled, Way::Compiled, Way::Python, Way::Compiled]);
    assert!(evaluation.holds(ids[3]).unwrap_err().to_string().contains("KeyError: 'nope'"));
    let question = conditions.question().unwrap();
    assert_eq!((question.expressions.len(), question.names.len()), (1, 4));
    for (given, wanted) in [
        (&[("a", "b + 1"), ("b", "c"), ("c", "[a]"), ("d", "a")][..], &["a", "b", "c"][..]),
        (&[("a", "a")], &["a"]),
        (&[("len", "1"), ("1a", "1"), ("re", "1"), ("_a", "1"), ("ok", "1")], &["len", "1a", "re", "_a"]),
        (&[("a", "rhai: 1"), ("b", "1 +"), ("c", "nope")], &["a", "b", "c"]),
    ] {
        let problems = ConditionsBuilder::with_names(&names(given)).unwrap_err();
        let refused: Vec<&str> = problems.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(refused, wanted, "{problems:?}");
    }
    let circle = ConditionsBuilder::with_names(&names(&[("a", "1 + b"), ("b", "a")])).unwrap_err();
    assert_eq!(circle[0].1.to_string(), "line 1, column 5: the name `a` needs itself, through `b`");
}

#[test]
fn documentation_has_table_of_what_is_compiled() {
    let page = include_str!("../../../../docs/routing.md");
    let table = compiled_table();
    assert!(page.contains(&table), "docs/routing.md has another table than:\n{table}");
    for example in compiled::examples() {
        let (conditions, id) = add(example).unwrap_or_else(|problem| panic!("{example}: {problem}"));
        assert_eq!(conditions.reason(id), None, "{example}");
    }
}

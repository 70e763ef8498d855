//! The table of what is compiled, as the documentation shows it.

use super::operations::functions::{FUNCTIONS, Function, ITERATORS, METHODS};

/// Parts of the language: the name of each, what of it is compiled, and examples.
const PARTS: [(&str, &str, &[&str]); 4] = [
    (
        "the request",
        "`request.json`, `.json()` or `.get_json()`, the last also with `force=` and `silent=`; `request.headers['x']`, \
         `request.headers.get('x', default)` (upper and lower case are the same), `'x' in request.headers`; `request.args` \
         likewise (HTTP); `request.get_data(as_text=True)`; `request.method`, `.path`, `.content_type`, \
         `.content_length`, `.mimetype`, `.is_json`; of the record `.key`, `.topic`, `.partition`, `.offset`, \
         `.timestamp` (in milliseconds)",
        &[
            "request.json['a'] == request.json()['b'] == request.get_json(force=True)['c']",
            "(request.get_json(silent=True) or {}).get('a') == 1",
            "request.headers['x'] == request.args.get('x', 'y') and 'x' in request.headers",
            "'x' in request.get_data(as_text=True) and request.method == 'POST' and request.path == '/invocations'",
            "request.is_json and request.mimetype == request.content_type and request.content_length > 1",
            "request.key == request.topic and request.partition == request.offset == request.timestamp",
        ],
    ),
    (
        "operators",
        "`and or not`, `== != < <= > >=` (chained, and of sets), `in`, `not in`, `is None`, `+ - * / // % ** & ^`, `\\|`, \
         `a if b else c`, indices and slices (negative too)",
        &[
            "not 1 < 2 <= 3 and {1} <= {1, 2} or 1 not in [2] or request.key is not None",
            "(1 + 2 - 3 * 4 / 5 // 6 % 7 ** 8 if 1 & 2 | 3 ^ 4 else 'abc'[-1]) == 'abc'[1:][::-1]",
        ],
    ),
    (
        "displays",
        "text, numbers, lists, tuples, sets and dictionaries; comprehensions of them; f-strings without formats",
        &[
            "[a for a in 'ab' if a] == ['a', 'b'] and {b: c for b, c in [(1, 2)]} == {1: 2} and {d for d in ()} != {1}",
            "f'{request.key}-{1 + 1!s}' == ('a', request.topic)",
        ],
    ),
    (
        "generators",
        "`x for x in y if z`, with several `for` too, in any function or method that looks through its argument",
        &[
            "any(a == b for a in [1] for b in [2] if a) and max((len(c) for c in 'ab'), default=0) == sum(d for d in [1])",
        ],
    ),
];

/// Returns the rows of the table in Markdown.
pub fn compiled_table() -> String {
    let names = |functions: &[Function]| functions.iter().map(|it| it.name).collect::<Vec<_>>().join(" ");
    let parts = PARTS.iter().map(|(part, what, _)| format!("| {part} | {what} |\n"));
    let functions =
        format!("| functions | `{} isinstance`; looked through only: `{}` |\n", names(FUNCTIONS), names(ITERATORS));
    parts.chain([functions, format!("| methods | `{}` |\n", names(METHODS))]).collect()
}

/// Returns the examples of the table.
#[cfg(test)]
pub(super) fn examples() -> impl Iterator<Item = &'static str> {
    PARTS.iter().flat_map(|(_, _, examples)| examples.iter().copied())
}

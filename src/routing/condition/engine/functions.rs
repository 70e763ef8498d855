//! The table of the functions, methods and comparisons of Python conditions, read when a condition is lowered and when
//! the engine is made.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use super::{builtins, collections, operators, strings};
use crate::routing::condition::error::Result;
use crate::routing::condition::value::Value;

/// A built-in function of Python.
pub(in crate::routing::condition) struct Builtin {
    /// Python name.
    pub(in crate::routing::condition) name: &'static str,
    /// Number of arguments that the function takes.
    pub(in crate::routing::condition) arguments: RangeInclusive<usize>,
    /// True if the result is always `True` or `False`.
    pub(in crate::routing::condition) gives_bool: bool,
    pub(in crate::routing::condition) call: fn(&[Value]) -> Result<Value>,
}

/// A method of one or more types.
pub(in crate::routing::condition) struct Method {
    /// Python name.
    pub(in crate::routing::condition) name: &'static str,
    /// Number of arguments that the method takes, beside its receiver.
    pub(in crate::routing::condition) arguments: RangeInclusive<usize>,
    /// True if the result is always `True` or `False`.
    pub(in crate::routing::condition) gives_bool: bool,
    pub(in crate::routing::condition) call: fn(&Value, &[Value]) -> Result<Value>,
}

/// A comparison of two values.
#[derive(Debug, Clone, Copy)]
pub(in crate::routing::condition) struct Comparison {
    /// Name of the helper in Rhai.
    pub(in crate::routing::condition) helper: &'static str,
    pub(in crate::routing::condition) test: fn(&Value, &Value) -> Result<bool>,
}

/// All comparisons but `is`, which compares objects and not values.
pub(in crate::routing::condition) const COMPARISONS: &[Comparison] = &[
    Comparison { helper: "py_equal", test: operators::equal },
    Comparison { helper: "py_unequal", test: |left, right| operators::equal(left, right).map(|equal| !equal) },
    Comparison {
        helper: "py_less",
        test: |left, right| Ok(operators::compare(left, right, "<")? == Some(Ordering::Less)),
    },
    Comparison {
        helper: "py_greater",
        test: |left, right| Ok(operators::compare(left, right, ">")? == Some(Ordering::Greater)),
    },
    Comparison {
        helper: "py_at_most",
        test: |left, right| Ok(operators::compare(left, right, "<=")?.is_some_and(Ordering::is_le)),
    },
    Comparison {
        helper: "py_at_least",
        test: |left, right| Ok(operators::compare(left, right, ">=")?.is_some_and(Ordering::is_ge)),
    },
    Comparison { helper: "py_in", test: |needle, container| collections::contains(container, needle) },
];

/// All built-in functions but `isinstance`, whose second argument is no value.
pub(in crate::routing::condition) const BUILTINS: &[Builtin] = &[
    Builtin { name: "abs", arguments: 1..=1, gives_bool: false, call: builtins::abs },
    Builtin { name: "all", arguments: 1..=1, gives_bool: true, call: builtins::all },
    Builtin { name: "any", arguments: 1..=1, gives_bool: true, call: builtins::any },
    Builtin { name: "bool", arguments: 1..=1, gives_bool: true, call: builtins::bool },
    Builtin { name: "float", arguments: 1..=1, gives_bool: false, call: builtins::float },
    Builtin { name: "int", arguments: 1..=1, gives_bool: false, call: builtins::int },
    Builtin { name: "len", arguments: 1..=1, gives_bool: false, call: builtins::len },
    Builtin { name: "max", arguments: 1..=8, gives_bool: false, call: builtins::max },
    Builtin { name: "min", arguments: 1..=8, gives_bool: false, call: builtins::min },
    Builtin { name: "round", arguments: 1..=2, gives_bool: false, call: builtins::round },
    Builtin { name: "str", arguments: 1..=1, gives_bool: false, call: builtins::str },
];

/// All methods.
pub(in crate::routing::condition) const METHODS: &[Method] = &[
    Method { name: "capitalize", arguments: 0..=0, gives_bool: false, call: strings::capitalize },
    Method { name: "count", arguments: 1..=1, gives_bool: false, call: collections::count },
    Method { name: "endswith", arguments: 1..=1, gives_bool: true, call: strings::endswith },
    Method { name: "find", arguments: 1..=1, gives_bool: false, call: strings::find },
    Method { name: "get", arguments: 1..=2, gives_bool: false, call: collections::get },
    Method { name: "isalnum", arguments: 0..=0, gives_bool: true, call: strings::isalnum },
    Method { name: "isalpha", arguments: 0..=0, gives_bool: true, call: strings::isalpha },
    Method { name: "isdigit", arguments: 0..=0, gives_bool: true, call: strings::isdigit },
    Method { name: "islower", arguments: 0..=0, gives_bool: true, call: strings::islower },
    Method { name: "isspace", arguments: 0..=0, gives_bool: true, call: strings::isspace },
    Method { name: "isupper", arguments: 0..=0, gives_bool: true, call: strings::isupper },
    Method { name: "items", arguments: 0..=0, gives_bool: false, call: collections::items },
    Method { name: "join", arguments: 1..=1, gives_bool: false, call: strings::join },
    Method { name: "keys", arguments: 0..=0, gives_bool: false, call: collections::keys },
    Method { name: "lower", arguments: 0..=0, gives_bool: false, call: strings::lower },
    Method { name: "lstrip", arguments: 0..=1, gives_bool: false, call: strings::lstrip },
    Method { name: "removeprefix", arguments: 1..=1, gives_bool: false, call: strings::removeprefix },
    Method { name: "removesuffix", arguments: 1..=1, gives_bool: false, call: strings::removesuffix },
    Method { name: "replace", arguments: 2..=3, gives_bool: false, call: strings::replace },
    Method { name: "rfind", arguments: 1..=1, gives_bool: false, call: strings::rfind },
    Method { name: "rstrip", arguments: 0..=1, gives_bool: false, call: strings::rstrip },
    Method { name: "split", arguments: 0..=2, gives_bool: false, call: strings::split },
    Method { name: "startswith", arguments: 1..=1, gives_bool: true, call: strings::startswith },
    Method { name: "strip", arguments: 0..=1, gives_bool: false, call: strings::strip },
    Method { name: "title", arguments: 0..=0, gives_bool: false, call: strings::title },
    Method { name: "upper", arguments: 0..=0, gives_bool: false, call: strings::upper },
    Method { name: "values", arguments: 0..=0, gives_bool: false, call: collections::values },
];

//! The table of the functions and methods that are compiled.

use std::ops::RangeInclusive;

use super::{builtins, collections, strings};
use crate::routing::condition::error::Result;
use crate::routing::condition::value::Value;

/// A function or method, of its first argument or receiver and the rest.
pub(in crate::routing::condition) type Helper = fn(&Value, &[Value]) -> Result<Value>;
/// An operator with two operands.
pub(in crate::routing::condition) type Binary = fn(&Value, &Value) -> Result<Value>;
/// A comparison of two values.
pub(in crate::routing::condition) type Comparison = fn(&Value, &Value) -> Result<bool>;
/// A display, such as `[1, 2]`, of its parts.
pub(in crate::routing::condition) type Make = fn(Vec<Value>) -> Result<Value>;

/// A function or method of Python.
pub(in crate::routing::condition) struct Function {
    /// Python name.
    pub(in crate::routing::condition) name: &'static str,
    /// Number of arguments, beside the receiver of a method.
    pub(in crate::routing::condition) arguments: RangeInclusive<usize>,
    pub(in crate::routing::condition) call: Helper,
    /// True if the arguments are only looked through, so that they may be generators.
    pub(in crate::routing::condition) is_reader: bool,
}

const fn function(name: &'static str, least: usize, most: usize, call: Helper) -> Function {
    Function { name, arguments: least..=most, call, is_reader: false }
}

const fn reader(name: &'static str, least: usize, most: usize, call: Helper) -> Function {
    Function { name, arguments: least..=most, call, is_reader: true }
}

/// `isinstance`, of a value and the names of types; the compiler knows their form.
pub(in crate::routing::condition) const IS_INSTANCE: Helper = builtins::is_instance;

/// `str.join`, which f-strings use.
pub(in crate::routing::condition) const JOIN: Helper = strings::join;

/// Functions, but for `isinstance`, whose second argument is no value.
pub(in crate::routing::condition) const FUNCTIONS: &[Function] = &[
    function("abs", 1, 1, builtins::abs),
    reader("all", 1, 1, builtins::all),
    reader("any", 1, 1, builtins::any),
    function("bool", 1, 1, builtins::bool),
    reader("dict", 1, 1, collections::dict),
    function("float", 1, 1, builtins::float),
    function("int", 1, 2, builtins::int),
    function("len", 1, 1, collections::length),
    reader("list", 1, 1, collections::list),
    reader("max", 1, 8, builtins::max),
    reader("min", 1, 8, builtins::min),
    function("round", 1, 2, builtins::round),
    reader("set", 1, 1, collections::set),
    reader("sorted", 1, 1, collections::sorted),
    function("str", 1, 1, builtins::str),
    reader("sum", 1, 2, builtins::sum),
    reader("tuple", 1, 1, collections::tuple),
];

/// Functions whose result is only looked through: by `for`, or by a function that takes a generator.
pub(in crate::routing::condition) const ITERATORS: &[Function] = &[
    reader("enumerate", 1, 2, collections::enumerate),
    function("range", 1, 3, collections::range),
    reader("zip", 1, 8, collections::zip),
];

/// Functions that take `default=`.
pub(in crate::routing::condition) const DEFAULTED: &[Function] = &[
    reader("max", 1, 1, |iterable, default| builtins::or_default(iterable, default, builtins::max)),
    reader("min", 1, 1, |iterable, default| builtins::or_default(iterable, default, builtins::min)),
];

/// Methods.
pub(in crate::routing::condition) const METHODS: &[Function] = &[
    function("capitalize", 0, 0, strings::capitalize),
    function("count", 1, 1, collections::count),
    function("endswith", 1, 1, strings::endswith),
    function("find", 1, 1, strings::find),
    function("get", 1, 2, collections::get),
    function("index", 1, 1, collections::index),
    function("isalnum", 0, 0, strings::isalnum),
    function("isalpha", 0, 0, strings::isalpha),
    function("isdigit", 0, 0, strings::isdigit),
    function("islower", 0, 0, strings::islower),
    function("isspace", 0, 0, strings::isspace),
    function("isupper", 0, 0, strings::isupper),
    function("items", 0, 0, collections::items),
    reader("join", 1, 1, strings::join),
    function("keys", 0, 0, collections::keys),
    function("lower", 0, 0, strings::lower),
    function("lstrip", 0, 1, strings::lstrip),
    function("removeprefix", 1, 1, strings::removeprefix),
    function("removesuffix", 1, 1, strings::removesuffix),
    function("replace", 2, 3, strings::replace),
    function("rfind", 1, 1, strings::rfind),
    function("rstrip", 0, 1, strings::rstrip),
    function("split", 0, 2, strings::split),
    function("startswith", 1, 1, strings::startswith),
    function("strip", 0, 1, strings::strip),
    function("title", 0, 0, strings::title),
    function("upper", 0, 0, strings::upper),
    function("values", 0, 0, collections::values),
];

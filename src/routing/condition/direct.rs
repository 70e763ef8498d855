//! The direct evaluator, for conditions that need no engine: comparisons and tests of single values of the request,
//! joined by `and`, `or` and `not`. Most conditions are of that kind, and the engine costs several times as much.
//!
//! The direct evaluator calls the same helpers as the engine, so there is one meaning of each operation. An expression
//! that is not known here is lowered to Rhai instead of being refused.

use std::borrow::Cow;

use super::engine::functions::Comparison;
use super::engine::operators;
use super::error::{ConditionError, Result};
use super::request::RequestView;
use super::value::Value;

/// A test that holds for a request or does not.
#[derive(Debug)]
pub(super) enum DirectTest {
    /// Truth of a value, by Python's rules.
    Truth(DirectTerm),
    Compare(Comparison, DirectTerm, DirectTerm),
    /// Identity of a value with `None`, `True` or `False` (`is`).
    Is(DirectTerm, Singleton),
    /// Presence of a header or argument.
    Has(RequestMapping, Box<str>),
    Not(Box<DirectTest>),
    All(Vec<DirectTest>),
    Any(Vec<DirectTest>),
}

/// A single value, constant or read from the request.
#[derive(Debug)]
pub(super) enum DirectTerm {
    Constant(Value),
    /// The value at one of the program's paths.
    Field(usize),
    /// A header or an argument. Without a default it must be there.
    Named(RequestMapping, Box<str>, Option<Value>),
    Property(fn(&RequestView) -> Result<Value>),
    /// A method of a value, with arguments that are the same for every request.
    Method(fn(&Value, &[Value]) -> Result<Value>, Box<DirectTerm>, Vec<Value>),
    /// A built-in function of one value.
    Function(fn(&[Value]) -> Result<Value>, Box<DirectTerm>),
}

/// An object with which `is` compares.
#[derive(Debug, Clone, Copy)]
pub(super) enum Singleton {
    None,
    Bool(bool),
}

/// The parts of a request that map names to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestMapping {
    Headers,
    Arguments,
}

impl DirectTest {
    /// Tells whether the test holds for this request.
    pub(super) fn holds(&self, request: &RequestView) -> Result<bool> {
        match self {
            Self::Truth(term) => Ok(operators::truth(&*term.value(request)?)),
            Self::Compare(comparison, left, right) => {
                let (left, right) = (left.value(request)?, right.value(request)?);
                (comparison.test)(&left, &right)
            }
            Self::Is(term, constant) => {
                let value = term.value(request)?;
                Ok(match constant {
                    Singleton::None => matches!(*value, Value::None),
                    Singleton::Bool(constant) => matches!(*value, Value::Bool(bool) if bool == *constant),
                })
            }
            Self::Has(mapping, name) => Ok(mapping.get(request, name)?.is_some()),
            Self::Not(test) => test.holds(request).map(|holds| !holds),
            Self::All(tests) => first(tests, request, false).map(|found| !found),
            Self::Any(tests) => first(tests, request, true),
        }
    }
}

/// Tells whether a test has this outcome. The tests after the first of them are not evaluated.
fn first(tests: &[DirectTest], request: &RequestView, outcome: bool) -> Result<bool> {
    for test in tests {
        if test.holds(request)? == outcome {
            return Ok(true);
        }
    }
    Ok(false)
}

impl DirectTerm {
    /// Returns the term's value for this request.
    pub(super) fn value<'a>(&'a self, request: &'a RequestView) -> Result<Cow<'a, Value>> {
        Ok(match self {
            Self::Constant(value) => Cow::Borrowed(value),
            Self::Field(path) => Cow::Borrowed(request.field(*path)?),
            Self::Named(mapping, name, default) => match (mapping.get(request, name)?, default) {
                (Some(value), _) => Cow::Owned(value),
                (None, Some(default)) => Cow::Borrowed(default),
                (None, None) => return Err(mapping.missing(name)),
            },
            Self::Property(read) => Cow::Owned(read(request)?),
            Self::Method(call, receiver, arguments) => Cow::Owned(call(&*receiver.value(request)?, arguments)?),
            Self::Function(call, argument) => Cow::Owned(call(&[argument.value(request)?.into_owned()])?),
        })
    }
}

impl RequestMapping {
    /// Returns the value under a name.
    pub(super) fn get(self, request: &RequestView, name: &str) -> Result<Option<Value>> {
        match self {
            Self::Headers => request.header(name),
            Self::Arguments => Ok(request.argument(name)),
        }
    }

    /// Makes the error for a name that is not there.
    pub(super) fn missing(self, name: &str) -> ConditionError {
        let mapping = match self {
            Self::Headers => "request.headers",
            Self::Arguments => "request.args",
        };
        ConditionError::Failed(format!("{mapping}: KeyError: '{name}'"))
    }
}

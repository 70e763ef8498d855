//! Conditions that are told without the engine: comparisons and tests of single values of the request, joined by `and`,
//! `or` and `not`. Most are of that kind, and the engine costs several times what they do.
//!
//! They are made of the very helpers that the engine calls, so there is one meaning of each operation. What is not known
//! here is lowered to Rhai instead; nothing is refused for it.

use std::borrow::Cow;

use super::engine::functions::Comparison;
use super::engine::operators;
use super::error::{ConditionError, Result};
use super::request::RequestView;
use super::value::Value;

/// Something that holds or does not.
#[derive(Debug)]
pub(super) enum DirectTest {
    /// Whether a value counts as true.
    Truth(DirectTerm),
    Compare(Comparison, DirectTerm, DirectTerm),
    /// Whether a value is `None`, `True` or `False` itself.
    Is(DirectTerm, Singleton),
    /// Whether there is such a header or argument.
    Has(RequestMapping, Box<str>),
    Not(Box<DirectTest>),
    All(Vec<DirectTest>),
    Any(Vec<DirectTest>),
}

/// A single value.
#[derive(Debug)]
pub(super) enum DirectTerm {
    Constant(Value),
    /// What lies at one of the program's paths.
    Field(usize),
    /// A header or an argument. Without a default it has to be there.
    Named(RequestMapping, Box<str>, Option<Value>),
    Property(fn(&RequestView) -> Result<Value>),
    /// A method of a value, with arguments that are the same for every request.
    Method(fn(&Value, &[Value]) -> Result<Value>, Box<DirectTerm>, Vec<Value>),
    /// A built-in function of one value.
    Function(fn(&[Value]) -> Result<Value>, Box<DirectTerm>),
}

/// What `is` compares with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Singleton {
    None,
    Bool(bool),
}

/// What has names in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestMapping {
    Headers,
    Arguments,
}

impl DirectTest {
    /// Whether it holds for this request.
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

/// Whether there is a test with this outcome. What comes after the first is not looked at.
fn first(tests: &[DirectTest], request: &RequestView, outcome: bool) -> Result<bool> {
    for test in tests {
        if test.holds(request)? == outcome {
            return Ok(true);
        }
    }
    Ok(false)
}

impl DirectTerm {
    /// Its value for this request.
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
    /// The value under a name.
    pub(super) fn get(self, request: &RequestView, name: &str) -> Result<Option<Value>> {
        match self {
            Self::Headers => request.header(name),
            Self::Arguments => Ok(request.argument(name)),
        }
    }

    /// What is said of a name that is not there.
    pub(super) fn missing(self, name: &str) -> ConditionError {
        let mapping = match self {
            Self::Headers => "request.headers",
            Self::Arguments => "request.args",
        };
        ConditionError::Failed(format!("{mapping}: KeyError: '{name}'"))
    }
}

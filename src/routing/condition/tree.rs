//! The tree of a compiled expression, which is evaluated node by node with the helpers of [`operations`].
//!
//! A value is borrowed from the tree or the request wherever it is there already, so that simple tests copy nothing.
//!
//! [`operations`]: super::operations

use std::borrow::Cow;

use super::budget;
use super::error::{ConditionError, Result};
use super::operations::functions::{Binary, Comparison, Helper, Make};
use super::operations::{collections, operators};
use super::request::{RequestMapping, RequestView};
use super::value::Value;

/// An expression, compiled.
#[derive(Debug)]
pub(super) enum Node {
    Constant(Value),
    /// The value at one of the program's paths.
    Field(usize),
    /// A variable of a comprehension: so many comprehensions outwards, and there at this index.
    Variable(usize, usize),
    /// The value of one of the program's names.
    Shared(usize),
    Property(fn(&RequestView) -> Result<Value>),
    /// A header or an argument, by its name. Without a default it must be there.
    Named(RequestMapping, Box<(Node, Option<Node>)>),
    /// Presence of a header or an argument.
    Has(RequestMapping, Box<Node>),
    Binary(Binary, Box<[Node; 2]>),
    /// A function or a method, of its first argument and the rest.
    Call(Helper, Box<Node>, Arguments),
    /// A comparison, chained or not: none of the operands is evaluated after the first link that does not hold.
    Compare(Box<Node>, Box<[(Comparison, Node)]>),
    Not(Box<Node>),
    /// `and`
    All(Box<[Node]>),
    /// `or`
    Any(Box<[Node]>),
    /// A test, the value where it holds, and the value where it does not.
    If(Box<[Node; 3]>),
    /// A list, tuple, set or dictionary of these parts.
    Display(Make, Box<[Node]>),
    /// A list, tuple, set or dictionary of the elements of a comprehension.
    Collected(Make, Box<Comprehension>),
    /// `any(… for …)`, or else `all(… for …)`.
    Quantified(bool, Box<Comprehension>),
}

/// The arguments of a call after the first.
#[derive(Debug)]
pub(super) enum Arguments {
    Constant(Box<[Value]>),
    Computed(Box<[Node]>),
}

/// An element for each round of one or more `for`.
#[derive(Debug)]
pub(super) struct Comprehension {
    pub(super) clauses: Vec<Clause>,
    pub(super) element: Node,
    /// Work of one round, in nodes.
    pub(super) cost: usize,
    /// True if the order of the elements counts, which sets do not have here.
    pub(super) is_ordered: bool,
}

/// A `for … in …` with its `if`.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) target: Target,
    pub(super) iterable: Node,
    pub(super) filters: Vec<Node>,
}

/// The names that a `for` binds: one, or one for each part.
#[derive(Debug)]
pub(super) enum Target {
    Name,
    Parts(Vec<Target>),
}

/// The request, and the variables that are bound around a node.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    request: &'a RequestView,
    variables: &'a [Value],
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// Makes the scope of a whole expression.
    pub(super) fn new(request: &'a RequestView) -> Self {
        Self { request, variables: &[], outer: None }
    }

    fn variable(&self, outwards: usize, index: usize) -> Result<&'a Value> {
        let mut scope = Some(self);
        for _ in 0..outwards {
            scope = scope.and_then(|scope| scope.outer);
        }
        let variable = scope.and_then(|scope| scope.variables.get(index));
        variable.ok_or_else(|| ConditionError::Failed("no such variable".to_owned()))
    }
}

impl Node {
    /// Tells whether the expression's value counts as true.
    pub(super) fn holds(&self, scope: &Scope<'_>) -> Result<bool> {
        match self {
            Self::Compare(first, links) => compared(first, links, scope),
            Self::Has(mapping, name) => Ok(mapping.get(scope.request, text(&*name.value(scope)?)?).is_some()),
            Self::Not(operand) => operand.holds(scope).map(|holds| !holds),
            Self::All(operands) => first(operands, scope, false).map(|found| !found),
            Self::Any(operands) => first(operands, scope, true),
            Self::If(parts) => {
                let [test, body, other] = &**parts;
                if test.holds(scope)? { body.holds(scope) } else { other.holds(scope) }
            }
            Self::Quantified(is_any, comprehension) => {
                let decides = &mut |inner: &Scope<'_>| Ok(comprehension.element.holds(inner)? == *is_any);
                Ok(comprehension.visit(0, scope, decides)? == *is_any)
            }
            _ => Ok(operators::truth(&*self.value(scope)?)),
        }
    }

    /// Returns the truth of an expression that has the same for every request, where that can be seen without evaluating
    /// it: `request.json['a'] == 1 or 'b'`.
    pub(super) fn constant_truth(&self) -> Option<bool> {
        let one_or_all = |operands: &[Self], decides: bool| {
            let truths: Vec<_> = operands.iter().map(Self::constant_truth).collect();
            let is_decided = truths.contains(&Some(decides));
            let are_others = truths.iter().all(|truth| *truth == Some(!decides));
            if is_decided { Some(decides) } else { are_others.then_some(!decides) }
        };
        match self {
            Self::Constant(value) => Some(operators::truth(value)),
            Self::Not(operand) => operand.constant_truth().map(|truth| !truth),
            Self::All(operands) => one_or_all(operands, false),
            Self::Any(operands) => one_or_all(operands, true),
            _ => None,
        }
    }

    /// Returns the expression's value.
    #[inline]
    pub(super) fn value<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, Value>> {
        match self {
            Self::Constant(value) => Ok(Cow::Borrowed(value)),
            Self::Field(path) => scope.request.field(*path).map(Cow::Borrowed),
            _ => self.computed(scope),
        }
    }

    /// Returns the value of any node; apart from [`Self::value`], so that the commonest nodes cost no call.
    fn computed<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, Value>> {
        Ok(match self {
            Self::Constant(_) | Self::Field(_) => return self.value(scope),
            Self::Variable(outwards, index) => Cow::Borrowed(scope.variable(*outwards, *index)?),
            Self::Shared(name) => Cow::Borrowed(scope.request.shared(*name)?),
            Self::Property(read) => Cow::Owned(read(scope.request)?),
            Self::Named(mapping, parts) => {
                let (name, default) = (parts.0.value(scope)?, parts.1.as_ref());
                let default = default.map(|default| default.value(scope)).transpose()?;
                match (mapping.get(scope.request, text(&name)?), default) {
                    (Some(value), _) => Cow::Owned(value),
                    (None, Some(default)) => default,
                    (None, None) => return Err(mapping.missing(text(&name)?)),
                }
            }
            Self::Binary(call, operands) => {
                let [left, right] = &**operands;
                Cow::Owned(call(&*left.value(scope)?, &*right.value(scope)?)?)
            }
            Self::Call(call, receiver, arguments) => {
                let receiver = receiver.value(scope)?;
                Cow::Owned(match arguments {
                    Arguments::Constant(values) => call(&receiver, values)?,
                    Arguments::Computed(nodes) => {
                        let arguments = values(nodes, scope);
                        call(
                            &receiver,
                            &arguments
                                .map_err(|error| missing_method(*call, &receiver, nodes.len()).unwrap_or(error))?,
                        )?
                    }
                })
            }
            Self::All(operands) => return chosen(operands, scope, false),
            Self::Any(operands) => return chosen(operands, scope, true),
            Self::If(parts) => {
                let [test, body, other] = &**parts;
                return if test.holds(scope)? { body.value(scope) } else { other.value(scope) };
            }
            Self::Display(make, parts) => {
                budget::charge(parts.len())?;
                Cow::Owned(make(values(parts, scope)?)?)
            }
            Self::Collected(make, comprehension) => Cow::Owned(make(comprehension.collected(scope)?)?),
            Self::Compare(..) | Self::Has(..) | Self::Not(_) | Self::Quantified(..) => {
                Cow::Owned(Value::Bool(self.holds(scope)?))
            }
        })
    }
}

impl Comprehension {
    fn collected(&self, scope: &Scope<'_>) -> Result<Vec<Value>> {
        let mut elements = Vec::new();
        self.visit(0, scope, &mut |inner| {
            elements.push(self.element.value(inner)?.into_owned());
            Ok(false)
        })?;
        Ok(elements)
    }

    /// Visits each round of the clauses from this one on, until the visitor wants no more. Tells whether it did.
    fn visit(&self, from: usize, scope: &Scope<'_>, visit: &mut dyn FnMut(&Scope<'_>) -> Result<bool>) -> Result<bool> {
        let Some(clause) = self.clauses.get(from) else { return visit(scope) };
        let iterable = clause.iterable.value(scope)?;
        if self.is_ordered {
            collections::require_order(&iterable)?;
        }
        let mut variables = Vec::new();
        'rounds: for element in collections::elements(&iterable)?.iter() {
            budget::charge(self.cost)?;
            variables.clear();
            clause.target.bind(element, &mut variables)?;
            let inner = Scope { request: scope.request, variables: &variables, outer: Some(scope) };
            for filter in &clause.filters {
                if !filter.holds(&inner)? {
                    continue 'rounds;
                }
            }
            if self.visit(from + 1, &inner, visit)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Target {
    fn bind(&self, value: &Value, variables: &mut Vec<Value>) -> Result<()> {
        let Self::Parts(targets) = self else {
            variables.push(value.clone());
            return Ok(());
        };
        let parts = collections::elements(value)?;
        if parts.len() != targets.len() {
            let message = format!("expected {} values to unpack, got {}", targets.len(), parts.len());
            return Err(ConditionError::wrong_value(message));
        }
        targets.iter().zip(parts.iter()).try_for_each(|(target, part)| target.bind(part, variables))
    }
}

/// Returns the error of a method that its receiver does not have: Python looks a method up before it evaluates the
/// arguments.
fn missing_method(call: Helper, receiver: &Value, arguments: usize) -> Option<ConditionError> {
    call(receiver, &vec![Value::None; arguments]).err().filter(|error| error.to_string().starts_with("AttributeError"))
}

fn values(nodes: &[Node], scope: &Scope<'_>) -> Result<Vec<Value>> {
    nodes.iter().map(|node| node.value(scope).map(Cow::into_owned)).collect()
}

fn compared(first: &Node, links: &[(Comparison, Node)], scope: &Scope<'_>) -> Result<bool> {
    let mut left = first.value(scope)?;
    for (test, right) in links {
        let right = right.value(scope)?;
        if !test(&left, &right)? {
            return Ok(false);
        }
        left = right;
    }
    Ok(true)
}

/// Tells whether an operand has this outcome. The operands after the first of them are not evaluated.
fn first(operands: &[Node], scope: &Scope<'_>, outcome: bool) -> Result<bool> {
    for operand in operands {
        if operand.holds(scope)? == outcome {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the first operand of this truth, or else the last.
fn chosen<'a>(operands: &'a [Node], scope: &Scope<'a>, truth: bool) -> Result<Cow<'a, Value>> {
    let mut value = Cow::Owned(Value::None);
    for operand in operands {
        value = operand.value(scope)?;
        if operators::truth(&value) == truth {
            break;
        }
    }
    Ok(value)
}

fn text(name: &Value) -> Result<&str> {
    match name {
        Value::Str(name) => Ok(name),
        other => Err(ConditionError::wrong_type(format!("a name must be str, not {}", other.type_name()))),
    }
}

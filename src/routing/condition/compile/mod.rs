//! The compiler: turns Python's syntax tree into a [`Node`].
//!
//! An expression that is not known here is no error: the compiler says what it does not know, and where, and CPython
//! evaluates the expression.

mod calls;
mod operators;
mod request;

use ruff_python_ast::{
    Comprehension as For, ConversionFlag, Expr, ExprFString, ExprSubscript, FStringPart, InterpolatedStringElement,
    Number, UnaryOp,
};
use ruff_text_size::Ranged;

use super::error::ConditionProblem;
use super::operations::functions::{JOIN, Make};
use super::operations::{collections, operators as operations};
use super::path::JsonPath;
use super::python::Parsed;
use super::tree::{Arguments, Clause, Comprehension, Node, Target};
use super::value::Value;

/// Most levels of an expression; each takes stack when it is evaluated.
const MAX_DEPTH: usize = 48;

/// Tables of an endpoint, which the compiler reads and adds to.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) paths: Vec<JsonPath>,
    /// Names that the expressions share.
    pub(super) names: Vec<SharedName>,
}

/// A name that the expressions of an endpoint share.
#[derive(Debug)]
pub(super) struct SharedName {
    pub(super) name: String,
    /// The index of its compiled expression, and the levels of that; none if CPython evaluates it.
    pub(super) compiled: Option<(usize, usize)>,
}

type Compiled<T = Node> = Result<T, ConditionProblem>;

/// Compiles a whole expression, and tells how many levels it has.
///
/// # Errors
/// Fails with the first part that is not known here, and what could be written instead.
pub(super) fn compile(parsed: &Parsed<'_>, tables: &mut Tables) -> Compiled<(Node, usize)> {
    let known = tables.paths.len();
    let mut compiler = Compiler { parsed, tables, scopes: Vec::new(), depth: 0, deepest: 0, nodes: 0 };
    let compiled = compiler.node(&parsed.tree).map(|node| (node, compiler.deepest));
    if compiled.is_err() {
        tables.paths.truncate(known);
    }
    compiled
}

struct Compiler<'a> {
    parsed: &'a Parsed<'a>,
    tables: &'a mut Tables,
    /// Variables of the comprehensions around the expression, the innermost last.
    scopes: Vec<Vec<String>>,
    depth: usize,
    deepest: usize,
    /// Number of nodes so far.
    nodes: usize,
}

impl Compiler<'_> {
    fn node(&mut self, expression: &Expr) -> Compiled {
        if self.depth >= MAX_DEPTH {
            return Err(self.problem(expression, "the expression is nested too deeply to be compiled", None));
        }
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        self.nodes += 1;
        let node = self.node_at_depth(expression);
        self.depth -= 1;
        node
    }

    fn node_at_depth(&mut self, expression: &Expr) -> Compiled {
        if let Some(node) = self.request(expression)? {
            return Ok(node);
        }
        match expression {
            Expr::NoneLiteral(_) => Ok(Node::Constant(Value::None)),
            Expr::BooleanLiteral(literal) => Ok(Node::Constant(Value::Bool(literal.value))),
            Expr::StringLiteral(literal) => {
                self.require_whole_characters(literal, literal.value.to_str())?;
                Ok(Node::Constant(Value::text(literal.value.to_str())))
            }
            Expr::NumberLiteral(literal) => match &literal.value {
                Number::Int(int) => match int.as_i64() {
                    Some(int) => Ok(Node::Constant(Value::Int(int))),
                    None => {
                        let hint = Some("write it as a float");
                        Err(self.problem(expression, "this number is beyond 64 bits", hint))
                    }
                },
                Number::Float(float) => Ok(Node::Constant(Value::Float(*float))),
                Number::Complex { .. } => Err(self.problem(expression, "complex numbers are not compiled", None)),
            },
            Expr::FString(text) => self.formatted(text),
            Expr::BoolOp(operation) => {
                let operands = self.nodes(&operation.values)?;
                Ok(if operation.op.is_and() { Node::All(operands) } else { Node::Any(operands) })
            }
            Expr::BinOp(operation) => self.binary(operation),
            Expr::UnaryOp(operation) => {
                let operand = self.node(&operation.operand)?;
                Ok(match (operation.op, operand) {
                    (UnaryOp::Not, operand) => Node::Not(Box::new(operand)),
                    (UnaryOp::USub, Node::Constant(number)) if operations::negate(&number, &[]).is_ok() => {
                        Node::Constant(operations::negate(&number, &[]).unwrap_or(number))
                    }
                    (UnaryOp::USub, operand) => call(operations::negate, operand),
                    (UnaryOp::UAdd, operand) => call(operations::plus, operand),
                    (UnaryOp::Invert, _) => {
                        return Err(self.problem(operation, "the operator `~` is not compiled", Some("write `not`")));
                    }
                })
            }
            Expr::Compare(comparison) => self.comparison(comparison),
            Expr::If(choice) => {
                let test = self.node(&choice.test)?;
                Ok(Node::If(Box::new([test, self.node(&choice.body)?, self.node(&choice.orelse)?])))
            }
            Expr::Call(call) => self.call(call),
            Expr::Subscript(subscript) => self.subscript(subscript),
            Expr::Name(name) => self.name(expression, name.id.as_str()),
            Expr::List(list) => self.display(collections::list_of, &list.elts),
            Expr::Tuple(tuple) => self.display(collections::tuple_of, &tuple.elts),
            Expr::Set(set) => self.display(collections::set_of, &set.elts),
            Expr::Dict(dict) => {
                let mut pairs = Vec::with_capacity(dict.items.len());
                for item in &dict.items {
                    let Some(key) = &item.key else {
                        return Err(self.problem(expression, "`**` is not compiled", None));
                    };
                    pairs.push(displayed(collections::tuple_of, [self.node(key)?, self.node(&item.value)?].into()));
                }
                Ok(displayed(collections::dict_of_pairs, pairs.into()))
            }
            Expr::ListComp(list) => self.collected(collections::list_of, true, &list.elt, &list.generators),
            Expr::SetComp(set) => self.collected(collections::set_of, false, &set.elt, &set.generators),
            Expr::DictComp(dict) => {
                let Some(key) = &dict.key else {
                    return Err(self.problem(expression, "`**` is not compiled", None));
                };
                let element = |compiler: &mut Self| {
                    let pair = [compiler.node(key)?, compiler.node(&dict.value)?];
                    Ok(displayed(collections::tuple_of, pair.into()))
                };
                let comprehension = self.comprehension(&dict.generators, true, element)?;
                Ok(Node::Collected(collections::dict_of_pairs, Box::new(comprehension)))
            }
            other => Err(self.unknown(other)),
        }
    }

    fn nodes(&mut self, expressions: &[Expr]) -> Compiled<Box<[Node]>> {
        expressions.iter().map(|expression| self.node(expression)).collect()
    }

    fn display(&mut self, make: Make, elements: &[Expr]) -> Compiled {
        Ok(displayed(make, self.nodes(elements)?))
    }

    /// Compiles text with values in it: the parts are joined.
    fn formatted(&mut self, text: &ExprFString) -> Compiled {
        let mut parts = Vec::new();
        for part in text.value.iter() {
            let elements = match part {
                FStringPart::Literal(literal) => {
                    self.require_whole_characters(literal, literal.as_str())?;
                    parts.push(Node::Constant(Value::text(literal.as_str())));
                    continue;
                }
                FStringPart::FString(formatted) => &formatted.elements,
            };
            for element in elements {
                parts.push(match element {
                    InterpolatedStringElement::Literal(literal) => {
                        self.require_whole_characters(literal, &literal.value)?;
                        Node::Constant(Value::text(&*literal.value))
                    }
                    InterpolatedStringElement::Interpolation(value) => {
                        let is_plain = matches!(value.conversion, ConversionFlag::None | ConversionFlag::Str);
                        if !is_plain || value.format_spec.is_some() || value.debug_text.is_some() {
                            return Err(self.problem(value, "formats in f-strings are not compiled", None));
                        }
                        let operand = self.node(&value.expression)?;
                        self.called("str", value, vec![operand])?
                    }
                });
            }
        }
        let parts = Node::Display(collections::list_of, parts.into());
        Ok(Node::Call(JOIN, Box::new(Node::Constant(Value::text(""))), Arguments::Computed([parts].into())))
    }

    fn subscript(&mut self, subscript: &ExprSubscript) -> Compiled {
        let container = self.node(&subscript.value)?;
        let Expr::Slice(slice) = &*subscript.slice else {
            return Ok(Node::Binary(collections::item, Box::new([container, self.node(&subscript.slice)?])));
        };
        let bounds = [&slice.lower, &slice.upper, &slice.step].map(|bound| match bound {
            Some(bound) => self.node(bound),
            None => Ok(Node::Constant(Value::None)),
        });
        let bounds = arguments(bounds.into_iter().collect::<Compiled<_>>()?);
        Ok(Node::Call(collections::slice, Box::new(container), bounds))
    }

    fn name(&mut self, expression: &Expr, name: &str) -> Compiled {
        for (outwards, variables) in self.scopes.iter().rev().enumerate() {
            if let Some(index) = variables.iter().rposition(|known| known == name) {
                return Ok(Node::Variable(outwards, index));
            }
        }
        match self.tables.names.iter().find(|known| known.name == name).map(|known| known.compiled) {
            Some(Some((index, depth))) if self.depth + depth <= MAX_DEPTH => {
                self.deepest = self.deepest.max(self.depth + depth);
                Ok(Node::Shared(index))
            }
            Some(_) => Err(self.problem(expression, format!("the name `{name}` is not compiled"), None)),
            None => Err(self.problem(expression, format!("`{name}` is not compiled as a value"), None)),
        }
    }

    /// Compiles what is only looked through.
    fn iterable(&mut self, expression: &Expr) -> Compiled {
        match expression {
            Expr::Generator(generator) => {
                self.collected(collections::list_of, true, &generator.elt, &generator.generators)
            }
            Expr::Call(call) => match self.iterator(call)? {
                Some(node) => Ok(node),
                None => self.node(expression),
            },
            _ => self.node(expression),
        }
    }

    fn collected(&mut self, make: Make, is_ordered: bool, element: &Expr, clauses: &[For]) -> Compiled {
        let comprehension = self.comprehension(clauses, is_ordered, |compiler| compiler.node(element))?;
        Ok(Node::Collected(make, Box::new(comprehension)))
    }

    fn comprehension(
        &mut self,
        clauses: &[For],
        is_ordered: bool,
        element: impl FnOnce(&mut Self) -> Compiled,
    ) -> Compiled<Comprehension> {
        let (outside, before) = (self.scopes.len(), self.nodes);
        let inside = self.clauses(clauses).and_then(|clauses| Ok((clauses, element(self)?)));
        self.scopes.truncate(outside);
        let (clauses, element) = inside?;
        Ok(Comprehension { clauses, element, cost: self.nodes - before, is_ordered })
    }

    /// Compiles the clauses of a comprehension, each inside the one before; their variables stay in scope.
    fn clauses(&mut self, clauses: &[For]) -> Compiled<Vec<Clause>> {
        let mut compiled = Vec::with_capacity(clauses.len());
        for clause in clauses {
            if clause.is_async {
                return Err(self.problem(&clause.target, "`async for` is not compiled", None));
            }
            let iterable = self.iterable(&clause.iter)?;
            let mut variables = Vec::new();
            let target = self.target(&clause.target, &mut variables)?;
            self.scopes.push(variables);
            let filters = self.nodes(&clause.ifs)?.into_vec();
            compiled.push(Clause { target, iterable, filters });
        }
        Ok(compiled)
    }

    fn target(&self, target: &Expr, variables: &mut Vec<String>) -> Compiled<Target> {
        let parts = match target {
            Expr::Name(name) if name.id.as_str() != "request" => {
                variables.push(name.id.to_string());
                return Ok(Target::Name);
            }
            Expr::Tuple(tuple) => &tuple.elts,
            Expr::List(list) => &list.elts,
            other => return Err(self.problem(other, "only names are bound by `for` in what is compiled", None)),
        };
        Ok(Target::Parts(parts.iter().map(|part| self.target(part, variables)).collect::<Compiled<_>>()?))
    }

    fn require_whole_characters(&self, at: &impl Ranged, text: &str) -> Compiled<()> {
        if !self.parsed.holds_half_a_character(at, text) {
            return Ok(());
        }
        let message = "half of a character (U+D800 to U+DFFF) is not compiled";
        Err(self.problem(at, message, Some("compare with whole characters")))
    }

    fn problem(&self, at: &impl Ranged, message: impl Into<String>, hint: Option<&str>) -> ConditionProblem {
        self.parsed.problem(at, message, hint)
    }

    fn unknown(&self, expression: &Expr) -> ConditionProblem {
        let (what, hint) = match expression {
            Expr::Lambda(_) => ("`lambda` is not compiled", "write the expression itself"),
            Expr::Generator(_) => ("a generator is only compiled where it is looked through", "use any(… for … in …)"),
            Expr::Named(_) => ("`:=` is not compiled", "write the expression out, or use == to compare"),
            Expr::BytesLiteral(_) => ("bytes are not compiled", "leave out the b before the quotes"),
            Expr::Starred(_) => ("`*` before a value is not compiled", "write the values out"),
            Expr::Attribute(attribute) => {
                let message = format!("`.{}` is not compiled", attribute.attr);
                return self.problem(&attribute.attr, message, None);
            }
            _ => return self.problem(expression, "this is not compiled", None),
        };
        self.problem(expression, what, Some(hint))
    }
}

/// Makes a node that is a constant where all of its parts are.
fn displayed(make: Make, parts: Box<[Node]>) -> Node {
    match constants(&parts).and_then(|values| make(values).ok()) {
        Some(value) => Node::Constant(value),
        None => Node::Display(make, parts),
    }
}

fn constants(nodes: &[Node]) -> Option<Vec<Value>> {
    let value = |node: &Node| if let Node::Constant(value) = node { Some(value.clone()) } else { None };
    nodes.iter().map(value).collect()
}

fn arguments(nodes: Vec<Node>) -> Arguments {
    match constants(&nodes) {
        Some(values) => Arguments::Constant(values.into()),
        None => Arguments::Computed(nodes.into()),
    }
}

/// Makes a call with one argument.
fn call(helper: super::operations::functions::Helper, argument: Node) -> Node {
    Node::Call(helper, Box::new(argument), Arguments::Constant([].into()))
}

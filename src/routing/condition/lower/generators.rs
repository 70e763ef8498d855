//! The lowering of `any(… for … in …)` and `all(… for … in …)`.

use ruff_python_ast::{Expr, ExprGenerator};

use super::{GeneratorText, Lowered, Lowering, RhaiCode};

/// Most generators inside each other: the engine starts an evaluation inside an evaluation for each.
const MAX_NESTED: usize = 3;

impl Lowering<'_> {
    pub(super) fn generator(&mut self, generator: &ExprGenerator, is_any: bool) -> Lowered {
        let [comprehension] = &*generator.generators else {
            let hint = Some("put a second any() or all() inside the first");
            return Err(self.problem(generator, "a generator with several `for` is not supported", hint));
        };
        if comprehension.is_async {
            return Err(self.problem(&comprehension.target, "`async for` is not supported", None));
        }
        if self.nested >= MAX_NESTED {
            return Err(self.problem(generator, "generators are nested too deeply", Some("use at most three")));
        }
        let iterable = self.value(&comprehension.iter)?.text;
        let captured: Vec<String> = self.variables.iter().map(|(_, variable)| variable.clone()).collect();
        let names = self.targets(&comprehension.target)?;
        let targets = names.len();
        for name in names {
            self.temporaries += 1;
            self.variables.push((name, format!("v{}", self.temporaries)));
        }
        let variables = self.variables.iter().map(|(_, variable)| variable.clone()).collect();
        self.nested += 1;
        let body = self.body(generator, &comprehension.ifs, is_any);
        self.nested -= 1;
        self.variables.truncate(captured.len());
        self.tables.generators.push(GeneratorText { body: body?, variables, targets });
        let function = if is_any { "any_of" } else { "all_of" };
        let index = self.tables.generators.len() - 1;
        Ok(RhaiCode::bool(format!("{function}(request, {index}, {iterable}, [{}])", captured.join(", "))))
    }

    /// Lowers the body. An element that an `if` leaves out must not decide: for `any` it counts as false, for `all` as
    /// true.
    fn body(&mut self, generator: &ExprGenerator, ifs: &[Expr], is_any: bool) -> Lowered<String> {
        let filters: Vec<String> = ifs.iter().map(|test| self.truth(test)).collect::<Lowered<_>>()?;
        let element = self.truth(&generator.elt)?;
        Ok(match (filters.is_empty(), is_any) {
            (true, _) => element,
            (false, true) => format!("({} && {element})", filters.join(" && ")),
            (false, false) => format!("(!({}) || {element})", filters.join(" && ")),
        })
    }

    fn targets(&self, target: &Expr) -> Lowered<Vec<String>> {
        let parts = match target {
            Expr::Tuple(tuple) if tuple.elts.len() > 1 => &*tuple.elts,
            single => std::slice::from_ref(single),
        };
        parts
            .iter()
            .map(|part| match part {
                Expr::Name(name) if name.id.as_str() == "request" => {
                    Err(self.problem(part, "`request` cannot be a variable", Some("use another name")))
                }
                Expr::Name(name) => Ok(name.id.to_string()),
                other => Err(self.problem(other, "only names can be bound by `for`", Some("write `for row in …`"))),
            })
            .collect()
    }
}

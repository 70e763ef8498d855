//! Names that the expressions of an endpoint share: each stands for an expression of its own, which is evaluated when a
//! request first needs it, and not again.

use super::compile::SharedName;
use super::error::ConditionProblem;
use super::{ConditionsBuilder, Language, compile, language, names, on_large_stack, python};

/// A use of one of the names, by its index, with the problem that it is if the names go in a circle.
type Use = (usize, ConditionProblem);

impl ConditionsBuilder {
    /// Makes a builder whose expressions may use these names, each given with its own expression.
    ///
    /// # Errors
    /// Fails with every name that cannot be one, does not compile, or goes in a circle; each with its problem.
    pub fn with_names(names: &[(String, String)]) -> Result<Self, Vec<(String, ConditionProblem)>> {
        let known: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        let (mut problems, mut uses) = (Vec::new(), Vec::new());
        for (name, source) in names {
            uses.push(on_large_stack(source, || used(name, source, &known)).unwrap_or_else(|problem| {
                problems.push((name.clone(), problem));
                Vec::new()
            }));
        }
        let circles = uses.iter().enumerate().flat_map(|(at, uses)| uses.iter().map(move |it| (at, it)));
        let circles = circles.filter(|(at, (used, _))| leads(&uses, *used, *at, &mut vec![false; names.len()]));
        problems.extend(circles.map(|(at, (_, problem))| (names[at].0.clone(), problem.clone())));
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut builder = Self { sources: names.to_vec(), ..Self::default() };
        let mut is_done = vec![false; names.len()];
        // Without circles, each round finds a name whose own names are all there.
        while let Some(at) =
            (0..names.len()).find(|at| !is_done[*at] && uses[*at].iter().all(|(used, _)| is_done[*used]))
        {
            is_done[at] = true;
            let (name, source) = &names[at];
            let compiled =
                on_large_stack(source, || Ok(compile::compile(&python::parse(source)?, &mut builder.tables).ok()));
            let compiled = compiled.ok().flatten().map(|(node, depth)| {
                builder.names.push(node);
                (builder.names.len() - 1, depth)
            });
            builder.tables.names.push(SharedName { name: name.clone(), compiled });
        }
        Ok(builder)
    }
}

/// Returns the names that an expression uses.
fn used(name: &str, source: &str, known: &[&str]) -> Result<Vec<Use>, ConditionProblem> {
    if !names::is_free(name) {
        let hint = Some("a name begins with a letter, and is none that expressions know already");
        return Err(ConditionProblem::at(source, 0, format!("`{name}` cannot be a name"), hint));
    }
    if language(source) == Language::Rhai {
        return Err(ConditionProblem::at(source, 0, "a name stands for a Python expression", None));
    }
    let parsed = python::parse(source)?;
    let uses = names::check(&parsed, known)?.into_iter().filter_map(|(used, at)| {
        let message = format!("the name `{name}` needs itself, through `{used}`");
        Some((known.iter().position(|known| *known == used)?, parsed.problem(at, message, None)))
    });
    Ok(uses.collect())
}

/// Tells whether one name needs another, or is that itself.
fn leads(uses: &[Vec<Use>], from: usize, to: usize, seen: &mut Vec<bool>) -> bool {
    let is_new = !std::mem::replace(&mut seen[from], true);
    from == to || is_new && uses[from].iter().any(|(used, _)| leads(uses, *used, to, seen))
}

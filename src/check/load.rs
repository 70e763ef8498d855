//! Loading of a configuration: the text of a file becomes a checked [`Config`], or the report of everything that is wrong.

use super::outline::EndpointOutline;
use super::validator::{self, Compile};
use crate::config::document::Document;
use crate::config::{Config, Position, Problem, Report, Severity, environment, fit, unsupported};
use crate::routing::condition::ConditionsBuilder;

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct CheckedConfig {
    /// The configuration itself.
    pub config: Config,
    /// Warnings about keys that hardly mean what their author wanted.
    pub warnings: Report,
    /// Summary of the endpoints, in words that may be printed.
    pub outline: Vec<EndpointOutline>,
    /// The file itself, with the place of every value.
    pub(super) document: Document,
}

/// Reads and checks the bytes of a file, with the variables of this process. An `Err` content says why the file cannot
/// be read.
pub(super) fn load_bytes(content: Result<&[u8], &str>, name: &str) -> Result<CheckedConfig, Report> {
    let refused = |problem| Report::new(name, vec![problem]);
    let bytes = content.map_err(|error| {
        let problem = Problem::error(None, "", format!("cannot be read: {error}"));
        refused(problem.with_help("give the path of a configuration file with --config"))
    })?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        refused(Problem::error(Position { line, column }, "", "not UTF-8 from here on").with_help("save it as UTF-8"))
    })?;
    parse(text, name, &environment)
}

/// Reads and checks the text of a file. `env` gives the values of variables.
pub fn parse(text: &str, file_name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<CheckedConfig, Report> {
    parse_with(text, file_name, env, &ConditionsBuilder::check)
}

pub(super) fn parse_with(
    text: &str,
    file_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
    compile: Compile<'_>,
) -> Result<CheckedConfig, Report> {
    let (document, mut problems) = Document::parse(text, env);
    let Some(mut document) = document else {
        return Err(Report::new(file_name, problems));
    };
    problems.extend(unsupported::check(&document));
    let config = fit::fit(&mut document, &mut problems);
    let outline = config.as_ref().map(|config| validator::check(config, &document, compile, &mut problems));
    let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
    let report = Report::new(file_name, problems);
    match (config, outline) {
        (Some(config), Some(outline)) if !failed => Ok(CheckedConfig { config, warnings: report, outline, document }),
        _ => Err(report),
    }
}

//! `signalbox check`: prints the problems of a config file, or a summary of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::failure::Failure;
use crate::check::{self, CheckedConfig, ExpressionOutline};
use crate::config::Report;

/// Examples of `signalbox check`.
pub(super) const EXAMPLES: &str = "\
Examples:
  signalbox check --config signalbox.yaml
  signalbox check --config config/reference.yaml    the file that documents every key

It says nothing about whether broker and models are there.";

/// Holds the arguments of `signalbox check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The config file; config/reference.yaml documents every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Prints a summary of the config, or every problem.
pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let loaded = check::load(&args.config).map_err(|report| Failure::usage(complaint(&report)))?;
    // A failed write is no error: a reader that has gone away has read enough.
    if !loaded.warnings.problems.is_empty() {
        let _ = writeln!(std::io::stderr(), "{}", loaded.warnings);
    }
    let _ = std::io::stdout().write_all(summary(&loaded).as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn complaint(report: &Report) -> String {
    let count = |count, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let errors = count(report.errors(), "error");
    match report.problems.len() - report.errors() {
        0 => format!("{report}\n{errors}"),
        warnings => format!("{report}\n{errors}, {}", count(warnings, "warning")),
    }
}

fn summary(loaded: &CheckedConfig) -> String {
    let mut text = format!("{}: valid\n", loaded.warnings.file);
    for endpoint in &loaded.outline {
        let plural = if endpoint.routes.len() == 1 { "" } else { "s" };
        let _ = writeln!(text, "endpoint {}: {} route{plural}", endpoint.name, endpoint.routes.len());
        for route in &endpoint.routes {
            let _ = writeln!(text, "  {}: {}", route.alias, route.model_uri);
            if let Some(condition) = &route.condition {
                let _ = writeln!(text, "    if {}", said(condition));
            }
        }
        for (key, expression) in &endpoint.expressions {
            let _ = writeln!(text, "  {key}: {}", said(expression));
        }
    }
    text
}

/// Writes an expression with the way in which it is evaluated, and what that costs.
fn said(ExpressionOutline { text, way, reason }: &ExpressionOutline) -> String {
    let reason = reason.as_ref().map(|reason| format!(", since {reason}")).unwrap_or_default();
    format!("{text} ({way}: {}{reason})", way.cost())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CheckedConfig, Report> {
        check::parse(text, "gateway.yaml", &|name| (name == "URI").then(|| "http://secret:8080".to_owned()))
    }

    #[test]
    fn summary_lists_endpoints_routes_and_languages() {
        let text = include_str!("../../config/gateway-conditional.yaml");
        let text = text.replace("\"models:/sentiment-model-fast/production\"", "${URI}");
        assert_eq!(
            summary(&parse(&text).unwrap()),
            "gateway.yaml: valid\n\
             endpoint sentiment-router: 2 routes\n  \
               fast: ${URI}\n  \
               accurate: models:/sentiment-model-accurate/production\n    \
                 if request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text') (compiled: microseconds)\n"
        );
    }

    #[test]
    fn complaint_counts_problems() {
        assert_eq!(
            complaint(&parse("model_endpoints: []").unwrap_err()),
            "gateway.yaml:1:18: model_endpoints: at least one endpoint is needed\n1 error"
        );
    }
}

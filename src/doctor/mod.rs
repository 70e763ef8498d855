//! The doctor: tries everything that a configuration needs, changes nothing, and says of each thing what is wrong with it
//! and what cures that.

mod broker;
mod finding;
mod models;
mod port;
mod topics;

use std::path::Path;

use tokio::task::spawn_blocking;

use crate::check::{self, CheckedConfig};
use crate::config::{Report, Severity};

use finding::count;
pub use finding::{Finding, Outcome};

/// Examines a config file and all that it needs: first the file itself, and then everything else side by side.
pub async fn examine(path: &Path) -> Vec<Finding> {
    let file = path.to_owned();
    // Conditions take time to compile, and tests of routes may start Python.
    let loaded = match spawn_blocking(move || check::load(&file)).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(report)) => return problems(&report),
        Err(lost) => return vec![Finding::failed("config", lost)],
    };
    let mut findings = vec![valid(&loaded)];
    findings.extend(problems(&loaded.warnings));
    let config = loaded.config.clone();
    let broker = async {
        let examined = spawn_blocking(move || broker::examine(&config)).await;
        examined.unwrap_or_else(|lost| vec![Finding::failed("broker", lost)])
    };
    let (broker, models, port) = tokio::join!(broker, models::examine(&loaded), port::examine(&loaded.config.server));
    findings.extend(broker);
    findings.extend(models);
    findings.push(port);
    findings
}

fn valid(loaded: &CheckedConfig) -> Finding {
    let routes = loaded.outline.iter().map(|endpoint| endpoint.routes.len()).sum();
    let endpoints = count(loaded.outline.len(), "endpoint");
    Finding::ok("config", format_args!("{} is valid: {endpoints}, {}", loaded.warnings.file, count(routes, "route")))
}

/// Makes a finding of each problem of a file.
fn problems(report: &Report) -> Vec<Finding> {
    let finding = |problem: &crate::config::Problem| {
        let gap = if problem.at.is_some() { "" } else { " " };
        let words = format!("{}:{gap}{problem}", report.file);
        match problem.severity {
            Severity::Error => Finding::failed("config", words),
            Severity::Warning => Finding::warning("config", words.replacen("warning: ", "", 1)),
        }
    };
    report.problems.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn findings(text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signalbox.yaml");
        std::fs::write(&path, text).unwrap();
        let shown = path.display().to_string();
        let findings = examine(&path).await;
        findings.iter().map(|finding| finding.to_string().replace(&shown, "signalbox.yaml")).collect()
    }

    #[tokio::test]
    async fn doctor_reports_each_problem_of_the_file_and_stops() {
        let found = findings("model_endpoints: [{name: a, routes: []}]\nserver: {port: x}\n").await;
        let expected = [
            "FAILED   config: signalbox.yaml:1:37: model_endpoints[0].routes: at least one route is needed",
            "FAILED   config: signalbox.yaml:2:16: server.port: expected a whole number from 0 to 65535, found 'x'",
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn doctor_is_content_when_nothing_is_needed() {
        let endpoint = "model_endpoints: [{name: a, routes: [{model_uri: builtin:noop, alias: b}]}]";
        let found = findings(&format!("{endpoint}\nserver: {{port: 0}}\n")).await;
        assert_eq!(found[0], "ok       config: signalbox.yaml is valid: 1 endpoint, 1 route");
        assert!(found.iter().all(|line| line.starts_with("ok ")), "{found:?}");
        assert!(found.iter().any(|line| line.contains("embedded")), "{found:?}");
    }

    #[tokio::test]
    async fn doctor_names_the_cure_when_port_or_broker_is_missing() {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = format!(
            "model_endpoints: [{{name: a, routes: [{{model_uri: builtin:noop, alias: b}}]}}]\nserver: {{port: {port}}}\n\
             kafka: {{bootstrap_servers: '127.0.0.1:9'}}\n"
        );
        let found = findings(&text).await;
        let line =
            |start: &str| found.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{found:?}"));
        assert!(line("FAILED   port: ").contains("choose another, or 0 for a free one"), "{found:?}");
        let broker = line("FAILED   broker: ");
        assert!(broker.contains("127.0.0.1:9") && broker.contains("kafka.bootstrap_servers"), "{broker}");
        assert!(line("warning  topics: ").contains("not tried"), "{found:?}");
    }
}

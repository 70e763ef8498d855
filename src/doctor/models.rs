//! The models: the registry, what each URI stands for, and the interpreters that are to hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::finding::Finding;
use crate::check::CheckedConfig;
use crate::config::{Config, EnvManager, Route, Runtime};
use crate::invocation::{http_client, root_cause};
use crate::message::wall_clock;
use crate::models::{EnvironmentFiles, ExaminedModel, Examiner, Interpreter, ModelTarget, ModelUri};
use crate::routing::condition::Way;

/// Longest wait for what one URI stands for. A registry that is read by MLflow's own client needs some of it to start.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Difference between two clocks from which on it is worth a word: deadlines are points in time.
const CLOCKS_APART: Duration = Duration::from_secs(2);

/// Questions: URIs, and the interpreters that are to hold the models.
#[derive(Default)]
struct Wanted {
    /// Models that a registry or a directory has, in the order of the file.
    hosted: Vec<ModelUri>,
    /// Servers at addresses.
    addresses: Vec<ModelUri>,
    /// Interpreters, each with the models that it holds in its own environment.
    interpreters: BTreeMap<String, BTreeSet<String>>,
}

/// Asks the registry, the servers and the interpreters.
pub(super) async fn examine(loaded: &CheckedConfig) -> Vec<Finding> {
    let config = &loaded.config;
    let needs_python = needs_python(loaded);
    let wanted = Wanted::of(config, needs_python);
    let addresses = join_all(wanted.addresses.iter().map(server));
    let (hosted, addresses) = tokio::join!(hosted(config, &wanted, needs_python), addresses);
    hosted.into_iter().chain(addresses).collect()
}

/// Tells whether Python evaluates some expression.
fn needs_python(loaded: &CheckedConfig) -> bool {
    let expressions = loaded.outline.iter().flat_map(|endpoint| {
        let conditions = endpoint.routes.iter().filter_map(|route| route.condition.as_ref());
        conditions.chain(endpoint.expressions.iter().map(|(_, expression)| expression))
    });
    expressions.into_iter().any(|expression| expression.way == Way::Python)
}

impl Wanted {
    fn of(config: &Config, needs_python: bool) -> Self {
        let mut wanted = Self::default();
        for route in config.model_endpoints.iter().flat_map(|endpoint| &endpoint.routes) {
            let python = route.python.as_ref().unwrap_or(&config.models.python);
            wanted.add(&route.model_uri, python, has_own_environment(route));
        }
        for uri in config.models.preload.iter().chain(&config.models.pin) {
            wanted.add(uri, &config.models.python, false);
        }
        if needs_python {
            wanted.interpreters.entry(config.models.python.clone()).or_default();
        }
        wanted
    }

    /// Adds a model, and the interpreter that is to hold it.
    fn add(&mut self, uri: &str, python: &str, has_own_environment: bool) {
        // A checked configuration has only URIs that can be parsed.
        let Ok(uri) = ModelUri::parse(uri) else { return };
        let list = match uri.target() {
            ModelTarget::Noop => return,
            ModelTarget::Address { .. } => &mut self.addresses,
            _ => {
                let models = self.interpreters.entry(python.to_owned()).or_default();
                if !has_own_environment {
                    models.insert(uri.text().to_string());
                }
                &mut self.hosted
            }
        };
        if !list.contains(&uri) {
            list.push(uri);
        }
    }
}

/// Tells whether MLflow makes an environment for the route's model, whatever its interpreter has.
fn has_own_environment(route: &Route) -> bool {
    route.runtime == Runtime::MlflowServe && route.env_manager != Some(EnvManager::Local)
}

/// Asks about all that is loaded here.
async fn hosted(config: &Config, wanted: &Wanted, needs_python: bool) -> Vec<Finding> {
    let is_of_registry = |uri: &&ModelUri| !matches!(uri.target(), ModelTarget::Directory { .. });
    let examiner = match Examiner::new(&config.models, &config.registry) {
        Ok(examiner) => examiner,
        Err(error) => return vec![Finding::failed("registry", error)],
    };
    let mut findings = Vec::new();
    let mut is_there = true;
    if wanted.hosted.iter().any(|uri| is_of_registry(&uri)) {
        findings.extend(registry(&examiner).await);
        is_there = findings.iter().all(|finding| finding.outcome != super::Outcome::Failed);
    }
    // Without a registry each of its models would say the same.
    let tried: Vec<_> = wanted.hosted.iter().filter(|uri| is_there || !is_of_registry(uri)).collect();
    if tried.len() < wanted.hosted.len() {
        findings.push(Finding::warning("models", "those of the registry are not tried, since it does not answer"));
    }
    let mut files: BTreeMap<String, EnvironmentFiles> = BTreeMap::new();
    for (uri, (finding, found)) in tried.iter().zip(join_all(tried.iter().map(|uri| model(&examiner, uri))).await) {
        findings.push(finding);
        files.extend(found.map(|found| (uri.text().to_string(), found)));
    }
    let interpreters = wanted.interpreters.iter().map(|(python, models)| {
        let models = models.iter().filter_map(|uri| files.get_key_value(uri)).collect();
        interpreter(python, models, needs_python && *python == config.models.python)
    });
    findings.extend(join_all(interpreters).await.into_iter().flatten());
    examiner.end().await;
    findings
}

/// Asks the registry, and compares its clock with this machine's.
async fn registry(examiner: &Examiner) -> Vec<Finding> {
    let address = examiner.address();
    match examiner.server().await {
        None => vec![Finding::ok("registry", format_args!("{address} is read by MLflow's own client, model by model"))],
        Some(Err(fault)) => vec![Finding::failed("registry", fault.message)],
        Some(Ok(server)) => {
            let mut findings = vec![Finding::ok("registry", format_args!("{address} answers"))];
            findings.extend(server.time.map(|time| clock(time, wall_clock())));
            findings
        }
    }
}

/// Compares the registry's clock, which tells whole seconds, with this machine's.
fn clock(theirs: SystemTime, ours: SystemTime) -> Finding {
    let (behind, ahead) = (theirs.duration_since(ours), ours.duration_since(theirs));
    let (apart, word) = match (behind, ahead) {
        (Ok(apart), _) => (apart, "behind"),
        (_, Ok(apart)) => (apart.saturating_sub(Duration::from_secs(1)), "ahead of"),
        _ => (Duration::ZERO, "behind"),
    };
    let seconds = apart.as_secs_f64();
    if apart <= CLOCKS_APART {
        return Finding::ok("clock", "this machine's and the registry's show the same time");
    }
    let found = format!(
        "this machine's is {seconds:.0} s {word} the registry's; requests have deadlines by the clock of their sender, so \
         set both by NTP"
    );
    Finding::warning("clock", found)
}

/// Finds what a URI stands for, and the files that say what it asks for.
async fn model(examiner: &Examiner, uri: &ModelUri) -> (Finding, Option<EnvironmentFiles>) {
    let what = format!("model {}", crate::models::redacted(uri.text()));
    match timeout(TIMEOUT, examiner.model(uri)).await {
        Ok(Ok(Some(ExaminedModel { name, files: Some(files) }))) => {
            (Finding::ok(what, format_args!("is {name}")), Some(files))
        }
        Ok(Ok(found)) => {
            let name = found.map(|found| found.name).unwrap_or_default();
            let words =
                format!("is {name}; its requirements are not compared, since they can only be had by a download");
            (Finding::ok(what, words), None)
        }
        Ok(Err(fault)) => (Finding::failed(what, fault.message), None),
        Err(_) => (Finding::failed(what, format_args!("no answer within {} s", TIMEOUT.as_secs())), None),
    }
}

/// Starts an interpreter, and compares what it has with what the models ask for.
async fn interpreter(python: &str, models: Vec<(&String, &EnvironmentFiles)>, evaluates: bool) -> Vec<Finding> {
    let what = format!("interpreter {python}");
    let files: Vec<_> = models.iter().map(|(_, files)| (*files).clone()).collect();
    let found = match Interpreter::examine(python, &files).await {
        Ok(found) => found,
        Err(error) => return vec![Finding::failed(what, error)],
    };
    let mut findings = vec![Finding::ok(&*what, format_args!("Python {}, MLflow {}", found.python, found.mlflow()))];
    if evaluates && found.flask.is_none() {
        let words = format!("has no Flask, which conditions need; install it: {python} -m pip install flask");
        findings.push(Finding::failed(&*what, words));
    }
    for ((uri, _), unmet) in models.iter().zip(&found.unmet) {
        let what = format!("requirements of {uri}");
        findings.push(match &unmet[..] {
            [] => Finding::ok(what, format_args!("{python} meets them")),
            unmet => Finding::warning(
                what,
                format_args!(
                    "{python} does not meet them: {}; install these there, name another interpreter (`python` of the \
                     route), or let MLflow make the environment (`runtime: mlflow_serve`)",
                    unmet.join(", ")
                ),
            ),
        });
    }
    findings
}

/// Asks a server at an address whether it is there. Any answer will do: not every server knows `/ping`.
async fn server(uri: &ModelUri) -> Finding {
    let what = format!("model {}", crate::models::redacted(uri.text()));
    let ModelTarget::Address { invocations } = uri.target() else { return Finding::ok(what, "is no address") };
    let mut ping = invocations.clone();
    if let Ok(mut segments) = ping.path_segments_mut() {
        segments.pop().push("ping");
    }
    let client = match http_client(&ping).timeout(Duration::from_secs(5)).build() {
        Ok(client) => client,
        Err(error) => return Finding::failed(what, root_cause(&error)),
    };
    match client.get(ping).send().await {
        Ok(answer) if answer.status().is_server_error() => {
            Finding::warning(what, format_args!("answers GET /ping with {}; look at its log", answer.status()))
        }
        Ok(_) => Finding::ok(what, "answers"),
        Err(error) => Finding::failed(
            what,
            format_args!("cannot be reached: {}; start it, or correct the route's model_uri", root_cause(&error)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn clock_is_wrong_when_far_from_the_registrys() {
        for (theirs, ours, outcome, words) in [
            (100, 100, Outcome::Ok, "same time"),
            (100, 103, Outcome::Ok, "same time"),
            (100, 160, Outcome::Warning, "59 s ahead of"),
            (160, 100, Outcome::Warning, "60 s behind"),
        ] {
            let finding = clock(at(theirs), at(ours));
            assert_eq!(finding.outcome, outcome, "{finding}");
            assert!(finding.found.contains(words), "{finding}");
        }
    }

    #[test]
    fn wanted_lists_each_model_once_with_its_interpreter() {
        let text = "model_endpoints:
  - name: a
    routes:
      - {model_uri: 'models:/m/1', alias: one}
      - {model_uri: 'models:/m/1', alias: two, python: other/python, model_request_condition: \"request.key == 'a'\"}
      - {model_uri: 'models:/n/1', alias: three, runtime: mlflow_serve, model_request_condition: \"request.key == 'b'\"}
      - {model_uri: 'http://127.0.0.1:1', alias: four, model_request_condition: \"request.key == 'c'\"}
      - {model_uri: 'builtin:noop', alias: five, model_request_condition: \"request.key == 'd'\"}
models: {python: usual/python, pin: ['models:/m/1']}
";
        let loaded = crate::check::parse(text, "gateway.yaml", &|_| None).unwrap();
        assert!(!needs_python(&loaded));
        let wanted = Wanted::of(&loaded.config, true);
        let texts = |uris: &[ModelUri]| uris.iter().map(|uri| uri.text().to_string()).collect::<Vec<_>>();
        assert_eq!(texts(&wanted.hosted), ["models:/m/1", "models:/n/1"]);
        assert_eq!(texts(&wanted.addresses), ["http://127.0.0.1:1"]);
        let interpreters: Vec<_> =
            wanted.interpreters.iter().map(|(python, models)| (&**python, models.len())).collect();
        assert_eq!(interpreters, [("other/python", 1), ("usual/python", 1)]);
    }
}

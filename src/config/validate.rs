//! What the types cannot say: names that are taken, lists that are empty, patterns and conditions that do not compile.

mod batch;
mod canary;
mod decision;
mod kafka;
mod recovery;
mod route_tests;
mod shares;

use std::collections::HashMap;
use std::time::Duration;

pub(crate) use kafka::is_topic;

use super::document::{Content, Document, Found, Step};
use super::report::{Problem, Severity};
use super::{Config, Endpoint, MOST_THREADS, Route, Runtime, Strategy};
use crate::models::{ModelUri, Target};
use crate::routing::condition::{self, ConditionProblem, Language};

/// The checks that belong to other parts of Signalbox.
pub(super) struct Checks<'a> {
    /// Why a text is no model URI.
    pub(super) model_uri: &'a dyn Fn(&str) -> Result<(), String>,
    /// The language a condition is read as, or why it does not compile.
    pub(super) condition: &'a dyn Fn(&str) -> Result<Language, ConditionProblem>,
    /// The same of an expression whose value is wanted.
    pub(super) expression: &'a dyn Fn(&str) -> Result<Language, ConditionProblem>,
}

/// An endpoint in words that may be printed: with `${NAME}` where the environment gave the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointOutline {
    /// Its name.
    pub name: String,
    /// In the order of the file.
    pub routes: Vec<RouteOutline>,
}

/// A route in words that may be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteOutline {
    /// What people call it.
    pub alias: String,
    /// What answers.
    pub model_uri: String,
    /// The language its condition is read as, and the condition.
    pub condition: Option<(Language, String)>,
}

/// Adds a problem for everything that is wrong with what could be read.
pub(super) fn check(
    config: &Config,
    document: &Document,
    checks: &Checks<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<EndpointOutline> {
    let mut validator = Validator { document, checks, problems };
    validator.kafka(&config.kafka);
    validator.others(config);
    let outlines = validator.endpoints(&config.model_endpoints);
    validator.route_tests(config);
    // Not before: a condition that could not be read would count as none here.
    if validator.problems.iter().all(|problem| problem.severity == Severity::Warning) {
        for (index, endpoint) in config.model_endpoints.iter().enumerate() {
            validator.unreachable(endpoint, &At::default().key("model_endpoints").index(index).key("routes"));
        }
        validator.try_route_tests(config);
    }
    outlines
}

/// The way to a key.
#[derive(Clone, Default)]
struct At(Vec<Step>);

impl At {
    fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

struct Validator<'a> {
    document: &'a Document,
    checks: &'a Checks<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Validator<'_> {
    fn found(&self, at: &At) -> Found<'_> {
        self.document.find(&at.0)
    }

    /// A value as a message may show it.
    fn shown(&self, at: &At, value: &str) -> String {
        self.found(at).node.map_or_else(|| format!("'{value}'"), |node| node.shown())
    }

    /// A value as the outline may show it.
    fn written(&self, at: &At, value: &str) -> String {
        match self.found(at).node.map(|node| &node.content) {
            Some(Content::Scalar(scalar)) if scalar.secret => scalar.written.clone(),
            _ => value.to_owned(),
        }
    }

    /// What a check says about a value, unless its words could repeat a secret.
    fn words(&self, at: &At, words: &str) -> String {
        match self.found(at).node.is_some_and(|node| node.is_secret()) {
            true => "not shown, since it may repeat a value of the environment".to_owned(),
            false => words.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    fn add(&mut self, at: &At, severity: Severity, message: impl Into<String>, help: &str) {
        let found = self.found(at);
        // What only stands in for a missing value has been reported as missing.
        if found.blank {
            return;
        }
        let mut problem = Problem::error(found.at, found.path, message);
        problem.severity = severity;
        problem.help = (!help.is_empty()).then(|| help.to_owned());
        self.problems.push(problem);
    }

    fn error(&mut self, at: &At, message: impl Into<String>, help: &str) {
        self.add(at, Severity::Error, message, help);
    }

    fn require(&mut self, holds: bool, at: &At, message: &str) {
        if !holds {
            self.error(at, message, "");
        }
    }

    fn positive(&mut self, duration: Duration, at: &At) {
        self.require(!duration.is_zero(), at, "must be more than nothing");
    }

    fn endpoints(&mut self, endpoints: &[Endpoint]) -> Vec<EndpointOutline> {
        let at = At::default().key("model_endpoints");
        self.require(!endpoints.is_empty(), &at, "at least one endpoint is needed");
        self.unique(endpoints.iter().enumerate().map(|(index, it)| (at.index(index).key("name"), it.name.as_str())));
        endpoints.iter().enumerate().map(|(index, endpoint)| self.endpoint(endpoint, &at.index(index))).collect()
    }

    fn endpoint(&mut self, endpoint: &Endpoint, at: &At) -> EndpointOutline {
        let name_at = at.key("name");
        if !is_name(&endpoint.name) {
            let message = format!("{} is not a name", self.shown(&name_at, &endpoint.name));
            self.error(&name_at, message, "letters, digits, '-', '_' and '.'");
        }
        self.positive(endpoint.timeout, &at.key("timeout"));
        let routes_at = at.key("routes");
        let routes = &endpoint.routes;
        self.require(!routes.is_empty(), &routes_at, "at least one route is needed");
        self.unique(
            routes.iter().enumerate().map(|(index, it)| (routes_at.index(index).key("alias"), it.alias.as_str())),
        );
        let outlines =
            routes.iter().enumerate().map(|(index, route)| self.route(endpoint, route, &routes_at.index(index)));
        let outlines = outlines.collect();
        self.shares(endpoint, at);
        self.fallback_circles(endpoint, &routes_at);
        if let Some(decision) = &endpoint.decision {
            self.decision(decision, &at.key("decision"));
        }
        EndpointOutline { routes: outlines, name: self.written(&name_at, &endpoint.name) }
    }

    fn route(&mut self, endpoint: &Endpoint, route: &Route, at: &At) -> RouteOutline {
        let (alias_at, uri_at) = (at.key("alias"), at.key("model_uri"));
        if route.alias.trim().is_empty() || route.alias.chars().any(char::is_control) {
            self.error(&alias_at, "an alias needs at least one character, and no control characters", "");
        }
        self.model_uri(&route.model_uri, &uri_at);
        let condition_at = at.key("model_request_condition");
        let condition = route.model_request_condition.as_ref().and_then(|condition| {
            Some((self.condition(condition, &condition_at)?, self.written(&condition_at, condition)))
        });
        for (key, target) in [("fallback", &route.fallback), ("shadow", &route.shadow)] {
            let Some(target) = target else { continue };
            let (aliases, key_at) = (endpoint.routes.iter().map(|it| it.alias.as_str()), at.key(key));
            if *target == route.alias {
                self.error(&key_at, "a route cannot be its own", "name another route of this endpoint");
            } else if !aliases.clone().any(|alias| alias == target) {
                let help = format!("routes of this endpoint: {}", self.aliases(endpoint, at));
                let message = format!("no route has the alias {}", self.shown(&key_at, target));
                self.error(&key_at, message, &help);
            }
        }
        self.recovery(endpoint, route, at);
        self.require(route.max_concurrency != Some(0), &at.key("max_concurrency"), "must be at least 1");
        if is_served_elsewhere(&route.model_uri) {
            self.not_hosted(route, at);
        } else {
            self.hosting(route, at);
        }
        self.canary(endpoint, route, at);
        self.batching(route, &at.key("batch"));
        let (alias, model_uri) = (self.written(&alias_at, &route.alias), self.written(&uri_at, &route.model_uri));
        RouteOutline { alias, model_uri, condition }
    }

    /// Nothing is loaded here for it, so that these keys can mean nothing.
    fn not_hosted(&mut self, route: &Route, at: &At) {
        for (key, is_given) in [
            ("python", route.python.is_some()),
            ("runtime", route.runtime == Runtime::MlflowServe),
            ("env_manager", route.env_manager.is_some()),
            ("workers", route.workers.is_some()),
            ("threads", route.threads.is_some()),
        ] {
            if is_given {
                self.error(&at.key(key), "no process is started for what is served elsewhere", "leave it out");
            }
        }
    }

    /// How a model is hosted that is loaded here.
    fn hosting(&mut self, route: &Route, at: &At) {
        self.require(route.python.as_deref() != Some(""), &at.key("python"), "must name an interpreter");
        self.require(route.workers != Some(0), &at.key("workers"), "must be at least 1");
        let are_threads = route.threads.is_none_or(|threads| (1..=MOST_THREADS).contains(&threads));
        self.require(are_threads, &at.key("threads"), &format!("must be from 1 to {MOST_THREADS}"));
        let (workers, threads) = (route.workers.unwrap_or(1), route.threads.unwrap_or(1));
        let places = workers.saturating_mul(threads);
        if route.runtime == Runtime::Forked && places > 0 && route.max_concurrency.is_some_and(|calls| calls > places) {
            let (message, help) = if threads == 1 {
                let message = format!("a worker takes one call at a time, and there {}", plural(workers));
                (message, "set workers to as many, or leave it out")
            } else {
                let message = format!("workers and threads take {places} calls at a time");
                (message, "set threads or workers to more, or leave it out")
            };
            self.add(&at.key("max_concurrency"), Severity::Warning, message, help);
        }
        match route.runtime {
            Runtime::Forked if route.env_manager.is_some() => self.error(
                &at.key("env_manager"),
                "a forked host has its interpreter's environment",
                "leave it out, or add `runtime: mlflow_serve`",
            ),
            Runtime::MlflowServe if route.workers.is_some() => self.error(
                &at.key("workers"),
                "`mlflow models serve` is one process",
                "leave it out, or take `runtime: forked`",
            ),
            Runtime::MlflowServe if route.threads.is_some() => self.error(
                &at.key("threads"),
                "`mlflow models serve` has threads of its own",
                "use max_concurrency, or take `runtime: forked`",
            ),
            Runtime::Forked | Runtime::MlflowServe => {}
        }
    }

    /// The aliases of a route's endpoint, as a message may show them.
    fn aliases(&self, endpoint: &Endpoint, route_at: &At) -> String {
        let routes_at = At(route_at.0.split_last().map_or_else(Vec::new, |(_, routes)| routes.to_vec()));
        let aliases = endpoint.routes.iter().enumerate();
        aliases
            .map(|(index, route)| self.written(&routes_at.index(index).key("alias"), &route.alias))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn model_uri(&mut self, uri: &str, at: &At) {
        if let Err(words) = (self.checks.model_uri)(uri) {
            // Without the value: an address may hold a password.
            self.error(at, format!("not a model URI: {}", self.words(at, &words)), "");
        }
    }

    fn condition(&mut self, condition: &str, at: &At) -> Option<Language> {
        let compiled = (self.checks.condition)(condition);
        self.compiled(compiled, "condition", at)
    }

    /// Which language an expression of the user's is read as, or the place where it is flawed.
    fn compiled(&mut self, compiled: Result<Language, ConditionProblem>, what: &str, at: &At) -> Option<Language> {
        match compiled {
            Ok(language) => Some(language),
            Err(flaw) => {
                let (found, words) = (self.found(at), self.words(at, &flaw.message));
                let place = found.node.map_or(found.at, |node| self.document.place_in(node, flaw.line, flaw.column));
                let mut problem = Problem::error(place, found.path, format!("the {what} does not compile: {words}"));
                problem.help = flaw.hint.map(|hint| self.words(at, &hint));
                self.problems.push(problem);
                None
            }
        }
    }

    /// Warns of routes that no request can take.
    fn unreachable(&mut self, endpoint: &Endpoint, routes_at: &At) {
        if endpoint.strategy != Strategy::First || endpoint.decision.is_some() || endpoint.route_override {
            return;
        }
        let named = |alias: &String| {
            endpoint.routes.iter().any(|it| it.fallback.as_ref() == Some(alias) || it.shadow.as_ref() == Some(alias))
        };
        let mut seen: HashMap<Option<&str>, usize> = HashMap::new();
        for (index, route) in endpoint.routes.iter().enumerate() {
            if route.canary.is_some() {
                continue;
            }
            let condition = route.model_request_condition.as_deref();
            let Some(first) = seen.get(&condition) else {
                seen.insert(condition, index);
                continue;
            };
            if named(&route.alias) {
                continue;
            }
            let first = self.found(&routes_at.index(*first)).path;
            let (message, help) = match condition {
                None => (
                    format!("no request can take this route: {first} has no condition either and comes first"),
                    "give it a model_request_condition, or remove it",
                ),
                Some(_) => (
                    format!("no request can take this route: {first} has the same condition and comes first"),
                    "change its condition, or remove it",
                ),
            };
            self.add(&routes_at.index(index), Severity::Warning, message, help);
        }
    }

    /// Each name may be given once.
    fn unique<'n>(&mut self, names: impl Iterator<Item = (At, &'n str)>) {
        let mut seen: HashMap<&str, At> = HashMap::new();
        for (at, name) in names {
            let Some(first) = seen.get(name) else {
                seen.insert(name, at);
                continue;
            };
            let first = self.found(first);
            let help = format!("{} in line {} has it already", first.path, first.at.line);
            let message = format!("duplicate name {}", self.shown(&at, name));
            self.error(&at, message, &help);
        }
    }

    fn others(&mut self, config: &Config) {
        let (server, registry, models) =
            (At::default().key("server"), At::default().key("registry"), At::default().key("models"));
        self.require(config.server.max_body.as_u64() >= 1, &server.key("max_body"), "must be at least 1");
        let max_value = config.kafka.limits.value;
        if config.server.max_body > max_value {
            let message = format!("a body is the value of a record, of which kafka.limits.value allows {max_value}");
            self.error(&server.key("max_body"), message, "lower it, or raise kafka.limits.value");
        }
        self.require(config.server.max_pending >= 1, &server.key("max_pending"), "must be at least 1");
        let partition = config.server.reply_partition;
        self.require(partition.is_none_or(|it| it >= 0), &server.key("reply_partition"), "must be 0 or more");
        if let Some(uri) = &config.registry.tracking_uri
            && !is_tracking_uri(uri)
        {
            let at = registry.key("tracking_uri");
            // Without the value: an address may hold a password.
            let help = "such as http://127.0.0.1:5001, sqlite:////srv/mlflow.db, /srv/mlruns or databricks";
            self.error(&at, "not a tracking URI of MLflow", help);
        }
        self.positive(config.registry.refresh, &registry.key("refresh"));
        self.require(!config.models.python.is_empty(), &models.key("python"), "must name an interpreter");
        self.positive(config.models.load_timeout, &models.key("load_timeout"));
        let some_memory = config.models.memory_limit.is_none_or(|limit| limit.as_u64() > 0);
        self.require(some_memory, &models.key("memory_limit"), "must be more than nothing");
        self.require(config.models.concurrent_loads >= 1, &models.key("concurrent_loads"), "must be at least 1");
        for (key, uris) in [("preload", &config.models.preload), ("pin", &config.models.pin)] {
            for (index, uri) in uris.iter().enumerate() {
                let at = models.key(key).index(index);
                self.model_uri(uri, &at);
                if is_served_elsewhere(uri) {
                    self.error(&at, "nothing is loaded for what is served elsewhere", "leave it out");
                }
            }
        }
    }
}

/// At an address, or by what is built in.
fn is_served_elsewhere(model_uri: &str) -> bool {
    ModelUri::parse(model_uri).is_ok_and(|uri| matches!(uri.target(), Target::Address { .. } | Target::Noop))
}

fn plural(workers: usize) -> String {
    if workers == 1 { "is 1".to_owned() } else { format!("are {workers}") }
}

/// MLflow takes a text without a scheme for a directory, or for the name of a plugin such as `databricks`.
fn is_tracking_uri(text: &str) -> bool {
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url.has_host(),
        Ok(_) => true,
        Err(_) => !text.is_empty() && !text.contains("://"),
    }
}

/// `.` and `..` are taken out of the paths of URLs, so they cannot be names.
fn is_name(text: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    !matches!(text, "" | "." | "..") && text.chars().all(fits)
}

impl Default for Checks<'_> {
    fn default() -> Self {
        Self { model_uri: &model_uri, condition: &condition::check, expression: &condition::check_expression }
    }
}

fn model_uri(text: &str) -> Result<(), String> {
    ModelUri::parse(text).map(|_| ()).map_err(|error| error.problem)
}

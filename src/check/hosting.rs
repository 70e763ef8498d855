//! Checks of the keys that say how a route's model is hosted: `python`, `runtime`, `env_manager`, `workers`, `threads`.

use super::validator::{KeyPath, Validator};
use crate::config::{MOST_THREADS, Route, Runtime, Severity};

impl Validator<'_> {
    /// Reports keys of hosts on a route whose model is served elsewhere: nothing is loaded for it, so these keys can
    /// mean nothing.
    pub(super) fn not_hosted(&mut self, route: &Route, at: &KeyPath) {
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

    /// Checks the keys of a host, for a model that is loaded here.
    pub(super) fn hosting(&mut self, route: &Route, at: &KeyPath) {
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
}

fn plural(workers: usize) -> String {
    if workers == 1 { "is 1".to_owned() } else { format!("are {workers}") }
}

//! The template process of each interpreter.

use parking_lot::Mutex;
use std::collections::HashMap;

use super::background::Background;
use super::host::{Template, TemplateSpec};
use crate::config;

/// Keeps one template per Python interpreter; hosts and MLflow's client are forked from these.
#[derive(Debug)]
pub(super) struct Templates {
    imports: config::Template,
    environment: Vec<(String, String)>,
    /// Bytes of its own that a host may fill with data; beyond them the model gets a `MemoryError`.
    data_limit: Option<u64>,
    background: Background,
    by_python: Mutex<HashMap<String, Template>>,
}

impl Templates {
    /// Builds an empty set; a template's process starts with its first fork.
    pub(super) fn new(
        imports: config::Template,
        environment: Vec<(String, String)>,
        data_limit: Option<u64>,
        background: Background,
    ) -> Self {
        Self { imports, environment, data_limit, background, by_python: Mutex::default() }
    }

    /// Returns the template of an interpreter, which is made on first use.
    pub(super) fn get(&self, python: &str) -> Template {
        let mut templates = self.by_python.lock();
        let template = templates.entry(python.to_owned()).or_insert_with(|| {
            Template::new(self.spec(python), self.background.tasks.clone(), &self.background.closing)
        });
        template.clone()
    }

    fn spec(&self, python: &str) -> TemplateSpec {
        TemplateSpec {
            python: python.to_owned(),
            libraries: self.imports.libraries.clone(),
            exclude: self.imports.exclude.clone(),
            environment: self.environment.clone(),
            data_limit: self.data_limit,
        }
    }
}

//! The template process of each interpreter.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

use super::background::Background;
use super::host::{Template, TemplateSpec};

/// Keeps one template per Python interpreter; hosts and MLflow's client are forked from these.
#[derive(Debug)]
pub(super) struct Templates {
    /// The configuration of each, but for its interpreter.
    spec: TemplateSpec,
    background: Background,
    by_python: Mutex<HashMap<String, Arc<Template>>>,
}

impl Templates {
    /// Builds an empty set; a template's process starts with its first fork.
    pub(super) fn new(spec: TemplateSpec, background: Background) -> Self {
        Self { spec, background, by_python: Mutex::default() }
    }

    /// Returns the template of an interpreter, which is made on first use.
    pub(super) fn get(&self, python: &str) -> Arc<Template> {
        let mut templates = self.by_python.lock();
        let template = templates.entry(python.to_owned()).or_insert_with(|| {
            let spec = TemplateSpec { python: python.to_owned(), ..self.spec.clone() };
            Template::new(spec, self.background.tasks.clone(), &self.background.closing)
        });
        Arc::clone(template)
    }
}

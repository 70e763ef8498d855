//! What each stage and alias of a model stands for at one moment.

use std::sync::Arc;

use super::question::Model;
use crate::models::uri::Pick;

/// What each stage and alias of a registered model stood for when the registry was asked.
#[derive(Debug)]
pub(in crate::models) struct Snapshot {
    /// The highest version of each stage, and that stage.
    stages: Vec<(u64, String)>,
    aliases: Vec<(String, String)>,
}

impl Snapshot {
    pub(super) fn of(model: Model) -> Self {
        let stages = model
            .latest_versions
            .into_iter()
            .filter_map(|found| Some((found.version.parse().ok()?, found.current_stage.unwrap_or_default())));
        let aliases = model.aliases.into_iter().map(|alias| (alias.alias, alias.version));
        Self { stages: stages.collect(), aliases: aliases.collect() }
    }

    /// The version that is picked now: the one that resolving the same would find, whether it is ready or not. A
    /// version that is named is taken at its word.
    pub(in crate::models) fn pick(&self, pick: &Pick) -> Option<Arc<str>> {
        let highest_where = |holds: &dyn Fn(&str) -> bool| {
            let versions = self.stages.iter().filter(|(_, stage)| holds(stage)).map(|(version, _)| *version);
            versions.max().map(|version| version.to_string().into())
        };
        match pick {
            Pick::Version(version) => Some(version.to_string().into()),
            Pick::Latest => highest_where(&|_| true),
            Pick::Stage(stage) => highest_where(&|found| found.eq_ignore_ascii_case(stage)),
            Pick::Alias(alias) => {
                self.aliases.iter().find(|(name, _)| name == alias).map(|(_, version)| version.as_str().into())
            }
        }
    }
}

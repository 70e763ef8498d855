//! Versions behind the picks of a registered model at one moment.

use std::collections::HashMap;

use super::call::{RegisteredModel, highest};
use super::registration::Registration;
use crate::models::uri::VersionPick;

/// Versions that the picks of a registered model stood for when the registry was asked.
#[derive(Debug, Default)]
pub(in crate::models) struct PickedVersions(HashMap<VersionPick, Registration>);

impl PickedVersions {
    /// Returns the version behind a pick: the one that resolving the same pick would find, whether it is ready or not.
    /// None when there is none, and for a pick that was not asked about.
    pub(in crate::models) fn pick(&self, pick: &VersionPick) -> Option<&Registration> {
        self.0.get(pick)
    }

    pub(super) fn put(&mut self, pick: VersionPick, found: Registration) {
        self.0.insert(pick, found);
    }
}

impl RegisteredModel {
    /// Returns the number of the picked version. A number in the pick itself is taken at its word.
    pub(super) fn number(&self, pick: &VersionPick) -> Option<String> {
        let highest_where = |holds: &dyn Fn(&str) -> bool| {
            let versions = self.latest_versions.iter();
            highest(versions.filter(|found| holds(found.current_stage.as_deref().unwrap_or_default())))
                .map(|found| found.version.clone())
        };
        match pick {
            VersionPick::Version(version) => Some(version.to_string()),
            VersionPick::Latest => highest_where(&|_| true),
            VersionPick::Stage(stage) => highest_where(&|found| found.eq_ignore_ascii_case(stage)),
            VersionPick::Alias(alias) => {
                self.aliases.iter().find(|known| known.alias == *alias).map(|known| known.version.clone())
            }
        }
    }

    /// Returns the registration of a version that the model lists; it lists only the highest of each stage.
    pub(super) fn registration(&self, number: &str) -> Option<Registration> {
        self.latest_versions.iter().find(|found| found.version == number).map(Registration::from)
    }
}

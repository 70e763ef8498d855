//! One registration of a model version: its number, and its provenance.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Registration of a model version. A model that is deleted and registered again begins at number 1 again, so a number
/// alone does not tell which version it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::models) struct Registration {
    /// The version's number, or the id of a logged model.
    pub version: Arc<str>,
    pub provenance: Provenance,
}

/// Provenance of a version, as far as its registry states it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::models) struct Provenance {
    /// The place of its files when it was registered.
    pub source: Option<String>,
    /// The run that made it.
    pub run_id: Option<String>,
    /// The time of its registration, in Unix milliseconds.
    pub created: Option<u64>,
}

impl Registration {
    /// Tells whether both are the same registration. Some registries say more when they are asked about one version
    /// than when they list several, so only fields that both have can tell them apart.
    pub(in crate::models) fn is(&self, other: &Self) -> bool {
        let (mine, others) = (&self.provenance, &other.provenance);
        self.version == other.version
            && agree(mine.source.as_ref(), others.source.as_ref())
            && agree(mine.run_id.as_ref(), others.run_id.as_ref())
            && agree(mine.created.as_ref(), others.created.as_ref())
    }
}

fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(version: &str, source: Option<&str>, run_id: Option<&str>, created: Option<u64>) -> Registration {
        let provenance = Provenance { source: source.map(str::to_owned), run_id: run_id.map(str::to_owned), created };
        Registration { version: version.into(), provenance }
    }

    #[test]
    fn registrations_differ_in_any_field_both_have() {
        let known = registration("1", Some("s3://a"), Some("r1"), Some(1));
        for other in [
            registration("2", Some("s3://a"), Some("r1"), Some(1)),
            registration("1", Some("s3://b"), Some("r1"), Some(1)),
            registration("1", Some("s3://a"), Some("r2"), Some(1)),
            registration("1", Some("s3://a"), Some("r1"), Some(2)),
            registration("1", None, None, Some(2)),
        ] {
            assert!(!known.is(&other) && !other.is(&known), "{other:?}");
        }
        for other in [
            known.clone(),
            registration("1", None, None, None),
            registration("1", None, Some("r1"), None),
            registration("1", None, None, Some(1)),
        ] {
            assert!(known.is(&other) && other.is(&known), "{other:?}");
        }
    }
}

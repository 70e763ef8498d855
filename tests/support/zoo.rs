//! Provides models of many kinds, and their payloads.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Mlflow, fresh_directory};

const REGISTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/zoo.py");

/// Registers the models in the shared registry, all of them or those that `SIGNALBOX_TEST_ZOO` names, at the first
/// call, and returns the file that says what they are asked (see `payloads.py`).
pub(crate) fn zoo() -> &'static Path {
    static PAYLOADS: OnceLock<PathBuf> = OnceLock::new();
    PAYLOADS.get_or_init(|| {
        let written = fresh_directory("zoo").join("payloads.json");
        let only = std::env::var("SIGNALBOX_TEST_ZOO").unwrap_or_default();
        let mut arguments = vec!["--payloads", written.to_str().unwrap()];
        if !only.is_empty() {
            arguments.push("--only");
            arguments.extend(only.split(','));
        }
        Mlflow::shared().register(REGISTER, &arguments);
        written
    })
}

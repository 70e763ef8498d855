//! Checks of `batch`.

use super::validator::{KeyPath, Validator};
use crate::config::{Batching, Route};
use crate::models::{ModelTarget, ModelUri};

impl Validator<'_> {
    /// Checks the limits of a batch.
    pub(super) fn batching(&mut self, route: &Route, at: &KeyPath) {
        let Some(Batching::On(batch)) = &route.batch else { return };
        if ModelUri::parse(&route.model_uri).is_ok_and(|uri| matches!(uri.target(), ModelTarget::Noop)) {
            self.error(at, "builtin:noop has nothing to gain from batches", "leave it out");
        }
        self.require(batch.max_rows >= 1, &at.key("max_rows"), "must be at least 1");
        self.require(batch.max_bytes.as_u64() >= 1, &at.key("max_bytes"), "must be at least 1");
        self.positive(batch.target_latency, &at.key("target_latency"));
    }
}

//! Checks of `decision`: the decision service, and the input that it gets.

use super::outline::ExpressionOutline;
use super::validator::{KeyPath, Validator};
use crate::config::Decision;

impl Validator<'_> {
    /// Checks everything below `decision`, and outlines its expressions.
    pub(super) fn decision(&mut self, decision: &Decision, at: &KeyPath) -> Vec<(String, ExpressionOutline)> {
        let url = reqwest::Url::parse(&decision.url);
        if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            // The message leaves out the value: an address may hold a password.
            self.error(
                &at.key("url"),
                "not an http(s):// address",
                "such as http://127.0.0.1:8181/v1/data/routing/route",
            );
        }
        self.positive(decision.timeout, &at.key("timeout"));
        if let Some(cache) = decision.cache {
            self.positive(cache, &at.key("cache"));
        }
        for (index, name) in decision.headers.iter().enumerate() {
            self.require(!name.trim().is_empty(), &at.key("headers").index(index), "must name a header");
        }
        let outlined = |(name, expression): (&String, &String)| {
            let outline = self.expression(expression, &at.key("values").key(name))?;
            Some((format!("decision.values.{name}"), outline))
        };
        decision.values.iter().filter_map(outlined).collect()
    }
}

//! Why a request goes where it goes: what `signalbox route` prints.

use std::sync::Arc;

use serde::Serialize;

use super::condition::Language;
use super::decide::Reason;
use super::table::Endpoint;
use crate::message::{Fault, Request};

/// A decision and everything that led to it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The endpoint.
    pub endpoint: Arc<str>,
    /// The alias of the chosen route, if there is one.
    pub route: Option<Arc<str>>,
    /// That route's model URI.
    pub model_uri: Option<Arc<str>>,
    /// Why that route; the fault's message when there is none.
    pub reason: String,
    /// The fault's code when there is no route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    /// What became of each condition that was evaluated, in order. Those after the first that holds are not.
    pub conditions: Vec<ConditionReport>,
}

/// What became of one condition.
#[derive(Debug, Clone, Serialize)]
pub struct ConditionReport {
    /// The alias of its route.
    pub route: Arc<str>,
    /// As it is written.
    pub condition: String,
    /// What it is written in.
    pub language: Language,
    /// Whether it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<bool>,
    /// Why that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Endpoint {
    /// Decides, and tells why.
    pub fn explain(&self, request: &Arc<Request>) -> Explanation {
        let mut conditions = Vec::new();
        let decision = self.decide_telling(request, |index, verdict| {
            let Some((route, condition)) =
                self.routes.get(index).and_then(|route| Some((route, route.condition.as_ref()?)))
            else {
                return;
            };
            conditions.push(ConditionReport {
                route: Arc::clone(&route.alias),
                condition: self.conditions.source(condition.id).to_owned(),
                language: self.conditions.language(condition.id),
                value: verdict.as_ref().ok().copied(),
                error: verdict.as_ref().err().map(ToString::to_string),
            });
        });
        match decision {
            Ok(decision) => {
                let route = self.routes.get(decision.route);
                Explanation {
                    endpoint: Arc::clone(&self.name),
                    route: route.map(|route| Arc::clone(&route.alias)),
                    model_uri: route.map(|route| Arc::clone(&route.model_uri)),
                    reason: decision.reason.describe().to_owned(),
                    error_code: None,
                    conditions,
                }
            }
            Err(fault) => Explanation { conditions, ..Explanation::of_fault(Arc::clone(&self.name), &fault) },
        }
    }
}

impl Explanation {
    /// Of a request that gets a fault instead of a route.
    pub fn of_fault(endpoint: Arc<str>, fault: &Fault) -> Self {
        Self {
            endpoint,
            route: None,
            model_uri: None,
            reason: fault.message.clone(),
            error_code: Some(fault.code.name()),
            conditions: Vec::new(),
        }
    }
}

impl Reason {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ConditionHolds => "its condition is the first that holds",
            Self::NoConditionHolds => "no condition holds, and it is the first route without one",
            Self::OnlyChoice => "it is the first route, and no route has a condition",
        }
    }
}

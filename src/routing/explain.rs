//! The explanation of a decision: what `signalbox route` prints.

use std::sync::Arc;

use serde::Serialize;

use super::condition::{Answers, ConditionError, Evaluation, Language, Parts, Value};
use super::decide::{Reason, RouteDecision};
use super::decision_service::DecisionService;
use super::split::{LoadReading, Split};
use super::sticky;
use super::table::{ConditionGroup, Endpoint};
use crate::config::Strategy;
use crate::message::{Deadline, Fault, Request};

/// Longest value of a part of a condition that is shown, in characters of its JSON.
const LONGEST_PART: usize = 200;

/// A decision and everything that led to it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Explanation {
    /// Name of the endpoint.
    pub endpoint: Arc<str>,
    /// Alias of the chosen route, if there is one.
    pub route: Option<Arc<str>>,
    /// Model URI of the chosen route.
    pub model_uri: Option<Arc<str>>,
    /// Reason for the route, in words; the fault's message when there is no route.
    pub reason: String,
    /// Code of the fault when there is no route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    /// The decision service, which decides first, where the endpoint has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionReport>,
    /// Result of each condition, in order. The first that holds decides; the others are shown all the same.
    pub conditions: Vec<ConditionReport>,
    /// Alias of the canary, which takes its share before the others. Only running instances know how much that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Arc<str>>,
    /// The split between the routes that share this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<SplitReport>,
    /// Aliases of the routes to try when the chosen one cannot answer, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Arc<str>>,
}

/// A decision service, and its answer for the request.
#[derive(Debug, Clone, Serialize)]
pub struct DecisionReport {
    /// Address of the service.
    pub service: String,
    /// Input that the service gets; none when it would be too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// True if the service was asked. If not, the rest of the explanation is what holds when the service names no
    /// route.
    pub asked: bool,
    /// Alias that the service named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Arc<str>>,
    /// Reason for which the service named no route, other than that it has no opinion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Result of one condition.
#[derive(Debug, Clone, Serialize)]
pub struct ConditionReport {
    /// Aliases of the routes with this condition.
    pub routes: Vec<Arc<str>>,
    /// Text of the condition.
    pub condition: String,
    /// Language of the condition.
    pub language: Language,
    /// True if the condition holds; none when that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<bool>,
    /// Error that kept the condition from being evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Parts of the condition with their values, once they are [shown](Self::show).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartReport>,
}

/// Value of a part of a condition.
#[derive(Debug, Clone, Serialize)]
pub struct PartReport {
    /// Text of the part.
    pub part: String,
    /// Value of the part, or the beginning of its JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// Error that kept the part from being evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Routes that share, and the draw that decided between them.
#[derive(Debug, Clone, Serialize)]
pub struct SplitReport {
    /// Strategy by which the routes share.
    pub strategy: Strategy,
    /// Routes that share, each with its part.
    pub routes: Vec<MemberReport>,
    /// The draw that decided.
    pub draw: Draw,
}

/// The part of one route in a split.
#[derive(Debug, Clone, Serialize)]
pub struct MemberReport {
    /// Alias of the route.
    pub route: Arc<str>,
    /// Share of the requests that the route takes, from 0 to 1, where that is fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Distance of the route from the caller, who belongs to the nearest. None without a caller, or without a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
}

/// The way in which a split decided between its routes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Draw {
    /// The caller decided, and always gets the same route.
    StickyBy {
        /// Expression that identifies the caller.
        expression: String,
        /// Value of the expression.
        value: serde_json::Value,
        /// Hash of the value.
        hash: String,
    },
    /// Chance decided, and may decide differently the next time.
    Chance {
        /// Reason for which the caller did not decide, if there is an expression for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        because: Option<String>,
    },
    /// The turn decided. In an explanation every route may be the next.
    Turn,
    /// The load decided. In an explanation no route has any.
    Load,
}

impl ConditionReport {
    /// Shows the values of the condition's parts.
    pub fn show(&mut self, parts: Vec<(String, Result<Value, ConditionError>)>) {
        self.parts = parts.into_iter().map(PartReport::of).collect();
    }
}

impl Endpoint {
    /// Compiles the parts of each condition, in the order of [`Explanation::conditions`].
    pub fn parts(&self) -> Vec<Parts> {
        self.groups.iter().map(|group| self.conditions.parts(group.condition)).collect()
    }

    /// Decides with what CPython said to the endpoint's question, and explains the decision.
    pub fn explain(&self, request: &Arc<Request>, answers: Option<&Arc<Answers>>) -> Explanation {
        let evaluation = self.conditions.evaluation(request, answers.cloned());
        let conditions = self.groups.iter().map(|group| self.report(group, &evaluation)).collect();
        let explanation = match self.decide_by_load(request, answers, |_| LoadReading::default()) {
            Ok(decision) => self.explanation_of(&decision, &evaluation),
            Err(fault) => Explanation::of_fault(Arc::clone(&self.name), &fault),
        };
        Explanation { conditions, decision: self.outside_report(request, &evaluation), ..explanation }
    }

    /// Decides after the decision service was asked, and explains the decision.
    pub async fn explain_asking(
        &self,
        request: &Arc<Request>,
        answers: Option<&Arc<Answers>>,
        outside: &Arc<DecisionService>,
    ) -> Explanation {
        let mut explanation = self.explain(request, answers);
        let Some(report) = &mut explanation.decision else { return explanation };
        report.asked = true;
        let decided = match outside.opinion(self, request, answers, Deadline::NONE).await {
            Ok(None) => return explanation,
            Ok(Some(route)) => {
                report.answer = Some(self.alias(route));
                let decision = RouteDecision::new(route, Reason::OutsideDecision);
                self.explanation_of(&decision, &self.conditions.evaluation(request, answers.cloned()))
            }
            Err(error) => {
                report.error = Some(error.to_string());
                let Some(fault) = outside.consequence(&error) else { return explanation };
                Explanation::of_fault(Arc::clone(&self.name), &fault)
            }
        };
        Explanation { decision: explanation.decision, conditions: explanation.conditions, ..decided }
    }

    /// Describes the decision service; none without a service, or when the request itself names its route.
    fn outside_report(&self, request: &Request, evaluation: &Evaluation) -> Option<DecisionReport> {
        let decision_input = self.decision_input.as_ref()?;
        if !matches!(self.overridden(request), Ok(None)) {
            return None;
        }
        let summary = self.summary(request, evaluation);
        Some(DecisionReport {
            service: decision_input.service.clone(),
            input: summary.as_ref().ok().and_then(|summary| {
                let mut whole: serde_json::Value = serde_json::from_slice(summary).ok()?;
                Some(whole["input"].take())
            }),
            asked: false,
            answer: None,
            error: summary.err().map(|error| error.to_string()),
        })
    }

    fn explanation_of(&self, decision: &RouteDecision, evaluation: &Evaluation) -> Explanation {
        let route = self.routes.get(decision.route);
        Explanation {
            endpoint: Arc::clone(&self.name),
            route: route.map(|route| Arc::clone(&route.alias)),
            model_uri: route.map(|route| Arc::clone(&route.model_uri)),
            reason: decision.reason.describe().to_owned(),
            canary: self.canary.as_ref().map(|canary| self.alias(canary.route)),
            shares: self.shares(decision, evaluation),
            fallbacks: self.fallbacks(decision.route),
            ..Explanation::default()
        }
    }

    fn report(&self, group: &ConditionGroup, evaluation: &Evaluation) -> ConditionReport {
        let verdict = evaluation.holds(group.condition);
        ConditionReport {
            routes: group.split.members().iter().map(|member| self.alias(member.route)).collect(),
            condition: self.conditions.source(group.condition).to_owned(),
            language: self.conditions.language(group.condition),
            value: verdict.as_ref().ok().copied(),
            error: verdict.as_ref().err().map(ToString::to_string),
            parts: Vec::new(),
        }
    }

    fn shares(&self, decision: &RouteDecision, evaluation: &Evaluation) -> Option<SplitReport> {
        let has = |split: &&Split| split.members().iter().any(|member| member.route == decision.route);
        let split = self.groups.iter().map(|group| &group.split).chain([&self.others]).find(has)?;
        let (draw, caller) = match decision.reason {
            Reason::Share | Reason::StickyShare => self.draw(evaluation),
            Reason::RoundRobin => (Draw::Turn, None),
            Reason::LeastLoaded => (Draw::Load, None),
            Reason::ConditionHolds
            | Reason::NoConditionHolds
            | Reason::OnlyChoice
            | Reason::Override
            | Reason::Canary
            | Reason::OutsideDecision => return None,
        };
        let members = split.members();
        let routes = members.iter().map(|member| MemberReport {
            route: self.alias(member.route),
            share: match split.strategy() {
                Strategy::Weighted => Some(member.share),
                Strategy::RoundRobin => Some(1.0 / members.len() as f64),
                Strategy::First | Strategy::LeastLoaded => None,
            },
            distance: caller.map(|caller| member.distance(caller)).filter(|distance| distance.is_finite()),
        });
        Some(SplitReport { strategy: split.strategy(), routes: routes.collect(), draw })
    }

    /// Returns the draw between weighted routes, and the hash of the caller.
    fn draw(&self, evaluation: &Evaluation) -> (Draw, Option<u64>) {
        let Some(sticky) = &self.sticky else { return (Draw::Chance { because: None }, None) };
        let hashed = evaluation
            .value(sticky.expression)
            .and_then(|value| Ok(sticky::hash_of(&value)?.map(|hash| (value, hash))));
        let chance = |because: String| (Draw::Chance { because: Some(because) }, None);
        match hashed {
            Ok(Some((value, hash))) => {
                let expression = self.conditions.expression(sticky.expression).to_owned();
                (Draw::StickyBy { expression, value: shown(&value), hash: format!("{hash:016x}") }, Some(hash))
            }
            Ok(None) => chance("sticky_by gives None".to_owned()),
            Err(error) => chance(format!("sticky_by fails: {error}")),
        }
    }

    /// Returns the chain of fallbacks of a route, up to the first that repeats.
    fn fallbacks(&self, route: usize) -> Vec<Arc<str>> {
        let mut tried = vec![route];
        while let Some(next) = tried.last().and_then(|last| self.routes.get(*last)?.fallback)
            && !tried.contains(&next)
        {
            tried.push(next);
        }
        tried[1..].iter().map(|route| self.alias(*route)).collect()
    }

    fn alias(&self, route: usize) -> Arc<str> {
        self.routes.get(route).map_or_else(|| "".into(), |route| Arc::clone(&route.alias))
    }
}

fn shown(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

impl PartReport {
    fn of((part, value): (String, Result<Value, ConditionError>)) -> Self {
        match value {
            Ok(value) => Self { part, value: Some(shortened(shown(&value))), error: None },
            Err(error) => Self { part, value: None, error: Some(error.to_string()) },
        }
    }
}

/// Keeps the beginning of a long value.
fn shortened(value: serde_json::Value) -> serde_json::Value {
    let json = value.to_string();
    match json.char_indices().nth(LONGEST_PART) {
        Some((end, _)) => format!("{}…", &json[..end]).into(),
        None => value,
    }
}

impl Explanation {
    /// Explains a request that gets a fault instead of a route.
    pub fn of_fault(endpoint: Arc<str>, fault: &Fault) -> Self {
        Self { endpoint, reason: fault.message.clone(), error_code: Some(fault.code.name()), ..Self::default() }
    }
}

impl Reason {
    /// Describes the reason in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ConditionHolds => "its condition is the first that holds",
            Self::NoConditionHolds => "no condition holds, and it is the first route without one",
            Self::OnlyChoice => "it is the first route, and no route has a condition",
            Self::Share => "it was drawn by chance, as often as its share says",
            Self::StickyShare => "among those that share, it is the nearest to this caller",
            Self::RoundRobin => "it is its turn",
            Self::LeastLoaded => "it has the least to do",
            Self::OutsideDecision => "the service that decides for the endpoint names it",
            Self::Override => "header 'x-signalbox-route' names it",
            Self::Canary => "it is a canary, and its share fell on it",
        }
    }
}

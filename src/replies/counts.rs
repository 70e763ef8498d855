//! Metrics of requests that have ended.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, IntCounter};
use tracing::error;

use super::publication::{FinishedRequest, Publication, reason};
use super::recourse::Form;
use crate::telemetry::{FaultKind, Metrics};
use rdkafka::error::RDKafkaErrorCode;

/// Counts requests by their end. Cheap to clone; labels are bound.
#[derive(Clone)]
pub(super) struct Counts {
    replies: IntCounter,
    faults: IntCounter,
    dead_letters: IntCounter,
    lost_faults: IntCounter,
    lost_requests: IntCounter,
    duration: Histogram,
    all: Metrics,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            replies: metrics.published.with_label_values(&["reply"]),
            faults: metrics.published.with_label_values(&["fault"]),
            dead_letters: metrics.published.with_label_values(&["dead_letter"]),
            // Their series exist from the first, so that an alert sees the first loss.
            lost_faults: metrics.lost.with_label_values(&["fault"]),
            lost_requests: metrics.lost.with_label_values(&["request"]),
            duration: metrics.publish_duration.clone(),
            all: metrics.clone(),
        }
    }

    /// Counts a request whose records are all there for good, and finishes it.
    pub(super) fn end(&self, publication: Publication) {
        self.ended(&publication);
        publication.ending.ticket.finish();
    }

    fn ended(&self, publication: &Publication) {
        let now = Instant::now();
        self.duration.observe(now.saturating_duration_since(publication.sent).as_secs_f64());
        if let Some(parking) = publication.parking() {
            self.all.parked.with_label_values(&[parking.reason]).inc();
            return;
        }
        if let Some(fault) = publication.letter() {
            self.dead_letters.inc();
            self.all.dead_letters.with_label_values(&[fault.code.name()]).inc();
        }
        let is_published = publication.course.reply > Form::Dropped;
        if !is_published {
            self.lost(publication);
        }
        self.ending(&publication.ending, is_published, now);
    }

    /// Counts and logs a request of which nothing could be published that its caller would see.
    fn lost(&self, publication: &Publication) {
        let source = &publication.ending.request.source;
        let fault = publication.ending.outcome.result.as_ref().err();
        let fault = fault.map(ToString::to_string).unwrap_or_default();
        if publication.course.is_lost() {
            self.lost_requests.inc();
            error!(%source, fault, "no topic takes anything that this request could end in; it is dropped");
        } else {
            self.lost_faults.inc();
            error!(%source, fault, "no topic takes the fault of this request in any form; only its dead letter is there");
        }
    }

    fn ending(&self, ending: &FinishedRequest, is_published: bool, now: Instant) {
        let outcome = &ending.outcome;
        let took = now.saturating_duration_since(ending.ticket.received()).as_secs_f64();
        match (&outcome.result, &ending.metrics) {
            (Ok(_), Some(route)) => {
                self.replies.inc();
                route.answered.inc();
                route.request_duration.observe(took);
            }
            (Ok(_), None) => self.replies.inc(),
            (Err(fault), metrics) => {
                self.faults.inc_by(u64::from(is_published));
                let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("").to_owned();
                let (endpoint, alias) = (name(&outcome.served_by.endpoint), name(&outcome.served_by.route));
                let (code, stage) = (fault.code, fault.stage.name());
                let (endpoint, route) = (&*endpoint, &*alias);
                let kind = FaultKind { endpoint, route, code: code.name(), status: code.status(), stage };
                self.all.faults.record(kind, fault.reason());
                self.all.requests.with_label_values(&[endpoint, route, &*code.status().to_string()]).inc();
                if let Some(route) = metrics {
                    route.request_duration.observe(took);
                }
            }
        }
    }

    /// Counts a record that the broker has rejected.
    pub(super) fn refused(&self, code: Option<RDKafkaErrorCode>) {
        self.all.publish_failures.with_label_values(&[&reason(code)]).inc();
    }
}

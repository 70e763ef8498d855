//! Reads the time of loads by phase.

use std::collections::HashMap;
use std::time::Duration;

use super::statistics::milliseconds;
use super::support::Signalbox;

/// Holds the seconds of each phase and the number of its runs, from `signalbox_model_load_phase_seconds`.
pub(super) struct Phases(HashMap<String, (f64, f64)>);

impl Phases {
    const NAMES: [&str; 6] = ["resolve", "fetch", "room", "fork", "load", "warm"];

    pub(super) async fn scraped(signalbox: &Signalbox) -> Self {
        let page = reqwest::get(format!("{}/metrics", signalbox.url())).await.unwrap().text().await.unwrap();
        let value = |kind: &str, phase: &str| {
            let name = format!("signalbox_model_load_phase_seconds_{kind}{{phase=\"{phase}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0.0)
        };
        Self(Self::NAMES.map(|phase| (phase.to_owned(), (value("sum", phase), value("count", phase)))).into())
    }

    pub(super) fn since(mut self, before: &Self) -> Self {
        for (phase, (seconds, count)) in &mut self.0 {
            let (seconds_before, count_before) = before.0[phase];
            (*seconds, *count) = (*seconds - seconds_before, *count - count_before);
        }
        self
    }

    /// Prints the mean of each phase over the loads that had it.
    pub(super) fn print_loads(&self) {
        let means = Self::NAMES.iter().filter_map(|phase| {
            let (seconds, count) = self.0[*phase];
            (count > 0.0).then(|| format!("{phase} {:.1}", seconds * 1000.0 / count))
        });
        println!("  mean ms of a load by phase: {}", means.collect::<Vec<_>>().join("  "));
    }

    pub(super) fn print(&self, name: &str, took: &[Duration]) {
        let all = took.iter().map(|took| milliseconds(*took)).sum::<f64>() / took.len() as f64;
        let means = Self::NAMES.map(|phase| self.0[phase].0 * 1000.0 / took.len() as f64);
        let shown = Self::NAMES.iter().zip(means).map(|(phase, mean)| format!("{phase} {mean:.1}"));
        let shown = shown.collect::<Vec<_>>().join("  ");
        println!("  {name:<14} {all:>6.1} = {shown}  rest {:.1}", all - means.iter().sum::<f64>());
    }
}

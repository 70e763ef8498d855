//! Reads `GET /metrics` as Prometheus reads it.

use super::Signalbox;

/// Holds all metrics at one moment.
pub(crate) struct Scrape(String);

impl Scrape {
    /// Reads the metrics of a running Signalbox. A test that runs inside of a runtime cannot call this.
    pub(crate) fn of(signalbox: &Signalbox) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self(runtime.block_on(async {
            let answer = reqwest::get(format!("{}/metrics", signalbox.url())).await.unwrap();
            answer.text().await.unwrap()
        }))
    }

    /// Sums up all series of this name (without `signalbox_`) that have these labels, such as `route="main"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.0.lines().filter_map(|line| line.strip_prefix("signalbox_")?.strip_prefix(name));
        let of_that_name = series.filter(|rest| rest.starts_with(['{', ' ']));
        let matching = of_that_name.filter(|rest| labels.iter().all(|label| rest.contains(label)));
        matching.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

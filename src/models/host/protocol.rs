//! The JSON heads of the frames between Signalbox and a host: requests, and the answers to a load and to a call.

use serde::{Deserialize, Serialize};

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostRequest<'a> {
    Load {
        directory: &'a str,
        max_answer_bytes: usize,
        skip_warm_up: bool,
        threads: usize,
    },
    Invoke {
        content_type: &'a str,
        /// The rows of each request, where there are several.
        rows: &'a [usize],
        /// Seconds for finding out who of them is refused.
        patience: f64,
    },
    /// Are you alive?
    Ping {},
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LoadAnswer {
    Loaded {
        load: f64,
        warm: f64,
        /// The status and the body of the answer to the model's own example.
        example: Option<(u16, String)>,
        unmet: Vec<String>,
        /// Why it may look at other rows; none when it cannot.
        #[serde(default)]
        doubt: Option<String>,
        /// Whether its metadata says that it does not.
        #[serde(default)]
        declared: bool,
        imported: Vec<String>,
        /// The columns that its signature makes floats of, and whether it makes them of all it is given.
        signature: Option<(Vec<String>, bool)>,
    },
    Failed {
        exception: String,
        traceback: String,
        unmet: Vec<String>,
    },
}

#[derive(Deserialize)]
pub(super) struct InvokeAnswer {
    pub(super) status: u16,
    pub(super) content_type: String,
    #[serde(default)]
    pub(super) too_large: bool,
    /// Memory was refused to the model, which may hold on to what it has.
    #[serde(default)]
    pub(super) exhausted: bool,
    /// The requests that are left out of the answer.
    #[serde(default)]
    pub(super) refused: Vec<usize>,
    /// The status, the content type and the length of what the first of those are told, after the answer.
    #[serde(default)]
    pub(super) individual_answers: Vec<(u16, String, usize)>,
}

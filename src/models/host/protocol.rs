//! The JSON heads of the frames between Signalbox and a host: requests, and the answers to a load and to a call.

use serde::{Deserialize, Serialize};

/// A request to a host.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostRequest<'a> {
    /// Loads the model; comes first.
    Load { directory: &'a str, max_answer_bytes: usize, skip_warm_up: bool, threads: usize },
    /// Calls the model with the frame's body as the payload.
    Invoke {
        content_type: &'a str,
        /// The row count of each request, where the payload joins several requests.
        rows: &'a [usize],
        /// The seconds for finding out which requests the model refuses.
        patience: f64,
    },
    /// Probes whether the process still runs Python.
    Ping {},
}

/// The answer to a load.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LoadAnswer {
    /// The model is loaded.
    Loaded {
        /// The seconds that loading took.
        load: f64,
        /// The seconds that the call with the example took.
        warm: f64,
        /// The status and the body of the answer to the model's own example.
        example: Option<(u16, String)>,
        /// The requirements that the interpreter does not meet.
        unmet: Vec<String>,
        /// The reason why the model may look at other rows; `None` when it cannot.
        #[serde(default)]
        doubt: Option<String>,
        /// Tells whether the model's metadata declares that it answers each row by itself.
        #[serde(default)]
        declared: bool,
        /// The modules that the template had not imported.
        imported: Vec<String>,
        /// The columns that the model's signature makes floats of, and whether it makes floats of all columns.
        signature: Option<(Vec<String>, bool)>,
    },
    /// The model could not be loaded.
    Failed { exception: String, traceback: String, unmet: Vec<String> },
}

/// The answer to a call; its body is in the frame.
#[derive(Deserialize)]
pub(super) struct InvokeAnswer {
    pub(super) status: u16,
    pub(super) content_type: String,
    #[serde(default)]
    pub(super) too_large: bool,
    /// Tells whether memory was refused to the model, which may hold on to what it has.
    #[serde(default)]
    pub(super) exhausted: bool,
    /// The numbers of the requests that are left out of the answer.
    #[serde(default)]
    pub(super) refused: Vec<usize>,
}

//! Covers the status page in a real browser: live numbers, a request, actions, accessibility, and a restart of the
//! server. `tests/page/page.mjs` drives Chromium.

use std::path::Path;
use std::time::Duration;

use crate::support::{Process, Signalbox, browser_modules, free_port, fresh_directory, wait_until};

const LIMIT: Duration = Duration::from_secs(120);

/// Writes a config whose embedded broker and built-in model need no service. The page comes back at the same address,
/// so the port is fixed.
fn config(port: u16) -> String {
    format!(
        "
model_endpoints:
  - name: echo
    routes:
      - {{model_uri: builtin:noop, alias: main}}
      - model_uri: builtin:noop
        alias: gold
        model_request_condition: \"request.headers.get('x-tier') == 'gold'\"
  - name: broken
    routes: [{{model_uri: 'http://127.0.0.1:9', alias: nowhere, breaker: {{}}}}]
  - name: careful
    strategy: weighted
    routes:
      - {{model_uri: builtin:noop, alias: stable}}
      - {{model_uri: builtin:noop, alias: candidate, canary: {{steps: [10, 50], every: 1h}}}}
kafka: {{bootstrap_servers: embedded, partitions: 4}}
server: {{port: {port}}}
"
    )
}

#[test]
#[ignore = "needs Chromium and Node; tests/run installs them"]
fn page_shows_process_and_survives_its_restart() {
    let mut signalbox = Signalbox::start(&config(free_port()));
    let directory = fresh_directory("page");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/page.mjs");
    let modules = browser_modules();
    let arguments = [signalbox.url(), modules.to_str().unwrap(), directory.to_str().unwrap()];
    let command = ["node", script.to_str().unwrap()].into_iter().chain(arguments);
    let mut page = Process::start("page", &directory, &[], command);
    let said = |line: &'static str| move |log: &str| log.lines().find(|said| *said == line).map(|_| ());
    page.wait_for("page that has been seen", LIMIT, said("restart, please"));
    signalbox.terminate();
    page.wait_for("page that misses its server", LIMIT, said("it is gone"));
    signalbox.start_again();
    let status = wait_until("the page to be done", LIMIT, || page.ended());
    assert!(status.success(), "{}", page.log());
}

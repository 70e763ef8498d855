//! Supports the integration tests with the real services and the real binary, each ended with the test that started it,
//! or with the test process however that ends.
//!
//! ```ignore
//! let kafka = Kafka::shared();                         // one broker for the whole binary
//! let requests = kafka.create_topic("requests", 4);    // a name no other test has
//! let signalbox = Signalbox::start(&format!("…"));     // the binary, once it says it is ready
//! kafka.produce(&requests, Some("id-1"), &[("endpoint", "sentiment-router")], body);
//! let replies = kafka.consume(&replies, 1, Duration::from_secs(10));
//! ```

mod broker;
mod bystander;
mod caller;
mod cluster;
mod dice;
mod disk;
pub(crate) mod disturbance;
pub(crate) mod fire;
pub(crate) mod handmade;
mod hosting;
mod kafka;
mod mlflow;
mod opa;
mod proc;
mod process;
mod proxy;
mod reply;
mod scrape;
mod setup;
mod signalbox;
mod stub;
mod zoo;

pub(crate) use broker::Broker;
pub(crate) use bystander::{Bystander, Latencies};
pub(crate) use caller::{Answer, Caller};
pub(crate) use cluster::Cluster;
pub(crate) use dice::{Dice, Pattern};
pub(crate) use disk::Disk;
pub(crate) use hosting::Hosting;
pub(crate) use kafka::Kafka;
pub(crate) use mlflow::{Mlflow, mlflow_environment, python};
pub(crate) use opa::Opa;
pub(crate) use proc::{MARK, Mark, is_alive, kill, resident_peak, signal, wait_for_end};
pub(crate) use process::Process;
pub(crate) use proxy::{Proxy, Way};
pub(crate) use reply::Reply;
pub(crate) use scrape::Scrape;
pub(crate) use setup::{Setup, http_model, http_model_of_size};
pub(crate) use signalbox::Signalbox;
pub(crate) use stub::{Reaction, StubModel};
pub(crate) use zoo::zoo;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Makes a name that nothing else in this run has.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), next())
}

/// Makes a fresh directory of that name. `tests/run` removes all of them when the tests have passed.
pub(crate) fn fresh_directory(name: &str) -> PathBuf {
    let parent =
        std::env::var_os("SIGNALBOX_TEST_TMP").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let directory = parent.join(unique(name));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Looks every few milliseconds until `found` finds something. Panics with `what` when `limit` is over.
pub(crate) fn wait_until<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(it) = found() {
            return it;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits as [`wait_until`] does, in a test that does other things meanwhile.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(it) = found().await {
            return it;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Finds a loopback port that nobody listens on. The port lies below those that the kernel gives to outgoing
/// connections, so that it stays free while the service on it is down.
pub(crate) fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    std::iter::repeat_with(|| 20_000 + (first + u16::try_from(next()).unwrap()) % 12_000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .unwrap()
}

/// Finds the folder with the Node modules that drive a browser.
pub(crate) fn browser_modules() -> PathBuf {
    installed("SIGNALBOX_TEST_PAGE", "page/node_modules").parent().map(Path::to_owned).unwrap_or_default()
}

/// Finds a file that `tests/run` installed: `variable` names it, or it is at its usual place.
pub(crate) fn installed(variable: &str, usual: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services").join(usual), PathBuf::from);
    assert!(path.exists(), "{} is missing: run tests/run, which installs it and sets {variable}", path.display());
    path
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

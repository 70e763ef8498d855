//! `signalbox quickstart`: two real models behind one name, on a laptop, from nothing.
//!
//! Everything that the quickstart makes lies under one directory and is kept, so that the second run is quick: a Python
//! environment, an MLflow tracking server's database and artifacts, and the logs of each step.

#![expect(clippy::print_stdout, reason = "it is the command line that speaks")]

mod guarded;
mod progress;
mod python;
mod tracking;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use super::failure::Failure;
use super::start;
use crate::app::{self, Addresses, Role, stop_signal};
use crate::check;
use crate::config::{Config, environment};
use tracking::Tracking;

pub(super) use progress::AboveSpinners;

const CONFIG: &str = include_str!("../../../config/quickstart.yaml");

/// Examples of `signalbox quickstart`.
pub(super) const EXAMPLES: &str = "\
Examples:
  signalbox quickstart
  signalbox quickstart --port 5050 --mlflow-port 5051    when others use 5000 and 5001
  signalbox quickstart --python ~/venv/bin/python        with the MLflow that is there";

/// Holds the arguments of `signalbox quickstart`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct QuickstartArgs {
    /// Where everything is kept: the Python environment, the models, the logs.
    #[arg(long, value_name = "DIRECTORY", default_value = ".signalbox")]
    home: PathBuf,
    /// A Python interpreter that has MLflow and scikit-learn. Default: that of the environment Signalbox is started in,
    /// if it has them, else that of one made here.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// The port of POST /invocations; 0 takes a free one.
    #[arg(long, default_value_t = 5000)]
    port: u16,
    /// The port of the local MLflow tracking server; 0 takes a free one.
    #[arg(long, default_value_t = 5001)]
    mlflow_port: u16,
}

/// Makes the missing parts, starts MLflow and Signalbox side by side, and stops MLflow when Signalbox has ended. Should
/// this process be killed at any moment, all that was started here ends with it.
pub(super) fn run(args: &QuickstartArgs) -> Result<ExitCode, Failure> {
    start::block_on(serve(args))
}

async fn serve(args: &QuickstartArgs) -> Result<(), Failure> {
    let failed = |failure: Failure| failure.of("signalbox quickstart");
    let Prepared { config, python, home, mlflow_port } = prepare(args).await.map_err(failed)?;
    let mut tracking = Tracking::start(&python, &home, mlflow_port).map_err(failed)?;
    let tracked = async { tracking.bring_up(&config).await.map_err(failed) };
    let ready = |addresses: &Addresses| {
        println!("{}", start::ready_line(addresses));
        println!("{}", requests_to_try(&format!("http://{}", addresses.http), &addresses.broker));
    };
    let served = Box::pin(app::run(stop_signal(), config.clone(), None, Role::All, tracked, ready)).await;
    tracking.end().await;
    served
}

/// Formats requests to try, for the person who reads the two addresses on the screen.
fn requests_to_try(url: &str, broker: &str) -> String {
    include_str!("requests.txt").replace("{url}", url).replace("{broker}", broker)
}

/// Holds what there is before anything is started.
struct Prepared {
    config: Config,
    python: PathBuf,
    home: PathBuf,
    mlflow_port: u16,
}

async fn prepare(args: &QuickstartArgs) -> Result<Prepared, Failure> {
    let mut config = config()?;
    config.server.port = args.port;
    // Ports are checked before the environment is made, which takes minutes.
    free_port(args.port, "Signalbox", "--port")?;
    let mlflow_port = free_port(args.mlflow_port, "MLflow", "--mlflow-port")?;

    let home = std::path::absolute(&args.home).map_err(|error| Failure::cannot_write(&args.home, &error))?;
    std::fs::create_dir_all(home.join("logs")).map_err(|error| Failure::cannot_write(&home, &error))?;
    let python = match &args.python {
        Some(program) => python::existing(program, &home)?,
        None => match python::started_in(&home) {
            Some(python) => python,
            None => python::environment(&home).await?,
        },
    };
    config.models.python = python.to_string_lossy().into_owned();
    config.registry.tracking_uri = Some(tracking::uri(mlflow_port));
    Ok(Prepared { config, python, home, mlflow_port })
}

/// Parses the quickstart's config, without its addresses, which are known later.
fn config() -> Result<Config, Failure> {
    let loaded = check::parse(CONFIG, "config/quickstart.yaml", &environment);
    loaded.map(|loaded| loaded.config).map_err(Failure::unavailable)
}

/// Returns `port`, or a free one for 0. A busy port is reported before anything long begins.
///
/// # Errors
/// When the port is in use.
fn free_port(port: u16, who: &str, option: &str) -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
        Failure::unavailable(format_args!(
            "{who} cannot listen on port {port} ({error}): stop what uses it, or choose another port with {option} (0 \
             takes a free one)"
        ))
    })?;
    listener.local_addr().map(|address| address.port()).map_err(Failure::unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_loads() {
        let config = config().unwrap();
        assert!(config.kafka.is_embedded());
        let routes: Vec<_> = config.model_endpoints[0].routes.iter().map(|route| route.alias.as_str()).collect();
        assert_eq!(routes, ["fast", "accurate"]);
    }

    #[test]
    fn free_port_names_remedy_when_port_is_busy() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let problem = free_port(port, "MLflow", "--mlflow-port").unwrap_err();
        assert_eq!(problem.code, 69);
        let line = problem.to_string();
        assert!(line.contains(&port.to_string()) && line.contains("--mlflow-port") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn requests_to_try_name_the_real_addresses() {
        let text = requests_to_try("http://127.0.0.1:1234", "127.0.0.1:9999");
        assert!(text.contains("curl http://127.0.0.1:1234/invocations") && text.contains("-b 127.0.0.1:9999"));
        assert!(!text.contains("{url}") && !text.contains("{broker}"));
    }
}

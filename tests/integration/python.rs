//! Runs the tests of the Python package, `tests/python`, where its wheel is installed.

use std::time::Duration;

use crate::support::{Kafka, Process, fresh_directory, installed, mlflow_environment, wait_until};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");
const LIMIT: Duration = Duration::from_secs(600);

#[test]
#[ignore = "needs Apache Kafka, MLflow and the wheel; tests/run starts, installs and builds them"]
fn python_package_passes_its_tests_when_installed() {
    let python = installed("SIGNALBOX_TEST_PACKAGE", "package/venv/bin/python");
    let directory = fresh_directory("python");
    let mut environment = mlflow_environment();
    environment.push(("SIGNALBOX_TEST_BROKER", Kafka::shared().bootstrap().into()));
    let scratch = directory.join("scratch");
    let command = [python.to_str().unwrap(), "-m", "pytest", "-v", "--durations=5", TESTS, "--basetemp"];
    let command = command.into_iter().chain(scratch.to_str());
    let mut pytest = Process::start("pytest", &directory, &environment, command);
    let status = wait_until("the end of the tests in Python", LIMIT, || pytest.ended());
    assert!(status.success(), "{}", pytest.log());
}

//! Python interpreters that have MLflow and scikit-learn: one that the user named, that of the environment that Signalbox
//! is started in, or an environment made here.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::guarded;
use super::progress::ProgressStep;
use crate::cli::failure::Failure;
use crate::config::interpreters;

/// Requirements of the environment: the one place where the versions are written.
pub(super) const REQUIREMENTS: &str = include_str!("requirements.txt");
/// Bytes of disk that an environment and pip's own working space take, with a little to spare; with less, none is made.
const NEEDED_SPACE: u64 = 2 << 30;
/// Oldest Python that the required scikit-learn runs on; an older one makes no environment.
const OLDEST: (u8, u8) = (3, 11);
/// Major version of the oldest MLflow that is taken where it is found.
const OLDEST_MLFLOW: u32 = 3;
/// Script that asks an interpreter about itself, and about the disk that its first argument is on.
const PROBE: &str = r#"
import importlib.util, json, shutil, sys
def version(package):
    from importlib.metadata import PackageNotFoundError, version
    try:
        return version(package)
    except PackageNotFoundError:
        return None
venv = all(importlib.util.find_spec(module) for module in ("venv", "ensurepip"))
print(json.dumps({"version": sys.version_info[:3], "venv": venv, "free": shutil.disk_usage(sys.argv[1]).free,
    "mlflow": version("mlflow"), "sklearn": version("scikit-learn")}))
"#;

/// Holds the answers of an interpreter to [`PROBE`].
#[derive(Debug, Deserialize)]
struct PythonInterpreter {
    version: (u8, u8, u8),
    venv: bool,
    free: u64,
    mlflow: Option<String>,
    sklearn: Option<String>,
}

impl PythonInterpreter {
    /// Probes `program`; `None` when it is not there or is no Python 3.8 or newer.
    fn probe(program: &Path, directory: &Path) -> Option<Self> {
        let output = Command::new(program).args(["-I", "-c", PROBE]).arg(directory).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    fn is_new_enough(&self) -> bool {
        (self.version.0, self.version.1) >= OLDEST
    }

    fn dotted(&self) -> String {
        format!("{}.{}.{}", self.version.0, self.version.1, self.version.2)
    }

    fn libraries(&self) -> Option<String> {
        Some(format!("MLflow {} and scikit-learn {}", self.mlflow.as_ref()?, self.sklearn.as_ref()?))
    }

    fn describe(&self, program: &Path) -> Option<String> {
        Some(format!("Python {} at {} with {}", self.dotted(), program.display(), self.libraries()?))
    }

    /// Describes an interpreter that the user named, unless the quickstart cannot use it.
    fn check(&self, program: &Path) -> Result<String, Failure> {
        let name = program.display();
        let described = self.describe(program).ok_or_else(|| {
            Failure::unavailable(format!(
                "--python {name} lacks MLflow or scikit-learn: install both there, or leave --python out to get an environment"
            ))
        })?;
        if !self.is_of_use() {
            return Err(Failure::unavailable(format!(
                "--python {name} is too old ({described}): install MLflow {OLDEST_MLFLOW} or newer there, or leave --python \
                 out to get an environment"
            )));
        }
        Ok(described)
    }

    /// Tells whether the quickstart can use the libraries.
    fn is_of_use(&self) -> bool {
        let major = self.mlflow.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        major.is_some_and(|major| major >= OLDEST_MLFLOW) && self.sklearn.is_some()
    }
}

/// Checks an interpreter that the user named. It must have everything already.
///
/// # Errors
/// When no Python 3 runs there, or a library is missing or too old.
pub(super) fn existing(program: &Path, home: &Path) -> Result<PathBuf, Failure> {
    let name = program.display();
    let step = ProgressStep::begin(format!("looking at {name}"));
    let interpreter = PythonInterpreter::probe(program, home).ok_or_else(|| {
        Failure::unavailable(format!(
            "--python {name}: there is no Python 3 that runs at this place; name the interpreter of an environment that has \
             MLflow and scikit-learn, or leave --python out to get one"
        ))
    })?;
    step.done(interpreter.check(program)?);
    // The path is not made canonical: an environment's interpreter is a link, and is known by the link's place. A bare
    // name stays one, since it is looked up on the path.
    let is_bare = program.components().count() == 1;
    let found = if is_bare { Ok(program.to_path_buf()) } else { std::path::absolute(program) };
    found.map_err(|error| Failure::unavailable(format!("--python {name}: {error}")))
}

/// Returns the interpreter of the environment that Signalbox is started in, if it has everything.
pub(super) fn started_in(home: &Path) -> Option<PathBuf> {
    let of_use = |program: PathBuf| {
        let interpreter = PythonInterpreter::probe(&program, home).filter(PythonInterpreter::is_of_use)?;
        Some((program, interpreter))
    };
    let found = interpreters();
    let step = (!found.is_empty()).then(|| ProgressStep::begin("looking at the environment of Signalbox"))?;
    let (program, interpreter) = found.into_iter().find_map(of_use)?;
    step.done(interpreter.describe(&program)?);
    Some(program)
}

/// Returns the interpreter of the environment under `home`, which is made, or made anew, unless it fits
/// [`REQUIREMENTS`].
///
/// # Errors
/// When there is no interpreter to make it with, or a step of making it fails.
pub(super) async fn environment(home: &Path) -> Result<PathBuf, Failure> {
    let directory = home.join("venv");
    let python = directory.join("bin/python");
    let stamp = directory.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        let step = ProgressStep::begin("looking at the Python environment");
        if let Some(libraries) = PythonInterpreter::probe(&python, home).and_then(|found| found.libraries()) {
            step.done(format!("Python environment with {libraries}"));
            return Ok(python);
        }
    }

    // The environment is made anew in two steps: venv, then pip. The stamp is written last, so an interrupted run
    // starts over.
    let base = base_interpreter(home)?;
    let step = ProgressStep::begin("making a Python environment");
    let made = guarded::run(
        guarded::command(&base, ["-m", "venv", "--clear"]).arg(&directory),
        &home.join("logs/venv.log"),
        |line| step.remark(line),
    )
    .await;
    if !made.is_ok_and(|status| status.success()) {
        let log = home.join("logs/venv.log");
        return Err(explain(&log, &format!("{} -m venv failed", base.display())));
    }
    step.done(format!("Python environment at {}", directory.display()));

    let step = ProgressStep::begin("installing MLflow and scikit-learn (a few minutes, 1 GB on disk)");
    let requirements = home.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS).map_err(|error| Failure::cannot_write(&requirements, &error))?;
    let log = home.join("logs/pip.log");
    // Two modules of three are never imported; the others are compiled when they are.
    let mut pip = vec!["-m", "pip", "install", "--no-compile", "--disable-pip-version-check"];
    pip.extend(["--progress-bar=off", "--retries=3", "--requirement"]);
    let mut command = guarded::command(&python, pip);
    let installed = guarded::run(command.arg(&requirements), &log, |line| step.remark(line)).await;
    if !installed.is_ok_and(|status| status.success()) {
        return Err(explain(&log, "pip failed"));
    }
    std::fs::write(&stamp, REQUIREMENTS).map_err(|error| Failure::cannot_write(&stamp, &error))?;
    let libraries = PythonInterpreter::probe(&python, home).and_then(|interpreter| interpreter.libraries());
    step.done(format!("installed {}", libraries.as_deref().unwrap_or("MLflow and scikit-learn")));
    Ok(python)
}

/// Finds the first interpreter on the path that an environment can be made with.
fn base_interpreter(home: &Path) -> Result<PathBuf, Failure> {
    let wanted = format!("Python {}.{} or newer", OLDEST.0, OLDEST.1);
    // The first reason against an interpreter is kept, and told only when none fits.
    let mut seen = None;
    for name in ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"] {
        let Some(interpreter) = PythonInterpreter::probe(Path::new(name), home) else { continue };
        if !interpreter.is_new_enough() {
            seen.get_or_insert_with(|| {
                format!("{wanted} is needed; {name} is {}: install a newer one", interpreter.dotted())
            });
        } else if !interpreter.venv {
            seen.get_or_insert_with(|| {
                format!("{name} cannot make environments: install its venv module (Debian: apt install python3-venv)")
            });
        } else if interpreter.free < NEEDED_SPACE {
            let free = bytesize::ByteSize(interpreter.free);
            return Err(Failure::disk(format!(
                "{} has {free} left, and the Python environment needs 2 GiB: make room, or choose another place with --home",
                home.display()
            )));
        } else {
            return Ok(PathBuf::from(name));
        }
    }
    let missing = || format!("{wanted} is needed, and there is no python3 on the path: install it");
    let message = format!(
        "{}, or name an interpreter that has MLflow and scikit-learn with --python",
        seen.unwrap_or_else(missing)
    );
    Err(Failure::unavailable(message))
}

/// Picks one line out of the output of a failed program.
fn explain(log: &Path, what: &str) -> Failure {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // The two causes that the user can mend get a message of their own; any other is quoted.
    if says(&["No space left on device", "Disk quota exceeded"]) {
        return Failure::disk(format!("{what}: no space left on the disk (see {})", log.display()));
    }
    if says(&["connection broken by", "Could not fetch URL", "Max retries exceeded"]) {
        return Failure::unavailable(format!(
            "{what}: it cannot reach the Python package index. Check the network and the proxy, or name an interpreter \
             that has MLflow and scikit-learn with --python (see {})",
            log.display()
        ));
    }
    let last = text.lines().rev().find(|line| line.starts_with("ERROR:") || line.starts_with("Error:"));
    let reason = last.or_else(|| text.lines().next_back()).unwrap_or("it said nothing");
    Failure::unavailable(format!("{what}: {reason} (see {})", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(log: &str) -> Failure {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        explain(file.path(), "pip failed")
    }

    #[test]
    fn explain_makes_one_line_of_pip_failure() {
        let network = explained(
            "WARNING: Retrying after connection broken by 'NewConnectionError(…)'\nERROR: No matching distribution",
        );
        assert!(network.to_string().contains("cannot reach the Python package index"), "{network}");
        assert_eq!(network.code, 69);

        let disk = explained("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device");
        assert!(disk.to_string().contains("no space left on the disk"), "{disk}");
        assert_eq!(disk.code, 74);

        let other = explained("Collecting mlflow\nERROR: No matching distribution found for mlflow==99\nbye");
        assert!(
            other.to_string().contains("pip failed: ERROR: No matching distribution found for mlflow==99"),
            "{other}"
        );
        assert!(!other.to_string().contains('\n'));
    }

    #[test]
    fn existing_names_program_that_is_no_python() {
        let problem = existing(Path::new("/nonexistent/python"), Path::new("/")).unwrap_err();
        let problem = problem.to_string();
        assert!(problem.contains("/nonexistent/python") && problem.contains("leave --python out"), "{problem}");
    }

    #[test]
    fn check_names_remedy_when_mlflow_is_too_old() {
        let says = r#"{"version": [3, 9, 2], "venv": true, "free": 1, "mlflow": "2.22.1", "sklearn": "1.6.1"}"#;
        let interpreter: PythonInterpreter = serde_json::from_str(says).unwrap();
        let problem = interpreter.check(Path::new("/opt/python")).unwrap_err().to_string();
        assert!(problem.contains("MLflow 2.22.1") && problem.contains("install MLflow 3 or newer"), "{problem}");
    }
}

//! The Python interpreter where none is named: that of the environment that Signalbox is started in.

use std::path::{Path, PathBuf};

use super::environment;

/// Files of which one marks a directory as an environment: of `venv` and of conda.
const MARKS: [&str; 2] = ["pyvenv.cfg", "conda-meta"];
/// Environment of the directory that Signalbox is started in.
const LOCAL: &str = ".venv/bin/python";

/// Lists the interpreters of the environments that Signalbox is started in: the one that is active, and the one that
/// Signalbox is installed in, as `pip install signalbox` does it.
pub fn interpreters() -> Vec<PathBuf> {
    list(environment("VIRTUAL_ENV").as_deref(), std::env::current_exe().ok().as_deref())
}

/// Finds the default of `models.python`.
pub(super) fn interpreter() -> String {
    let found = interpreters().into_iter().next().or_else(|| Some(PathBuf::from(LOCAL)).filter(|local| local.exists()));
    found.map_or_else(|| "python3".to_owned(), |found| found.to_string_lossy().into_owned())
}

fn list(active: Option<&str>, program: Option<&Path>) -> Vec<PathBuf> {
    let active = active.map(|environment| Path::new(environment).join("bin/python"));
    // A program in /usr/local/bin has an interpreter beside it too, which says nothing about where models are to run.
    let home = program.and_then(|program| program.parent()?.parent());
    let home = home.filter(|home| MARKS.iter().any(|mark| home.join(mark).exists()));
    // The path stays as it is, also where it is a link: an environment's interpreter is known by the link's place.
    active.into_iter().chain(home.map(|home| home.join("bin/python"))).filter(|python| python.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        path.to_owned()
    }

    #[test]
    fn active_environment_comes_before_the_one_of_the_program() {
        let home = tempfile::tempdir().unwrap();
        let active = file(&home.path().join("active/bin/python"));
        let own = file(&home.path().join("own/bin/python"));
        let program = file(&home.path().join("own/bin/signalbox"));
        file(&home.path().join("own/pyvenv.cfg"));
        let listed = list(home.path().join("active").to_str(), Some(&program));
        assert_eq!(listed, [active, own]);
    }

    #[test]
    fn interpreter_beside_program_counts_in_environments_only() {
        let home = tempfile::tempdir().unwrap();
        let python = file(&home.path().join("bin/python"));
        let program = file(&home.path().join("bin/signalbox"));
        let missing = home.path().join("deleted");
        assert!(list(missing.to_str(), Some(&program)).is_empty());
        std::fs::create_dir(home.path().join("conda-meta")).unwrap();
        assert_eq!(list(None, Some(&program)), [python]);
        assert!(list(None, None).is_empty());
    }
}

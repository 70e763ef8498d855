//! The configuration file, which may change while it is in use.

use std::path::{Path, PathBuf};

use super::load::{CheckedConfig, load_bytes};
use crate::config::Report;

/// The bytes of a file, or the reason why it cannot be read.
type FileContent = Result<Vec<u8>, String>;

/// A configuration file, with the content that is in use.
///
/// A change is recognised by the content. The times and numbers of the file system cannot show it: Kubernetes changes a
/// ConfigMap by moving a symbolic link in the path, editors put another file in its place, and a file that is written
/// again unchanged has not changed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    current: FileContent,
    /// Content of the last look at the file, if that differs from the current one.
    candidate: Option<FileContent>,
}

/// Reads and checks a file, with the variables of this process.
///
/// # Errors
/// Returns the report of everything that is wrong.
pub fn load(path: &Path) -> Result<CheckedConfig, Report> {
    ConfigFile::open(path).load()
}

impl ConfigFile {
    /// Opens the file and takes its present content.
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), current: read(path), candidate: None }
    }

    /// Checks the current content, with the variables of this process.
    ///
    /// # Errors
    /// Returns the report of everything that is wrong, when the content cannot be used.
    pub fn load(&self) -> Result<CheckedConfig, Report> {
        let content = self.current.as_ref().map(Vec::as_slice).map_err(String::as_str);
        load_bytes(content, &self.path.display().to_string())
    }

    /// Takes the present content of the file, changed or not.
    pub fn reread(&mut self) {
        *self = Self::open(&self.path);
    }

    /// Looks at the file, and takes its content if that has changed and settled. Tells whether it has.
    pub fn poll_change(&mut self) -> bool {
        self.observe(read(&self.path))
    }

    /// Compares the content with the current one, and takes it once it was the same in two looks: a file that is being
    /// written must not be taken by halves.
    fn observe(&mut self, content: FileContent) -> bool {
        if content == self.current {
            self.candidate = None;
            return false;
        }
        let is_settled = self.candidate.as_ref() == Some(&content);
        if is_settled {
            self.candidate = None;
            self.current = content;
        } else {
            self.candidate = Some(content);
        }
        is_settled
    }
}

fn read(path: &Path) -> FileContent {
    std::fs::read(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "model_endpoints: [{name: a, routes: [{model_uri: builtin:noop, alias: b}]}]";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signalbox.yaml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn config_file_takes_change_when_seen_twice() {
        let (_directory, path) = file(VALID);
        let mut file = ConfigFile::open(&path);
        assert!(!file.poll_change());
        std::fs::write(&path, VALID.replace("name: a", "name: b")).unwrap();
        assert!(!file.poll_change());
        assert_eq!(file.load().unwrap().config.model_endpoints[0].name, "a");
        assert!(file.poll_change());
        assert_eq!(file.load().unwrap().config.model_endpoints[0].name, "b");
        assert!(!file.poll_change());
    }

    #[test]
    fn config_file_ignores_content_when_unsettled_or_reverted() {
        let mut file = ConfigFile { path: "none".into(), current: Ok(b"a".to_vec()), candidate: None };
        for (content, is_taken) in
            [("b", false), ("bc", false), ("a", false), ("bc", false), ("bc", true), ("bc", false)]
        {
            assert_eq!(file.observe(Ok(content.into())), is_taken, "{content}");
        }
        assert!(!file.observe(Err("gone".to_owned())) && file.observe(Err("gone".to_owned())));
        assert!(file.load().unwrap_err().to_string().contains("cannot be read: gone"));
    }

    #[test]
    fn config_file_compares_content_when_link_moves() {
        let (directory, path) = file(VALID);
        let (link, other) = (directory.path().join("link"), directory.path().join("other.yaml"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = ConfigFile::open(&link);
        let point_to = |target: &Path| {
            let new = directory.path().join("new");
            std::os::unix::fs::symlink(target, &new).unwrap();
            std::fs::rename(new, &link).unwrap();
        };
        std::fs::write(&other, VALID).unwrap();
        point_to(&other);
        assert!(!file.poll_change() && !file.poll_change());
        std::fs::write(&path, VALID.replace("name: a", "name: b")).unwrap();
        point_to(&path);
        assert!(!file.poll_change() && file.poll_change());
        std::fs::write(&path, "nonsense").unwrap();
        file.reread();
        assert!(file.load().is_err() && !file.poll_change());
    }
}

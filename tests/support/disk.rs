//! A small disk of one's own, which can be full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Process, fresh_directory};

/// A file system of so many MiB in memory, over `<directory>/data`. It is seen by those programs alone that are started
/// with [`Self::prefix`], and is gone with the test, however that ends.
pub(crate) struct Disk {
    directory: PathBuf,
    holder: Process,
}

impl Disk {
    /// Makes it. An unprivileged user may do so inside a user namespace of his own, where the kernel allows those.
    ///
    /// # Errors
    /// What the kernel says when it is not allowed.
    pub(crate) fn mount(mebibytes: u32) -> Result<Self, String> {
        let directory = fresh_directory("disk");
        std::fs::create_dir(directory.join("data")).unwrap();
        let namespaces = if is_root() { "--mount" } else { "--mount --map-root-user" };
        let script = format!(
            "exec unshare {namespaces} sh -c 'mount -t tmpfs -o size={mebibytes}m disk \"$0\" && echo mounted && \
             exec sleep 100000 || echo refused' \"$0\""
        );
        let data = directory.join("data");
        let command = ["sh", "-c", &script, data.to_str().unwrap()];
        let mut holder = Process::start("disk", &directory, &[], command);
        let found = |log: &str| (log.contains("mounted") || log.contains("refused")).then(|| log.to_owned());
        let ended = |holder: &mut Process| holder.ended().map(|_| holder.log());
        let said = super::wait_until("word of the disk", Duration::from_secs(30), || {
            found(&holder.log()).or_else(|| ended(&mut holder))
        });
        match said.contains("mounted") {
            true => Ok(Self { directory, holder }),
            false => Err(said),
        }
    }

    /// The directory whose `data` is on it, for those who see it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What a command must begin with so that it sees the disk.
    pub(crate) fn prefix(&self) -> Vec<String> {
        let (pid, directory) = (self.holder.pid().to_string(), self.directory.display());
        let mut words = vec!["nsenter".to_owned(), "--target".to_owned(), pid, "--mount".to_owned()];
        if !is_root() {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.push(format!("--wdns={directory}"));
        words
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let zeros = vec![0; 64 * 1024];
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let error = std::iter::repeat_with(|| std::io::Write::write_all(&mut ballast, &zeros)).find_map(Result::err);
        assert_eq!(error.map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// As seen from outside. A file beside the directories of its partitions does not interest Kafka.
    fn ballast(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(self.directory.join("data/ballast").strip_prefix("/").unwrap())
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

//! Makes a small disk of one's own, which can be full.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Process, fresh_directory};

/// Owns a file system of so many MiB in memory, over `<directory>/data`. Only programs that are started with
/// [`Self::prefix`] see it, and it is gone with the test, however that ends.
///
/// Where the kernel allows no such thing it is any directory, and a limit on the length of the program's files stands
/// in for the end of the disk: what the program writes fails as well, with another number.
pub(crate) struct Disk {
    directory: PathBuf,
    mebibytes: usize,
    /// Holds the namespace that the file system is mounted in.
    holder: Option<Process>,
}

impl Disk {
    pub(crate) fn mount(mebibytes: usize) -> Self {
        // A symbolic link on the way would lead out of the holder's world again.
        let directory = fresh_directory("disk").canonicalize().unwrap();
        std::fs::create_dir(directory.join("data")).unwrap();
        // An unprivileged user may mount inside of a user namespace of his own.
        let namespaces = if is_root() { "--mount" } else { "--mount --map-root-user" };
        let script = format!(
            "exec unshare {namespaces} sh -c 'mount -t tmpfs -o size={mebibytes}m disk \"$0\" && echo mounted && \
             exec sleep 100000' \"$0\""
        );
        let data = directory.join("data");
        let command = ["sh", "-c", &script, data.to_str().unwrap()];
        let mut holder = Process::start("disk", &directory, &[], command);
        let mounted = super::wait_until("word of the disk", Duration::from_secs(30), || {
            let ended = holder.ended().map(|_| false);
            holder.log().contains("mounted").then_some(true).or(ended)
        });
        if !mounted {
            println!("NO DISK of one's own can be mounted, a limit stands in for it: {}", holder.log());
        }
        Self { directory, mebibytes, holder: mounted.then_some(holder) }
    }

    /// Returns the directory whose `data` is on the disk, for those who see it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the words that a command must begin with so that it sees the disk.
    pub(crate) fn prefix(&self) -> Vec<String> {
        let Some(holder) = &self.holder else { return Vec::new() };
        let mut words = vec!["nsenter".to_owned(), format!("--target={}", holder.pid()), "--mount".to_owned()];
        if !is_root() {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.push(format!("--wdns={}", self.directory.display()));
        words
    }

    /// Fills the disk to the last byte, for the program that writes to it.
    pub(crate) fn fill(&self, writer: u32) {
        let Some(holder) = &self.holder else {
            let limit = [format!("--pid={writer}"), "--fsize=0:unlimited".to_owned()];
            assert!(std::process::Command::new("prlimit").args(limit).status().unwrap().success());
            return;
        };
        let zeros = vec![0; 1024 * 1024];
        let mut ballast = std::fs::File::create(self.ballast(holder)).unwrap();
        // The loop writes no more than the disk has, lest the space be another's.
        let error = (0..=self.mebibytes).find_map(|_| ballast.write_all(&zeros).err());
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::StorageFull));
    }

    /// Makes room again. A limit ends with the program that had it.
    pub(crate) fn empty(&self) {
        if let Some(holder) = &self.holder {
            std::fs::remove_file(self.ballast(holder)).unwrap();
        }
    }

    /// Returns the ballast's path as seen from outside. Kafka ignores a file beside the directories of its partitions.
    fn ballast(&self, holder: &Process) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", holder.pid()));
        root.join(self.directory.join("data/ballast").strip_prefix("/").unwrap())
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

//! Identity of an input, by which a run that goes on knows that it reads the same as before.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::error::STANDARD;

/// Bytes at the beginning of a file that are compared.
const HEAD: u64 = 64 * 1024;

/// Tells one input from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::batch) struct InputIdentity {
    path: String,
    /// Bytes; None for an input that can be read only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Unix time in nanoseconds of the file's last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<u64>,
    /// Hash of its first bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<u64>,
}

impl InputIdentity {
    pub(super) fn of_stream() -> Self {
        Self { path: STANDARD.to_owned(), size: None, modified: None, head: None }
    }

    pub(super) fn of_file(path: &Path, file: &mut File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let what =
                if metadata.is_dir() { "it is a directory" } else { "it is no file; give it as standard input, -" };
            return Err(io::Error::new(io::ErrorKind::IsADirectory, what));
        }
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = modified.and_then(|time| u64::try_from(time.as_nanos()).ok());
        let path = std::path::absolute(path)?.to_string_lossy().into_owned();
        Ok(Self { path, size: Some(metadata.len()), modified, head: Some(head(file)?) })
    }

    /// Identifies a copy of standard input.
    pub(super) fn of_copy(file: &mut File) -> io::Result<Self> {
        Ok(Self { size: Some(file.metadata()?.len()), head: Some(head(file)?), ..Self::of_stream() })
    }

    /// Returns the bytes of the input.
    pub(in crate::batch) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Says in which ways this input is another than that one.
    pub(in crate::batch) fn differences(&self, before: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        if self.path != before.path {
            differences.push(format!("the input was {}, and is {}", before.path, self.path));
        } else if self.size != before.size {
            let bytes = |size: Option<u64>| size.map_or("an unknown number of".to_owned(), |size| size.to_string());
            differences.push(format!("{} had {} bytes, and has {}", self.path, bytes(before.size), bytes(self.size)));
        } else if self.head != before.head {
            differences.push(format!("{} begins otherwise than before", self.path));
        } else if self.modified != before.modified {
            differences.push(format!("{} has been written since", self.path));
        }
        differences
    }
}

fn head(file: &mut File) -> io::Result<u64> {
    file.rewind()?;
    let mut head = Vec::new();
    Read::by_ref(file).take(HEAD).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(xxh3_64(&head))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::message::wall_clock;

    #[test]
    fn identity_tells_files_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in.jsonl");
        let identity = || InputIdentity::of_file(&path, &mut File::open(&path).unwrap()).unwrap();
        fs::write(&path, "one").unwrap();
        let before = identity();
        assert_eq!(identity().differences(&before), Vec::<String>::new());
        let says = |what: &str| {
            let [difference] = &identity().differences(&before)[..] else { panic!("not one difference") };
            assert!(difference.ends_with(what), "{difference}");
        };
        File::options().write(true).open(&path).unwrap().set_modified(wall_clock() + Duration::from_secs(9)).unwrap();
        says("has been written since");
        fs::write(&path, "two").unwrap();
        says("begins otherwise than before");
        fs::write(&path, "three").unwrap();
        says("had 3 bytes, and has 5");
    }
}

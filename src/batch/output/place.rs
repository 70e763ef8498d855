//! Place of the output: its file under a name of its own while it is written, the error file and the checkpoint beside
//! it, or standard output.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::conversion::Conversion;
use crate::batch::checkpoint::Checkpoint;
use crate::batch::error::{BatchError, STANDARD};
use crate::batch::temporary::temporary_file;

/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

/// Files of a run.
pub(in crate::batch) struct Place {
    output: Option<Paths>,
    appended: BufWriter<Appended>,
    errors: BufWriter<Appended>,
}

#[derive(Debug, Clone)]
struct Paths {
    output: PathBuf,
    /// The output as it grows. Who has locked it writes it.
    partial: PathBuf,
    /// The output that is made of the grown one.
    converted: PathBuf,
    errors: PathBuf,
    checkpoint: PathBuf,
}

/// File that is appended to.
#[derive(Debug)]
enum Appended {
    File(File),
    /// Standard output.
    Output(io::Stdout),
    /// Standard error.
    Errors(io::Stderr),
}

/// Name of a file that is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Append {
    Output,
    Errors,
}

/// Outcome of the search for an earlier run.
pub(in crate::batch) enum Finished {
    /// Nothing, or a run that can be gone on with.
    No(Box<Place>, Option<Checkpoint>),
    /// All rows are answered, and the output has its name.
    Yes(Checkpoint),
}

impl Paths {
    fn of(output: &Path) -> Self {
        let with = |end: &str| {
            let mut path = output.as_os_str().to_owned();
            path.push(end);
            PathBuf::from(path)
        };
        Self {
            output: output.to_owned(),
            partial: with(".partial"),
            converted: with(".converted"),
            errors: with(".errors.jsonl"),
            checkpoint: with(".checkpoint"),
        }
    }
}

impl Place {
    /// Opens standard output, or a file that is gone in the end where all rows have to be known first.
    pub(in crate::batch) fn standard(is_converted: bool) -> Result<Self, BatchError> {
        let output = match is_converted {
            true => Appended::File(temporary_file()?),
            false => Appended::Output(io::stdout()),
        };
        let appended = BufWriter::with_capacity(BUFFER, output);
        Ok(Self { output: None, appended, errors: BufWriter::new(Appended::Errors(io::stderr())) })
    }

    /// Opens the files of an output, which is locked from now on, and reads the checkpoint of an earlier run.
    ///
    /// # Errors
    /// When another process writes them, they cannot be written, or the output is there already.
    pub(in crate::batch) fn open(output: &Path, may_overwrite: bool, restart: bool) -> Result<Finished, BatchError> {
        let paths = Paths::of(output);
        if output.is_dir() {
            return Err(BatchError::usage(format!("{} is a directory", output.display())));
        }
        let is_new = !paths.partial.exists();
        let partial = lock(&paths.partial)?;
        let found = Self::examine(&paths, &partial, may_overwrite, restart);
        // A refusal leaves things as they were.
        if is_new && !matches!(found, Ok((_, false))) {
            remove(&paths.partial)?;
        }
        let checkpoint = match found? {
            (Some(checkpoint), true) => return Ok(Finished::Yes(checkpoint)),
            (checkpoint, _) => checkpoint,
        };
        let errors = File::options().create(true).write(true).truncate(false).open(&paths.errors);
        let errors = errors.map_err(|error| BatchError::writing(&paths.errors, error))?;
        let place = Self {
            output: Some(paths),
            appended: BufWriter::with_capacity(BUFFER, Appended::File(partial)),
            errors: BufWriter::new(Appended::File(errors)),
        };
        Ok(Finished::No(Box::new(place), checkpoint))
    }

    /// Reads the checkpoint, and tells whether its run has nothing left to do.
    fn examine(
        paths: &Paths,
        partial: &File,
        may_overwrite: bool,
        restart: bool,
    ) -> Result<(Option<Checkpoint>, bool), BatchError> {
        let length = partial.metadata().map_err(|error| BatchError::reading(&paths.partial, error))?.len();
        let checkpoint = if restart { None } else { read(paths)? };
        let output = &paths.output;
        match &checkpoint {
            // The run was killed between its last two steps.
            Some(checkpoint) if checkpoint.is_complete && length == 0 && output.exists() => {}
            _ if output.exists() && !may_overwrite => {
                return Err(BatchError::usage(format!(
                    "{} is there already; name another output, or have it replaced with --overwrite",
                    output.display()
                )));
            }
            Some(checkpoint) if length < checkpoint.output_bytes => {
                return Err(BatchError::usage(format!(
                    "{} says that {} has {} bytes, and it has {length}; begin anew with --restart",
                    paths.checkpoint.display(),
                    paths.partial.display(),
                    checkpoint.output_bytes
                )));
            }
            _ => return Ok((checkpoint, false)),
        }
        Ok((checkpoint, true))
    }

    /// Cuts what was appended after the checkpoint, and goes on from there.
    pub(in crate::batch) fn go_on_from(&mut self, checkpoint: &Checkpoint) -> Result<(), BatchError> {
        let Some(paths) = &self.output else { return Ok(()) };
        if checkpoint.position.rows == 0 {
            remove(&paths.checkpoint)?;
        }
        let files = [
            (&mut self.appended, &paths.partial, checkpoint.output_bytes),
            (&mut self.errors, &paths.errors, checkpoint.error_bytes),
        ];
        for (buffer, path, length) in files {
            let Appended::File(file) = buffer.get_mut() else { continue };
            let cut = file.set_len(length).and_then(|()| file.seek(SeekFrom::Start(length)));
            cut.map_err(|error| BatchError::writing(path, error))?;
        }
        Ok(())
    }

    /// Appends to the output or to the errors.
    pub(super) fn append(&mut self, what: Append, bytes: &[u8]) -> Result<(), BatchError> {
        let file = self.file(what);
        // Who reads standard output does not wait for a buffer to be full.
        let written = file.write_all(bytes).and_then(|()| match file.get_ref() {
            Appended::File(_) => Ok(()),
            Appended::Output(_) | Appended::Errors(_) => file.flush(),
        });
        written.map_err(|error| BatchError::writing(self.path(what), error))
    }

    /// Makes what was appended last, and then notes how far that goes.
    pub(super) fn note(&mut self, checkpoint: &Checkpoint) -> Result<(), BatchError> {
        for what in [Append::Output, Append::Errors] {
            let file = self.file(what);
            let synced = file.flush().and_then(|()| match file.get_ref() {
                Appended::File(file) => file.sync_data(),
                Appended::Output(_) | Appended::Errors(_) => Ok(()),
            });
            synced.map_err(|error| BatchError::writing(self.path(what), error))?;
        }
        match &self.output {
            Some(paths) => {
                checkpoint.write(&paths.checkpoint).map_err(|error| BatchError::writing(&paths.checkpoint, error))
            }
            None => Ok(()),
        }
    }

    /// Gives the output its name, and takes the files away that it has grown in.
    ///
    /// # Errors
    /// When a file cannot be written. The checkpoint has everything, so the next run tries this again.
    pub(in crate::batch) fn finish(
        self,
        mut checkpoint: Checkpoint,
        conversion: Option<Conversion<'_>>,
    ) -> Result<(), BatchError> {
        let shape = checkpoint.shape.clone();
        let (columns, prediction) = (shape.columns.as_deref(), &*shape.prediction);
        let (appended, _) = self.appended.into_parts();
        let Some(paths) = self.output else {
            if let (Appended::File(file), Some(conversion)) = (&appended, conversion) {
                conversion.write(file, io::stdout(), Path::new(STANDARD), columns, prediction)?;
            }
            return Ok(());
        };
        let whole = match (&appended, conversion) {
            (Appended::File(_), Some(conversion)) => {
                let failed = |error| BatchError::writing(&paths.converted, error);
                let file = File::create(&paths.converted).map_err(failed)?;
                let staged = File::open(&paths.partial).map_err(|error| BatchError::reading(&paths.partial, error))?;
                conversion.write(&staged, &file, &paths.converted, columns, prediction)?;
                file.sync_all().map_err(failed)?;
                &paths.converted
            }
            _ => &paths.partial,
        };
        checkpoint.is_complete = true;
        checkpoint.write(&paths.checkpoint).map_err(|error| BatchError::writing(&paths.checkpoint, error))?;
        fs::rename(whole, &paths.output).map_err(|error| BatchError::writing(&paths.output, error))?;
        remove(&paths.partial)?;
        clear(&paths, &checkpoint)
    }

    /// Takes away the files of a run that has come to nothing.
    pub(in crate::batch) fn abandon(self) {
        if let Some(paths) = &self.output {
            for path in [&paths.partial, &paths.errors, &paths.checkpoint] {
                let _ = remove(path);
            }
        }
    }

    /// Returns the path of the error file.
    pub(in crate::batch) fn errors_path(output: &Path) -> PathBuf {
        Paths::of(output).errors
    }

    /// Removes what a finished run has left, as it was killed between the last two steps.
    pub(in crate::batch) fn clear(output: &Path, checkpoint: &Checkpoint) -> Result<(), BatchError> {
        clear(&Paths::of(output), checkpoint)
    }

    fn file(&mut self, what: Append) -> &mut BufWriter<Appended> {
        match what {
            Append::Output => &mut self.appended,
            Append::Errors => &mut self.errors,
        }
    }

    fn path(&self, what: Append) -> &Path {
        match (&self.output, what) {
            (Some(paths), Append::Output) => &paths.partial,
            (Some(paths), Append::Errors) => &paths.errors,
            (None, _) => Path::new(STANDARD),
        }
    }
}

impl Write for Appended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Output(output) => output.write(bytes),
            Self::Errors(errors) => errors.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Output(output) => output.flush(),
            Self::Errors(errors) => errors.flush(),
        }
    }
}

/// Opens the file that grows, and locks it until this process ends.
fn lock(path: &Path) -> Result<File, BatchError> {
    loop {
        let file = File::options().create(true).read(true).write(true).truncate(false).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                BatchError::usage(format!("cannot write {}: {error}", path.display()))
            }
            _ => BatchError::writing(path, error),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BatchError::Unavailable(format!(
                    "another process writes {} already; wait for its end, or name another output",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(BatchError::writing(path, error)),
        }
        // Whoever had the lock until now may have given the file its final name.
        let is_same = fs::metadata(path).and_then(|there| Ok(there.ino() == file.metadata()?.ino()));
        if is_same.unwrap_or(false) {
            return Ok(file);
        }
    }
}

fn read(paths: &Paths) -> Result<Option<Checkpoint>, BatchError> {
    Checkpoint::read(&paths.checkpoint).map_err(|error| {
        BatchError::usage(format!("{} cannot be read: {error}; begin anew with --restart", paths.checkpoint.display()))
    })
}

fn clear(paths: &Paths, checkpoint: &Checkpoint) -> Result<(), BatchError> {
    if checkpoint.failed == 0 {
        remove(&paths.errors)?;
    }
    remove(&paths.checkpoint)
}

fn remove(path: &Path) -> Result<(), BatchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BatchError::writing(path, error)),
        _ => Ok(()),
    }
}

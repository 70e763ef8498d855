//! Temporary files.

use std::fs::{self, File};

use uuid::Uuid;

use super::error::BatchError;

/// Makes a file that is gone when it is closed.
pub(super) fn temporary_file() -> Result<File, BatchError> {
    let path = std::env::temp_dir().join(format!("signalbox-batch-{}", Uuid::new_v4().simple()));
    let failed = |error| BatchError::writing(&path, error);
    let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
    fs::remove_file(&path).map_err(failed)?;
    Ok(file)
}

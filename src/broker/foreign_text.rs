//! Reading of text that others have written to Kafka.
//!
//! The client library panics on names of headers, and on metadata of commits, that are not UTF-8; any client may have
//! written such. The panic is caught, and nothing of it is printed: whoever can write a record could fill the log.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// True while this thread reads such text.
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a reading of foreign text. None when the client library panics over it.
pub(crate) fn read_foreign<T>(read: impl FnOnce() -> T) -> Option<T> {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_READING.get() {
                usual(panic);
            }
        }));
    });
    let before = IS_READING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_READING.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_gives_nothing_when_library_panics() {
        assert_eq!(read_foreign(|| 7), Some(7));
        assert_eq!(read_foreign::<i32>(|| panic!("no UTF-8")), None);
        assert!(!IS_READING.get());
    }
}

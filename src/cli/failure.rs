//! Exit codes, by the names of `sysexits.h`.

/// Exit code for a wrong config or command line.
pub(super) const USAGE: u8 = 64;
/// Exit code for something that is needed and not there: the broker, a port, an interpreter.
pub(super) const UNAVAILABLE: u8 = 69;
/// Exit code for a defect of Signalbox itself.
pub(super) const SOFTWARE: u8 = 70;

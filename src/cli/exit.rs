//! Exit codes, as `sysexits.h` names them.

/// The config or the command line is wrong.
pub(super) const USAGE: u8 = 64;
/// Something that is needed is not there: the broker, a port, an interpreter.
pub(super) const UNAVAILABLE: u8 = 69;
/// A defect of Signalbox itself.
pub(super) const SOFTWARE: u8 = 70;

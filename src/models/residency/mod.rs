//! Residency: which loaded versions stay in memory, and which are unloaded.
//!
//! The [`policy`] decides and does nothing itself; the [`manager`] keeps the [`accounts`] of memory and carries the
//! decisions out.

mod accounts;
mod manager;
mod no_room;
mod policy;
mod use_guard;

pub(super) use manager::{Reservation, ResidencyManager};
pub(super) use policy::Rules;
pub(super) use use_guard::UseGuard;

//! Produces numbered requests, reads the replies and dead letters, and says what went wrong. The checker knows the wire
//! contract and nothing else of Signalbox.

mod checker;
mod clock;
mod endings;
mod extra;
mod extras;
mod load;
mod model;
mod plan;
mod raw;
mod reader;
mod report;

pub(crate) use endings::Endings;
pub(crate) use extra::Extra;
pub(crate) use extras::{Extras, Recipe};
pub(crate) use load::Load;
pub(crate) use model::{ComputedModel, Conduct};
pub(crate) use plan::Plan;
pub(crate) use reader::{Reader, lag_vanishes};
pub(crate) use report::{Kind, Report};

//! Payloads as bytes: the rows of a payload are found in its bytes, without its values being understood. Payloads that
//! agree in everything else that a model sees can be joined into one, and the answer to that cut again.
//!
//! Payloads are not joined if a model could see a row otherwise than it would alone. The type that Python's parsers and
//! pandas infer from a whole column (whole numbers, say) is therefore part of the key that payloads have to agree in. A
//! payload that is in doubt is not understood, and called alone.

mod answer;
mod columns;
mod csv;
mod payload;
mod rounding;
mod scanner;
mod texts;

pub use answer::Answer;
pub use columns::Signature;
pub use payload::{JoinKey, Payload};
pub use rounding::is_same_but_for_rounding;

#[cfg(test)]
mod tests;

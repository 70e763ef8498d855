//! What can be known of a payload without understanding it: its rows, where they lie in its bytes, and what else of it a
//! model sees. Payloads that agree in all but their rows can be joined into one, and the answer to that cut again.
//!
//! Nothing is joined that could make a model see a row otherwise than it would alone. What Python's parsers and pandas
//! infer from a whole column (that it is of whole numbers, say) is therefore part of what payloads have to agree in. In
//! doubt a payload is not understood, and called alone.

mod answer;
mod columns;
mod csv;
mod payload;
mod rounding;
mod scanner;
mod texts;

pub use answer::Answer;
pub use columns::Signature;
pub use payload::{Key, Payload};
pub use rounding::is_same_but_for_rounding;

#[cfg(test)]
mod tests;

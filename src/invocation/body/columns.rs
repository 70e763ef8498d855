//! Columns, and the kinds of their values: readers infer a type from a whole column.

use std::collections::HashSet;

/// Names the kinds of a value that matter to pandas and NumPy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CellKind {
    /// Whole number that is the same as a float.
    Integer = 1 << 0,
    /// Whole number that is not the same as a float, but fits into 64 bits.
    LargeInteger = 1 << 1,
    Float = 1 << 2,
    NotANumber = 1 << 3,
    Text = 1 << 4,
    Boolean = 1 << 5,
    Null = 1 << 6,
    Object = 1 << 7,
    /// Whole number that does not fit into 64 bits: its type depends on its sign and on its neighbours.
    HugeInteger = 1 << 8,
}

/// Describes a value as seen from outside, or all values of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// Kinds of the value, or of the innermost elements of its lists.
    kinds: u16,
    /// Depth of its lists and their length at each depth, as a hash; 0 for a value that is no list.
    shape: u64,
}

/// Names the readers of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnReader {
    /// Pandas, for which missing numbers are NaN.
    Pandas,
    /// NumPy, for which missing numbers are objects, and texts have a length.
    Numpy,
}

/// Holds the part of a model's input signature that matters here: a type that the model enforces need not be inferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    floats: HashSet<Vec<u8>>,
    is_float: bool,
}

impl From<CellKind> for Cell {
    fn from(kind: CellKind) -> Self {
        Self { kinds: kind as u16, shape: 0 }
    }
}

impl Cell {
    /// Wraps the cell in a list of so many elements like it.
    pub(super) fn in_list(self, count: usize) -> Self {
        let shape = self.shape.wrapping_mul(0x0100_0000_01b3) ^ (count as u64 + 1);
        Self { shape: shape | 1 << 63, ..self }
    }

    /// Merges two cells of a column; none when they differ in their lists.
    pub(super) fn beside(self, other: Self) -> Option<Self> {
        (self.shape == other.shape).then_some(Self { kinds: self.kinds | other.kinds, ..self })
    }

    /// Computes the class in which payloads have to agree about a column, so that it is of one type in each of them and
    /// in all together; and whether values are missing, where `nulls_apart`. None when nothing makes sure of that.
    pub(super) fn class(
        self,
        reader: ColumnReader,
        is_float: bool,
        has_signature: bool,
        nulls_apart: bool,
    ) -> Option<(u16, u64)> {
        let of = |kinds: &[CellKind]| kinds.iter().fold(0, |all, kind| all | *kind as u16);
        let has = |kind: CellKind| self.kinds & kind as u16 != 0;
        if has(CellKind::HugeInteger) || reader == ColumnReader::Numpy && has(CellKind::Text) && !has_signature {
            return None;
        }
        let may_miss = reader == ColumnReader::Pandas && self.shape == 0;
        let missing = if may_miss { CellKind::Null as u16 } else { 0 };
        let numbers = of(&[CellKind::Integer, CellKind::Float, CellKind::NotANumber]) | missing;
        let are_floats = has(CellKind::Float)
            || has(CellKind::NotANumber)
            || is_float
            || may_miss && self.kinds == of(&[CellKind::Integer, CellKind::Null]);
        let nulls = if nulls_apart { self.kinds & (CellKind::Null as u16 | CellKind::NotANumber as u16) } else { 0 };
        let kinds = if self.kinds & !numbers == 0 && are_floats { CellKind::Float as u16 | nulls } else { self.kinds };
        Some((kinds, self.shape))
    }
}

impl Signature {
    /// Makes the signature of a model that makes floats of the columns of these names; or of all columns, when its
    /// input has no names (`is_float`).
    pub fn new(floats: impl IntoIterator<Item = String>, is_float: bool) -> Self {
        // Names are kept as JSON has them, with their quotation marks. Names that need escapes are not recognised.
        let quoted = floats.into_iter().map(|name| format!("\"{name}\"").into_bytes());
        Self { floats: quoted.collect(), is_float }
    }

    /// Tells whether the model makes floats of this column.
    pub(super) fn makes_floats(&self, name: Option<&[u8]>) -> bool {
        self.is_float || name.is_some_and(|name| self.floats.contains(name))
    }
}

//! What readers infer from a whole column: of which kinds its values are.

use std::collections::HashSet;

/// What a value is, as far as it matters to pandas and NumPy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The same as a float.
    Integer = 1 << 0,
    /// Not, but it fits into 64 bits.
    LargeInteger = 1 << 1,
    Float = 1 << 2,
    NotANumber = 1 << 3,
    Text = 1 << 4,
    Boolean = 1 << 5,
    Null = 1 << 6,
    Object = 1 << 7,
    /// It does not: what becomes of it depends on its sign and on its neighbours.
    HugeInteger = 1 << 8,
}

/// What can be seen of a value from outside, or of all values of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// Of it, or of what its lists hold in the end.
    kinds: u16,
    /// How deep its lists are, and how long at each depth; 0 for what is no list.
    shape: u64,
}

/// Who reads a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Missing numbers are numbers that are not.
    Pandas,
    /// Missing numbers are objects, and texts have a length.
    Numpy,
}

/// What a model says of its own input, as far as it makes a difference here: what it enforces, need not be inferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    floats: HashSet<Vec<u8>>,
    is_float: bool,
}

impl From<Kind> for Cell {
    fn from(kind: Kind) -> Self {
        Self { kinds: kind as u16, shape: 0 }
    }
}

impl Cell {
    /// The same in a list of so many.
    pub(super) fn in_list(self, count: usize) -> Self {
        let shape = self.shape.wrapping_mul(0x0100_0000_01b3) ^ (count as u64 + 1);
        Self { shape: shape | 1 << 63, ..self }
    }

    /// What they are together; none when they differ in their lists.
    pub(super) fn beside(self, other: Self) -> Option<Self> {
        (self.shape == other.shape).then_some(Self { kinds: self.kinds | other.kinds, ..self })
    }

    /// What payloads have to agree in about a column, so that it is of one type in each of them and in all together; and in
    /// whether something is missing, where `nulls_apart`. None when nothing makes sure of that.
    pub(super) fn class(
        self,
        reader: Reader,
        is_float: bool,
        has_signature: bool,
        nulls_apart: bool,
    ) -> Option<(u16, u64)> {
        let of = |kinds: &[Kind]| kinds.iter().fold(0, |all, kind| all | *kind as u16);
        let has = |kind: Kind| self.kinds & kind as u16 != 0;
        if has(Kind::HugeInteger) || reader == Reader::Numpy && has(Kind::Text) && !has_signature {
            return None;
        }
        let may_miss = reader == Reader::Pandas && self.shape == 0;
        let missing = if may_miss { Kind::Null as u16 } else { 0 };
        let numbers = of(&[Kind::Integer, Kind::Float, Kind::NotANumber]) | missing;
        let are_floats = has(Kind::Float)
            || has(Kind::NotANumber)
            || is_float
            || may_miss && self.kinds == of(&[Kind::Integer, Kind::Null]);
        let nulls = if nulls_apart { self.kinds & (Kind::Null as u16 | Kind::NotANumber as u16) } else { 0 };
        let kinds = if self.kinds & !numbers == 0 && are_floats { Kind::Float as u16 | nulls } else { self.kinds };
        Some((kinds, self.shape))
    }
}

impl Signature {
    /// Of a model that makes floats of the columns of these names; or of all it is given, when its input has no names.
    pub fn new(floats: impl IntoIterator<Item = String>, is_float: bool) -> Self {
        // As JSON has them, with their quotation marks. Names that need escapes are not recognised.
        let quoted = floats.into_iter().map(|name| format!("\"{name}\"").into_bytes());
        Self { floats: quoted.collect(), is_float }
    }

    /// Whether it makes floats of this column.
    pub(super) fn makes_floats(&self, name: Option<&[u8]>) -> bool {
        self.is_float || name.is_some_and(|name| self.floats.contains(name))
    }
}

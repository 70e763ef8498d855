//! Why a version is no longer loaded.

/// Why a version leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::models) enum Leaving {
    Idle,
    Memory,
    Operator,
    Replaced,
    Rejected,
    Recycled,
    Broken,
}

impl Leaving {
    pub(super) const ALL: [Self; 7] =
        [Self::Idle, Self::Memory, Self::Operator, Self::Replaced, Self::Rejected, Self::Recycled, Self::Broken];

    /// The label of metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Memory => "memory",
            Self::Operator => "operator",
            Self::Replaced => "replaced",
            Self::Rejected => "rejected",
            Self::Recycled => "recycled",
            Self::Broken => "broken",
        }
    }

    pub(in crate::models) fn in_words(self) -> &'static str {
        match self {
            Self::Idle => "nobody has called it for models.idle_timeout",
            Self::Memory => "memory was short, and it was the least valuable",
            Self::Operator => "an operator asked for it",
            Self::Replaced => "another version has taken its place",
            Self::Rejected => "it does not answer its own example",
            Self::Recycled => "it had grown, and memory was short",
            Self::Broken => "its processes ended",
        }
    }
}

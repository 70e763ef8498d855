//! Reasons for which a version is unloaded.

/// Reason for which a version is unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnloadReason {
    /// No call came for `models.idle_timeout`.
    Idle,
    /// Memory was short, and the version was the least valuable.
    Memory,
    /// An operator asked for it.
    Operator,
    /// Another version has taken its place in the registry.
    Replaced,
    /// The version does not answer its own example, so it was not switched to.
    Rejected,
    /// The version's hosts had grown while memory was short.
    Recycled,
    /// The version's processes ended.
    Broken,
}

impl UnloadReason {
    pub(super) const ALL: [Self; 7] =
        [Self::Idle, Self::Memory, Self::Operator, Self::Replaced, Self::Rejected, Self::Recycled, Self::Broken];

    /// Returns the label of metrics.
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

    /// Describes the reason for operators.
    pub(super) fn in_words(self) -> &'static str {
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

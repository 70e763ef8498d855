//! Names of endpoints, instances and topics: the characters and lengths that are allowed.

/// The longest name of a topic that Kafka takes, in characters.
pub(crate) const MAX_TOPIC: usize = 249;

/// Tells whether a text is a name. `.` and `..` are none, since they are taken out of the paths of URLs.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    !matches!(text, "" | "." | "..") && text.chars().all(fits)
}

/// Tells whether Kafka takes a text for the name of a topic.
pub(crate) fn is_topic(text: &str) -> bool {
    is_name(text) && text.len() <= MAX_TOPIC
}

//! Text of others, made fit for a line of the log.

use std::fmt::Write;

/// Formats a text as one line of bounded length in bytes, in which nothing passes for the start of another line or is
/// hidden.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(longest));
    for character in text.chars() {
        if shown.len() >= longest {
            shown.push('…');
            break;
        }
        if character.is_control() || is_deceptive(character) {
            // Writing to a string never fails.
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Tells whether a character ends a line for some readers, or turns the direction of the text after it.
fn is_deceptive(character: char) -> bool {
    matches!(
        character,
        '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_keeps_one_line_and_cuts() {
        assert_eq!(printable("plain – ü 🚦", 100), "plain – ü 🚦");
        assert_eq!(printable("a\rb\n\u{1b}[31mc\td\u{2028}e\u{202e}f", 100), r"a\rb\n\u{1b}[31mc\td\u{2028}e\u{202e}f");
        let long = printable(&"é".repeat(100), 100);
        assert!(long.len() <= 100 + "…".len() && long.ends_with('…'), "{}", long.len());
        assert!(printable(&"\u{1}".repeat(100), 100).len() < 100 + 16);
    }
}

//! Python tracebacks, of which a person needs one line.

/// Finds the exception at the end of a traceback, as `Type: message`, if the text holds one, with only the first line
/// of its message. Python prints chained exceptions one after the other: the last one counts.
pub fn exception_of(text: &str) -> Option<&str> {
    text.lines().rev().find(|line| is_exception(line))
}

/// Tells whether a line ends a traceback as Python does: `package.Type: message`, at the start of the line.
fn is_exception(line: &str) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    let kind = name.rsplit('.').next().unwrap_or(name);
    let is_name = name.chars().all(|character| character.is_ascii_alphanumeric() || "_.".contains(character));
    let is_kind =
        ["Error", "Exception", "Exit", "Interrupt", "Warning", "Timeout"].iter().any(|end| kind.ends_with(end));
    is_name && is_kind && kind.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_exception_is_found_when_exceptions_are_chained() {
        let text = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    x: Error = 1\nKeyError: 'a'\n\n\
                    During handling of the above exception, another exception occurred:\n\n\
                    Traceback (most recent call last):\n  File \"b.py\", line 1\n\
                    mlflow.exceptions.MlflowException: no such model\nand a second line: of it\n";
        assert_eq!(exception_of(text), Some("mlflow.exceptions.MlflowException: no such model"));
        assert_eq!(exception_of("Traceback (most recent call last):\nRecursionError"), Some("RecursionError"));
        assert_eq!(exception_of("INFO:     Started server process [1]\nError in line: 3"), None);
    }
}

//! Comparison of two answers up to rounding.

/// Relative tolerance: numbers are the same when they differ by no more than this times the larger one plus
/// [`ABSOLUTE`], by the defaults of NumPy's `allclose`.
const RELATIVE: f64 = 1e-5;

/// Absolute tolerance, which is added to the relative one.
const ABSOLUTE: f64 = 1e-8;

/// Tells whether two JSON texts are the same, byte for byte but for the last digits of numbers with a fraction or an
/// exponent.
pub fn is_same_but_for_rounding(one: &[u8], other: &[u8]) -> bool {
    let (mut one, mut other) = (one, other);
    let mut in_text = false;
    loop {
        match (one, other) {
            ([], []) => return true,
            ([first, ..], [second, ..]) if !in_text && is_numeric(*first) && is_numeric(*second) => {
                let (number, rest) = one.split_at(length_of_number(one));
                let (another, other_rest) = other.split_at(length_of_number(other));
                if number != another && !are_close(number, another) {
                    return false;
                }
                (one, other) = (rest, other_rest);
            }
            ([first, rest @ ..], [second, other_rest @ ..]) if first == second => {
                // An escaped character is passed with its escape, so that `\"` does not end the text.
                let skipped = usize::from(in_text && *first == b'\\');
                if skipped > 0 && rest.first() != other_rest.first() {
                    return false;
                }
                in_text ^= *first == b'"';
                one = rest.get(skipped..).unwrap_or_default();
                other = other_rest.get(skipped..).unwrap_or_default();
            }
            _ => return false,
        }
    }
}

fn is_numeric(byte: u8) -> bool {
    byte.is_ascii_digit() || b"+-.eE".contains(&byte)
}

fn length_of_number(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_numeric(*byte)).unwrap_or(text.len())
}

fn are_close(one: &[u8], other: &[u8]) -> bool {
    // A float has at least one of these: Python writes a float that is whole as `1.0`, and a large one as `1e+16`.
    let has_fraction = |number: &[u8]| number.iter().any(|byte| b".eE".contains(byte));
    let read = |number: &[u8]| std::str::from_utf8(number).ok()?.parse::<f64>().ok();
    match (read(one), read(other)) {
        (Some(a), Some(b)) if has_fraction(one) && has_fraction(other) => {
            (a - b).abs() <= ABSOLUTE + RELATIVE * a.abs().max(b.abs())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_same_when_only_last_digits_of_fractions_differ() {
        let same = |one: &str, other: &str| is_same_but_for_rounding(one.as_bytes(), other.as_bytes());
        let answer = r#"{"predictions": [{"label": "a 1.5", "score": 0.95123456789}, 3, NaN, -Infinity, null]}"#;
        assert!(same(answer, answer));
        assert!(same(answer, &answer.replace("0.95123456789", "0.95123456788")));
        assert!(
            same("[1e-12]", "[-3.5e-13]") && same("[1.0]", "[0.9999999999]") && same("[1e+16]", "[1.0000000001e16]")
        );
        for (written, otherwise) in [
            ("0.95123456789", "0.9513"),
            ("a 1.5", "a 1.50000000001"),
            ("3", "4"),
            ("NaN", "1.0"),
            ("null", "0.0"),
            (", 3", ""),
        ] {
            assert!(!same(answer, &answer.replace(written, otherwise)), "{written} {otherwise}");
        }
        assert!(!same("[1000000]", "[1000001]") && !same(r#"["\"1.0"]"#, r#"["\"1.0000000001"]"#));
        assert!(!same("[1]", "[1.0]"), "they are of two types");
    }
}

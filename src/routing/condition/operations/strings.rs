//! Python's `str`: counts in characters, and has its own ideas of white space and digits.

use rhai::ImmutableString;

use super::collections::{from_either_end, index_error, int, no_attribute, ordered, whole};
use crate::routing::condition::budget::{charge, charge_text};
use crate::routing::condition::error::{ConditionError, Result};
use crate::routing::condition::value::Value;

/// Counts the characters.
pub(super) fn length(text: &str) -> Result<usize> {
    charge(text.len() / 64)?;
    Ok(text.chars().count())
}

/// Returns all characters.
pub(super) fn characters(text: &str) -> Result<Vec<char>> {
    charge(text.len())?;
    Ok(text.chars().collect())
}

/// Implements `text[index]`.
pub(super) fn character(text: &str, index: i64) -> Result<Value> {
    let at = from_either_end(index, length(text)?);
    let character = at.and_then(|at| text.chars().nth(at)).ok_or_else(|| index_error("string"))?;
    Ok(Value::text(character.to_string()))
}

/// Implements `needle in text`.
pub(super) fn contains(text: &str, needle: &str) -> Result<bool> {
    charge_text(text.len())?;
    Ok(text.contains(needle))
}

/// Implements `left + right`.
pub(super) fn concatenate(left: &str, right: &str) -> Result<Value> {
    charge_text(left.len() + right.len())?;
    Ok(Value::text([left, right].concat()))
}

/// Implements `text * times`.
pub(super) fn repeat(text: &str, times: usize) -> Result<Value> {
    charge_text(text.len().saturating_mul(times))?;
    Ok(Value::text(text.repeat(times)))
}

/// Implements `str.startswith(prefix)`, where the prefix may be a tuple of them.
pub(super) fn startswith(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    affix(receiver, arguments, "startswith", |text, affix| text.starts_with(affix))
}

/// Implements `str.endswith(suffix)`, where the suffix may be a tuple of them.
pub(super) fn endswith(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    affix(receiver, arguments, "endswith", |text, affix| text.ends_with(affix))
}

fn affix(receiver: &Value, arguments: &[Value], name: &str, holds: fn(&str, &str) -> bool) -> Result<Value> {
    let text = receiver_text(receiver, name)?;
    let wrong = |value: &Value| {
        let first = if matches!(arguments, [Value::Tuple(_)]) { "tuple for " } else { "" };
        ConditionError::wrong_type(format!("{first}{name} must be str or a tuple of str, not {}", value.type_name()))
    };
    match arguments {
        [Value::Str(affix)] => Ok(Value::Bool(holds(text, affix))),
        [Value::Tuple(affixes)] => {
            charge(affixes.len())?;
            for affix in affixes.iter() {
                let Value::Str(affix) = affix else { return Err(wrong(affix)) };
                if holds(text, affix) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        others => Err(others.first().map_or_else(|| ConditionError::wrong_type(name), wrong)),
    }
}

/// Implements `str.lower()`.
pub(super) fn lower(receiver: &Value, _: &[Value]) -> Result<Value> {
    made_from(receiver, "lower", str::to_lowercase)
}

/// Implements `str.upper()`.
pub(super) fn upper(receiver: &Value, _: &[Value]) -> Result<Value> {
    made_from(receiver, "upper", str::to_uppercase)
}

/// Implements `str.capitalize()`.
pub(super) fn capitalize(receiver: &Value, _: &[Value]) -> Result<Value> {
    made_from(receiver, "capitalize", |text| {
        let mut characters = text.chars();
        let first = characters.next().map(title_case).unwrap_or_default();
        // The text is lowered as a whole, since a final sigma depends on the letters before it.
        let lowered = text.to_lowercase();
        let skipped = text.chars().next().map_or(0, |first| first.to_lowercase().map(char::len_utf8).sum());
        first + lowered.get(skipped..).unwrap_or_default()
    })
}

/// Implements `str.title()`.
pub(super) fn title(receiver: &Value, _: &[Value]) -> Result<Value> {
    made_from(receiver, "title", |text| {
        let mut titled = String::with_capacity(text.len());
        // The text is lowered as a whole, since a final sigma depends on the letters around it.
        let lowered = text.to_lowercase();
        let mut lowered = lowered.chars();
        let mut inside_word = false;
        for character in text.chars() {
            let lower = lowered.by_ref().take(character.to_lowercase().count());
            if inside_word {
                titled.extend(lower);
            } else {
                lower.for_each(drop);
                titled.push_str(&title_case(character));
            }
            inside_word = character.is_lowercase() || character.is_uppercase() || is_title_case(character);
        }
        titled
    })
}

/// Implements `str.strip([characters])`.
pub(super) fn strip(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    stripped(receiver, arguments, "strip", true, true)
}

/// Implements `str.lstrip([characters])`.
pub(super) fn lstrip(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    stripped(receiver, arguments, "lstrip", true, false)
}

/// Implements `str.rstrip([characters])`.
pub(super) fn rstrip(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    stripped(receiver, arguments, "rstrip", false, true)
}

fn stripped(receiver: &Value, arguments: &[Value], name: &str, left: bool, right: bool) -> Result<Value> {
    let mut text = receiver_text(receiver, name)?;
    let set = match arguments {
        [] | [Value::None] => None,
        [set, ..] => Some(argument_text(set, name)?),
    };
    charge_text(text.len())?;
    charge_text(text.len().saturating_mul(set.map_or(0, |set| set.len() / 16)))?;
    let goes = |character: char| set.map_or_else(|| is_space(character), |set| set.contains(character));
    if left {
        text = text.trim_start_matches(goes);
    }
    if right {
        text = text.trim_end_matches(goes);
    }
    Ok(Value::text(text))
}

/// Implements `str.split([separator[, maxsplit]])`.
pub(super) fn split(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    let text = receiver_text(receiver, "split")?;
    charge(text.len())?;
    let pieces = limit(arguments.get(1))?.saturating_add(1);
    let parts: Vec<Value> = match arguments.first() {
        None | Some(Value::None) => split_at_space(text, pieces).into_iter().map(Value::text).collect(),
        Some(separator) => match argument_text(separator, "split")? {
            "" => return Err(ConditionError::wrong_value("empty separator")),
            separator => text.splitn(pieces, separator).map(Value::text).collect(),
        },
    };
    Ok(Value::List(parts.into()))
}

fn split_at_space(text: &str, pieces: usize) -> Vec<&str> {
    let mut rest = text.trim_start_matches(is_space);
    let mut parts = Vec::new();
    while !rest.is_empty() {
        if parts.len() + 1 == pieces {
            parts.push(rest.trim_end_matches(is_space));
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after.trim_start_matches(is_space);
    }
    parts
}

/// Implements `str.replace(old, new[, count])`.
pub(super) fn replace(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    let text = receiver_text(receiver, "replace")?;
    let [old, new, count @ ..] = arguments else {
        return Err(ConditionError::wrong_type("replace expected at least 2 arguments"));
    };
    let (old, new) = (argument_text(old, "replace")?, argument_text(new, "replace")?);
    let count = limit(count.first())?;
    charge_text(text.len())?;
    let places = text.matches(old).take(count).count();
    charge_text(text.len() + places.saturating_mul(new.len()))?;
    charge(places)?;
    Ok(Value::text(text.replacen(old, new, count)))
}

/// Implements `str.find(needle)`.
pub(super) fn find(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    found(receiver, arguments, "find", |text, needle| text.find(needle))
}

/// Implements `str.rfind(needle)`.
pub(super) fn rfind(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    found(receiver, arguments, "rfind", |text, needle| text.rfind(needle))
}

fn found(receiver: &Value, arguments: &[Value], name: &str, find: fn(&str, &str) -> Option<usize>) -> Result<Value> {
    let (text, needle) = (receiver_text(receiver, name)?, only_text(arguments, name)?);
    charge_text(text.len())?;
    match find(text, needle) {
        Some(at) => int(text.get(..at).map_or(0, |before| before.chars().count())),
        None => Ok(Value::Int(-1)),
    }
}

/// Implements `str.count(needle)`.
pub(super) fn count(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    let (text, needle) = (receiver_text(receiver, "count")?, only_text(arguments, "count")?);
    charge_text(text.len())?;
    int(text.matches(needle).count())
}

/// Implements `separator.join(texts)`.
pub(super) fn join(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    let separator = receiver_text(receiver, "join")?;
    let [iterable] = arguments else { return Err(ConditionError::wrong_type("join takes one argument")) };
    let items = ordered(iterable)?;
    let mut joined = String::new();
    for (at, item) in items.iter().enumerate() {
        let Value::Str(item) = item else {
            let message = format!("sequence item {at}: expected str instance, {} found", item.type_name());
            return Err(ConditionError::wrong_type(message));
        };
        charge_text(separator.len() + item.len())?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item);
    }
    Ok(Value::text(joined))
}

/// Implements `str.removeprefix(prefix)`.
pub(super) fn removeprefix(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    let (text, prefix) = (receiver_text(receiver, "removeprefix")?, only_text(arguments, "removeprefix")?);
    charge_text(text.len())?;
    Ok(Value::text(text.strip_prefix(prefix).unwrap_or(text)))
}

/// Implements `str.removesuffix(suffix)`.
pub(super) fn removesuffix(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    let (text, suffix) = (receiver_text(receiver, "removesuffix")?, only_text(arguments, "removesuffix")?);
    charge_text(text.len())?;
    Ok(Value::text(text.strip_suffix(suffix).unwrap_or(text)))
}

/// Implements `str.isdigit()`. Whether a numeral outside ASCII is a digit is not known here, so meeting one is an error.
pub(super) fn isdigit(receiver: &Value, _: &[Value]) -> Result<Value> {
    let text = receiver_text(receiver, "isdigit")?;
    charge_text(text.len())?;
    if text.chars().any(|character| !character.is_ascii() && character.is_numeric()) {
        return Err(ConditionError::wrong_value("isdigit() knows only the digits 0 to 9"));
    }
    Ok(Value::Bool(!text.is_empty() && text.chars().all(|character| character.is_ascii_digit())))
}

/// Implements `str.isalpha()`.
pub(super) fn isalpha(receiver: &Value, _: &[Value]) -> Result<Value> {
    all_characters(receiver, "isalpha", |character| character.is_alphabetic() && !character.is_numeric())
}

/// Implements `str.isalnum()`.
pub(super) fn isalnum(receiver: &Value, _: &[Value]) -> Result<Value> {
    all_characters(receiver, "isalnum", char::is_alphanumeric)
}

/// Implements `str.isspace()`.
pub(super) fn isspace(receiver: &Value, _: &[Value]) -> Result<Value> {
    all_characters(receiver, "isspace", is_space)
}

/// Implements `str.isupper()`.
pub(super) fn isupper(receiver: &Value, _: &[Value]) -> Result<Value> {
    cased(receiver, "isupper", char::is_uppercase, |it| it.is_lowercase() || is_title_case(it))
}

/// Implements `str.islower()`.
pub(super) fn islower(receiver: &Value, _: &[Value]) -> Result<Value> {
    cased(receiver, "islower", char::is_lowercase, |it| it.is_uppercase() || is_title_case(it))
}

fn all_characters(receiver: &Value, name: &str, holds: fn(char) -> bool) -> Result<Value> {
    let text = receiver_text(receiver, name)?;
    charge_text(text.len())?;
    Ok(Value::Bool(!text.is_empty() && text.chars().all(holds)))
}

fn cased(receiver: &Value, name: &str, wanted: fn(char) -> bool, unwanted: fn(char) -> bool) -> Result<Value> {
    let text = receiver_text(receiver, name)?;
    charge_text(text.len())?;
    Ok(Value::Bool(text.chars().any(wanted) && !text.chars().any(unwanted)))
}

fn made_from(receiver: &Value, name: &str, make: impl Fn(&str) -> String) -> Result<Value> {
    let text = receiver_text(receiver, name)?;
    charge_text(text.len().saturating_mul(2))?;
    Ok(Value::text(make(text)))
}

/// Returns the text a method is called on.
fn receiver_text<'a>(receiver: &'a Value, name: &str) -> Result<&'a str> {
    match receiver {
        Value::Str(text) => Ok(text),
        other => Err(no_attribute(other, name)),
    }
}

fn argument_text<'a>(argument: &'a Value, name: &str) -> Result<&'a str> {
    match argument {
        Value::Str(text) => Ok(text),
        other => Err(ConditionError::wrong_type(format!("{name}() argument must be str, not {}", other.type_name()))),
    }
}

fn only_text<'a>(arguments: &'a [Value], name: &str) -> Result<&'a str> {
    match arguments {
        [only] => argument_text(only, name),
        _ => Err(ConditionError::wrong_type(format!("{name}() takes exactly one argument"))),
    }
}

/// Returns the limit of a count; Python takes a negative count as no bound.
fn limit(count: Option<&Value>) -> Result<usize> {
    count.map_or(Ok(usize::MAX), |count| Ok(usize::try_from(whole(count)?).unwrap_or(usize::MAX)))
}

/// Tells whether Python calls a character white space: Unicode's, and four old separators.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// Tells whether a character is one letter for a large and a small one, such as `ǅ`: neither upper case nor lower case.
fn is_title_case(character: char) -> bool {
    let has_cases = || !character.to_lowercase().eq([character]) && !character.to_uppercase().eq([character]);
    !character.is_lowercase() && !character.is_uppercase() && has_cases()
}

/// Returns the first letter of a title-cased word: `ß` becomes `Ss`. The standard library knows upper case only, and
/// this table has the letters with a title case of their own.
fn title_case(character: char) -> String {
    let own = match character {
        'ŉ' => "ʼN",
        'Ǆ'..='ǆ' => "ǅ",
        'Ǉ'..='ǉ' => "ǈ",
        'Ǌ'..='ǌ' => "ǋ",
        'Ǳ'..='ǳ' => "ǲ",
        'ᾳ' | 'ᾼ' => "ᾼ",
        'ῃ' | 'ῌ' => "ῌ",
        'ῳ' | 'ῼ' => "ῼ",
        'ᾷ' => "ᾼ\u{342}",
        'ῇ' => "ῌ\u{342}",
        'ῷ' => "ῼ\u{342}",
        // Georgian capitals are for whole words.
        'ა'..='ჺ' | 'ჽ'..='ჿ' => return character.to_string(),
        // Greek with an iota below: eight small letters, then the same eight in title case.
        '\u{1f80}'..='\u{1faf}' => {
            return char::from_u32(u32::from(character) | 8).unwrap_or(character).to_string();
        }
        'ᾲ' | 'ᾴ' | 'ῂ' | 'ῄ' | 'ῲ' | 'ῴ' => {
            return character.to_uppercase().take(1).chain(['\u{345}']).collect();
        }
        _ => {
            let mut upper = character.to_uppercase();
            let first = upper.next().unwrap_or(character);
            return std::iter::once(first).chain(upper.flat_map(char::to_lowercase)).collect();
        }
    };
    own.to_owned()
}

/// Implements `str(float)`: the shortest text that reads back as the same number, with an exponent where Python writes one.
pub(super) fn float_text(float: f64) -> ImmutableString {
    if !float.is_finite() {
        return if float.is_nan() {
            "nan"
        } else if float > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .into();
    }
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = float.to_string();
        return if plain.contains('.') { plain.into() } else { format!("{plain}.0").into() };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()).into()
}

//! Typed access to the members of a strict JSON object; each failure names the member.

use super::strict::{Json, Object, SAFE_INTEGER};

/// What is wrong with a member, as one line.
pub type Checked<T> = Result<T, String>;

fn wrong<T>(name: &str, wanted: &str) -> Checked<T> {
    Err(format!("`{name}` is not {wanted}"))
}

fn member<'a>(object: &'a Object, name: &str) -> Checked<&'a Json> {
    object.get(name).ok_or_else(|| format!("`{name}` is missing"))
}

/// A member that may be absent.
pub fn optional<'a, T>(
    object: &'a Object,
    name: &str,
    read: impl FnOnce(&'a Object, &str) -> Checked<T>,
) -> Checked<Option<T>> {
    if object.contains_key(name) { read(object, name).map(Some) } else { Ok(None) }
}

/// A member that may be absent or null.
pub fn nullable<'a, T>(
    object: &'a Object,
    name: &str,
    read: impl FnOnce(&'a Object, &str) -> Checked<T>,
) -> Checked<Option<T>> {
    if object.get(name) == Some(&Json::Null) { Ok(None) } else { optional(object, name, read) }
}

/// A text.
pub fn text<'a>(object: &'a Object, name: &str) -> Checked<&'a str> {
    match member(object, name)? {
        Json::Text(text) => Ok(text),
        _ => wrong(name, "a text"),
    }
}

/// A text that is not empty.
pub fn words<'a>(object: &'a Object, name: &str) -> Checked<&'a str> {
    text(object, name)
        .and_then(|text| if text.is_empty() { wrong(name, "a text with something in it") } else { Ok(text) })
}

/// True or false.
pub fn boolean(object: &Object, name: &str) -> Checked<bool> {
    match member(object, name)? {
        Json::Bool(value) => Ok(*value),
        _ => wrong(name, "true or false"),
    }
}

/// Any number.
pub fn number(object: &Object, name: &str) -> Checked<f64> {
    as_number(member(object, name)?).ok_or(()).or_else(|()| wrong(name, "a number"))
}

/// The value of a number.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn as_number(value: &Json) -> Option<f64> {
    match value {
        Json::Integer(value) => Some(*value as f64),
        Json::Number(value) => Some(*value),
        _ => None,
    }
}

/// An integer of at least `least`.
pub fn integer(value: &Json, name: &str, least: i64) -> Checked<i64> {
    let Json::Integer(value) = value else { return wrong(name, "an integer") };
    let value = i64::try_from(*value).ok().filter(|value| (least..=SAFE_INTEGER).contains(value));
    value.ok_or(()).or_else(|()| wrong(name, "an integer in range"))
}

/// An integer that is not negative.
pub fn count(object: &Object, name: &str) -> Checked<u64> {
    Ok(integer(member(object, name)?, name, 0)?.unsigned_abs())
}

/// 64 lower-case hexadecimal digits.
pub fn digest<'a>(object: &'a Object, name: &str) -> Checked<&'a str> {
    text(object, name)
        .and_then(|text| if is_digest(text) { Ok(text) } else { wrong(name, "64 lower-case hexadecimal digits") })
}

/// Whether `text` is a sha256 as the format writes it.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// An object.
pub fn object<'a>(object: &'a Object, name: &str) -> Checked<&'a Object> {
    match member(object, name)? {
        Json::Object(found) => Ok(found),
        _ => wrong(name, "an object"),
    }
}

/// An array.
pub fn list<'a>(object: &'a Object, name: &str) -> Checked<&'a [Json]> {
    match member(object, name)? {
        Json::List(found) => Ok(found),
        _ => wrong(name, "an array"),
    }
}

/// An array of objects, each read by `read`.
pub fn objects<T>(object: &Object, name: &str, read: impl Fn(&Object) -> Checked<T>) -> Checked<Vec<T>> {
    let element = |(index, value): (usize, &Json)| match value {
        Json::Object(value) => read(value).map_err(|cause| format!("`{name}[{index}]`: {cause}")),
        _ => wrong(&format!("{name}[{index}]"), "an object"),
    };
    list(object, name)?.iter().enumerate().map(element).collect()
}

/// A text that is one of `known`.
pub fn one_of<'a>(object: &'a Object, name: &str, known: &[&str]) -> Checked<&'a str> {
    text(object, name).and_then(|text| {
        if known.contains(&text) { Ok(text) } else { wrong(name, &format!("one of {}", known.join(", "))) }
    })
}

//! What must be known of an ONNX file before the runtime opens it: which files it refers to, and whether its answers
//! depend on the batch. Read from the protobuf wire format; only the messages that can hold a tensor are walked
//! (onnx.proto3 of ONNX 1.x), so embedded weights cost nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What an ONNX file refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// Every external-data location, as written.
    pub locations: BTreeSet<String>,
    /// Whether an operator computes something over the whole batch, so that requests must not share a run.
    pub batch_dependent: bool,
}

/// Why the bytes are no ONNX file.
pub type Broken = &'static str;

/// The most messages inside one another.
const DEPTH_LIMIT: usize = 64;

#[derive(Clone, Copy)]
enum Message {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Message {
    /// The message in field `number`, if it can hold a tensor.
    fn child(self, number: u128) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Function, 7) | (Self::Graph, 1) => Self::Node,
            (Self::Function, 11) | (Self::Node, 5) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            _ => return None,
        })
    }
}

/// A field of a message.
enum Value<'a> {
    Number(u128),
    Bytes(&'a [u8]),
    Fixed,
}

/// Reads what the ONNX file in `bytes` refers to.
pub fn references(bytes: &[u8]) -> Result<References, Broken> {
    if bytes.is_empty() {
        return Err("the file is empty");
    }
    let mut found = References::default();
    walk(bytes, Message::Model, 0, &mut found)?;
    Ok(found)
}

fn walk(bytes: &[u8], message: Message, depth: usize, found: &mut References) -> Result<(), Broken> {
    if depth > DEPTH_LIMIT {
        return Err("its messages are nested too deeply");
    }
    if matches!(message, Message::Tensor) {
        return tensor(bytes, found);
    }
    let mut rest = bytes;
    while let Some((number, value)) = field(&mut rest)? {
        let Value::Bytes(inner) = value else { continue };
        // dynamic quantisation takes its scale from all rows of the batch
        found.batch_dependent |=
            matches!(message, Message::Node) && number == 4 && inner.starts_with(b"DynamicQuantize");
        if let Some(child) = message.child(number) {
            walk(inner, child, depth + 1, found)?;
        }
    }
    Ok(())
}

fn tensor(bytes: &[u8], found: &mut References) -> Result<(), Broken> {
    let (mut external, mut named, mut rest) = (false, false, bytes);
    while let Some((number, value)) = field(&mut rest)? {
        match (number, value) {
            (13, Value::Bytes(entry)) => {
                if let Some(location) = location(entry)? {
                    found.locations.insert(location.to_owned());
                    named = true;
                }
            }
            // an enumeration is of 32 bits too
            (14, Value::Number(place)) => external = place & u128::from(u32::MAX) == 1,
            _ => {}
        }
    }
    if external && !named { Err("a tensor is external but names no location") } else { Ok(()) }
}

/// The location that an entry of a tensor's external data gives, if it is that entry.
fn location(entry: &[u8]) -> Result<Option<&str>, Broken> {
    let (mut key, mut text, mut rest): (&[u8], &[u8], _) = (b"", b"", entry);
    while let Some((number, value)) = field(&mut rest)? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => text = bytes,
            _ => {}
        }
    }
    if key != b"location" {
        return Ok(None);
    }
    std::str::from_utf8(text).map(Some).map_err(|_| "a location is no UTF-8")
}

/// Takes the next field off `rest`.
fn field<'a>(rest: &mut &'a [u8]) -> Result<Option<(u128, Value<'a>)>, Broken> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    // the runtime keeps the low 32 bits of a tag, and would see another field than is seen here
    if key > u128::from(u32::MAX) {
        return Err("it has a tag above 2^32 - 1");
    }
    let number = key >> 3;
    if number == 0 {
        return Err("it has a field of number 0");
    }
    let size = match key & 7 {
        0 => return Ok(Some((number, Value::Number(varint(rest)?)))),
        1 => 8,
        2 => varint(rest)?,
        5 => 4,
        _ => return Err("it has a field of an unknown wire type"),
    };
    let split = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size));
    let (bytes, after) = split.ok_or("a field is longer than its message")?;
    *rest = after;
    Ok(Some((number, if key & 7 == 2 { Value::Bytes(bytes) } else { Value::Fixed })))
}

fn varint(rest: &mut &[u8]) -> Result<u128, Broken> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, after) = rest.split_first().ok_or("a number is cut off")?;
        *rest = after;
        value |= u128::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is cut off")
}

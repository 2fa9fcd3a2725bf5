//! What a message takes once it is decoded, counted on its bytes before anything of it is: two bytes may become a
//! structure of hundreds.

use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::error::{Error, Result};
use crate::http::request::MOST_TENSORS;
use crate::model::tensor::MOST_RANK;

/// The most parameters of a request, an input or an output.
const MOST_PARAMETERS: usize = 64;
/// What a parameter takes in its map, besides its texts.
const PARAMETER: usize = 160;
/// What an element of bytes takes: as it is decoded, and as a tensor's text.
const TEXT: usize = size_of::<bytes::Bytes>() + size_of::<String>() + 16;

/// How a field is written.
enum Value<'a> {
    Varint,
    Fixed,
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| broken("a tag is too large"))?;
        let value = match key & 7 {
            0 => self.varint().map(|_| Value::Varint)?,
            1 => self.bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.bytes(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => self.bytes(4).map(|_| Value::Fixed)?,
            _ => return Err(broken("a field is of a type that nobody uses")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for (position, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                self.0 = &self.0[position + 1..];
                return Ok(value);
            }
        }
        Err(broken("a number does not end"))
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(|| broken("a field ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }
}

fn broken(what: &str) -> Error {
    Error::Invalid(format!("the message is no request of this method: {what}"))
}

/// Counts one more of `what`, of which there may be `most`.
fn count(number: &mut usize, most: usize, what: &str) -> Result<()> {
    *number += 1;
    if *number > most {
        return Err(Error::Invalid(format!("a request holds more than {most} {what}: send at most {most}")));
    }
    Ok(())
}

/// The memory that `message`, a `ModelInferRequest`, takes at most once it is decoded and its tensors are read.
pub fn weight(message: &[u8]) -> Result<usize> {
    let (mut weight, mut inputs, mut outputs, mut raw, mut parameters) = (0, 0, 0, 0, 0);
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        let Value::Bytes(bytes) = value else { continue };
        weight += bytes.len();
        match number {
            4 => {
                count(&mut parameters, MOST_PARAMETERS, "parameters")?;
                weight += PARAMETER;
            }
            5 => {
                count(&mut inputs, MOST_TENSORS, "inputs")?;
                weight += size_of::<InferInputTensor>() + input(bytes)?;
            }
            6 => {
                count(&mut outputs, MOST_TENSORS, "outputs")?;
                weight += size_of::<InferRequestedOutputTensor>() + output(bytes)?;
            }
            7 => {
                count(&mut raw, MOST_TENSORS, "raw contents")?;
                // strings of no bytes are four on the wire
                weight += TEXT + bytes.len() / 4 * size_of::<String>();
            }
            _ => {}
        }
    }
    Ok(weight)
}

fn output(message: &[u8]) -> Result<usize> {
    let (mut parameters, mut fields) = (0, Fields(message));
    while let Some((number, _)) = fields.next()? {
        if number == 2 {
            count(&mut parameters, MOST_PARAMETERS, "parameters of an output")?;
        }
    }
    Ok(parameters * PARAMETER)
}

fn input(message: &[u8]) -> Result<usize> {
    let (mut weight, mut rank, mut parameters, mut fields) = (0, 0, 0, Fields(message));
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (3, Value::Bytes(packed)) => rank += varints(packed),
            (3, _) => rank += 1,
            (4, _) => count(&mut parameters, MOST_PARAMETERS, "parameters of an input")?,
            (5, Value::Bytes(bytes)) => weight += contents(bytes)?,
            _ => {}
        }
    }
    if rank > MOST_RANK {
        return Err(Error::Invalid(format!("a shape has {rank} dimensions: send at most {MOST_RANK}")));
    }
    Ok(weight + parameters * PARAMETER)
}

/// What typed contents take; a list that grows element by element may have room for twice as many.
fn contents(message: &[u8]) -> Result<usize> {
    let (mut weight, mut fields) = (0, Fields(message));
    while let Some((number, value)) = fields.next()? {
        let size = match number {
            1 => 1,
            2 | 4 | 6 => 4,
            3 | 5 | 7 => 8,
            _ => 0,
        };
        weight += match (number, value) {
            (6 | 7, Value::Bytes(packed)) => packed.len(),
            (1..=5, Value::Bytes(packed)) => 2 * size * varints(packed),
            (8, Value::Bytes(bytes)) => TEXT + bytes.len(),
            _ => 2 * size,
        };
    }
    Ok(weight)
}

/// The numbers in `packed`: each has one byte without the highest bit.
fn varints(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte & 0x80 == 0).count()
}

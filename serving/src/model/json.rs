//! JSON numbers to tensor values and back, without a tree in between.

use std::io::Write as _;

use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::tensor::{Data, DataType};

/// A value of a tensor as JSON writes it; each conversion is `None` where the value does not fit the type.
trait Element: Sized {
    const NAME: DataType;
    fn unsigned(value: u64) -> Option<Self>;
    fn signed(value: i64) -> Option<Self>;
    fn float(value: f64) -> Option<Self>;
    /// `null` stands for a missing number: NaN where the type has one.
    fn missing() -> Option<Self> {
        None
    }
    fn boolean(_value: bool) -> Option<Self> {
        None
    }
    fn text(_value: &str) -> Option<Self> {
        None
    }
}

/// A number that can be appended to a JSON text.
pub trait JsonNumber: Copy {
    /// Appends the shortest text that reads back as the same value.
    fn write(self, out: &mut Vec<u8>);
}

macro_rules! integers {
    ($($variant:ident $type:ty;)+) => {$(
        impl Element for $type {
            const NAME: DataType = DataType::$variant;
            fn unsigned(value: u64) -> Option<Self> { Self::try_from(value).ok() }
            fn signed(value: i64) -> Option<Self> { Self::try_from(value).ok() }
            fn float(_value: f64) -> Option<Self> { None }
        }
        impl JsonNumber for $type {
            fn write(self, out: &mut Vec<u8>) { out.extend_from_slice(itoa::Buffer::new().format(self).as_bytes()); }
        }
    )+};
}

macro_rules! floats {
    ($($variant:ident $type:ty, $narrow:expr, $widen:expr;)+) => {$(
        impl Element for $type {
            const NAME: DataType = DataType::$variant;
            #[allow(clippy::cast_precision_loss)]
            fn unsigned(value: u64) -> Option<Self> { Self::float(value as f64) }
            #[allow(clippy::cast_precision_loss)]
            fn signed(value: i64) -> Option<Self> { Self::float(value as f64) }
            fn float(value: f64) -> Option<Self> {
                let narrow: fn(f64) -> $type = $narrow;
                Some(narrow(value)).filter(|value| value.is_finite())
            }
            fn missing() -> Option<Self> { Some(<$type>::NAN) }
        }
        impl JsonNumber for $type {
            fn write(self, out: &mut Vec<u8>) {
                if self.is_finite() { out.extend_from_slice(ryu::Buffer::new().format_finite($widen(self)).as_bytes()); }
                else { out.extend_from_slice(b"null"); }
            }
        }
    )+};
}

integers! { Uint8 u8; Uint16 u16; Uint32 u32; Uint64 u64; Int8 i8; Int16 i16; Int32 i32; Int64 i64; }

#[allow(clippy::cast_possible_truncation)]
fn narrow(value: f64) -> f32 {
    value as f32
}

floats! {
    Fp16 f16, f16::from_f64, f32::from;
    Bf16 bf16, bf16::from_f64, f32::from;
    Fp32 f32, narrow, f32::from;
    Fp64 f64, |value| value, f64::from;
}

impl Element for bool {
    const NAME: DataType = DataType::Bool;
    fn unsigned(_value: u64) -> Option<Self> {
        None
    }
    fn signed(_value: i64) -> Option<Self> {
        None
    }
    fn float(_value: f64) -> Option<Self> {
        None
    }
    fn boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Element for String {
    const NAME: DataType = DataType::Bytes;
    fn unsigned(_value: u64) -> Option<Self> {
        None
    }
    fn signed(_value: i64) -> Option<Self> {
        None
    }
    fn float(_value: f64) -> Option<Self> {
        None
    }
    fn text(value: &str) -> Option<Self> {
        Some(value.to_owned())
    }
}

/// Reads a flat or nested JSON array into values of one type.
pub struct Values {
    /// The element type to read.
    pub datatype: DataType,
    /// How many values to make room for.
    pub capacity: usize,
}

impl<'de> DeserializeSeed<'de> for Values {
    type Value = Data;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        let mut data = Data::with_capacity(self.datatype, self.capacity);
        match &mut data {
            Data::Uint8(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Uint16(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Uint32(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Uint64(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Int8(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Int16(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Int32(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Int64(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Fp16(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Bf16(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Fp32(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Fp64(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Bool(v) => deserializer.deserialize_seq(Flat(v)),
            Data::Bytes(v) => deserializer.deserialize_seq(Flat(v)),
        }?;
        Ok(data)
    }
}

/// Appends an element, or all elements of a nested array, to the values.
struct Flat<'a, T>(&'a mut Vec<T>);

impl<T: Element> Flat<'_, T> {
    fn push<E: serde::de::Error>(self, value: Option<T>, shown: impl std::fmt::Display) -> Result<(), E> {
        let position = self.0.len();
        let value = value.ok_or_else(|| {
            E::custom(format_args!("element {position} is `{shown}`, which is no {}", T::NAME.name()))
        })?;
        self.0.push(value);
        Ok(())
    }
}

impl<'de, T: Element> Visitor<'de> for Flat<'_, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "an array of {} values", T::NAME.name())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.push(T::unsigned(value), value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.push(T::signed(value), value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.push(T::float(value), value)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.push(T::boolean(value), value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.push(T::missing(), "null")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.push(T::text(value), "a text")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Flat(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for Flat<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Reads `text`, a JSON array, as values of `datatype`.
pub fn read_values(text: &str, datatype: DataType) -> Result<Data, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let data = Values { datatype, capacity: 0 }.deserialize(&mut deserializer)?;
    deserializer.end().map_err(serde_json::Error::custom)?;
    Ok(data)
}

/// Appends `values` as a JSON array.
pub fn write_array<T: JsonNumber>(values: &[T], out: &mut Vec<u8>) {
    join(values.iter(), out, |value, out| value.write(out));
}

/// Appends `values` as a JSON array of booleans.
pub fn write_bools(values: &[bool], out: &mut Vec<u8>) {
    join(values.iter(), out, |value, out| out.extend_from_slice(if *value { b"true" } else { b"false" }));
}

/// Appends `values` as a JSON array of texts.
pub fn write_texts(values: &[String], out: &mut Vec<u8>) {
    join(values.iter(), out, |value, out| write_text(value, out));
}

/// Appends `value` as a JSON text.
pub fn write_text(value: &str, out: &mut Vec<u8>) {
    // writing into memory cannot fail
    if serde_json::to_writer(&mut *out, value).is_err() {
        let _ = out.write(b"\"\"");
    }
}

fn join<T>(values: impl Iterator<Item = T>, out: &mut Vec<u8>, write: impl Fn(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(value, out);
    }
    out.push(b']');
}

//! Tensors as the protocol knows them: an element type, a shape and flat values in row-major order.

use bytemuck::{cast_slice, pod_collect_to_vec};
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::text::shown;

/// The most dimensions of a tensor.
pub const MOST_RANK: usize = 16;

/// Generates the element types, their values and what must be written once per type.
macro_rules! tensor_types {
    ($($variant:ident $type:ty, $name:literal, $ort:ident;)+) => {
        /// An element type that ONNX and the Open Inference Protocol share.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum DataType {
            $(#[doc = $name] $variant,)+
            /// Booleans, one byte each on the wire.
            Bool,
            /// Strings, each with its length in four bytes before it on the wire.
            Bytes,
        }

        /// The values of a tensor, flat.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Data {
            $(#[doc = $name] $variant(Vec<$type>),)+
            /// Booleans.
            Bool(Vec<bool>),
            /// Strings; ONNX holds them as UTF-8.
            Bytes(Vec<String>),
        }

        impl DataType {
            /// Every type there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+ Self::Bool, Self::Bytes];

            /// The protocol's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ Self::Bool => "BOOL", Self::Bytes => "BYTES" }
            }

            /// The size of one element in bytes; `None` for strings, which have none.
            #[must_use]
            pub fn size(self) -> Option<usize> {
                match self { $(Self::$variant => Some(size_of::<$type>()),)+ Self::Bool => Some(1), Self::Bytes => None }
            }

            /// The protocol's type of a runtime's element type; `None` where the protocol has none.
            #[must_use]
            pub fn from_runtime(kind: ort::value::TensorElementType) -> Option<Self> {
                use ort::value::TensorElementType as Kind;
                match kind {
                    $(Kind::$ort => Some(Self::$variant),)+
                    Kind::Bool => Some(Self::Bool),
                    Kind::String => Some(Self::Bytes),
                    _ => None,
                }
            }
        }

        impl Data {
            /// No values of `datatype`, with room for `capacity`.
            #[must_use]
            pub fn with_capacity(datatype: DataType, capacity: usize) -> Self {
                match datatype {
                    $(DataType::$variant => Self::$variant(Vec::with_capacity(capacity)),)+
                    DataType::Bool => Self::Bool(Vec::with_capacity(capacity)),
                    DataType::Bytes => Self::Bytes(Vec::with_capacity(capacity)),
                }
            }

            /// `count` zeros, falses or empty strings.
            #[must_use]
            pub fn zeros(datatype: DataType, count: usize) -> Self {
                match datatype {
                    $(DataType::$variant => Self::$variant(vec![<$type>::default(); count]),)+
                    DataType::Bool => Self::Bool(vec![false; count]),
                    DataType::Bytes => Self::Bytes(vec![String::new(); count]),
                }
            }

            /// The element type.
            #[must_use]
            pub fn datatype(&self) -> DataType {
                match self {
                    $(Self::$variant(_) => DataType::$variant,)+
                    Self::Bool(_) => DataType::Bool,
                    Self::Bytes(_) => DataType::Bytes,
                }
            }

            /// The number of elements.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len(),)+ Self::Bool(v) => v.len(), Self::Bytes(v) => v.len() }
            }

            /// Forgets the values and keeps the memory.
            pub fn clear(&mut self) {
                match self { $(Self::$variant(v) => v.clear(),)+ Self::Bool(v) => v.clear(), Self::Bytes(v) => v.clear() }
            }

            /// Appends the values of `other`; false when it is of another type.
            #[must_use]
            pub fn extend_from(&mut self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$variant(a), Self::$variant(b)) => a.extend_from_slice(b),)+
                    (Self::Bool(a), Self::Bool(b)) => a.extend_from_slice(b),
                    (Self::Bytes(a), Self::Bytes(b)) => a.extend_from_slice(b),
                    _ => return false,
                }
                true
            }

            /// Reads little-endian wire bytes; strings are length-prefixed.
            pub fn from_bytes(datatype: DataType, bytes: &[u8]) -> Result<Self> {
                if let Some(size) = datatype.size() && !bytes.len().is_multiple_of(size) {
                    return Err(Error::Invalid(format!(
                        "{} bytes are no whole number of {} elements of {size} bytes", bytes.len(), datatype.name())));
                }
                Ok(match datatype {
                    $(DataType::$variant => Self::$variant(pod_collect_to_vec(bytes)),)+
                    DataType::Bool => Self::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
                    DataType::Bytes => Self::Bytes(read_strings(bytes)?),
                })
            }

            /// Appends the values as little-endian wire bytes.
            pub fn write_bytes(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(v) => out.extend_from_slice(cast_slice(v)),)+
                    Self::Bool(v) => out.extend(v.iter().map(|value| u8::from(*value))),
                    Self::Bytes(v) => write_strings(v, out),
                }
            }

            /// Appends the values as a flat JSON array; a number that JSON cannot write becomes `null`.
            pub fn write_json(&self, out: &mut Vec<u8>) {
                use super::json::{write_array, write_bools, write_texts};
                match self { $(Self::$variant(v) => write_array(v, out),)+ Self::Bool(v) => write_bools(v, out), Self::Bytes(v) => write_texts(v, out) }
            }
        }
    };
}

tensor_types! {
    Uint8 u8, "UINT8", Uint8;
    Uint16 u16, "UINT16", Uint16;
    Uint32 u32, "UINT32", Uint32;
    Uint64 u64, "UINT64", Uint64;
    Int8 i8, "INT8", Int8;
    Int16 i16, "INT16", Int16;
    Int32 i32, "INT32", Int32;
    Int64 i64, "INT64", Int64;
    Fp16 f16, "FP16", Float16;
    Bf16 bf16, "BF16", Bfloat16;
    Fp32 f32, "FP32", Float32;
    Fp64 f64, "FP64", Float64;
}

impl DataType {
    /// The type of that protocol name, or an error that lists them.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|datatype| datatype.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|datatype| datatype.name()).collect();
            Error::Invalid(format!("`{}` is no datatype: use one of {}", shown(name), known.join(", ")))
        })
    }
}

impl Data {
    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The dimensions, the batch first.
    pub shape: Vec<i64>,
    /// The values, as many as the product of `shape`.
    pub data: Data,
}

/// The product of `shape`; an error for too many dimensions, a negative one or a product beyond what can be addressed.
pub fn volume(shape: &[i64]) -> Result<usize> {
    if shape.len() > MOST_RANK {
        return Err(Error::Invalid(format!(
            "a shape of {} dimensions is not possible: send at most {MOST_RANK}",
            shape.len()
        )));
    }
    shape.iter().try_fold(1_usize, |product, dimension| {
        usize::try_from(*dimension)
            .ok()
            .and_then(|dimension| product.checked_mul(dimension))
            .filter(|product| isize::try_from(*product).is_ok())
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "shape {shape:?} is not possible: its product must be a small, non-negative number"
                ))
            })
    })
}

fn read_strings(mut bytes: &[u8]) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let (text, rest) = split_string(bytes).ok_or_else(|| {
            Error::Invalid(
                "a BYTES tensor ends in the middle of an element: each is a 4-byte length and that many bytes".into(),
            )
        })?;
        let text = std::str::from_utf8(text)
            .map_err(|_| Error::Invalid(format!("element {} of a BYTES tensor is not valid UTF-8", texts.len())))?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    Ok(texts)
}

fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

fn write_strings(texts: &[String], out: &mut Vec<u8>) {
    for text in texts {
        // a string of 4 GiB cannot come out of a model whose inputs are limited far below
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

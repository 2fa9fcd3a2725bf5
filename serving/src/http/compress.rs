//! gzip, deflate and zstd bodies.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;

use crate::budget::Ticket;
use crate::error::{Error, Result};
use crate::work;

/// Plain bytes are made, and counted, in pieces of this size.
const PIECE: usize = 64 << 10;

/// A content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// gzip
    Gzip,
    /// zlib, which HTTP calls deflate
    Deflate,
    /// Zstandard
    Zstd,
}

impl Encoding {
    /// The header value.
    #[must_use]
    pub fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        })
    }

    fn parse(name: &[u8]) -> Option<Self> {
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The best encoding that an `Accept-Encoding` value allows; a weight of zero forbids one.
    #[must_use]
    pub fn accepted(header: &[u8]) -> Option<Self> {
        let allowed: Vec<Self> = header
            .split(|byte| *byte == b',')
            .filter_map(|part| {
                let mut fields = part.split(|byte| *byte == b';');
                let encoding = Self::parse(fields.next()?)?;
                let forbidden = fields.any(|field| {
                    let field: Vec<u8> = field.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
                    field
                        .strip_prefix(b"q=")
                        .is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
                });
                (!forbidden).then_some(encoding)
            })
            .collect();
        [Self::Zstd, Self::Gzip, Self::Deflate].into_iter().find(|encoding| allowed.contains(encoding))
    }
}

/// Decodes `body` as [`decode`] does: here as far as it stays small, else on a thread of its own.
pub async fn expand(encoding: &[u8], body: Bytes, limit: usize, ticket: &Arc<Ticket>) -> Result<Bytes> {
    let before = ticket.held();
    if body.len() < work::LARGE / 2 {
        match decode(encoding, body.clone(), limit.min(work::LARGE), ticket) {
            // a small body may well become a large one
            Err(Error::TooLarge(_)) if limit > work::LARGE => ticket.give(ticket.held().saturating_sub(before)),
            plain => return plain,
        }
    }
    let (encoding, ticket) = (encoding.to_vec(), Arc::clone(ticket));
    work::run(work::LARGE, move || decode(&encoding, body, limit, &ticket)).await
}

/// Decodes `body` as the `Content-Encoding` value `encoding` says, into at most `limit` bytes, counted by `ticket`.
pub fn decode(encoding: &[u8], body: Bytes, limit: usize, ticket: &Ticket) -> Result<Bytes> {
    if encoding.trim_ascii().eq_ignore_ascii_case(b"identity") {
        return Ok(body);
    }
    let encoding = Encoding::parse(encoding).ok_or_else(|| {
        Error::Unsupported("this `Content-Encoding` is not understood: use gzip, deflate or zstd".into())
    })?;
    let broken = |_| Error::Invalid("the body cannot be decompressed: check its `Content-Encoding`".into());
    let mut reader: Box<dyn Read + '_> = match encoding {
        Encoding::Gzip => Box::new(MultiGzDecoder::new(&*body)),
        Encoding::Deflate => Box::new(ZlibDecoder::new(&*body)),
        Encoding::Zstd => Box::new(zstd::Decoder::with_buffer(&*body).map_err(broken)?),
    };
    let mut plain = Vec::new();
    loop {
        ticket.take(PIECE)?;
        let piece = u64::try_from(PIECE).unwrap_or(u64::MAX);
        let count = reader.by_ref().take(piece).read_to_end(&mut plain).map_err(broken)?;
        ticket.give(PIECE - count);
        if plain.len() > limit {
            return Err(Error::TooLarge(format!(
                "the body is larger than {limit} bytes when decompressed: send fewer rows a request"
            )));
        }
        if count < PIECE {
            break;
        }
    }
    drop(reader);
    ticket.give(body.len());
    Ok(plain.into())
}

/// Encodes `body`, at the level that costs least.
pub fn encode(encoding: Encoding, body: &[u8]) -> Result<Vec<u8>> {
    let encoded = match encoding {
        Encoding::Gzip => {
            let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(body).and_then(|()| writer.finish())
        }
        Encoding::Deflate => {
            let mut writer = ZlibEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(body).and_then(|()| writer.finish())
        }
        Encoding::Zstd => zstd::encode_all(body, 1),
    };
    encoded.map_err(|cause| Error::Internal(cause.to_string()))
}

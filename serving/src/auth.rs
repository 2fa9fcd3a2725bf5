//! The bearer token that clients must send, where the operator has set one.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A secret; only its digest is kept, so comparing takes the same time whatever is sent.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The token in the file at `path`, without surrounding white space.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|cause| {
            Error::Unavailable(format!(
                "the token file `{}` cannot be read ({cause}): check `--token-file`",
                path.display()
            ))
        })?;
        if text.trim().is_empty() {
            return Err(Error::Unavailable(format!(
                "the token file `{}` is empty: write a token into it",
                path.display()
            )));
        }
        Ok(Self(Sha256::digest(text.trim()).into()))
    }

    /// An error unless `header`, an `Authorization` value, carries this token.
    pub fn check(&self, header: Option<&[u8]>) -> Result<()> {
        let sent = header.and_then(|header| {
            let (scheme, sent) = header.split_at_checked(header.iter().position(u8::is_ascii_whitespace)?)?;
            scheme.eq_ignore_ascii_case(b"Bearer").then_some(sent)
        });
        match sent {
            Some(sent) if <[u8; 32]>::from(Sha256::digest(sent.trim_ascii())) == self.0 => Ok(()),
            _ => Err(Error::Unauthorized),
        }
    }
}

//! Text of clients in messages, log lines and headers: cut and escaped.

use std::borrow::Cow;

/// The most bytes of a client's text in a message.
pub const MOST_SHOWN: usize = 256;
/// The most bytes of what a parser says about a client's text, which quotes from it.
const MOST_CAUSE: usize = 512;
/// The most bytes of a whole message.
const MOST_LINE: usize = 2048;

/// `text`, sent by a client, as a message may show it: at most 256 bytes, with nothing that moves a cursor, forges a
/// line or hides what follows.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    clean(text, MOST_SHOWN)
}

/// What a parser says about a client's text.
#[must_use]
pub fn cause(error: &impl ToString) -> String {
    clean(&error.to_string(), MOST_CAUSE).into_owned()
}

/// A whole message in one line, whatever stands in it.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    clean(text, MOST_LINE)
}

fn clean(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.chars().any(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(most.min(text.len()) + 8);
    for letter in text.chars() {
        let before = cleaned.len();
        if is_odd(letter) {
            cleaned.extend(letter.escape_default());
        } else {
            cleaned.push(letter);
        }
        if cleaned.len() > most {
            cleaned.truncate(before);
            cleaned.push('…');
            break;
        }
    }
    Cow::Owned(cleaned)
}

/// Control characters, and those that hide or reverse what stands beside them.
fn is_odd(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

//! One document as a bounded view, and an iterator over its elements.

use std::fmt;

use crate::limits;

/// BSON element types (`bsonspec.org`), as the byte in front of each element.
#[allow(missing_docs, reason = "the names are the specification's own")]
pub mod kind {
    pub const DOUBLE: u8 = 0x01;
    pub const STRING: u8 = 0x02;
    pub const DOCUMENT: u8 = 0x03;
    pub const ARRAY: u8 = 0x04;
    pub const BINARY: u8 = 0x05;
    pub const UNDEFINED: u8 = 0x06;
    pub const OBJECT_ID: u8 = 0x07;
    pub const BOOL: u8 = 0x08;
    pub const DATE: u8 = 0x09;
    pub const NULL: u8 = 0x0A;
    pub const REGEX: u8 = 0x0B;
    pub const DB_POINTER: u8 = 0x0C;
    pub const CODE: u8 = 0x0D;
    pub const SYMBOL: u8 = 0x0E;
    pub const CODE_WITH_SCOPE: u8 = 0x0F;
    pub const INT32: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x11;
    pub const INT64: u8 = 0x12;
    pub const DECIMAL128: u8 = 0x13;
    pub const MIN_KEY: u8 = 0xFF;
    pub const MAX_KEY: u8 = 0x7F;
}

/// The bytes are not BSON: the offset where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Absolute offset of the first byte that made no sense.
    pub at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed BSON at byte {}", self.at)
    }
}

impl std::error::Error for Malformed {}

/// A document (or array) inside a larger buffer. Its own length prefix and terminator have been checked;
/// its elements have not.
#[derive(Clone, Copy)]
pub struct Doc<'a> {
    buf: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Doc<'a> {
    /// The document whose length prefix stands at `start`.
    ///
    /// # Errors
    /// [`Malformed`] where the length is below 5, above [`limits::MAX_BSON`], runs past the buffer, or the last byte
    /// is not NUL.
    pub fn at(buf: &'a [u8], start: usize) -> Result<Self, Malformed> {
        let bad = Malformed { at: start };
        let len = read_i32(buf, start)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or(bad)?;
        if !(5..=limits::MAX_BSON).contains(&len) {
            return Err(bad);
        }
        let end = start.checked_add(len).ok_or(bad)?;
        match buf.get(end - 1) {
            Some(0) => Ok(Self { buf, start, end }),
            _ => Err(bad),
        }
    }

    /// Offset of the length prefix.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Offset just past the terminator.
    pub fn end(&self) -> usize {
        self.end
    }

    /// The buffer all offsets refer to.
    pub fn buffer(&self) -> &'a [u8] {
        self.buf
    }

    /// The document's own bytes, length prefix and terminator included.
    pub fn bytes(&self) -> &'a [u8] {
        &self.buf[self.start..self.end]
    }

    /// Whether there is no element at all.
    pub fn is_empty(&self) -> bool {
        self.end - self.start == 5
    }

    /// The elements in order. Stops after the first malformed one.
    pub fn elements(&self) -> Elements<'a> {
        Elements {
            buf: self.buf,
            at: self.start + 4,
            end: self.end - 1,
        }
    }

    /// The first element with this key; malformed bytes before it count as absence only together with the error.
    ///
    /// # Errors
    /// [`Malformed`] where an element before the key cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Element<'a>>, Malformed> {
        for element in self.elements() {
            let element = element?;
            if element.key == key {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    /// Walks every element at every depth: nothing malformed inside, and nesting within [`limits::MAX_DEPTH`].
    ///
    /// # Errors
    /// [`Malformed`] at the first offence.
    pub fn validate(&self) -> Result<(), Malformed> {
        self.validate_below(1)
    }

    fn validate_below(&self, depth: usize) -> Result<(), Malformed> {
        if depth > limits::MAX_DEPTH {
            return Err(Malformed { at: self.start });
        }
        for element in self.elements() {
            if let Some(inner) = element?.document()? {
                inner.validate_below(depth + 1)?;
            }
        }
        Ok(())
    }
}

/// One element: type, key and value, each a view into the buffer.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    buf: &'a [u8],
    /// BSON type byte, one of [`kind`].
    pub kind: u8,
    /// Key without its NUL. Not checked to be UTF-8: the server does not either.
    pub key: &'a [u8],
    /// Offset of the type byte.
    pub start: usize,
    /// Offset of the first value byte.
    pub value_at: usize,
    /// Offset just past the value.
    pub end: usize,
}

impl<'a> Element<'a> {
    /// The value's bytes.
    pub fn value(&self) -> &'a [u8] {
        &self.buf[self.value_at..self.end]
    }

    /// The key for a message to a person: lossy where it is not UTF-8.
    pub fn key_text(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }

    /// The embedded document or array; `None` for any other type.
    ///
    /// # Errors
    /// [`Malformed`] where its length does not fill the value exactly.
    pub fn document(&self) -> Result<Option<Doc<'a>>, Malformed> {
        if self.kind != kind::DOCUMENT && self.kind != kind::ARRAY {
            return Ok(None);
        }
        let doc = Doc::at(self.buf, self.value_at)?;
        if doc.end != self.end {
            Err(Malformed { at: self.value_at })
        } else {
            Ok(Some(doc))
        }
    }

    /// The text of a string element, without its NUL; `None` for other types or where it is not UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        if self.kind != kind::STRING {
            return None;
        }
        let value = self.value();
        std::str::from_utf8(value.get(4..value.len().checked_sub(1)?)?).ok()
    }

    /// Subtype and payload of a binary element (the old subtype 2 keeps its inner length).
    pub fn binary(&self) -> Option<(u8, &'a [u8])> {
        if self.kind != kind::BINARY {
            return None;
        }
        let value = self.value();
        Some((*value.get(4)?, value.get(5..)?))
    }

    /// The value of an int32, an int64, or a double that is integral and fits.
    pub fn integer(&self) -> Option<i64> {
        let value = self.value();
        match self.kind {
            kind::INT32 => Some(i64::from(i32::from_le_bytes(value.try_into().ok()?))),
            kind::INT64 => Some(i64::from_le_bytes(value.try_into().ok()?)),
            kind::DOUBLE => integral(f64::from_le_bytes(value.try_into().ok()?)),
            _ => None,
        }
    }

    /// Truth as the server reads command flags: bool, or a number other than zero.
    pub fn truthy(&self) -> bool {
        match self.kind {
            kind::BOOL => self.value() == [1],
            kind::INT32 | kind::INT64 => self.value().iter().any(|b| *b != 0),
            kind::DOUBLE => self
                .value()
                .try_into()
                .is_ok_and(|b| f64::from_le_bytes(b) != 0.0),
            _ => false,
        }
    }
}

/// Iterator over the elements of one document.
pub struct Elements<'a> {
    buf: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let start = self.at;
        match read_element(&self.buf[..self.end], start) {
            Some((kind, key_end, end)) => {
                self.at = end;
                let key = &self.buf[start + 1..key_end];
                Some(Ok(Element {
                    buf: self.buf,
                    kind,
                    key,
                    start,
                    value_at: key_end + 1,
                    end,
                }))
            }
            None => {
                self.at = self.end;
                Some(Err(Malformed { at: start }))
            }
        }
    }
}

/// Type, offset of the key's NUL, and end of the element at `start`; `buf` ends where the document's elements do.
#[inline]
fn read_element(buf: &[u8], start: usize) -> Option<(u8, usize, usize)> {
    let kind = *buf.get(start)?;
    let key_end = cstring_end(buf, start + 1)?;
    let value_at = key_end + 1;
    let len = value_len(kind, buf.get(value_at..)?)?;
    let end = value_at.checked_add(len)?;
    (end <= buf.len()).then_some((kind, key_end, end))
}

/// Length of a value of this type at the front of `rest`; `None` where `rest` is too short to tell or the value's own
/// length prefix is impossible. String terminators are checked here, so that later readers need not.
#[inline]
fn value_len(kind: u8, rest: &[u8]) -> Option<usize> {
    let prefixed = |extra: usize, least: usize| -> Option<usize> {
        let n = usize::try_from(read_i32(rest, 0)?).ok()?;
        (n >= least && n <= limits::MAX_BSON).then(|| n + extra)
    };
    let len = match kind {
        kind::NULL | kind::UNDEFINED | kind::MIN_KEY | kind::MAX_KEY => 0,
        kind::BOOL => {
            return matches!(rest.first(), Some(0 | 1)).then_some(1);
        }
        kind::INT32 => 4,
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => 8,
        kind::OBJECT_ID => 12,
        kind::DECIMAL128 => 16,
        kind::STRING | kind::CODE | kind::SYMBOL => {
            let len = prefixed(4, 1)?;
            return (rest.get(len - 1) == Some(&0)).then_some(len);
        }
        kind::DOCUMENT | kind::ARRAY => prefixed(0, 5)?,
        kind::CODE_WITH_SCOPE => prefixed(0, 14)?,
        kind::BINARY => prefixed(5, 0)?,
        kind::DB_POINTER => prefixed(16, 1)?,
        kind::REGEX => {
            let pattern = cstring_end(rest, 0)?;
            cstring_end(rest, pattern + 1)? + 1
        }
        _ => return None,
    };
    (len <= rest.len()).then_some(len)
}

#[inline]
fn cstring_end(buf: &[u8], from: usize) -> Option<usize> {
    // Keys are short: a plain loop beats a vectorised search here.
    let tail = buf.get(from..)?;
    tail.iter().position(|b| *b == 0).map(|n| from + n)
}

#[inline]
fn read_i32(buf: &[u8], at: usize) -> Option<i32> {
    let bytes = buf.get(at..at.checked_add(4)?)?;
    Some(i32::from_le_bytes(bytes.try_into().ok()?))
}

/// The integer a double stands for, where nothing is lost.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the range is checked first"
)]
pub fn integral(value: f64) -> Option<i64> {
    // 2^63 itself is out of range; -2^63 is in.
    let in_range = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    (in_range && value.fract() == 0.0).then_some(value as i64)
}

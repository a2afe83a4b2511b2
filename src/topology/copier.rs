//! Writes a document anew from the elements of another.

use crate::bson::{Doc, Element, kind};

/// Writes a document anew from the elements of another.
pub(super) struct Copier<'a> {
    source: &'a [u8],
    bytes: Vec<u8>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(source: Doc<'a>) -> Self {
        let mut bytes = Vec::with_capacity(source.bytes().len());
        bytes.extend_from_slice(&[0; 4]);
        Self {
            source: source.buffer(),
            bytes,
        }
    }

    pub(super) fn keep(&mut self, element: &Element<'_>) {
        self.bytes
            .extend_from_slice(&self.source[element.start..element.end]);
    }

    /// An element with the old one's key and another value.
    pub(super) fn put(&mut self, kind: u8, old: &Element<'_>, value: &[u8]) {
        self.put_as(kind, old.key, value);
    }

    /// An element with a key and a value of its own.
    pub(super) fn put_as(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(key);
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
    }

    /// The element, lowered to `most` where it is above it or is no number.
    pub(super) fn lowered(&mut self, element: &Element<'_>, most: i32) {
        match element.integer() {
            Some(own) if own <= i64::from(most) => self.keep(element),
            _ => self.put(kind::INT32, element, &most.to_le_bytes()),
        }
    }

    /// All elements of a document of our own.
    pub(super) fn append(&mut self, document: &[u8]) {
        self.bytes.extend_from_slice(&document[4..document.len() - 1]);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        let length = i32::try_from(self.bytes.len()).unwrap_or(i32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes
    }
}

/// A BSON string's value bytes.
pub(super) fn string_value(text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let length = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
    [&length.to_le_bytes()[..], text, &[0]].concat()
}

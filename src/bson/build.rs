//! A small writer for the documents the proxy authors itself: error replies, hello fields, array items.

use super::kind;

/// Appends elements to one document; [`Builder::finish`] repairs the lengths.
pub struct Builder {
    bytes: Vec<u8>,
    open: Vec<usize>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty document.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; 4],
            open: vec![0],
        }
    }

    /// Appends one element from its raw value bytes. A NUL inside `key` would end it early, so it is cut there.
    pub fn raw(&mut self, kind: u8, key: &str, value: &[u8]) -> &mut Self {
        self.key(kind, key);
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends a string.
    pub fn string(&mut self, key: &str, text: &str) -> &mut Self {
        self.key(kind::STRING, key);
        let len = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self
    }

    /// Appends an int32.
    pub fn int32(&mut self, key: &str, value: i32) -> &mut Self {
        self.raw(kind::INT32, key, &value.to_le_bytes())
    }

    /// Appends a double.
    pub fn double(&mut self, key: &str, value: f64) -> &mut Self {
        self.raw(kind::DOUBLE, key, &value.to_le_bytes())
    }

    /// Appends a bool.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(kind::BOOL, key, &[u8::from(value)])
    }

    /// Opens an embedded document; close it with [`Builder::end`].
    pub fn document(&mut self, key: &str) -> &mut Self {
        self.nested(kind::DOCUMENT, key)
    }

    /// Opens an embedded array; its items' keys are the caller's ("0", "1", …).
    pub fn array(&mut self, key: &str) -> &mut Self {
        self.nested(kind::ARRAY, key)
    }

    /// Closes the innermost open document or array.
    pub fn end(&mut self) -> &mut Self {
        if self.open.len() > 1 {
            self.close();
        }
        self
    }

    /// Closes whatever is open and returns the document's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        while !self.open.is_empty() {
            self.close();
        }
        self.bytes
    }

    fn nested(&mut self, kind: u8, key: &str) -> &mut Self {
        self.key(kind, key);
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
        self
    }

    fn key(&mut self, kind: u8, key: &str) {
        self.bytes.push(kind);
        let key = key.split('\0').next().unwrap_or_default();
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(0);
    }

    fn close(&mut self) {
        self.bytes.push(0);
        if let Some(at) = self.open.pop() {
            let len = i32::try_from(self.bytes.len() - at).unwrap_or(i32::MAX);
            self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }
}

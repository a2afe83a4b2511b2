//! The edits a plan is made of. Offsets are absolute in the message; `u32` holds any of them, since a message has at
//! most 48 000 000 bytes.

/// One step of the copy-through that makes the new message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Copy up to and including the int32 length at this offset, and repair it at the matching [`Op::Close`].
    Open {
        /// Offset of the length prefix of a document, or of a kind-1 section's size.
        at: u32,
    },
    /// Copy to the end of the innermost open region and repair its length.
    Close {
        /// Offset just past the region.
        end: u32,
    },
    /// Copy up to `from`, go on at `to`: what lies between is left out.
    Drop {
        /// First byte left out.
        from: u32,
        /// First byte kept again.
        to: u32,
    },
    /// Copy up to `at`, then emit these bytes: types, keys and structure of our own, never a document's value.
    Put {
        /// Where in the input they belong.
        at: u32,
        /// The bytes.
        bytes: Box<[u8]>,
    },
    /// Start a document of our own; its items, if it is an array, are numbered from 0.
    Begin,
    /// End the innermost document of our own.
    End,
    /// Emit one or more items of the array of our own that is open.
    Item {
        /// The item's value.
        value: Value,
        /// How it is sealed; `None` leaves it as it is.
        seal: Option<(u16, Versions)>,
    },
    /// Emit the type byte and value of a sealed element whose key has been put by the preceding [`Op::Put`]:
    /// used where an element of our own needs exactly one sealed value.
    PutSealed {
        /// The key, without its NUL.
        key: Box<[u8]>,
        /// The value.
        value: Value,
        /// Index of the rule in the plan's summary.
        rule: u16,
    },
    /// Replace the value of the element at `from..to` by its envelope under the domain's writing key.
    Seal {
        /// Offset of the element's type byte.
        from: u32,
        /// Offset of the element's value.
        value_at: u32,
        /// Offset just past the element.
        to: u32,
        /// What is sealed (canonical).
        value: Value,
        /// Index of the rule in the plan's summary.
        rule: u16,
    },
    /// Replace the envelope in the binary element at `from..to` by the value it holds.
    Unseal {
        /// Offset of the element's type byte.
        from: u32,
        /// Offset of the element's value.
        value_at: u32,
        /// Offset just past the element.
        to: u32,
        /// The rule of the path that it stands in, where that is known: its domain must be the key's. Index in the
        /// plan's summary.
        rule: Option<u16>,
    },
}

/// Under which of a domain's keys an array item is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// One item, under the writing key.
    Write,
    /// One item per key that reads.
    Every,
    /// The plaintext itself (the field is migrating), then one item per key that reads.
    EveryAndPlain,
}

/// A BSON value: its type, and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// BSON type byte.
    pub kind: u8,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Bytes of a value: in the message, or a coerced number of at most eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// A span of the message.
    Span {
        /// First byte.
        at: u32,
        /// Just past the last byte.
        end: u32,
    },
    /// Made while planning: a number in its declared type.
    Inline {
        /// The bytes, little-endian.
        bytes: [u8; 8],
        /// How many of them count.
        len: u8,
    },
}

impl Value {
    /// The value's bytes in `frame`.
    pub fn slice<'a>(&'a self, frame: &'a [u8]) -> &'a [u8] {
        match &self.bytes {
            Bytes::Span { at, end } => frame.get(*at as usize..*end as usize).unwrap_or_default(),
            Bytes::Inline { bytes, len } => bytes.get(..usize::from(*len)).unwrap_or_default(),
        }
    }
}

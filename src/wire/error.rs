//! What can be wrong with a frame, as closed enums. Owns the server's codes for section errors; holds no byte of the
//! message, so any of these may reach a log.

use std::fmt;

/// The frame cannot be trusted any further: the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The header's length is below the header's own 16 bytes.
    TooShort,
    /// The header's length is above the limit that applies here (bytes).
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The header's length is not the length of the frame at hand.
    LengthMismatch,
    /// A field, section or document runs past what contains it.
    Truncated,
    /// Bytes are left over after the last field.
    Leftover,
    /// A document's length is below 5 or above [`crate::limits::MAX_BSON`], or it does not end in NUL.
    Document,
    /// A name is not terminated, or not UTF-8.
    Name,
    /// The parser was handed a frame of another opcode, or the opcode is one that is never served.
    Opcode,
    /// A bit among the required flags (the low 16) is set and unknown.
    RequiredFlag,
    /// The CRC-32C does not match.
    Checksum,
    /// More kind-1 sections than [`crate::limits::MAX_SEQUENCES`].
    TooManySequences,
    /// A section error in a message that expects no reply, so that closing is the only answer.
    Unanswerable(SectionError),
    /// An `OP_QUERY` that is not a plain command on `<db>.$cmd`.
    LegacyQuery,
    /// An `OP_REPLY` that is not one command reply.
    LegacyReply,
    /// An `OP_COMPRESSED` inside another.
    NestedCompression,
    /// A compressor id that was not negotiated or is unknown.
    Compressor,
    /// A compressed message does not inflate to exactly the size it announces.
    Inflate,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::TooShort => "message length below 16 bytes",
            Self::TooLong { limit } => return write!(f, "message length above the limit of {limit} bytes"),
            Self::LengthMismatch => "message length differs from the frame's",
            Self::Truncated => "a length runs past the end of the message",
            Self::Leftover => "bytes left over at the end of the message",
            Self::Document => "a document's length or terminator is impossible",
            Self::Name => "a name is not terminated or not UTF-8",
            Self::Opcode => "opcode not supported",
            Self::RequiredFlag => "unknown required flag in OP_MSG",
            Self::Checksum => "OP_MSG checksum does not match",
            Self::TooManySequences => "too many document sequences in OP_MSG",
            Self::Unanswerable(why) => return write!(f, "{why} in a message that expects no reply"),
            Self::LegacyQuery => "OP_QUERY is only served for commands on <db>.$cmd",
            Self::LegacyReply => "OP_REPLY is not a command reply",
            Self::NestedCompression => "OP_COMPRESSED inside OP_COMPRESSED",
            Self::Compressor => "compressor was not negotiated",
            Self::Inflate => "compressed message does not inflate to the size it announces",
        };
        f.write_str(text)
    }
}

impl std::error::Error for FrameError {}

/// An `OP_MSG` whose sections are well delimited but contradict each other: the server answers these with an error and
/// keeps the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionError {
    /// More than one kind-0 section.
    TwoBodies,
    /// Two kind-1 sections with the same identifier.
    DuplicateSequence,
    /// A section kind other than 0 and 1.
    UnknownKind,
    /// No kind-0 section.
    NoBody,
}

impl SectionError {
    /// The code that the server itself answers with.
    pub fn code(self) -> i32 {
        match self {
            Self::TwoBodies => 40430,
            Self::DuplicateSequence => 40431,
            Self::UnknownKind => 40432,
            Self::NoBody => 40587,
        }
    }
}

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoBodies => "multiple body sections in OP_MSG",
            Self::DuplicateSequence => "duplicate document sequence in OP_MSG",
            Self::UnknownKind => "unknown section kind in OP_MSG",
            Self::NoBody => "OP_MSG has no body section",
        })
    }
}

impl std::error::Error for SectionError {}

/// Why an `OP_MSG` was not accepted, by what has to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpMsgError {
    /// Close the connection without a reply.
    Close(FrameError),
    /// Answer with this error; the connection stays usable.
    Reply(SectionError),
}

impl From<FrameError> for OpMsgError {
    fn from(why: FrameError) -> Self {
        Self::Close(why)
    }
}

impl fmt::Display for OpMsgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(why) => why.fmt(f),
            Self::Reply(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for OpMsgError {}

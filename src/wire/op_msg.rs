//! `OP_MSG`, read in place. Owns flags, section order and identifiers, and where each document stands; what a document
//! says is not its business, so a field given both in the body and as a sequence (40433) is for the command to refuse.

use std::ops::Range;

use super::checksum;
use super::encode;
use super::error::{FrameError, OpMsgError, SectionError};
use super::header::{Header, Opcode};
use super::reader::Reader;
use crate::limits;

/// One body and the sequences: more sections are never accepted, so no list need grow.
const MAX_SECTIONS: usize = 1 + limits::MAX_SEQUENCES;

const BODY: u8 = 0;
const SEQUENCE: u8 = 1;

/// The flag word. The low 16 bits are required (an unknown one refuses the message), the high 16 optional (an unknown
/// one is ignored and kept).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(u32);

impl Flags {
    /// The message ends in a CRC-32C.
    pub const CHECKSUM_PRESENT: Self = Self(1);
    /// The sender sends another message without waiting for a reply, and expects none to this one.
    pub const MORE_TO_COME: Self = Self(1 << 1);
    /// The client accepts a chain of replies.
    pub const EXHAUST_ALLOWED: Self = Self(1 << 16);

    const REQUIRED: u32 = 0xffff;

    /// Any flag word, as it came.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The word as it goes on the wire, unknown optional bits included.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags but not those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// See [`Flags::CHECKSUM_PRESENT`].
    pub const fn checksum_present(self) -> bool {
        self.has(Self::CHECKSUM_PRESENT)
    }

    /// See [`Flags::MORE_TO_COME`].
    pub const fn more_to_come(self) -> bool {
        self.has(Self::MORE_TO_COME)
    }

    /// See [`Flags::EXHAUST_ALLOWED`].
    pub const fn exhaust_allowed(self) -> bool {
        self.has(Self::EXHAUST_ALLOWED)
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn unknown_required(self) -> bool {
        self.without(Self::CHECKSUM_PRESENT.with(Self::MORE_TO_COME)).0 & Self::REQUIRED != 0
    }
}

/// One section. Offsets are absolute in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section<'a> {
    /// Kind 0: the command or reply document.
    Body {
        /// Offset of the document's length prefix.
        doc_at: usize,
        /// Offset just past the document.
        end: usize,
    },
    /// Kind 1: documents back to back, standing for an array field of the body.
    Sequence {
        /// Offset of the section's int32 size, which counts itself, the identifier and the documents.
        at: usize,
        /// Name of the body field this stands for.
        identifier: &'a str,
        /// Offset of the first document.
        docs_at: usize,
        /// Offset just past the last document.
        end: usize,
    },
}

/// A whole, checked `OP_MSG` frame.
#[derive(Clone, Copy)]
pub struct OpMsg<'a> {
    frame: &'a [u8],
    header: Header,
    flags: Flags,
    sections: Sections<'a>,
}

impl<'a> OpMsg<'a> {
    /// Reads a whole frame, header included. Every section and every document's length is checked; document contents
    /// are not.
    ///
    /// # Errors
    /// [`OpMsgError::Reply`] where the server would answer and keep the connection, [`OpMsgError::Close`] for the rest,
    /// and for any of these where the message expects no reply.
    pub fn parse(frame: &'a [u8]) -> Result<Self, OpMsgError> {
        let (header, mut reader) = Header::open(frame, Opcode::Msg)?;
        let flags = Flags(reader.u32()?);
        if flags.unknown_required() {
            return Err(FrameError::RequiredFlag.into());
        }
        let mut end = frame.len();
        if flags.checksum_present() {
            end = end.checked_sub(checksum::CHECKSUM).ok_or(FrameError::Truncated)?;
            checksum::verify(frame)?;
        }
        let sections = Reader::over(frame, reader.position()..end)?
            .all(Sections::read)
            .map_err(|why| match why {
                OpMsgError::Reply(why) if flags.more_to_come() => {
                    OpMsgError::Close(FrameError::Unanswerable(why))
                }
                other => other,
            })?;
        Ok(Self {
            frame,
            header,
            flags,
            sections,
        })
    }

    /// The whole frame.
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Its header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Its flags.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The sections, in the order they came.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        self.sections.iter()
    }

    /// Where the body document stands.
    pub fn body(&self) -> Range<usize> {
        let (start, end) = self.sections.body;
        start..end
    }

    /// Where each document of a section stands, in order: one for a body, any number for a sequence.
    pub fn documents(&self, section: Section<'a>) -> Documents<'a> {
        let range = match section {
            Section::Body { doc_at, end } => doc_at..end,
            Section::Sequence { docs_at, end, .. } => docs_at..end,
        };
        Documents {
            reader: Reader::over(self.frame, range).ok(),
        }
    }

    /// The same message with another body: order, flags and sequences kept, length and checksum set.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] where it outgrows the message limit.
    pub fn with_body(&self, doc: &[u8]) -> Result<Vec<u8>, FrameError> {
        encode::replace(self.frame, self.body(), doc)
    }
}

/// Where the documents of one section stand.
#[derive(Clone)]
pub struct Documents<'a> {
    reader: Option<Reader<'a>>,
}

impl Iterator for Documents<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.reader.as_mut()?;
        if reader.is_empty() {
            return None;
        }
        // `OpMsg::parse` has walked these lengths already, so an error only means a section of another message.
        reader.document().ok()
    }
}

#[derive(Clone, Copy)]
struct Sections<'a> {
    list: [Option<Section<'a>>; MAX_SECTIONS],
    body: (usize, usize),
}

impl<'a> Sections<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, OpMsgError> {
        let mut list = [None; MAX_SECTIONS];
        let mut body = None;
        let mut slots = list.iter_mut();
        let mut names: [Option<&str>; limits::MAX_SEQUENCES] = [None; limits::MAX_SEQUENCES];
        while !reader.is_empty() {
            let section = match reader.u8()? {
                BODY => {
                    if body.is_some() {
                        return Err(OpMsgError::Reply(SectionError::TwoBodies));
                    }
                    let doc = reader.document()?;
                    body = Some((doc.start, doc.end));
                    Section::Body {
                        doc_at: doc.start,
                        end: doc.end,
                    }
                }
                SEQUENCE => {
                    let free = names
                        .iter()
                        .position(Option::is_none)
                        .ok_or(FrameError::TooManySequences)?;
                    let (section, name) = read_sequence(reader)?;
                    if names.contains(&Some(name)) {
                        return Err(OpMsgError::Reply(SectionError::DuplicateSequence));
                    }
                    if let Some(slot) = names.get_mut(free) {
                        *slot = Some(name);
                    }
                    section
                }
                _ => return Err(OpMsgError::Reply(SectionError::UnknownKind)),
            };
            *slots.next().ok_or(FrameError::TooManySequences)? = Some(section);
        }
        let body = body.ok_or(OpMsgError::Reply(SectionError::NoBody))?;
        Ok(Self { list, body })
    }

    fn iter(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        self.list.into_iter().flatten()
    }
}

fn read_sequence<'a>(reader: &mut Reader<'a>) -> Result<(Section<'a>, &'a str), FrameError> {
    let at = reader.position();
    // A copy looks ahead: the size counts its own four bytes.
    let size = { *reader }.length()?;
    reader.sub(size)?.all(|section| {
        section.length()?;
        let identifier = section.name()?;
        let docs_at = section.position();
        while !section.is_empty() {
            section.document()?;
        }
        let end = section.end();
        let sequence = Section::Sequence {
            at,
            identifier,
            docs_at,
            end,
        };
        Ok((sequence, identifier))
    })
}

#[cfg(test)]
mod tests;

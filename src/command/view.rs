//! A command as the planners see it: its name, database and body, and the document sequences beside it. Knows where
//! things stand in the message, not what they mean.

use super::table::{self, Verdict};
use crate::bson::{Doc, Element, kind};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal};

/// The server's code for a field that stands twice in a command (`BSON field … is a duplicate field`).
const TWICE: i32 = 40413;

/// One parsed command; every offset is absolute in the message.
pub struct CommandView<'a> {
    /// First key of the body.
    pub name: &'a str,
    /// The first element itself: its value is the collection's name for most commands.
    pub first: Element<'a>,
    /// `$db`.
    pub db: &'a str,
    /// The kind-0 section.
    pub body: Doc<'a>,
    /// The kind-1 sections, in order.
    pub sequences: Vec<Sequence<'a>>,
    /// The collection's default collation is other than `simple`: it holds where the command has none of its own.
    pub collated: bool,
    /// What the body's own fields show at a glance; [`CommandView::refuse_repeats`] answers for it.
    flaw: Option<Flaw<'a>>,
}

/// Why a body cannot be planned, found in the one walk that every command gets.
#[derive(Clone, Copy)]
enum Flaw<'a> {
    /// This field stands twice: the server would refuse it, and print it, whichever of the two was meant.
    Twice(&'a [u8]),
    /// More than [`limits::MAX_COMMAND_FIELDS`].
    TooMany,
}

/// A kind-1 section: an array of the command that stands outside its body.
#[derive(Clone, Copy)]
pub struct Sequence<'a> {
    /// The command's field that it stands for.
    pub identifier: &'a str,
    /// Offset of the section's int32 size.
    pub at: usize,
    /// Offset of its first document.
    pub documents_at: usize,
    /// Offset just past the section.
    pub end: usize,
}

impl<'a> CommandView<'a> {
    /// Reads a body; `None` where it has no element or no `$db`.
    ///
    /// # Errors
    /// A [`Refusal`] where the body is malformed, or names one of its own fields twice (the server would take one of
    /// the two, and it need not be the one that was planned).
    pub fn new(
        body: Doc<'a>,
        db: Option<&'a str>,
        sequences: Vec<Sequence<'a>>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(first) = body.elements().next().transpose().map_err(malformed)? else {
            return Ok(None);
        };
        let Ok(name) = std::str::from_utf8(first.key) else {
            return Ok(None);
        };
        let mut found = db;
        let mut seen = false;
        let mut flaw = None;
        let mut classes = 0_u128;
        for (n, element) in body.elements().enumerate() {
            let element = element.map_err(malformed)?;
            if element.key == b"$db" {
                if seen {
                    return Err(
                        Refusal::new(Reason::Malformed, "field '$db' stands twice in the command")
                            .with_code(TWICE),
                    );
                }
                seen = true;
                found = element.text();
            }
            if flaw.is_none() {
                let class = class(element.key);
                // Few fields of a command share a class: looking back is the exception.
                if n >= limits::MAX_COMMAND_FIELDS {
                    flaw = Some(Flaw::TooMany);
                } else if classes & class != 0
                    && body.elements().flatten().take(n).any(|e| e.key == element.key)
                {
                    flaw = Some(Flaw::Twice(element.key));
                }
                classes |= class;
            }
        }
        refuse_nameless(name, &first)?;
        Ok(found.map(|db| Self {
            name,
            first,
            db,
            body,
            sequences,
            collated: false,
            flaw,
        }))
    }

    /// The collection that the command names as its first value.
    pub fn collection(&self) -> Option<&'a str> {
        self.first.text()
    }

    /// A field of the body.
    ///
    /// # Errors
    /// A [`Refusal`] where the body is malformed.
    pub fn get(&self, key: &str) -> Result<Option<Element<'a>>, Refusal> {
        self.body.get(key.as_bytes()).map_err(malformed)
    }

    /// Refuses a field that stands twice in the body, or both in the body and as a sequence, on whatever namespace: with
    /// two names or databases it is open which is meant, and the server prints the whole command where it refuses it.
    ///
    /// # Errors
    /// A [`Refusal`] with the server's own code.
    pub fn refuse_repeats(&self) -> Result<(), Refusal> {
        match self.flaw {
            None => {}
            Some(Flaw::TooMany) => {
                return Err(Refusal::new(
                    Reason::Limit,
                    format!("the command has more than {} fields", limits::MAX_COMMAND_FIELDS),
                ));
            }
            Some(Flaw::Twice(key)) => {
                // What the client wrote there could be anything; an ordinary name is worth showing.
                let key = std::str::from_utf8(key).ok().filter(|key| {
                    key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'$')
                });
                return Err(Refusal::new(
                    Reason::Malformed,
                    format!("field '{}' stands twice in the command", key.unwrap_or("?")),
                )
                .with_code(TWICE));
            }
        }
        for sequence in &self.sequences {
            if self.get(sequence.identifier)?.is_some() {
                return Err(Refusal::new(
                    Reason::Malformed,
                    format!(
                        "'{}' stands both in the body and as a document sequence",
                        sequence.identifier
                    ),
                )
                .with_code(40433));
            }
        }
        Ok(())
    }

    /// Calls `each` with every field of the command, in the order of the bytes: the body's elements and the document
    /// sequences, whichever stands first. Planning in this order keeps the edits in order.
    ///
    /// # Errors
    /// Whatever `each` refuses, and malformed bytes.
    pub fn each_field(
        &self,
        draft: &mut Draft<'a>,
        mut each: impl FnMut(&mut Draft<'a>, &Field<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let (before, after): (Vec<&Sequence<'a>>, Vec<_>) =
            self.sequences.iter().partition(|s| s.at < self.body.start());
        for sequence in before {
            each(draft, &Field::Sequence(*sequence, self.body.buffer()))?;
        }
        let region = draft.open_doc(&self.body);
        for element in self.body.elements() {
            each(draft, &Field::Element(element.map_err(malformed)?))?;
        }
        draft.close(region, self.body.end());
        for sequence in after {
            each(draft, &Field::Sequence(*sequence, self.body.buffer()))?;
        }
        Ok(())
    }
}

/// One of 128 classes of keys, as a bit.
fn class(key: &[u8]) -> u128 {
    let (first, last) = (
        key.first().copied().unwrap_or(0),
        key.last().copied().unwrap_or(0),
    );
    1 << ((usize::from(first) + 7 * usize::from(last) + 31 * key.len()) & 127)
}

/// Refuses a collection that is named by anything but a string: the server takes a symbol for the same name, and a UUID
/// for the collection that bears it, and neither could be looked up in the field map.
fn refuse_nameless(command: &str, first: &Element<'_>) -> Result<(), Refusal> {
    let names_one = matches!(first.kind, kind::SYMBOL | kind::BINARY)
        && table::find(command)
            .is_some_and(|entry| matches!(entry.verdict, Verdict::Rewrite(_) | Verdict::Unprotected));
    if !names_one {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::Command,
        format!("command '{command}' names its collection by a symbol or a UUID; name it by a string"),
    ))
}

/// One field of a command.
pub enum Field<'a> {
    /// An element of the body.
    Element(Element<'a>),
    /// A document sequence, and the message it stands in.
    Sequence(Sequence<'a>, &'a [u8]),
}

impl<'a> Field<'a> {
    /// Its name.
    pub fn key(&self) -> &'a [u8] {
        match self {
            Self::Element(element) => element.key,
            Self::Sequence(sequence, _) => sequence.identifier.as_bytes(),
        }
    }

    /// The body element; `None` for a sequence.
    pub fn element(&self) -> Option<&Element<'a>> {
        match self {
            Self::Element(element) => Some(element),
            Self::Sequence(..) => None,
        }
    }

    /// Its value, where that is a document or an array of the body.
    ///
    /// # Errors
    /// A [`Refusal`] for malformed bytes.
    pub fn document(&self) -> Result<Option<Doc<'a>>, Refusal> {
        match self {
            Self::Element(element) => element.document().map_err(malformed),
            Self::Sequence(..) => Ok(None),
        }
    }

    /// Calls `each` with every document of this array or sequence, with lengths repaired around it.
    ///
    /// # Errors
    /// Whatever `each` refuses, and malformed bytes.
    pub fn each_document(
        &self,
        draft: &mut Draft<'a>,
        mut each: impl FnMut(&mut Draft<'a>, Doc<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Element(element) => {
                let Some(array) = element
                    .document()
                    .map_err(malformed)?
                    .filter(|_| element.kind == kind::ARRAY)
                else {
                    return Err(Refusal::new(
                        Reason::Malformed,
                        format!("'{}' is not an array", element.key_text()),
                    ));
                };
                let region = draft.open_doc(&array);
                for item in array.elements() {
                    let item = item.map_err(malformed)?;
                    let doc = item
                        .document()
                        .map_err(malformed)?
                        .filter(|_| item.kind == kind::DOCUMENT);
                    let Some(doc) = doc else {
                        return Err(Refusal::new(
                            Reason::Malformed,
                            format!("'{}' holds something that is not a document", element.key_text()),
                        ));
                    };
                    each(draft, doc)?;
                }
                draft.close(region, array.end());
            }
            Self::Sequence(sequence, frame) => {
                let region = draft.open(sequence.at);
                let mut at = sequence.documents_at;
                while at < sequence.end {
                    let doc = Doc::at(frame, at).map_err(malformed)?;
                    if doc.end() > sequence.end {
                        return Err(Refusal::new(
                            Reason::Malformed,
                            "a document runs past its section",
                        ));
                    }
                    each(draft, doc)?;
                    at = doc.end();
                }
                draft.close(region, sequence.end);
            }
        }
        Ok(())
    }
}

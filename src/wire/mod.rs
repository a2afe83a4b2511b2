//! Frames and sections of the MongoDB wire protocol: bytes to structure and back. Owns no socket and knows no command,
//! no BSON beyond a document's length prefix, and no key.
//!
//! What it promises: `encode(decode(x)) == x` for every accepted uncompressed frame; nothing is allocated from a length
//! that has not been bounded; no bytes make it panic. All offsets handed out are absolute in the frame (header
//! included), so that a plan can name spans of the message itself.
//!
//! Source: the `OP_MSG`, `OP_COMPRESSED` and message-header pages of the MongoDB wire protocol specification; where the
//! server is stricter or answers with a code of its own, the server was followed.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod checksum;
pub mod compress;
pub mod compressor;
pub mod deframe;
pub mod encode;
pub mod error;
pub mod header;
pub mod op_compressed;
pub mod op_msg;
pub mod op_query;
pub mod op_reply;
pub mod reader;

mod fuzz;

pub use compressor::{Compressor, Compressors};
pub use deframe::{Peeled, peel};
pub use error::{FrameError, OpMsgError, SectionError};
pub use fuzz::fuzz_frames;
pub use header::{Header, Opcode};
pub use op_msg::{Flags, OpMsg, Section};

//! Messages into `OP_COMPRESSED` and back. Owns the libraries' contexts: one set per thread, made when it is first
//! needed and shared by that thread's connections, so that a connection costs nothing for being able to compress.
//! Decides nothing about which message is compressed.
//!
//! Nothing is inflated before its announced size has been bounded, and nothing is accepted but exactly that size.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::bulk;

use super::checksum;
use super::compressor::Compressor;
use super::error::FrameError;
use super::header::{HEADER, Header, Opcode};
use super::op_compressed::OpCompressed;
use crate::limits;

/// Zlib's own default level, and the drivers'.
pub const ZLIB_LEVEL: u8 = 6;
/// A buffer that has grown past this is given back.
const KEEP: usize = 1024 * 1024;

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

#[derive(Default)]
struct Contexts {
    snappy: Option<snap::raw::Encoder>,
    deflate: Option<(u8, Compress)>,
    inflate: Option<Decompress>,
    zstd: Option<bulk::Compressor<'static>>,
    unzstd: Option<bulk::Decompressor<'static>>,
    /// A message before it takes the place of what it was made from.
    packed: Vec<u8>,
    /// Lent to [`inflate`] and given back to [`recycle`].
    plain: Vec<u8>,
}

/// The message inside, header included. Give the buffer to [`recycle`] when it is no longer needed.
///
/// # Errors
/// [`FrameError::Inflate`] where the payload cannot be inflated, or not to exactly the announced size.
pub fn inflate(message: &OpCompressed<'_>) -> Result<Vec<u8>, FrameError> {
    CONTEXTS.with_borrow_mut(|contexts| {
        let mut plain = std::mem::take(&mut contexts.plain);
        plain.clear();
        // The announced size is within the message limit: `OpCompressed::parse` has seen to that.
        let length = message.uncompressed.saturating_add(HEADER);
        let header = Header {
            length,
            opcode: message.original,
            ..message.header
        };
        plain.extend_from_slice(&header.to_bytes());
        plain.resize(length, 0);
        let into = plain.get_mut(HEADER..).unwrap_or_default();
        match contexts.unpack(message.compressor, message.payload, into) {
            Some(()) => Ok(plain),
            None => {
                contexts.plain = plain;
                Err(FrameError::Inflate)
            }
        }
    })
}

/// Takes a buffer back, for the next message of this thread.
pub fn recycle(plain: Vec<u8>) {
    if plain.capacity() <= KEEP {
        CONTEXTS.with_borrow_mut(|contexts| contexts.plain = plain);
    }
}

/// Puts an `OP_COMPRESSED` in place of the frame that stands in `buffer` from `base` to its end. Returns the bytes
/// before and after, or `None` where the frame was left as it is: because it `must_shrink` and would not, or because it
/// would pass the message limit.
pub fn pack(
    buffer: &mut Vec<u8>,
    base: usize,
    compressor: Compressor,
    zlib_level: u8,
    must_shrink: bool,
) -> Option<(usize, usize)> {
    let frame = buffer.get(base..)?;
    let header = Header::peek(frame, limits::MAX_MESSAGE).ok()?;
    let inner = frame.get(HEADER..)?;
    let (sizes, packed) = CONTEXTS.with_borrow_mut(|contexts| {
        let mut packed = std::mem::take(&mut contexts.packed);
        packed.clear();
        let outer = Header {
            opcode: Opcode::Compressed,
            ..header
        };
        packed.extend_from_slice(&outer.to_bytes());
        packed.extend_from_slice(&i32::from(header.opcode).to_le_bytes());
        packed.extend_from_slice(&i32::try_from(inner.len()).unwrap_or(i32::MAX).to_le_bytes());
        packed.push(compressor.id());
        let sizes = contexts
            .squeeze(compressor, zlib_level, inner, &mut packed)
            .and_then(|()| checksum::repair(&mut packed).ok())
            .map(|()| (frame.len(), packed.len()))
            .filter(|(before, after)| !must_shrink || after < before);
        (sizes, packed)
    });
    if sizes.is_some() {
        buffer.truncate(base);
        buffer.extend_from_slice(&packed);
    }
    if packed.capacity() <= KEEP {
        CONTEXTS.with_borrow_mut(|contexts| contexts.packed = packed);
    }
    sizes
}

impl Contexts {
    /// Fills `into` exactly; `None` where the payload does not.
    fn unpack(&mut self, compressor: Compressor, payload: &[u8], into: &mut [u8]) -> Option<()> {
        match compressor {
            Compressor::Snappy => {
                // Its own header says a size as well: a larger one is an error of the library, a smaller one ours.
                let announced = snap::raw::decompress_len(payload).ok()?;
                (announced == into.len()).then_some(())?;
                let written = snap::raw::Decoder::new().decompress(payload, into).ok()?;
                (written == into.len()).then_some(())
            }
            Compressor::Zlib => {
                let context = self.inflate.get_or_insert_with(|| Decompress::new(true));
                context.reset(true);
                let status = context.decompress(payload, into, FlushDecompress::Finish).ok()?;
                let consumed = usize::try_from(context.total_in()).ok()?;
                let written = usize::try_from(context.total_out()).ok()?;
                (status == Status::StreamEnd && consumed == payload.len() && written == into.len())
                    .then_some(())
            }
            Compressor::Zstd => {
                let written = match &mut self.unzstd {
                    Some(context) => context.decompress_to_buffer(payload, into),
                    empty => empty
                        .insert(bulk::Decompressor::new().ok()?)
                        .decompress_to_buffer(payload, into),
                };
                (written.ok()? == into.len()).then_some(())
            }
        }
    }

    /// Appends the compressed bytes; `None` where the library fails, which only a lack of memory makes it do.
    fn squeeze(
        &mut self,
        compressor: Compressor,
        zlib_level: u8,
        from: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let start = out.len();
        match compressor {
            Compressor::Snappy => {
                let most = snap::raw::max_compress_len(from.len());
                out.resize(start.saturating_add(most), 0);
                let context = self.snappy.get_or_insert_with(snap::raw::Encoder::new);
                let written = context.compress(from, out.get_mut(start..)?).ok()?;
                out.truncate(start.saturating_add(written));
            }
            Compressor::Zlib => self.deflate(zlib_level, from, out)?,
            Compressor::Zstd => {
                let most = zstd::zstd_safe::compress_bound(from.len());
                out.resize(start.saturating_add(most), 0);
                let into = out.get_mut(start..)?;
                let written = match &mut self.zstd {
                    Some(context) => context.compress_to_buffer(from, into),
                    empty => empty
                        .insert(bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL).ok()?)
                        .compress_to_buffer(from, into),
                };
                out.truncate(start.saturating_add(written.ok()?));
            }
        }
        Some(())
    }

    fn deflate(&mut self, level: u8, from: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let context = match &mut self.deflate {
            Some((own, context)) if *own == level => {
                context.reset();
                context
            }
            other => {
                let fresh = Compress::new(Compression::new(u32::from(level)), true);
                &mut other.insert((level, fresh)).1
            }
        };
        let mut rest = from;
        loop {
            // Usually enough at once; what does not shrink takes a second round.
            out.reserve(rest.len().saturating_add(64));
            let before = context.total_in();
            let status = context.compress_vec(rest, out, FlushCompress::Finish).ok()?;
            let consumed = usize::try_from(context.total_in().saturating_sub(before)).ok()?;
            rest = rest.get(consumed..)?;
            match status {
                Status::StreamEnd => return Some(()),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;

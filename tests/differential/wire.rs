//! A raw OP_MSG client without TLS: one request at a time, document sequences included.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bson::Document;

use crate::Outcome;
use crate::compare::succeeded;

const OP_MSG: i32 = 2013;
const HEADER: usize = 16;

pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    next_id: i32,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            address,
            stream,
            next_id: 1,
            buffer: Vec::new(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn reopen(&mut self) -> Outcome<()> {
        *self = Self::open(self.address)?;
        Ok(())
    }

    /// Sends `body`, and `sequence` as a kind-1 section; the answer is the reply's body, whatever it says.
    pub(crate) fn run(
        &mut self,
        body: &Document,
        sequence: Option<(&str, &[Document])>,
    ) -> Outcome<Document> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let frame = &mut self.buffer;
        frame.clear();
        frame.extend_from_slice(&[0; HEADER + 4]);
        frame.push(0);
        frame.extend_from_slice(&body.to_vec()?);
        if let Some((name, documents)) = sequence {
            frame.push(1);
            let start = frame.len();
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(name.as_bytes());
            frame.push(0);
            for document in documents {
                frame.extend_from_slice(&document.to_vec()?);
            }
            let length = u32::try_from(frame.len() - start)?;
            frame[start..start + 4].copy_from_slice(&length.to_le_bytes());
        }
        let length = u32::try_from(frame.len())?;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..8].copy_from_slice(&id.to_le_bytes());
        frame[12..16].copy_from_slice(&OP_MSG.to_le_bytes());
        self.stream.write_all(frame)?;

        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header)?;
        let word =
            |at: usize| i32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::try_from(word(0))?;
        if !(HEADER + 10..=48_000_000).contains(&length) || word(8) != id || word(12) != OP_MSG {
            return Err("a reply is no OP_MSG to this request".into());
        }
        self.buffer.resize(length - HEADER, 0);
        self.stream.read_exact(&mut self.buffer)?;
        if self.buffer[4] != 0 {
            return Err("a reply does not begin with its body".into());
        }
        Ok(Document::from_reader(&self.buffer[5..])?)
    }

    /// Runs what must succeed.
    pub(crate) fn must(&mut self, body: &Document) -> Outcome<Document> {
        let reply = self.run(body, None)?;
        if succeeded(&reply) && !reply.contains_key("writeErrors") {
            return Ok(reply);
        }
        Err(format!("{body} failed: {reply}").into())
    }
}

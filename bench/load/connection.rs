//! One TLS connection that speaks OP_MSG, one request at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use fieldveil::limits::MAX_MESSAGE;
use fieldveil::wire::op_compressed::OpCompressed;
use fieldveil::wire::{Compressor, compress};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Outcome;
use crate::message::{Reply, Request, frame_length};
use crate::scram::Login;

/// How long a command outside the measured loop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client connection, the way a driver has it: TLS, `hello`, and usually SCRAM.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
    compressor: Option<Compressor>,
    /// A request compressed, or a reply inflated.
    other_form: Vec<u8>,
    next_id: i32,
}

impl Connection {
    /// TLS and `hello`; nobody is logged in yet.
    pub(crate) async fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> Outcome<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
        let mut connection = Self {
            stream,
            received: Vec::new(),
            compressor: None,
            other_form: Vec::new(),
            next_id: 1,
        };
        let client = doc! {
            "driver": { "name": "load", "version": "1" },
            "os": { "type": std::env::consts::OS },
        };
        connection
            .run(doc! { "hello": 1, "helloOk": true, "client": client, "$db": "admin" })
            .await?;
        Ok(connection)
    }

    pub(crate) async fn authenticate(&mut self, login: &mut Login) -> Outcome<()> {
        let binary = |text: String| Binary {
            subtype: BinarySubtype::Generic,
            bytes: text.into_bytes(),
        };
        let (mut exchange, first) = login.first()?;
        let reply = self
            .run(doc! {
                "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": binary(first),
                "options": { "skipEmptyExchange": true }, "$db": "admin",
            })
            .await?;
        let proof = login.proof(&mut exchange, &payload(&reply)?)?;
        let conversation = reply.get_i32("conversationId")?;
        let reply = self
            .run(doc! {
                "saslContinue": 1, "conversationId": conversation, "payload": binary(proof), "$db": "admin",
            })
            .await?;
        exchange.confirm(&payload(&reply)?)?;
        if reply.get_bool("done")? {
            Ok(())
        } else {
            Err("SCRAM did not end".into())
        }
    }

    /// From now on every request goes by this compressor, and so do the replies.
    pub(crate) async fn compress(&mut self, by: Compressor) -> Outcome<()> {
        let reply = self
            .run(doc! { "hello": 1, "compression": [by.name()], "$db": "admin" })
            .await?;
        let agreed = reply.get_array("compression")?;
        if agreed.as_slice() != [bson::Bson::from(by.name())] {
            return Err(format!("asked for {}, was offered {agreed:?}", by.name()).into());
        }
        self.compressor = Some(by);
        Ok(())
    }

    /// Runs any command whose speed does not matter; an error reply is an error.
    pub(crate) async fn run(&mut self, command: Document) -> Outcome<Document> {
        let mut request = Request::command(&RawDocumentBuf::try_from(&command)?);
        let reply = tokio::time::timeout(PATIENCE, self.exchange(&mut request)).await;
        let reply = reply.map_err(|_| "no reply in time")??;
        reply.succeeded()?;
        Ok(Document::try_from(reply.body)?)
    }

    /// Sends `request` under a fresh id and waits for the whole reply.
    pub(crate) async fn exchange(&mut self, request: &mut Request) -> Outcome<Reply<'_>> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        request.set_id(id);
        if let Some(by) = self.compressor {
            self.other_form.clear();
            self.other_form.extend_from_slice(request.as_bytes());
            compress::pack(&mut self.other_form, 0, by, compress::ZLIB_LEVEL, false);
            self.stream.write_all(&self.other_form).await?;
        } else {
            self.stream.write_all(request.as_bytes()).await?;
        }
        self.stream.flush().await?;
        self.received.clear();
        let length = self.receive().await?;
        // A reply that does not shrink may come as it is.
        match OpCompressed::parse(&self.received[..length], MAX_MESSAGE) {
            Ok(packed) if self.compressor.is_some() => {
                compress::recycle(std::mem::replace(
                    &mut self.other_form,
                    compress::inflate(&packed)?,
                ));
                Reply::parse(&self.other_form, id)
            }
            _ => Reply::parse(&self.received[..length], id),
        }
    }

    /// What TLS came to: protocol version and cipher suite.
    pub(crate) fn cipher(&self) -> String {
        let tls = self.stream.get_ref().1;
        match (tls.protocol_version(), tls.negotiated_cipher_suite()) {
            (Some(version), Some(suite)) => format!("{version:?} {:?}", suite.suite()),
            _ => "unknown".to_owned(),
        }
    }

    async fn receive(&mut self) -> Outcome<usize> {
        loop {
            if let Some(length) = frame_length(&self.received)? {
                if self.received.len() == length {
                    return Ok(length);
                }
                if self.received.len() > length {
                    return Err("more than one reply to one request".into());
                }
                self.received.reserve(length - self.received.len());
            } else {
                self.received.reserve(16 * 1024);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the connection was closed".into());
            }
        }
    }
}

fn payload(reply: &Document) -> Outcome<String> {
    Ok(String::from_utf8(reply.get_binary_generic("payload")?.clone())?)
}

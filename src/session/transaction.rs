//! Transactions: to the server an error in a statement ends the transaction, and what was done in it is undone. It never
//! sees what is refused here, so it is told to end the transaction before the client hears of the refusal: an application
//! that goes on all the same, or commits, meets the server's own `NoSuchTransaction`, on whatever connection.

use super::pending::{Kind, Pending};
use super::{Context, Session};
use crate::bson::build::Builder;
use crate::bson::{Doc, kind};
use crate::wire::encode::MsgWriter;
use crate::wire::op_msg::Flags;

/// Fields that the end of a transaction must have as its statements had them.
const TAKEN_OVER: &[&str] = &[
    "lsid",
    "txnNumber",
    "txnRetryCounter",
    "apiVersion",
    "apiStrict",
    "apiDeprecationErrors",
];

/// The command that ends the transaction which this one is a statement of; `None` where it is none. What ends a
/// transaction by itself is no statement.
pub(super) fn abort(statement: &Doc<'_>) -> Option<Vec<u8>> {
    let first = statement.elements().next()?.ok()?;
    let automatic = statement.get(b"autocommit").ok()??;
    if automatic.kind != kind::BOOL
        || automatic.truthy()
        || matches!(first.key, b"abortTransaction" | b"commitTransaction")
    {
        return None;
    }
    let mut command = Builder::new();
    command.int32("abortTransaction", 1);
    for key in TAKEN_OVER {
        if let Some(element) = statement.get(key.as_bytes()).ok()? {
            command.raw(element.kind, key, element.value());
        }
    }
    // An end that nobody has to agree to: a majority could be long in coming.
    command.bool("autocommit", false).document("writeConcern");
    command.int32("w", 1).end().string("$db", "admin");
    Some(command.finish())
}

impl Session {
    /// Ends a transaction on the server. `answer` goes to the client once the server has done so; `None` where nobody
    /// waits for it.
    pub(super) fn abort_transaction(
        &mut self,
        request_id: i32,
        abort: &[u8],
        answer: Vec<u8>,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
    ) {
        let frame = MsgWriter::new(request_id, 0, Flags::default())
            .body(abort)
            .finish();
        to_server.extend_from_slice(&frame.unwrap_or_default());
        self.pending
            .push(Pending::new(request_id, Kind::Abort(answer), cx.now_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(name: &str, autocommit: bool) -> Vec<u8> {
        let mut doc = Builder::new();
        doc.string(name, "p")
            .document("lsid")
            .raw(kind::BINARY, "id", &[0; 5])
            .end();
        doc.raw(kind::INT64, "txnNumber", &7_i64.to_le_bytes())
            .bool("autocommit", autocommit)
            .string("apiVersion", "1")
            .string("$db", "c");
        doc.finish()
    }

    fn keys(doc: &[u8]) -> Vec<String> {
        let doc = Doc::at(doc, 0).unwrap();
        doc.elements()
            .map(|e| e.unwrap().key_text().to_string())
            .collect()
    }

    #[test]
    fn ends_the_transaction_by_the_statements_own_session_and_version() {
        let bytes = statement("find", false);
        let abort = abort(&Doc::at(&bytes, 0).unwrap()).unwrap();
        let wanted = [
            "abortTransaction",
            "lsid",
            "txnNumber",
            "apiVersion",
            "autocommit",
            "writeConcern",
            "$db",
        ];
        assert_eq!(keys(&abort), wanted);
        let abort = Doc::at(&abort, 0).unwrap();
        assert_eq!(abort.get(b"txnNumber").unwrap().unwrap().integer(), Some(7));
        assert_eq!(abort.get(b"$db").unwrap().unwrap().text(), Some("admin"));
    }

    #[test]
    fn ends_nothing_that_is_no_transactions_statement() {
        for bytes in [
            statement("find", true),
            statement("commitTransaction", false),
            statement("abortTransaction", false),
            Builder::new().finish(),
        ] {
            assert!(abort(&Doc::at(&bytes, 0).unwrap()).is_none());
        }
    }
}

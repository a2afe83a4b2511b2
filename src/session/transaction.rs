//! Transactions: to the server an error in a statement ends the transaction, and what was done in it is undone. It never
//! sees what is refused here, so it is told to end the transaction before the client hears of the refusal: an application
//! that goes on all the same, or commits, meets the server's own `NoSuchTransaction`, on whatever connection.

use super::pending::{Kind, Pending};
use super::{Closing, Context, MOVED, Session, names};
use crate::bson::build::Builder;
use crate::bson::{Doc, Element, kind};
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

/// A session's id is a UUID and the digest of a user's name, with a UUID and a number more inside the server.
const MAX_LSID: usize = 256;
/// The only version there is has one character.
const MAX_API_VERSION: usize = 16;

/// Whether the server could have taken a statement with such a field: nothing else of what is refused goes upstream, nor
/// is it kept.
fn is_taken(element: &Element<'_>) -> bool {
    match element.key {
        b"lsid" => {
            let plain = |part: Result<Element<'_>, _>| {
                part.is_ok_and(|part| match part.key {
                    b"id" | b"uid" | b"txnUUID" => part.kind == kind::BINARY || is_nothing(&part),
                    b"txnNumber" => part.kind == kind::INT64 || is_nothing(&part),
                    _ => false,
                })
            };
            element.kind == kind::DOCUMENT
                && element.value().len() <= MAX_LSID
                && matches!(element.document(), Ok(Some(lsid)) if lsid.elements().all(plain))
        }
        b"txnNumber" => element.kind == kind::INT64,
        b"txnRetryCounter" => matches!(element.kind, kind::INT32 | kind::INT64),
        b"apiVersion" => element.text().is_some_and(|text| text.len() <= MAX_API_VERSION),
        _ => element.kind == kind::BOOL,
    }
}

/// To the server a null is as good as no field.
fn is_nothing(element: &Element<'_>) -> bool {
    matches!(element.kind, kind::NULL | kind::UNDEFINED)
}

/// The command that ends the transaction which this one is a statement of; `None` where it is none. What ends a
/// transaction by itself is no statement, and the server opens no transaction by what it would not read.
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
        match statement.get(key.as_bytes()).ok()? {
            Some(element) if is_taken(&element) => {
                command.raw(element.kind, key, element.value());
            }
            found if !matches!(*key, "lsid" | "txnNumber") && found.as_ref().is_none_or(is_nothing) => {}
            _ => return None,
        }
    }
    // An end that nobody has to agree to: a majority could be long in coming.
    command.bool("autocommit", false).document("writeConcern");
    command.int32("w", 1).end().string("$db", "admin");
    Some(command.finish())
}

/// `NoSuchTransaction`, `TransactionCommitted`, and `TransactionTooOld`: the session has gone on to another one.
const OVER: &[i64] = &[251, 256, 225];
/// What a server says, as an `IllegalOperation`, that has no transactions at all.
const NONE_HERE: (i64, &str) = (20, "Transaction numbers are only allowed on");

/// Looks at the reply to the end of a transaction.
///
/// # Errors
/// [`Closing`] where the transaction may still be alive: another connection could commit what the client is about to hear
/// has failed. A driver takes a connection that ends as such a failure, and begins the transaction anew.
pub(super) fn ended(reply: &Doc<'_>, cx: &Context<'_>) -> Result<(), Closing> {
    if cx.follows && names::has_error(reply)? && names::says_moved(reply)? {
        return Err(MOVED);
    }
    let get = |key: &str| reply.get(key.as_bytes()).ok().flatten();
    let code = get("code").and_then(|code| code.integer());
    let text = get("errmsg").and_then(|text| text.text()).unwrap_or_default();
    if get("ok").is_some_and(|ok| ok.truthy())
        || code.is_some_and(|code| OVER.contains(&code))
        || code == Some(NONE_HERE.0) && text.starts_with(NONE_HERE.1)
    {
        Ok(())
    } else {
        Err(Closing("a transaction could not be ended"))
    }
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

    #[test]
    fn takes_nothing_over_that_the_server_would_not_read() {
        let statement = |change: &dyn Fn(&mut Builder)| {
            let mut doc = Builder::new();
            doc.string("find", "p");
            change(&mut doc);
            doc.bool("autocommit", false);
            doc.finish()
        };
        let number = 7_i64.to_le_bytes();
        let id = |doc: &mut Builder, inside: &dyn Fn(&mut Builder)| {
            doc.document("lsid").raw(kind::BINARY, "id", &[0; 5]);
            inside(doc);
            doc.end();
        };
        let good: [&dyn Fn(&mut Builder); 3] = [
            &|_| {},
            &|doc| _ = doc.string("apiVersion", "1").bool("apiStrict", true),
            &|doc| _ = doc.raw(kind::NULL, "apiStrict", &[]).int32("txnRetryCounter", 0),
        ];
        for more in good {
            let bytes = statement(&|doc| {
                id(doc, &|_| {});
                doc.raw(kind::INT64, "txnNumber", &number);
                more(doc);
            });
            let abort = abort(&Doc::at(&bytes, 0).unwrap()).unwrap();
            assert!(abort.len() < 256);
        }
        let long = "x".repeat(17);
        let bad: [&dyn Fn(&mut Builder); 9] = [
            &|_| {},
            &|doc| id(doc, &|_| {}),
            &|doc| _ = doc.string("lsid", "x").raw(kind::INT64, "txnNumber", &number),
            &|doc| {
                id(doc, &|doc| _ = doc.string("name", "x"));
                doc.raw(kind::INT64, "txnNumber", &number);
            },
            &|doc| {
                let bytes = [&300_i32.to_le_bytes()[..], &[0; 301]].concat();
                id(doc, &|doc| _ = doc.raw(kind::BINARY, "uid", &bytes));
                doc.raw(kind::INT64, "txnNumber", &number);
            },
            &|doc| {
                id(doc, &|_| {});
                doc.string("txnNumber", "7");
            },
            &|doc| {
                id(doc, &|_| {});
                doc.raw(kind::INT64, "txnNumber", &number)
                    .string("apiVersion", &long);
            },
            &|doc| {
                id(doc, &|_| {});
                doc.raw(kind::INT64, "txnNumber", &number)
                    .string("apiStrict", "yes");
            },
            &|doc| {
                id(doc, &|_| {});
                doc.raw(kind::INT64, "txnNumber", &number)
                    .string("txnRetryCounter", "0");
            },
        ];
        for (n, fields) in bad.iter().enumerate() {
            let bytes = statement(fields);
            assert!(abort(&Doc::at(&bytes, 0).unwrap()).is_none(), "{n}");
        }
    }
}

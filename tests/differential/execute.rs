//! Runs a sequence on both sides: the proxy first, the oracle only where the proxy did not refuse.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, bson, doc};

use crate::Outcome;
use crate::compare::{self, Answer};
use crate::leak;
use crate::model::{self, COLLECTIONS, Map, State};
use crate::sequence::{Op, Sequence, Through, Work};
use crate::servers::Proxy;
use crate::statistics::Statistics;
use crate::wire::Connection;

const NO_SUCH_TRANSACTION: i32 = 251;

/// What is wrong, at which operation (the number of operations: after all of them).
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) at: usize,
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

/// One side of one worker.
struct Side {
    connection: Connection,
    db: String,
    session: Binary,
}

impl Side {
    fn new(connection: Connection, db: String) -> Self {
        let session = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: uuid::Uuid::new_v4().as_bytes().to_vec(),
        };
        Self {
            connection,
            db,
            session,
        }
    }

    fn transaction(&self, body: &mut Document, number: i64, start: bool) {
        body.insert("lsid", doc! { "id": self.session.clone() });
        body.insert("txnNumber", number);
        body.insert("autocommit", false);
        if start {
            body.insert("startTransaction", true);
        }
    }

    /// The operation's whole answer, later batches included.
    fn run(&mut self, op: &Op, transaction: Option<(i64, bool)>) -> Outcome<Answer> {
        let mut body = op.body.clone();
        let documents = match op.sequence.and_then(|name| body.remove(name)) {
            Some(Bson::Array(items)) => items
                .into_iter()
                .filter_map(|item| match item {
                    Bson::Document(d) => Some(d),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let sequence = op.sequence.map(|name| (name, documents.as_slice()));
        if let Some((number, start)) = transaction {
            self.transaction(&mut body, number, start);
        }
        body.insert("$db", self.db.as_str());
        let mut reply = self.connection.run(&body, sequence)?;
        let Some(Bson::Document(mut cursor)) = reply.remove("cursor") else {
            return Ok(Answer {
                reply,
                documents: None,
            });
        };
        let mut documents = compare::batch(&mut cursor, "firstBatch");
        while let Ok(id) = cursor.get_i64("id") {
            if id == 0 {
                break;
            }
            let collection = op.body.get(op.command()).cloned().unwrap_or(Bson::Null);
            let mut more = doc! { "getMore": id, "collection": collection, "batchSize": 3 };
            if let Some((number, _)) = transaction {
                self.transaction(&mut more, number, false);
            }
            more.insert("$db", self.db.as_str());
            let mut next = self.connection.run(&more, None)?;
            match next.remove("cursor") {
                Some(Bson::Document(next_cursor)) => cursor = next_cursor,
                _ => {
                    reply = next;
                    break;
                }
            }
            documents.extend(compare::batch(&mut cursor, "nextBatch"));
        }
        Ok(Answer {
            reply,
            documents: Some(documents),
        })
    }

    fn end(&mut self, number: i64, commit: bool) -> Outcome<Answer> {
        let mut body = if commit {
            doc! { "commitTransaction": 1 }
        } else {
            doc! { "abortTransaction": 1 }
        };
        self.transaction(&mut body, number, false);
        body.insert("$db", "admin");
        Ok(Answer {
            reply: self.connection.run(&body, None)?,
            documents: None,
        })
    }
}

/// Where sequences run: databases and connections of one worker.
pub(crate) struct Bench<'a> {
    maps: &'a [Map],
    worker: usize,
    server: Connection,
    oracle: Side,
    proxied: Vec<Side>,
    before: Vec<Side>,
    transactions: i64,
    /// Databases that the last sequence may have left with indexes.
    indexed: std::collections::BTreeSet<String>,
}

struct Open {
    id: u32,
    number: i64,
    started: bool,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(
        maps: &'a [Map],
        worker: usize,
        server: std::net::SocketAddr,
        now: &Proxy,
        before: &Proxy,
    ) -> Outcome<Self> {
        let mut proxied = Vec::new();
        let mut earlier = Vec::new();
        for map in maps {
            let db = format!("e{}_{worker}", map.index);
            proxied.push(Side::new(Connection::open(now.address)?, db.clone()));
            let address = match map.state {
                State::Migrating => server,
                _ => before.address,
            };
            earlier.push(Side::new(Connection::open(address)?, db));
        }
        let mut bench = Self {
            maps,
            worker,
            server: Connection::open(server)?,
            oracle: Side::new(Connection::open(server)?, format!("o_{worker}")),
            proxied,
            before: earlier,
            transactions: 0,
            indexed: std::collections::BTreeSet::new(),
        };
        let mut databases: Vec<String> = bench.proxied.iter().map(|s| s.db.clone()).collect();
        databases.push(bench.oracle.db.clone());
        for db in databases {
            bench
                .server
                .must(&doc! { "dropDatabase": 1, "$db": db.as_str() })?;
            for name in COLLECTIONS {
                bench.server.must(&doc! { "create": name, "$db": db.as_str() })?;
            }
        }
        for side in bench.proxied.iter_mut().chain([&mut bench.oracle]) {
            let mut view = model::view();
            view.insert("$db", side.db.as_str());
            side.connection.must(&view)?;
        }
        Ok(bench)
    }

    /// New connections, after one side closed one.
    pub(crate) fn reopen(&mut self) -> Outcome<()> {
        self.server.reopen()?;
        self.oracle.connection.reopen()?;
        for side in self.proxied.iter_mut().chain(&mut self.before) {
            side.connection.reopen()?;
        }
        Ok(())
    }

    fn empty(&mut self, sequence: &Sequence) -> Outcome<()> {
        for db in [self.proxied[sequence.map].db.clone(), self.oracle.db.clone()] {
            for name in COLLECTIONS {
                if sequence.indexed || self.indexed.contains(&db) {
                    // $out may have left the collection without any.
                    self.server.run(
                        &doc! { "dropIndexes": name, "index": "*", "$db": db.as_str() },
                        None,
                    )?;
                }
                self.server.must(
                    &doc! { "delete": name, "deletes": [{ "q": {}, "limit": 0 }], "$db": db.as_str() },
                )?;
            }
            if sequence.indexed {
                self.indexed.insert(db);
            } else {
                self.indexed.remove(&db);
            }
        }
        Ok(())
    }

    /// Runs a sequence from empty collections. `Ok(Some)` is a difference; `Err` is trouble of the test's own.
    pub(crate) fn run(
        &mut self,
        sequence: &Sequence,
        statistics: &mut Statistics,
    ) -> Outcome<Option<Failure>> {
        self.empty(sequence)?;
        let mut open: Option<Open> = None;
        for (at, op) in sequence.ops.iter().enumerate() {
            let failed = self.step(sequence, op, &mut open, statistics);
            let failed = match failed {
                Ok(failed) => failed,
                Err(e) => Some(("connection", e.to_string())),
            };
            if let Some((kind, text)) = failed {
                if kind == "connection" {
                    self.reopen()?;
                } else {
                    self.close(sequence, &mut open)?;
                }
                return Ok(Some(Failure { at, kind, text }));
            }
        }
        self.close(sequence, &mut open)?;
        let failed = self.finish(sequence)?;
        Ok(failed.map(|(kind, text)| Failure {
            at: sequence.ops.len(),
            kind,
            text,
        }))
    }

    /// A transaction that the sequence left open is aborted on both sides.
    fn close(&mut self, sequence: &Sequence, open: &mut Option<Open>) -> Outcome<()> {
        if let Some(Open {
            number,
            started: true,
            ..
        }) = open.take()
        {
            self.proxied[sequence.map].end(number, false)?;
            self.oracle.end(number, false)?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        sequence: &Sequence,
        op: &Op,
        open: &mut Option<Open>,
        statistics: &mut Statistics,
    ) -> Outcome<Option<(&'static str, String)>> {
        let map = &self.maps[sequence.map];
        if open.as_ref().is_some_and(|open| Some(open.id) != op.transaction) {
            self.close(sequence, open)?;
        }
        if op.work != Work::Command {
            let Some(Open { number, started, .. }) = open.take() else {
                return Ok(None);
            };
            if !started {
                return Ok(None);
            }
            let commit = op.work == Work::Commit;
            let proxied = self.proxied[sequence.map].end(number, commit)?;
            let oracle = self.oracle.end(number, commit)?;
            statistics.count(
                if commit {
                    "commitTransaction"
                } else {
                    "abortTransaction"
                },
                &[],
                false,
            );
            return Ok(compare::answers(op, map, &proxied, &oracle));
        }
        let transaction = op.transaction.map(|id| {
            let open = open.get_or_insert_with(|| {
                self.transactions += 1;
                Open {
                    id,
                    number: self.transactions,
                    started: false,
                }
            });
            (open.number, !open.started)
        });
        let side = match op.through {
            Through::Proxy => &mut self.proxied[sequence.map],
            Through::Before => &mut self.before[sequence.map],
        };
        let proxied = side.run(op, transaction)?;
        let refusal = compare::refusal(&proxied);
        statistics.count(op.command(), &op.tags, refusal.is_some());
        if let Some(refusal) = refusal {
            statistics.refuse(&refusal.text);
            if let Some(why) = refusal.wrong {
                return Ok(Some(("refusal", format!("{why}: {}", refusal.text))));
            }
            return self.give_up(sequence, open);
        }
        if let Some(open) = open {
            open.started = true;
        }
        let oracle = self.oracle.run(op, transaction)?;
        statistics.agree(op.command(), &oracle);
        Ok(compare::answers(op, map, &proxied, &oracle))
    }

    /// A refused statement has ended its transaction: nothing of it can be committed. What follows of it in the sequence is
    /// run in a new one.
    fn give_up(
        &mut self,
        sequence: &Sequence,
        open: &mut Option<Open>,
    ) -> Outcome<Option<(&'static str, String)>> {
        let Some(Open {
            number,
            started: true,
            ..
        }) = open.take()
        else {
            return Ok(None);
        };
        let committed = self.proxied[sequence.map].end(number, true)?;
        self.oracle.end(number, false)?;
        let gone = committed
            .reply
            .get_i32("code")
            .is_ok_and(|code| code == NO_SUCH_TRANSACTION);
        Ok((!gone).then(|| {
            (
                "transaction",
                format!("one with a refused statement was committed: {}", committed.reply),
            )
        }))
    }

    /// Whole collections, opened, against the oracle's; then what the server really holds.
    fn finish(&mut self, sequence: &Sequence) -> Outcome<Option<(&'static str, String)>> {
        let map = &self.maps[sequence.map];
        for name in COLLECTIONS {
            let mut all = Op {
                body: doc! { "find": name, "filter": {}, "batchSize": 7, "hint": { "$natural": 1 } },
                sequence: None,
                through: Through::Proxy,
                transaction: None,
                work: Work::Command,
                ordered: name != "t",
                sets: false,
                tags: Vec::new(),
            };
            if name == "t" {
                all.body.insert("sort", bson!({ "_id": 1 }));
                all.ordered = true;
            }
            let proxied = self.proxied[sequence.map].run(&all, None)?;
            let oracle = self.oracle.run(&all, None)?;
            if let Some((_, text)) = compare::answers(&all, map, &proxied, &oracle) {
                return Ok(Some(("stored", format!("collection {name}: {text}"))));
            }
            if map.state == State::Migrating {
                continue;
            }
            let db = self.proxied[sequence.map].db.clone();
            let mut raw = Side::new(Connection::open(self.server.address())?, db);
            let mut whole = all.clone();
            whole.body.insert("batchSize", 10_000);
            let stored = raw.run(&whole, None)?.documents.unwrap_or_default();
            if let Some(found) = leak::find(&stored) {
                return Ok(Some((
                    "leak",
                    format!("collection {name} of worker {}: {found}", self.worker),
                )));
            }
        }
        Ok(None)
    }
}

//! The run: everything started, filled, measured round robin, and what was written looked at past the proxy.

use std::sync::Arc;

use bson::raw::{RawBsonRef, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{RawDocument, doc};

use crate::Outcome;
use crate::args::Options;
use crate::connection::Connection;
use crate::message::Request;
use crate::operation::{BATCH, Operation};
use crate::patient::{FIELD_MAP, MARKERS, Patients, renumber};
use crate::report::{Cell, Idle, Report};
use crate::scram::Login;
use crate::servers::{Server, Site};
use crate::slice::{self, Setting, Slice};
use crate::targets::{Target, Way};

/// The whole benchmark; an error is anything that makes its figures worthless.
pub(crate) async fn run(options: Options) -> Outcome<()> {
    let mut bench = Bench::start(options).await?;
    if bench.options.serve {
        return bench.serve().await;
    }
    let mut report = Report::new(&bench.options);
    for target in &bench.targets {
        let connection = Connection::open(target.address, &bench.site.tls).await?;
        report.ciphers.push((target.way, connection.cipher()));
    }
    for connections in bench.options.connections() {
        bench.closed_loop(connections, &mut report).await?;
    }
    for way in bench.options.ways() {
        if let Some(idle) = bench.idle(way).await? {
            report.idle.push(idle);
        }
    }
    report.finish(&bench.options)
}

struct Bench {
    options: Options,
    site: Site,
    database: Server,
    targets: Vec<Target>,
    setting: Setting,
    login: Login,
    /// Straight to the database, for everything that is not measured.
    direct: Connection,
    /// The forwarders and proxies, ended with the bench.
    _servers: Vec<Server>,
}

impl Bench {
    async fn start(options: Options) -> Outcome<Self> {
        let site = Site::new(options.keep)?;
        let database = site.start_mongod(&options.mongod).await?;
        let mut login = site.login();
        let mut direct = Connection::open(database.address, &site.tls).await?;
        direct.authenticate(&mut login).await?;
        let setting = Setting {
            patients: Arc::new(Patients::new(options.patients())?),
            database: database.process(),
            length: options.slice(),
            warm_up: options.warm_up(),
        };
        let mut bench = Self {
            options,
            site,
            database,
            targets: Vec::new(),
            setting,
            login,
            direct,
            _servers: Vec::new(),
        };
        bench.start_ways().await?;
        bench.fill().await?;
        Ok(bench)
    }

    async fn start_ways(&mut self) -> Outcome<()> {
        for way in self.options.ways() {
            let server = self.start_way(way, way.name()).await?;
            self.targets.push(Target {
                way,
                address: server
                    .as_ref()
                    .map_or(self.database.address, |server| server.address),
                proxy: server.as_ref().map(Server::process),
            });
            self._servers.extend(server);
        }
        Ok(())
    }

    /// A fresh process for `way`, or nothing when the way has none.
    async fn start_way(&self, way: Way, name: &str) -> Outcome<Option<Server>> {
        let (site, upstream) = (&self.site, self.database.address);
        let program = &self.options.fieldveil;
        Ok(match way {
            Way::Direct => None,
            Way::Haproxy => Some(site.start_haproxy(&self.options.haproxy, name, upstream).await?),
            Way::Empty => Some(site.start_fieldveil(program, name, upstream, &[]).await?),
            Way::Mapped => {
                let namespaces =
                    [way.read_collection(), way.write_collection()].map(|name| format!("bench.{name}"));
                Some(site.start_fieldveil(program, name, upstream, &namespaces).await?)
            }
        })
    }

    /// Writes the patients that the reads choose from: once plainly, once through the proxy that seals them.
    async fn fill(&mut self) -> Outcome<()> {
        let mut filled = Vec::new();
        for target in &self.targets {
            let collection = target.way.read_collection();
            if filled.contains(&collection) {
                continue;
            }
            filled.push(collection);
            let mut connection = Connection::open(target.address, &self.site.tls).await?;
            connection.authenticate(&mut self.login).await?;
            create_index(&mut connection, collection).await?;
            let patients = &self.setting.patients;
            for start in (0..patients.len()).step_by(BATCH) {
                let end = patients.len().min(start + BATCH);
                let documents: Vec<&[u8]> = (start..end).map(|index| patients.bytes(index)).collect();
                let body = RawDocumentBuf::try_from(&doc! { "insert": collection, "$db": "bench" })?;
                let (mut request, _) = Request::command(&body).with_sequence("documents", &documents)?;
                connection.exchange(&mut request).await?.succeeded()?;
            }
            let count = self
                .direct
                .run(doc! { "count": collection, "$db": "bench" })
                .await?
                .get_i32("n")?;
            if usize::try_from(count)? != patients.len() {
                return Err(format!("{collection} holds {count} patients").into());
            }
            if target.way == Way::Mapped {
                look_past_the_proxy(&mut self.direct, collection).await?;
            }
        }
        Ok(())
    }

    /// Says where everything is, and keeps it up until standard input ends.
    async fn serve(&self) -> Outcome<()> {
        let uris = self
            .targets
            .iter()
            .map(|target| (target.way.name().to_owned(), self.site.uri(target.address)));
        let uris: serde_json::Map<_, _> = uris.map(|(way, uri)| (way, uri.into())).collect();
        println!("{}", serde_json::Value::Object(uris));
        // A thread of its own: a blocked read would hold up the runtime's end when a signal comes first.
        let (ended, input) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            ended.send(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()))
        });
        input.await??;
        Ok(())
    }

    /// All operations over `count` connections per way, round robin.
    async fn closed_loop(&mut self, count: usize, report: &mut Report) -> Outcome<()> {
        let targets = std::mem::take(&mut self.targets);
        let mut pools = Vec::new();
        for target in &targets {
            let mut pool = Vec::with_capacity(count);
            for _ in 0..count {
                let mut connection = Connection::open(target.address, &self.site.tls).await?;
                connection.authenticate(&mut self.login).await?;
                if let Some(compressor) = self.options.compression {
                    connection.compress(compressor).await?;
                }
                pool.push(connection);
            }
            pools.push(pool);
        }
        for operation in self.options.operations() {
            let mut cell = Cell::new(operation, count);
            for round in 0..self.options.rounds() {
                let mut slices = Vec::new();
                for turn in 0..targets.len() {
                    // Nobody always comes after the same neighbour.
                    let index = (turn + round) % targets.len();
                    let slice = self.slice(&targets[index], operation, &mut pools[index]).await;
                    let slice = slice.map_err(|error| {
                        format!(
                            "{} over {count} connections, {}: {error}",
                            operation.name(),
                            targets[index].way.name()
                        )
                    })?;
                    slices.push((targets[index].way, slice));
                }
                cell.rounds.push(slices);
            }
            cell.say();
            report.cells.push(cell);
        }
        self.targets = targets;
        Ok(())
    }

    async fn slice(
        &mut self,
        target: &Target,
        operation: Operation,
        pool: &mut Vec<Connection>,
    ) -> Outcome<Slice> {
        let collection = target.way.write_collection();
        if operation.writes() {
            self.direct
                .run(doc! { "drop": collection, "$db": "bench" })
                .await
                .or_else(ignore_missing)?;
            create_index(&mut self.direct, collection).await?;
        }
        let slice = slice::run(&self.setting, target, operation, pool).await?;
        if operation.writes() {
            let count = self
                .direct
                .run(doc! { "count": collection, "$db": "bench" })
                .await?
                .get_i32("n")?;
            if usize::try_from(count)? != slice.acknowledged {
                return Err(
                    format!("{count} documents are there, {} acknowledged", slice.acknowledged).into(),
                );
            }
            let connection = pool.first_mut().ok_or("no connection")?;
            read_back(connection, collection, &self.setting.patients, operation).await?;
            if target.way == Way::Mapped {
                look_past_the_proxy(&mut self.direct, collection).await?;
            }
        }
        Ok(slice)
    }

    /// What an idle, authenticated connection costs a fresh proxy in resident memory.
    async fn idle(&mut self, way: Way) -> Outcome<Option<Idle>> {
        /// Connections before the first look, so that one-time costs are not counted.
        const BEFORE: usize = 10;
        let count = self.options.idle();
        let name = format!("idle_{}", way.name());
        let Some(server) = (if count == 0 {
            None
        } else {
            self.start_way(way, &name).await?
        }) else {
            return Ok(None);
        };
        let mut connections = Vec::with_capacity(BEFORE + count);
        let mut before = 0;
        for number in 0..BEFORE + count {
            if number == BEFORE {
                tokio::time::sleep(self.options.slice()).await;
                before = server.process().memory()?.now;
            }
            let mut connection = Connection::open(server.address, &self.site.tls).await?;
            connection.authenticate(&mut self.login).await?;
            connections.push(connection);
        }
        tokio::time::sleep(self.options.slice()).await;
        let after = server.process().memory()?.now;
        // They were idle, not dead.
        for connection in &mut connections {
            connection.run(doc! { "ping": 1, "$db": "admin" }).await?;
        }
        Ok(Some(Idle {
            way,
            connections: count,
            bytes: after.saturating_sub(before) as f64 / count as f64,
        }))
    }
}

async fn create_index(connection: &mut Connection, collection: &str) -> Outcome<()> {
    let index = doc! { "key": { "nhs_number": 1 }, "name": "nhs_number_1" };
    connection
        .run(doc! { "createIndexes": collection, "indexes": [index], "$db": "bench" })
        .await?;
    Ok(())
}

/// There is nothing to drop before the first slice.
fn ignore_missing(error: Box<dyn std::error::Error + Send + Sync>) -> Outcome<bson::Document> {
    if error.to_string().contains("NamespaceNotFound") {
        Ok(bson::Document::new())
    } else {
        Err(error)
    }
}

fn first_hundred(collection: &str) -> Outcome<Request> {
    let body = doc! {
        "find": collection, "filter": {}, "sort": { "_id": 1 }, "limit": i32::try_from(BATCH)?,
        "batchSize": i32::try_from(BATCH)?, "singleBatch": true, "$db": "bench",
    };
    Ok(Request::command(&RawDocumentBuf::try_from(&body)?))
}

/// What was written comes back equal through the same way.
async fn read_back(
    connection: &mut Connection,
    collection: &str,
    patients: &Patients,
    operation: Operation,
) -> Outcome<()> {
    let reply = connection.exchange(&mut first_hundred(collection)?).await?;
    reply.succeeded()?;
    for (id, value) in reply.batch()?.into_iter().enumerate() {
        let mut expected = patients.bytes(id % operation.documents()).to_vec();
        renumber(&mut expected, 0, id);
        let RawBsonRef::Document(document) = value? else {
            return Err("a batch holds no documents".into());
        };
        if document.as_bytes() != expected {
            return Err(format!("new patient {id} came back changed").into());
        }
    }
    Ok(())
}

/// What the database itself holds: an envelope in every protected path, and no plaintext anywhere.
async fn look_past_the_proxy(direct: &mut Connection, collection: &str) -> Outcome<()> {
    let reply = direct.exchange(&mut first_hundred(collection)?).await?;
    reply.succeeded()?;
    let mut seen = 0;
    for value in reply.batch()? {
        let RawBsonRef::Document(document) = value? else {
            return Err("a batch holds no documents".into());
        };
        for (path, _) in FIELD_MAP {
            if !is_envelope(document, path)? {
                return Err(format!("{collection} holds {path} unsealed").into());
            }
        }
        if MARKERS
            .iter()
            .any(|marker| memchr::memmem::find(document.as_bytes(), marker.as_bytes()).is_some())
        {
            return Err(format!("{collection} holds protected plaintext").into());
        }
        seen += 1;
    }
    if seen > 0 {
        Ok(())
    } else {
        Err(format!("{collection} is empty").into())
    }
}

fn is_envelope(document: &RawDocument, path: &str) -> Outcome<bool> {
    let (parent, leaf) = match path.split_once('.') {
        Some((parent, leaf)) => (document.get_document(parent)?, leaf),
        None => (document, path),
    };
    Ok(parent
        .get_binary(leaf)
        .is_ok_and(|binary| binary.subtype == BinarySubtype::UserDefined(0x80)))
}

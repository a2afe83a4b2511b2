//! A sequence of operations: documents first, then whatever an application might ask.

use std::fmt;

use bson::{Bson, Document, bson, doc};

use crate::filters::Maker;
use crate::model::{COLLECTIONS, Field, Map, Mode, State, VIEW, document};
use crate::rng::Rng;

/// Who executes an operation on the protected side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Through {
    Proxy,
    /// The one that was there before: a proxy that knows only the first key (rotation), or nobody (migration).
    Before,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    Command,
    Commit,
    Abort,
}

#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// The command, without `$db`.
    pub(crate) body: Document,
    /// The array of the command that travels as a document sequence.
    pub(crate) sequence: Option<&'static str>,
    pub(crate) through: Through,
    /// The transaction that it belongs to.
    pub(crate) transaction: Option<u32>,
    pub(crate) work: Work,
    /// Documents come in one order on both sides.
    pub(crate) ordered: bool,
    /// Arrays in the result stand for sets.
    pub(crate) sets: bool,
    pub(crate) tags: Vec<String>,
}

impl Op {
    fn new(body: Document) -> Self {
        Self {
            body,
            sequence: None,
            through: Through::Proxy,
            transaction: None,
            work: Work::Command,
            ordered: true,
            sets: false,
            tags: Vec::new(),
        }
    }

    pub(crate) fn command(&self) -> &str {
        self.body.keys().next().map_or("", String::as_str)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Commit => return write!(f, "commit transaction {}", self.transaction.unwrap_or(0)),
            Work::Abort => return write!(f, "abort transaction {}", self.transaction.unwrap_or(0)),
            Work::Command => {}
        }
        write!(f, "{}", self.body)?;
        if let Some(name) = self.sequence {
            write!(f, "  // `{name}` as a document sequence")?;
        }
        if self.through == Through::Before {
            write!(f, "  // written before")?;
        }
        if let Some(number) = self.transaction {
            write!(f, "  // in transaction {number}")?;
        }
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct Sequence {
    pub(crate) map: usize,
    /// Makes indexes; then whatever depends on an order names its own.
    pub(crate) indexed: bool,
    pub(crate) ops: Vec<Op>,
}

/// Makes the sequence of this generator.
pub(crate) fn sequence(rng: &mut Rng, maps: &[Map]) -> Sequence {
    let index = rng.below(maps.len());
    let mut writer = Writer {
        map: &maps[index],
        indexed: rng.percent(25),
        next_id: 100,
        ops: Vec::new(),
    };
    if writer.indexed && rng.percent(60) {
        let op = writer.create_indexes(rng, true);
        writer.ops.push(op);
    }
    writer.documents(rng);
    let length = 20 + rng.below(40);
    let mut transaction = 0;
    while writer.ops.len() < length {
        if rng.percent(4) {
            transaction += 1;
            for _ in 0..1 + rng.below(4) {
                let mut op = writer.in_transaction(rng);
                op.transaction = Some(transaction);
                writer.ops.push(op);
            }
            let mut end = Op::new(doc! {});
            end.work = if rng.percent(60) {
                Work::Commit
            } else {
                Work::Abort
            };
            end.transaction = Some(transaction);
            writer.ops.push(end);
        } else {
            let mut op = writer.any(rng);
            if matches!(op.body.get_str(op.command()), Ok(VIEW)) {
                op.tags.push("on a view".to_owned());
            }
            writer.ops.push(op);
        }
    }
    Sequence {
        map: index,
        indexed: writer.indexed,
        ops: writer.ops,
    }
}

struct Writer<'a> {
    map: &'a Map,
    indexed: bool,
    next_id: i32,
    ops: Vec<Op>,
}

impl Writer<'_> {
    fn fresh(&mut self) -> i32 {
        self.next_id += 1;
        self.next_id
    }

    fn documents(&mut self, rng: &mut Rng) {
        for (name, count) in [("a", 14), ("b", 6), ("t", 4), ("u", 6)] {
            let mut now = Vec::new();
            let mut before = Vec::new();
            for id in 0..count {
                let document = document(rng, self.map.model(name), id);
                if self.map.state != State::Enforced && rng.percent(50) {
                    before.push(document);
                } else {
                    now.push(document);
                }
            }
            for (documents, through) in [(before, Through::Before), (now, Through::Proxy)] {
                if !documents.is_empty() {
                    let mut op = Op::new(doc! { "insert": name, "documents": documents, "ordered": false });
                    op.through = through;
                    op.sequence = Some("documents");
                    op.tags.push("insert documents".to_owned());
                    self.ops.push(op);
                }
            }
        }
    }

    fn collection(&self, rng: &mut Rng) -> &'static str {
        match rng.below(20) {
            0..=2 => "b",
            3..=5 => "u",
            6 | 7 => "t",
            _ => "a",
        }
    }

    /// What can only be read, too.
    fn source(&self, rng: &mut Rng) -> &'static str {
        if !self.indexed && rng.percent(6) {
            VIEW
        } else {
            self.collection(rng)
        }
    }

    fn any(&mut self, rng: &mut Rng) -> Op {
        match rng.below(100) {
            0..=21 => self.find(rng),
            22..=43 => self.aggregate(rng),
            44..=63 => self.update(rng),
            64..=72 => self.find_and_modify(rng),
            73..=79 => self.insert(rng),
            80..=84 => self.delete(rng),
            85..=89 => self.count(rng),
            90..=95 => self.distinct(rng),
            96 => self.explain(rng),
            _ if self.indexed => self.create_indexes(rng, false),
            _ => self.find(rng),
        }
    }

    fn in_transaction(&mut self, rng: &mut Rng) -> Op {
        match rng.below(7) {
            0 => self.find(rng),
            1 => self.insert(rng),
            2 | 3 => self.update(rng),
            4 => self.delete(rng),
            5 => self.find_and_modify(rng),
            _ => loop {
                let op = self.aggregate(rng);
                if !op.tags.iter().any(|t| t == "stage $out" || t == "stage $merge") {
                    return op;
                }
            },
        }
    }

    fn natural(&self) -> Option<Document> {
        self.indexed.then(|| doc! { "$natural": 1 })
    }

    fn find(&mut self, rng: &mut Rng) -> Op {
        let name = self.source(rng);
        let model = self.map.model(name);
        let mut make = Maker::new(rng);
        let filter = make.filter(model, self.map.state);
        let mut body = doc! { "find": name, "filter": filter.clone() };
        let mut ordered = !self.indexed && name != "t";
        if make.odd && make.rng.percent(20) {
            make.tag("sort protected");
            body.insert("sort", doc! { "s1": 1 });
        } else if make.rng.percent(40) {
            make.tag("find sort");
            body.insert("sort", make.sort());
            ordered = true;
            if make.rng.percent(40) {
                body.insert("limit", 1 + make.rng.small(5));
            }
            if make.rng.percent(40) {
                body.insert("skip", make.rng.small(4));
            }
        }
        if make.rng.percent(35) {
            body.insert("projection", make.projection(model, &filter));
        }
        if make.rng.percent(50) {
            body.insert("batchSize", make.rng.small(5));
        }
        collate(&mut make, &mut body);
        let mut op = Op::new(body);
        op.ordered = ordered;
        op.tags = make.tags;
        op
    }

    fn aggregate(&mut self, rng: &mut Rng) -> Op {
        let name = self.source(rng);
        let mut make = Maker::new(rng);
        let pipeline = make.pipeline(self.map, name);
        let batch = if make.rng.percent(50) && !pipeline.writes {
            2
        } else {
            1000
        };
        let mut body =
            doc! { "aggregate": name, "pipeline": pipeline.stages, "cursor": { "batchSize": batch } };
        collate(&mut make, &mut body);
        if let Some(natural) = self.natural() {
            body.insert("hint", natural);
        }
        let mut op = Op::new(body);
        op.ordered = pipeline.ordered && name != "t";
        op.sets = pipeline.sets;
        op.tags = make.tags;
        op
    }

    fn insert(&mut self, rng: &mut Rng) -> Op {
        let name = self.collection(rng);
        let mut documents = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let id = if rng.percent(12) {
                rng.small(30)
            } else {
                self.fresh()
            };
            documents.push(document(rng, self.map.model(name), id));
        }
        let mut op = Op::new(doc! { "insert": name, "documents": documents, "ordered": rng.percent(50) });
        op.sequence = rng.percent(50).then_some("documents");
        op.tags.push("insert documents".to_owned());
        op
    }

    /// One statement of an `update`, or the like of it: `q`, `u` and what belongs to them.
    fn statement(&mut self, make: &mut Maker<'_>, name: &str) -> Document {
        let model = self.map.model(name);
        let mut filter = make.filter(model, self.map.state);
        let mut update = make.update(model);
        if !update.needs.is_empty() {
            // A positional `$` follows the array that the filter looked into last, and the server knows nothing of one
            // that is sealed whole: the one condition that decides stands alone.
            filter = update.needs;
            // An array that is no more sealed than it is plain can stand before it, or after.
            if make.rng.percent(30) {
                make.tag("update path $ over several arrays");
                let mut several = Document::new();
                let before = make.rng.percent(70);
                if before {
                    several.insert("w", doc! { "$gte": 0 });
                }
                several.extend(filter);
                if !before {
                    several.insert("w", doc! { "$exists": true });
                }
                filter = several;
            }
        }
        let operators = matches!(&update.change, Bson::Document(d) if d.keys().all(|k| k.starts_with('$')));
        let mut statement = Document::new();
        collate(make, &mut statement);
        let upsert = make.rng.percent(12);
        if upsert {
            make.tag("upsert");
            let id = self.fresh();
            if !matches!(filter.get("_id"), None | Some(Bson::Int32(_))) {
                filter.remove("_id");
            }
            if filter.contains_key("_id") {
            } else if operators && make.rng.percent(70) {
                if let Bson::Document(change) = &mut update.change {
                    let group = change.entry("$setOnInsert".to_owned()).or_insert(bson!({}));
                    if let Bson::Document(group) = group {
                        group.insert("_id", id);
                    }
                }
            } else {
                filter.insert("_id", id);
            }
        }
        statement.insert("q", filter);
        statement.insert("u", update.change);
        if !update.array_filters.is_empty() {
            statement.insert("arrayFilters", update.array_filters);
        }
        if upsert {
            statement.insert("upsert", true);
        }
        if let Some(natural) = self.natural() {
            statement.insert("hint", natural);
        }
        statement
    }

    fn update(&mut self, rng: &mut Rng) -> Op {
        let name = self.collection(rng);
        let mut make = Maker::new(rng);
        let count = if make.rng.percent(20) { 3 } else { 1 };
        let mut statements = Vec::new();
        for _ in 0..count {
            let mut statement = self.statement(&mut make, name);
            let replacement = matches!(statement.get("u"), Some(Bson::Document(d)) if !d.keys().any(|k| k.starts_with('$')));
            if !replacement && make.rng.percent(40) {
                statement.insert("multi", true);
            }
            statements.push(statement);
        }
        self.settle(name, &mut statements);
        let mut op = Op::new(doc! { "update": name, "updates": statements, "ordered": make.rng.percent(50) });
        op.sequence = make.rng.percent(50).then_some("updates");
        op.tags = make.tags;
        op
    }

    /// `t` has no order of its own: what takes one document there names it.
    fn settle(&self, name: &str, statements: &mut [Document]) {
        if name != "t" {
            return;
        }
        for statement in statements {
            if let Ok(filter) = statement.get_document_mut("q")
                && !filter.contains_key("_id")
            {
                filter.insert("_id", 2);
            }
        }
    }

    fn find_and_modify(&mut self, rng: &mut Rng) -> Op {
        let name = self.collection(rng);
        let mut make = Maker::new(rng);
        let mut statement = self.statement(&mut make, name);
        let query = statement.get_document("q").cloned().unwrap_or_default();
        let mut body = doc! { "findAndModify": name, "query": query.clone(), "sort": make.sort() };
        if make.rng.percent(20) {
            make.tag("findAndModify remove");
            body.insert("remove", true);
        } else {
            for (from, to) in [
                ("u", "update"),
                ("arrayFilters", "arrayFilters"),
                ("upsert", "upsert"),
                ("collation", "collation"),
            ] {
                if let Some(value) = statement.remove(from) {
                    body.insert(to, value);
                }
            }
            body.insert("new", make.rng.percent(50));
        }
        if make.rng.percent(30) {
            body.insert("fields", make.projection(self.map.model(name), &query));
        }
        let mut op = Op::new(body);
        op.tags = make.tags;
        op
    }

    fn delete(&mut self, rng: &mut Rng) -> Op {
        let name = self.collection(rng);
        let mut make = Maker::new(rng);
        let mut statements = Vec::new();
        for _ in 0..1 + make.rng.below(2) {
            // Few at a time, so that something is left.
            let mut filter = make.conditions(self.map.model(name));
            if make.rng.percent(60) {
                filter.insert("_id", doc! { "$gt": 8 + make.rng.small(40) });
            }
            let mut statement = doc! { "q": filter, "limit": i32::from(make.rng.percent(70)) };
            if let Some(natural) = self.natural() {
                statement.insert("hint", natural);
            }
            statements.push(statement);
        }
        self.settle(name, &mut statements);
        let mut op = Op::new(doc! { "delete": name, "deletes": statements, "ordered": make.rng.percent(50) });
        op.sequence = make.rng.percent(50).then_some("deletes");
        op.tags = make.tags;
        op
    }

    fn count(&mut self, rng: &mut Rng) -> Op {
        let name = self.source(rng);
        let mut make = Maker::new(rng);
        let filter = make.filter(self.map.model(name), self.map.state);
        let mut op = Op::new(doc! { "count": name, "query": filter });
        if make.rng.percent(20) {
            op.body.insert("limit", 3);
            op.body.insert("skip", 1);
        }
        op.tags = make.tags;
        op
    }

    fn distinct(&mut self, rng: &mut Rng) -> Op {
        let name = self.source(rng);
        let model = self.map.model(name);
        let mut make = Maker::new(rng);
        let fields: Vec<&Field> = model
            .fields
            .iter()
            .filter(|f| make.odd || matches!(f.mode, Mode::Plain | Mode::Deterministic))
            .collect();
        let key = if fields.is_empty() || make.rng.percent(20) {
            (*make.rng.pick(&["p", "q", "arr.k", "w"])).to_owned()
        } else {
            let field = *make.rng.pick(&fields);
            make.tag(format!("distinct {:?}", field.mode).to_lowercase());
            make.spelled(field)
        };
        let filter = make.filter(model, self.map.state);
        let mut op = Op::new(doc! { "distinct": name, "key": key, "query": filter });
        op.ordered = false;
        op.tags = make.tags;
        op
    }

    fn explain(&mut self, rng: &mut Rng) -> Op {
        let inner = match rng.below(4) {
            0 => self.find(rng),
            1 => self.count(rng),
            2 => self.update(rng),
            _ => self.delete(rng),
        };
        let mut op = Op::new(doc! { "explain": inner.body, "verbosity": "queryPlanner" });
        op.tags = vec!["explain".to_owned()];
        op
    }

    fn create_indexes(&mut self, rng: &mut Rng, first: bool) -> Op {
        let name = if first { "a" } else { *rng.pick(&COLLECTIONS) };
        let model = self.map.model(name);
        let odd = rng.percent(5);
        let able: Vec<&Field> = model
            .fields
            .iter()
            .filter(|f| odd || matches!(f.mode, Mode::Plain | Mode::Deterministic))
            .collect();
        let mut key = Document::new();
        if !able.is_empty() {
            key.insert(rng.pick(&able).path, 1);
        }
        if key.is_empty() || rng.percent(40) {
            key.insert(*rng.pick(&["p", "q", "g"]), -1);
        }
        let mut index = doc! { "key": key, "name": format!("i{}", self.fresh()) };
        // One index entry per key version: uniqueness does not hold over a rotation, as the documentation says.
        if self.map.state == State::Enforced && rng.percent(50) {
            index.insert("unique", true);
        } else if rng.percent(20) {
            index.insert("sparse", true);
        }
        let mut op = Op::new(doc! { "createIndexes": name, "indexes": [index] });
        op.tags.push("createIndexes".to_owned());
        op
    }
}

/// A collation other than the simple one, now and then: it has no hold on sealed strings.
fn collate(make: &mut Maker<'_>, body: &mut Document) {
    if make.rng.percent(2) {
        make.tag("collation");
        body.insert("collation", doc! { "locale": "en", "strength": 1 });
    }
}

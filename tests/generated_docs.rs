//! Documentation that is made from the code's own tables, and the tables held against what the code does. Where a file
//! differs, `FIELDVEIL_BLESS=1 cargo test --test generated_docs` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bson::{Bson, Document, doc};
use common::{Harness, Outcome};
use fieldveil::command::aggregate::accumulators::{self, ACCUMULATORS};
use fieldveil::command::aggregate::stages::{self, STAGES};
use fieldveil::command::expression::operators::{self as expressions, OPERATORS};
use fieldveil::command::operators::{FILTER, FILTER_TOP, Fit, INDEXES, Operator, Top, UPDATE};
use fieldveil::command::table::{COMMANDS, Reply, Verdict};
use fieldveil::metrics::names::{self, Kind, Series};
use fieldveil::policy::Reason;

// --- files --------------------------------------------------------------------------------------------------------

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn read(name: &str) -> String {
    let path = document(name);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The file is this text, or is made so on request.
#[track_caller]
fn holds(name: &str, wanted: &str) {
    let found = fs::read_to_string(document(name)).unwrap_or_default();
    if found == wanted {
        return;
    }
    if std::env::var_os("FIELDVEIL_BLESS").is_some_and(|set| set == "1") {
        fs::write(document(name), wanted).unwrap();
        return;
    }
    let line = found
        .lines()
        .zip(wanted.lines())
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| found.lines().count().min(wanted.lines().count()));
    panic!(
        "docs/{name} does not say what the code does, from line {} on:\n  {}\nrun FIELDVEIL_BLESS=1 cargo test --test generated_docs",
        line + 1,
        wanted.lines().nth(line).unwrap_or("(end)")
    );
}

#[test]
fn commands_document_is_what_the_tables_say() {
    holds("COMMANDS.md", &commands_document());
}

#[test]
fn operations_document_lists_every_series() {
    const BEGIN: &str = "<!-- begin: metrics, written by tests/generated_docs.rs -->\n";
    const END: &str = "<!-- end: metrics -->";
    let text = read("OPERATIONS.md");
    let (before, rest) = text.split_once(BEGIN).expect("the begin mark");
    let (_, after) = rest.split_once(END).expect("the end mark");
    holds(
        "OPERATIONS.md",
        &format!("{before}{BEGIN}{}{END}{after}", metrics_table()),
    );
}

#[test]
fn operations_document_names_every_key_of_the_configuration() {
    let source = include_str!("../src/config/raw.rs");
    let text = read("OPERATIONS.md");
    let mut keys = 0;
    for reader in [".text(\"", ".number(\"", ".flag(\""] {
        for rest in source.split(reader).skip(1) {
            let key = rest.split('"').next().unwrap();
            assert!(
                text.contains(&format!("| `{key}` |")),
                "OPERATIONS.md has no row for `{key}`"
            );
            keys += 1;
        }
    }
    assert!(
        keys > 30,
        "only {keys} keys were found: has src/config/raw.rs changed its form?"
    );
}

#[test]
fn errors_document_has_an_anchor_for_every_reason() {
    let text = read("errors.md");
    for reason in Reason::ALL {
        let label = reason.label();
        let section = text
            .split("\n## ")
            .skip(1)
            .find(|section| section.lines().next() == Some(label))
            .unwrap_or_else(|| panic!("errors.md has no section `## {label}`"));
        let (code, name) = reason.code();
        assert!(
            section.contains(&format!("`{code}` {name}")),
            "errors.md, {label}: the code is `{code}` {name}"
        );
        for part in ["**Example**", "**Way out**"] {
            assert!(section.contains(part), "errors.md, {label}: no {part}");
        }
        assert!(
            section.contains("fieldveil: "),
            "errors.md, {label}: no message is quoted"
        );
    }
    let sections = text.matches("\n## ").count();
    assert_eq!(
        sections,
        Reason::ALL.len(),
        "errors.md has a section for no reason"
    );
}

/// Links between the documents, the README included, lead somewhere.
#[test]
fn documents_link_to_files_and_sections_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["docs", ".github"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "md") {
                files.push(path);
            }
        }
    }
    let mut links = 0;
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                file.clone()
            } else {
                file.parent().unwrap().join(path)
            };
            assert!(path.exists(), "{}: no {target}", file.display());
            if !anchor.is_empty() {
                let linked = fs::read_to_string(&path).unwrap();
                let found = linked
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| slug(line.trim_start_matches('#').trim()) == anchor);
                assert!(found, "{}: no section {target}", file.display());
            }
        }
    }
    assert!(links > 20, "only {links} links were found");
}

/// A heading's anchor, as GitHub makes it.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

// --- COMMANDS.md ----------------------------------------------------------------------------------------------------

fn commands_document() -> String {
    let mut out = String::from(
        "# What becomes of each command, operator and stage\n\n\
         Written from the code's own tables by `tests/generated_docs.rs`; do not edit by hand.\n\n\
         A collection is *protected* when the [field map](OPERATIONS.md#the-field-map) names it. What touches no protected \
         collection is forwarded as the bytes it came in, unless a table below says otherwise. Every refusal has a \
         [reason](#reasons) with a way out in [errors.md](errors.md).\n\n",
    );
    commands(&mut out);
    filters(&mut out);
    updates(&mut out);
    indexes(&mut out);
    stage_table(&mut out);
    accumulator_table(&mut out);
    expression_table(&mut out);
    reasons(&mut out);
    out
}

fn commands(out: &mut String) {
    out.push_str(
        "## Commands\n\n\
         - **planned**: looked at argument by argument; rewritten, forwarded or refused by what it holds. An argument that \
         the planner does not know is refused on a protected collection; `comment` is taken out.\n\
         - **forwarded**: goes on as it is; it carries no field value.\n\
         - **unprotected only**: forwarded, unless any string in it names a protected collection.\n\
         - **refused**: while the field map protects anything at all.\n\
         - **session**: hello and authentication.\n\n\
         A command that is in no row is refused where its database holds protected collections or where it names one, and \
         forwarded elsewhere.\n\n\
         | command | verdict | reply | note |\n|---|---|---|---|\n",
    );
    for entry in COMMANDS {
        let verdict = match entry.verdict {
            Verdict::Rewrite(_) => "planned",
            Verdict::Forward => "forwarded",
            Verdict::Unprotected => "unprotected only",
            Verdict::Refuse => "refused",
            Verdict::Session => "session",
        };
        let reply = match entry.reply {
            Reply::Status => "",
            Reply::Documents => "opened",
            Reply::Values => "opened, without repetition",
            Reply::Sealed => "left sealed",
        };
        writeln!(out, "| `{}` | {verdict} | {reply} | {} |", entry.name, entry.note).unwrap();
    }
}

const COLUMNS: &str = "| operator | deterministic | random | random, `each` | enclosing path | note |\n|---|---|---|---|---|---|\n";

fn fit(fit: Fit) -> &'static str {
    match fit {
        Fit::Yes => "yes",
        Fit::Partly => "partly",
        Fit::No => "refused",
    }
}

fn operator_rows<K>(out: &mut String, rows: &[Operator<K>]) {
    out.push_str(COLUMNS);
    for row in rows {
        writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} |",
            row.name,
            fit(row.deterministic),
            fit(row.random),
            fit(row.each),
            fit(row.around),
            in_code(row.note)
        )
        .unwrap();
    }
}

/// Operators and paths in a note as code.
fn in_code(note: &str) -> String {
    note.split(' ')
        .map(|word| {
            let bare = word
                .trim_end_matches([',', ';', ':', ')'])
                .trim_start_matches('(');
            if bare.starts_with('$') || bare.starts_with("contacts.") {
                word.replacen(bare, &format!("`{bare}`"), 1)
            } else {
                word.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn filters(out: &mut String) {
    out.push_str(
        "\n## Filters\n\n\
         In `find`, `count`, `distinct`, `delete`, `update`, `findAndModify`, `$match`, `arrayFilters`, `$pull` and wherever else \
         a filter stands. An *enclosing path* holds protected fields without being one: `contacts`, where `contacts.phone` \
         is protected. A field below a random field (`notes.author`) is refused whatever the operator.\n\n\
         A literal `{path: value}` is `$eq`. While a field is migrating or its key is rotating, equality is asked for every \
         form that may be stored: `$eq` becomes `$in`, `$ne` becomes `$nin`.\n\n",
    );
    operator_rows(out, FILTER);
    out.push_str("\nAn operator in no row is refused on a protected path. At the top of a filter, or of one of its branches:\n\n");
    out.push_str("| operator | | note |\n|---|---|---|\n");
    for (name, top, note) in FILTER_TOP {
        let top = match top {
            Top::Branches | Top::Expression => "planned",
            Top::Removed => "removed",
            Top::Kept => "kept",
            Top::Schema => "keyword by keyword",
            Top::Refused => "refused",
        };
        writeln!(out, "| `{name}` | {top} | {note} |").unwrap();
    }
    out.push_str("| any other | refused | |\n");
}

fn updates(out: &mut String) {
    out.push_str("\n## Updates\n\nReplacement documents are sealed like inserted ones. A pipeline update is followed stage by stage like any pipeline; in the document that it leaves, each protected path must be as it was, unset, null, a constant (which is sealed), a value that the same rule sealed, or a choice between those by `$cond`, `$switch` or `$ifNull`. Variables of `let` and of a statement's `c` are plain: they cannot be stored in a protected path.\n\n");
    operator_rows(out, UPDATE);
    out.push_str("\nAn operator in no row is refused on a protected path and forwarded on others.\n");
}

fn indexes(out: &mut String) {
    out.push_str(
        "\n## Indexes\n\n| index | deterministic | random | enclosing path | note |\n|---|---|---|---|---|\n",
    );
    for row in INDEXES {
        writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            row.name,
            fit(row.deterministic),
            fit(row.random),
            fit(row.around),
            in_code(row.note)
        )
        .unwrap();
    }
}

fn stage_table(out: &mut String) {
    out.push_str(
        "\n## Aggregation stages\n\n\
         A pipeline is followed stage by stage: for each path it is known whether it is plain, sealed by which rule, or \
         unknown. A literal that meets a deterministic field is sealed; what would compute with ciphertext, or depends on \
         what is unknown, is refused. Values are opened in the reply wherever they surface. A stage in no row is refused in \
         any pipeline while anything is protected, since it could name any collection.\n\n\
         | stage | where protected fields are in play |\n|---|---|\n",
    );
    for (name, kind) in STAGES {
        writeln!(out, "| `{name}` | {} |", stage(*kind)).unwrap();
    }
}

fn stage(kind: stages::Kind) -> &'static str {
    use stages::Kind;
    match kind {
        Kind::Match => "planned like a filter",
        Kind::Project => "inclusion, exclusion and renaming; computed fields by the expression table",
        Kind::AddFields => "computed fields by the expression table",
        Kind::Unset | Kind::Keep | Kind::Count => "yes",
        Kind::Unwind => {
            "of arrays sealed item by item, and of enclosing arrays; not of an array sealed as one value"
        }
        Kind::Group => {
            "by plain and deterministic fields (not while migrating or rotating); accumulators by their table"
        }
        Kind::Bucket | Kind::BucketAuto => "by plain values only; accumulators by their table",
        Kind::SortByCount => "by plain and deterministic fields (not while migrating or rotating)",
        Kind::Sort => "by plain fields only",
        Kind::Facet => "each branch followed by itself",
        Kind::ReplaceRoot | Kind::ReplaceWith => {
            "by a document whose shape is known; not by a value sealed whole"
        }
        Kind::Redact => "not while the documents hold a random field; conditions by the expression table",
        Kind::Lookup => {
            "joins by plain fields, and by deterministic fields of one domain, type and algorithm; `let` and `pipeline` are followed into the other collection"
        }
        Kind::GraphLookup => "as `$lookup`; `restrictSearchWithMatch` is planned like a filter",
        Kind::UnionWith => {
            "followed into the other collection; a field protected on one side only becomes unknown"
        }
        Kind::Out | Kind::Merge => "into a collection whose rules agree with what is stored, path by path",
        Kind::Window => "partitions as `$group`, sorting by plain fields, functions by the accumulator table",
        Kind::Densify => "of a plain field; partitions as `$group`",
        Kind::Fill => {
            "plain fields; a protected one by `locf`, or by a value of its own kind; partitions as `$group`, sorting by plain fields"
        }
        Kind::GeoNear => "its `query` is planned like a filter; its `key` must be plain",
        Kind::Documents => "literals are plain",
        Kind::ChangeStream => {
            "events are opened; those of a protected collection can be filtered by the fields of their documents and of `updatedFields` as the documents themselves, those of a whole database or cluster by `documentKey._id` only, since the documents may be of any collection"
        }
        Kind::Report => "yes: sizes and names, no values",
        Kind::IndexStats => "yes; literals in index definitions stay sealed",
        Kind::Refused => "refused",
        Kind::Never => "refused in every pipeline: shows other users' commands or definitions",
    }
}

/// One row for each kind, in the order in which the table first names it.
fn grouped<K: PartialEq + Copy>(out: &mut String, table: &[(&str, K)], describe: impl Fn(K) -> &'static str) {
    let mut kinds: Vec<K> = Vec::new();
    for (_, kind) in table {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    for kind in kinds {
        let names: Vec<String> = table
            .iter()
            .filter(|(_, k)| *k == kind)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        writeln!(out, "| {} | {} |", names.join(" "), describe(kind)).unwrap();
    }
}

fn accumulator_table(out: &mut String) {
    out.push_str(
        "\n## Accumulators and window functions\n\n| accumulator | with sealed operands |\n|---|---|\n",
    );
    grouped(out, ACCUMULATORS, |kind| {
        use accumulators::Kind;
        match kind {
            Kind::Values => "refused: computes",
            Kind::Keep => {
                "yes: hands on what it is given (`$concatArrays`, `$mergeObjects`: not a value sealed whole)"
            }
            Kind::KeepN => "yes; `n` must be plain",
            Kind::Set => "deterministic fields, not while migrating or rotating",
            Kind::Top => "`output` may be sealed, `sortBy` must be plain",
            Kind::Shift => "yes; a `default` of another kind than the field makes the result unknown",
            Kind::Position => "yes: takes no value",
            Kind::Never => "refused: code cannot be analysed",
        }
    });
}

fn expression_table(out: &mut String) {
    out.push_str(
        "\n## Expression operators\n\n\
         In `$expr`, projections and every stage. An operator in no row is refused where protected fields are in play.\n\n\
         | operators | with sealed operands |\n|---|---|\n",
    );
    grouped(out, OPERATORS, |kind| {
        use expressions::Kind;
        match kind {
            Kind::Values => "refused: computes with the value",
            Kind::Free => "takes no value of the document",
            Kind::Never => "refused anywhere in the pipeline: code, or a search of its own",
            Kind::Equal => {
                "a deterministic field with a literal, with null, or with a field of the same domain, type and algorithm"
            }
            Kind::Order => "comparison with null only",
            Kind::In => {
                "a deterministic field in a list of literals, or a literal in an array sealed item by item"
            }
            Kind::IndexOf => "a literal in an array sealed item by item; not while migrating or rotating",
            Kind::Logic => {
                "a sealed string, date, objectId or binary counts as true, as it would unsealed; numbers and random fields are refused"
            }
            Kind::Cond | Kind::Switch => {
                "branches may be sealed; branches of different rules make the result unknown; conditions as `$and`"
            }
            Kind::IfNull => "yes; alternatives of different rules make the result unknown",
            Kind::Let => "yes: a variable has the rule of what it is bound to",
            Kind::Literal => "plain",
            Kind::Type => "refused on a sealed value: the stored type is binary",
            Kind::Length => "of arrays sealed item by item, and of enclosing arrays",
            Kind::Element | Kind::Part | Kind::PartN => {
                "of arrays sealed item by item, and of enclosing arrays; positions must be plain"
            }
            Kind::Filter => "the condition by this table, with the item under its rule",
            Kind::Map => "the expression by this table, with the item under its rule",
            Kind::Reduce => "items may be sealed where every step yields a plain value (`$eq` in `$cond`)",
            Kind::SortArray => "by plain fields only",
            Kind::Concat => {
                "arrays sealed item by item, and enclosing arrays; different rules make the result unknown"
            }
            Kind::Sets => "deterministic items of one domain; not while migrating or rotating",
            Kind::SetTest => "deterministic items of one domain; not while migrating or rotating",
            Kind::MergeObjects => "enclosing documents; not a value sealed whole",
            Kind::ObjectToArray => "the result is unknown where the document holds protected fields",
            Kind::ArrayToObject => "the result is unknown where the array holds protected fields",
            Kind::GetField => "by a constant name",
            Kind::SetField | Kind::UnsetField => "by a constant name",
            Kind::Meta => "plain",
        }
    });
}

fn reasons(out: &mut String) {
    out.push_str("\n## Reasons\n\n| reason | error code | more |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let (code, name) = reason.code();
        let label = reason.label();
        writeln!(out, "| {label} | {code} {name} | [way out](errors.md#{label}) |").unwrap();
    }
}

fn metrics_table() -> String {
    let mut out = String::from("| series | type | labels | what it says |\n|---|---|---|---|\n");
    for Series {
        name,
        help,
        kind,
        labels,
    } in names::ALL
    {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    out
}

// --- the tables of operators, held against the code -------------------------------------------------------------------

/// A protected path of each kind, in the field map of the harness.
const PATHS: [&str; 4] = ["nhs", "notes", "tags", "contacts"];

fn went_through(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Sent(_))
}

#[track_caller]
fn agrees(cell: Fit, tried: &[(Document, bool)], what: &str) {
    let passed = tried.iter().filter(|(_, went)| *went).count();
    assert!(!tried.is_empty(), "{what}: nothing was tried");
    let right = match cell {
        Fit::Yes => passed == tried.len(),
        Fit::No => passed == 0,
        Fit::Partly => passed > 0 && passed < tried.len(),
    };
    assert!(right, "{what} is documented as {cell:?}: {tried:?}");
}

fn cells<K>(row: &Operator<K>) -> [Fit; 4] {
    [row.deterministic, row.random, row.each, row.around]
}

/// Operands for a filter operator on each kind of path.
fn filter_operands(name: &str, path: &str) -> Vec<Bson> {
    let around = path == "contacts";
    let sealed = doc! { "phone": "x" };
    match name {
        "$eq" | "$ne" if around => vec![Bson::Null, 5.into(), sealed.into()],
        "$eq" | "$ne" if path == "nhs" => vec![Bson::Null, "x".into()],
        "$eq" | "$ne" => vec![Bson::Null, "x".into()],
        "$in" | "$nin" if around => vec![vec![Bson::Null].into(), vec![Bson::from(sealed)].into()],
        "$in" | "$nin" => vec![vec![Bson::Null].into(), vec![Bson::from("x")].into()],
        "$all" if around => vec![
            vec![Bson::from(doc! { "$elemMatch": sealed.clone() })].into(),
            vec![Bson::from(sealed)].into(),
        ],
        "$all" => vec![vec![Bson::Null].into(), vec![Bson::from("x")].into()],
        "$exists" => vec![true.into(), false.into()],
        "$not" if around => vec![doc! { "$elemMatch": sealed }.into(), doc! { "$gt": 1 }.into()],
        "$not" => vec![doc! { "$exists": true }.into(), doc! { "$gt": "x" }.into()],
        "$elemMatch" if around => vec![sealed.into(), doc! { "kind": "home" }.into()],
        "$elemMatch" => vec![doc! { "$exists": true }.into(), doc! { "$gt": "x" }.into()],
        "$size" => vec![1.into()],
        "$type" => vec!["string".into(), "null".into()],
        "$regex" => vec!["x".into()],
        "$mod" => vec![vec![Bson::Int32(2), Bson::Int32(0)].into()],
        name if name.starts_with("$bits") => vec![3.into()],
        name if name.starts_with("$geo") || name.starts_with("$near") => {
            vec![doc! { "$geometry": { "type": "Point", "coordinates": [0, 0] } }.into()]
        }
        _ => vec!["x".into(), 1.into()],
    }
}

#[test]
fn filter_operators_do_what_is_documented() {
    let mut harness = Harness::new(1);
    for row in FILTER {
        for (path, cell) in PATHS.into_iter().zip(cells(row)) {
            let mut tried = Vec::new();
            for operand in filter_operands(row.name, path) {
                let filter = doc! { path: { row.name: operand } };
                let outcome = harness.command(doc! { "find": "p", "filter": filter.clone() });
                tried.push((filter, went_through(&outcome)));
            }
            agrees(cell, &tried, &format!("{} on {path}", row.name));
        }
    }
}

#[test]
fn operators_at_the_top_of_a_filter_do_what_is_documented() {
    let mut harness = Harness::new(1);
    for (name, top, _) in FILTER_TOP {
        let operand: Bson = match *name {
            "$and" | "$or" | "$nor" => vec![Bson::from(doc! { "nhs": "SECRET" })].into(),
            "$expr" => doc! { "$eq": ["$nhs", "SECRET"] }.into(),
            "$sampleRate" => 0.5.into(),
            "$jsonSchema" => doc! { "required": ["nhs"], "properties": { "x": { "minimum": 3 } } }.into(),
            _ => "SECRET".into(),
        };
        let filter = doc! { *name: operand.clone() };
        let outcome = harness.command(doc! { "find": "p", "filter": filter });
        match (top, outcome) {
            (Top::Refused, Outcome::Answered(_)) => {}
            (Top::Branches | Top::Expression, Outcome::Sent(sent)) => {
                let text = sent.to_string();
                assert!(text.contains(name) && !text.contains("SECRET"), "{name}: {text}");
            }
            (Top::Removed, Outcome::Sent(sent)) => assert!(!sent.to_string().contains(name), "{name}"),
            (Top::Kept | Top::Schema, Outcome::Sent(sent)) => {
                assert_eq!(
                    sent.get_document("filter").unwrap().get(name),
                    Some(&operand),
                    "{name}"
                );
            }
            (top, outcome) => panic!("{name} is documented as {top:?}: {outcome:?}"),
        }
    }
}

/// Paths and operands for an update operator on each kind of path.
fn update_operands(name: &str, path: &'static str) -> Vec<(&'static str, Bson)> {
    let item: Bson = if path == "contacts" {
        doc! { "phone": "x" }.into()
    } else {
        "x".into()
    };
    let operand = match name {
        "$set" | "$setOnInsert" if path == "contacts" || path == "tags" => vec![item].into(),
        "$addToSet" if path == "contacts" => {
            return vec![("contacts", item), ("address", doc! { "line1": "x" }.into())];
        }
        "$set" | "$setOnInsert" | "$push" | "$addToSet" => item,
        "$unset" => "".into(),
        "$pull" if path == "tags" => {
            return vec![(path, doc! { "$exists": true }.into()), (path, item)];
        }
        "$pull" => item,
        "$pullAll" => vec![item].into(),
        "$pop" => 1.into(),
        "$rename" => "elsewhere".into(),
        "$bit" => doc! { "and": 1 }.into(),
        "$currentDate" => true.into(),
        _ => 1.into(),
    };
    vec![(path, operand)]
}

#[test]
fn update_operators_do_what_is_documented() {
    let mut harness = Harness::new(1);
    for row in UPDATE {
        for (path, cell) in PATHS.into_iter().zip(cells(row)) {
            let mut tried = Vec::new();
            for (path, operand) in update_operands(row.name, path) {
                let update = doc! { row.name: { path: operand } };
                let outcome =
                    harness.command(doc! { "update": "p", "updates": [{ "q": {}, "u": update.clone() }] });
                tried.push((update, went_through(&outcome)));
            }
            agrees(cell, &tried, &format!("{} on {path}", row.name));
        }
    }
}

#[test]
fn indexes_do_what_is_documented() {
    let mut harness = Harness::new(1);
    for row in INDEXES {
        let cells = [row.deterministic, row.random, row.around];
        for (path, cell) in ["nhs", "notes", "contacts"].into_iter().zip(cells) {
            let indexes = match row.name {
                "ascending, descending" => vec![
                    doc! { "key": { path: 1 } },
                    doc! { "key": { path: -1 } },
                    doc! { "key": { "x": 1, path: 1 } },
                ],
                "unique" => vec![doc! { "key": { path: 1 }, "unique": true }],
                "sparse, hidden" => vec![
                    doc! { "key": { path: 1 }, "sparse": true },
                    doc! { "key": { path: 1 }, "hidden": true },
                ],
                "hashed" => vec![doc! { "key": { path: "hashed" } }],
                "wildcard ($**)" => vec![doc! { "key": { "$**": 1 } }],
                "TTL (expireAfterSeconds)" => vec![doc! { "key": { path: 1 }, "expireAfterSeconds": 60 }],
                "text" => vec![
                    doc! { "key": { path: row.name } },
                    doc! { "key": { "x": row.name }, "weights": { path: 2 } },
                    doc! { "key": { "x": row.name }, "language_override": path },
                    doc! { "key": { "$**": row.name } },
                ],
                "2d" | "2dsphere" => vec![doc! { "key": { path: row.name } }],
                "with a collation" => vec![doc! { "key": { path: 1 }, "collation": { "locale": "en" } }],
                "partial, by $exists" => {
                    vec![doc! { "key": { "x": 1 }, "partialFilterExpression": { path: { "$exists": true } } }]
                }
                "partial, by a value" => {
                    vec![doc! { "key": { "x": 1 }, "partialFilterExpression": { path: "x" } }]
                }
                other => panic!("no example of the index {other}"),
            };
            let mut tried = Vec::new();
            for mut index in indexes {
                index.insert("name", "i");
                let outcome = harness.command(doc! { "createIndexes": "p", "indexes": [index.clone()] });
                tried.push((index, went_through(&outcome)));
            }
            agrees(cell, &tried, &format!("{} on {path}", row.name));
        }
    }
}

//! Looks at the upstream's own catalogue for what the configuration cannot know: views over protected collections and
//! default collations. Reads only names and options, never a document.

use std::collections::HashMap;

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ClientOptions;

use crate::error::{Error, Fault};
use crate::name::Namespace;
use crate::policy::{FieldMap, Found};

/// Connections of the service itself to the upstream.
pub struct Catalogue {
    client: Client,
}

/// One view: what it is on, and the other collections that its pipeline names.
struct View {
    name: Namespace,
    sources: Vec<String>,
}

impl Catalogue {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// Where the driver refuses the options.
    pub fn new(options: ClientOptions) -> Result<Self, Error> {
        let client =
            Client::with_options(options).map_err(|why| Error::new(Fault::Operator, why.to_string()))?;
        Ok(Self { client })
    }

    /// Looks through every database that holds protected collections.
    ///
    /// # Errors
    /// Where the upstream does not answer, or does not let the service list collections.
    pub async fn look(&self, map: &FieldMap) -> Result<Found, Error> {
        let mut found = Found::default();
        if map.is_empty() {
            return Ok(found);
        }
        let databases = self
            .client
            .list_database_names()
            .await
            .map_err(|why| refused(&why))?;
        for database in databases.iter().filter(|name| map.protects_db(name)) {
            let mut views = Vec::new();
            let reply = self
                .client
                .database(database)
                .run_cursor_command(
                    doc! { "listCollections": 1, "authorizedCollections": false, "nameOnly": false },
                )
                .await
                .map_err(|why| refused(&why))?;
            let mut cursor = reply;
            while cursor.advance().await.map_err(|why| refused(&why))? {
                let entry = cursor.deserialize_current().map_err(|why| refused(&why))?;
                read(database, &entry, map, &mut views, &mut found);
            }
            settle(database, &views, map, &mut found);
        }
        Ok(found)
    }
}

fn read(database: &str, entry: &Document, map: &FieldMap, views: &mut Vec<View>, found: &mut Found) {
    let Some(name) = entry
        .get_str("name")
        .ok()
        .and_then(|name| Namespace::new(database, name))
    else {
        return;
    };
    let Ok(options) = entry.get_document("options") else {
        return;
    };
    if let Ok(source) = options.get_str("viewOn") {
        let mut sources = vec![source.to_owned()];
        if let Some(pipeline) = options.get("pipeline") {
            strings(pipeline, &mut sources);
        }
        views.push(View { name, sources });
        return;
    }
    let locale = options
        .get_document("collation")
        .ok()
        .and_then(|c| c.get_str("locale").ok());
    if locale.is_some_and(|locale| locale != "simple") && map.lookup(name.db(), name.collection()).is_some() {
        found.collated.insert(name);
    }
}

/// Views may stand on views: goes on until nothing new is found.
fn settle(database: &str, views: &[View], map: &FieldMap, found: &mut Found) {
    let mut protected: HashMap<Namespace, String> = HashMap::new();
    loop {
        let before = protected.len();
        for view in views {
            if protected.contains_key(&view.name) {
                continue;
            }
            let source = view.sources.iter().find(|source| {
                map.lookup(database, source).is_some()
                    || Namespace::new(database, source).is_some_and(|ns| protected.contains_key(&ns))
            });
            if let Some(source) = source {
                protected.insert(view.name.clone(), format!("{database}.{source}"));
            }
        }
        if protected.len() == before {
            break;
        }
    }
    found.views.extend(protected);
}

/// Every string of a pipeline: any of them may name a collection.
fn strings(value: &Bson, out: &mut Vec<String>) {
    match value {
        Bson::String(text) => out.push(text.clone()),
        Bson::Array(items) => items.iter().for_each(|item| strings(item, out)),
        Bson::Document(doc) => doc.iter().for_each(|(_, value)| strings(value, out)),
        _ => {}
    }
}

fn refused(why: &mongodb::error::Error) -> Error {
    Error::new(
        Fault::Upstream,
        format!(
            "the upstream's collections cannot be listed ({}), so views over protected collections cannot be told: give \
             the user of upstream.uri the actions listDatabases and listCollections",
            why.kind
        ),
    )
}

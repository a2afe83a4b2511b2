//! Looks at the upstream's own catalogue for what the configuration cannot know: views over protected collections and
//! default collations. Reads only names and options, never a document.

use std::collections::HashSet;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;

use crate::command::views;
use crate::error::{Error, Fault};
use crate::name::Namespace;
use crate::policy::found::Definition;
use crate::policy::{FieldMap, Found};

/// Connections of the service itself to the upstream.
pub struct Catalogue {
    client: Client,
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
        let (mut definitions, mut collated) = (Vec::new(), HashSet::new());
        if map.is_empty() {
            return Ok(Found::default());
        }
        let databases = self
            .client
            .list_database_names()
            .await
            .map_err(|why| refused(&why))?;
        for database in databases.iter().filter(|name| map.protects_db(name)) {
            let mut cursor = self
                .client
                .database(database)
                .run_cursor_command(
                    doc! { "listCollections": 1, "authorizedCollections": false, "nameOnly": false },
                )
                .await
                .map_err(|why| refused(&why))?;
            while cursor.advance().await.map_err(|why| refused(&why))? {
                let entry = cursor.deserialize_current().map_err(|why| refused(&why))?;
                read(database, &entry, map, &mut definitions, &mut collated)?;
            }
        }
        Ok(views::resolve(definitions, collated, map))
    }
}

fn read(
    database: &str,
    entry: &Document,
    map: &FieldMap,
    definitions: &mut Vec<Definition>,
    collated: &mut HashSet<Namespace>,
) -> Result<(), Error> {
    let Some(name) = entry
        .get_str("name")
        .ok()
        .and_then(|name| Namespace::new(database, name))
    else {
        return Ok(());
    };
    let Ok(options) = entry.get_document("options") else {
        return Ok(());
    };
    let locale = options
        .get_document("collation")
        .ok()
        .and_then(|c| c.get_str("locale").ok());
    let is_collated = locale.is_some_and(|locale| locale != "simple");
    if let Ok(source) = options.get_str("viewOn") {
        // An array is a document whose keys are its positions.
        let stages: Document = options
            .get_array("pipeline")
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .enumerate()
            .map(|(at, stage)| (at.to_string(), stage.clone()))
            .collect();
        definitions.push(Definition {
            name: name.clone(),
            source: source.to_owned(),
            pipeline: mongodb::bson::serialize_to_vec(&stages)
                .map_err(|why| Error::new(Fault::Upstream, why.to_string()))?,
            collated: is_collated,
        });
        if is_collated {
            collated.insert(name);
        }
    } else if is_collated && map.lookup(name.db(), name.collection()).is_some() {
        collated.insert(name);
    }
    Ok(())
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

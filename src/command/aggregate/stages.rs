//! Every aggregation stage of MongoDB up to 8.x, and who plans it: one closed table. Source: the server manual's list
//! of aggregation stages; SEMANTICS B0.9, B1.5.

/// How a stage is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `$match`.
    Match,
    /// `$project`.
    Project,
    /// `$addFields`, `$set`.
    AddFields,
    /// `$unset`.
    Unset,
    /// `$unwind`.
    Unwind,
    /// `$group`.
    Group,
    /// `$bucket`.
    Bucket,
    /// `$bucketAuto`.
    BucketAuto,
    /// `$sortByCount`.
    SortByCount,
    /// `$sort`.
    Sort,
    /// Lets documents through as they are, by number or by chance.
    Keep,
    /// `$count`.
    Count,
    /// `$facet`.
    Facet,
    /// `$replaceRoot`.
    ReplaceRoot,
    /// `$replaceWith`.
    ReplaceWith,
    /// `$redact`.
    Redact,
    /// `$lookup`.
    Lookup,
    /// `$graphLookup`.
    GraphLookup,
    /// `$unionWith`.
    UnionWith,
    /// `$out`.
    Out,
    /// `$merge`.
    Merge,
    /// `$setWindowFields`.
    Window,
    /// `$densify`.
    Densify,
    /// `$fill`.
    Fill,
    /// `$geoNear`.
    GeoNear,
    /// `$documents`.
    Documents,
    /// `$changeStream`.
    ChangeStream,
    /// Reports about the server, its sessions or a collection, without any document's values.
    Report,
    /// `$indexStats`: index definitions may hold sealed literals.
    IndexStats,
    /// Refused where protected fields are in play, forwarded elsewhere.
    Refused,
    /// Shows other users' commands or the catalogue: refused everywhere, since their values would be opened.
    Never,
}

/// The closed table, in alphabetical order.
pub const STAGES: &[(&str, Kind)] = &[
    ("$addFields", Kind::AddFields),
    ("$backupCursor", Kind::Never),
    ("$backupCursorExtend", Kind::Never),
    ("$bucket", Kind::Bucket),
    ("$bucketAuto", Kind::BucketAuto),
    ("$changeStream", Kind::ChangeStream),
    ("$changeStreamSplitLargeEvent", Kind::Keep),
    ("$collStats", Kind::Report),
    ("$count", Kind::Count),
    ("$currentOp", Kind::Never),
    ("$densify", Kind::Densify),
    ("$documents", Kind::Documents),
    ("$facet", Kind::Facet),
    ("$fill", Kind::Fill),
    ("$geoNear", Kind::GeoNear),
    ("$graphLookup", Kind::GraphLookup),
    ("$group", Kind::Group),
    ("$indexStats", Kind::IndexStats),
    ("$limit", Kind::Keep),
    ("$listCatalog", Kind::Never),
    ("$listClusterCatalog", Kind::Never),
    ("$listLocalSessions", Kind::Report),
    ("$listSampledQueries", Kind::Never),
    ("$listSearchIndexes", Kind::Report),
    ("$listSessions", Kind::Report),
    ("$lookup", Kind::Lookup),
    ("$match", Kind::Match),
    ("$merge", Kind::Merge),
    ("$operationMetrics", Kind::Report),
    ("$out", Kind::Out),
    ("$planCacheStats", Kind::Refused),
    ("$project", Kind::Project),
    ("$querySettings", Kind::Never),
    ("$queryStats", Kind::Never),
    ("$rankFusion", Kind::Refused),
    ("$redact", Kind::Redact),
    ("$replaceRoot", Kind::ReplaceRoot),
    ("$replaceWith", Kind::ReplaceWith),
    ("$sample", Kind::Keep),
    ("$score", Kind::Refused),
    ("$scoreFusion", Kind::Refused),
    ("$search", Kind::Refused),
    ("$searchMeta", Kind::Refused),
    ("$set", Kind::AddFields),
    ("$setWindowFields", Kind::Window),
    ("$shardedDataDistribution", Kind::Report),
    ("$skip", Kind::Keep),
    ("$sort", Kind::Sort),
    ("$sortByCount", Kind::SortByCount),
    ("$unionWith", Kind::UnionWith),
    ("$unset", Kind::Unset),
    ("$unwind", Kind::Unwind),
    ("$vectorSearch", Kind::Refused),
];

/// The row of a stage; `None` where the table does not know it.
pub fn kind(name: &[u8]) -> Option<Kind> {
    STAGES
        .binary_search_by(|(known, _)| known.as_bytes().cmp(name))
        .ok()
        .and_then(|at| STAGES.get(at))
        .map(|(_, kind)| *kind)
}

//! Every entry of every closed table has examples, and they are run: what the table lets through is seen to go through
//! (sealed, or as it came), what it refuses is seen to be refused for the stated reason. An entry without an example
//! fails, so does an example that names no entry.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, doc};
use fieldveil::command::aggregate::accumulators::{self, ACCUMULATORS};
use fieldveil::command::aggregate::stages::{self, STAGES};
use fieldveil::command::expression::operators::{self as expressions, OPERATORS};
use fieldveil::command::operators::{FILTER, FILTER_TOP, Fit, INDEXES, Top, UPDATE};
use fieldveil::command::table::{COMMANDS, Verdict};
use fieldveil::event::Outcome as Fate;
use fieldveil::policy::Reason;

use super::common::{Harness, Outcome};

/// What is to come of an example.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// It goes on as it came.
    Kept,
    /// It goes on; what it holds in protected places (`SECRET`) is sealed.
    Sealed,
    /// It goes on without the entry itself.
    Removed,
    /// It goes on in whatever form.
    Sent,
    /// It is refused for this reason.
    Refused(Reason),
}

use Want::{Kept, Refused, Removed, Sealed, Sent};

/// A closed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Command,
    Stage,
    Expression,
    Accumulator,
    Filter,
    FilterTop,
    Update,
    Index,
}

/// Examples of several entries: the command made of each one's name.
struct Case {
    table: Table,
    names: &'static str,
    want: Want,
    command: Box<dyn Fn(&str) -> Document>,
}

fn case(table: Table, names: &'static str, want: Want, command: impl Fn(&str) -> Document + 'static) -> Case {
    Case {
        table,
        names,
        want,
        command: Box::new(command),
    }
}

// --- the examples -----------------------------------------------------------------------------------------------------

fn command(names: &'static str, want: Want, make: impl Fn(&str) -> Document + 'static) -> Case {
    case(Table::Command, names, want, make)
}

fn commands() -> Vec<Case> {
    let secret = || doc! { "nhs": "SECRET" };
    let range = || doc! { "nhs": { "$gt": "SECRET" } };
    vec![
        command("aggregate", Sealed, move |n| {
            doc! { n: "p", "pipeline": [{ "$match": secret() }], "cursor": {} }
        }),
        command("aggregate", Refused(Reason::Operator), move |n| {
            doc! { n: "p", "pipeline": [{ "$match": range() }], "cursor": {} }
        }),
        command("bulkWrite", Sealed, move |n| {
            doc! { n: 1, "ops": [{ "insert": 0, "document": secret() }], "nsInfo": [{ "ns": "c.p" }], "$db": "admin" }
        }),
        command("bulkWrite", Refused(Reason::Operator), move |n| {
            doc! { n: 1, "ops": [{ "delete": 0, "filter": range() }], "nsInfo": [{ "ns": "c.p" }], "$db": "admin" }
        }),
        command("count", Sealed, move |n| doc! { n: "p", "query": secret() }),
        command(
            "count",
            Refused(Reason::Operator),
            move |n| doc! { n: "p", "query": range() },
        ),
        command("create", Kept, |n| doc! { n: "p" }),
        command(
            "create",
            Refused(Reason::Option),
            |n| doc! { n: "p", "future": "SECRET" },
        ),
        command(
            "create collMod",
            Refused(Reason::Unanalysable),
            |n| doc! { n: "p", "validator": { "nhs": "SECRET" } },
        ),
        command(
            "collMod",
            Kept,
            |n| doc! { n: "p", "validator": { "$jsonSchema": { "required": ["nhs"] } } },
        ),
        command("createIndexes", Kept, |n| {
            doc! { n: "p", "indexes": [{ "key": { "nhs": 1 }, "name": "nhs_1" }] }
        }),
        command("createIndexes", Refused(Reason::Index), |n| {
            doc! { n: "p", "indexes": [{ "key": { "notes": "text" }, "name": "t" }] }
        }),
        command("delete", Sealed, move |n| {
            doc! { n: "p", "deletes": [{ "q": secret(), "limit": 1 }] }
        }),
        command("delete", Refused(Reason::Operator), move |n| {
            doc! { n: "p", "deletes": [{ "q": range(), "limit": 1 }] }
        }),
        command("distinct", Sealed, move |n| {
            doc! { n: "p", "key": "nhs", "query": secret() }
        }),
        command(
            "distinct",
            Refused(Reason::Operator),
            |n| doc! { n: "p", "key": "notes" },
        ),
        command("explain", Sealed, move |n| {
            doc! { n: { "find": "p", "filter": secret() }, "verbosity": "queryPlanner" }
        }),
        command("explain", Refused(Reason::Operator), move |n| {
            doc! { n: { "find": "p", "filter": range() } }
        }),
        command("find", Sealed, move |n| doc! { n: "p", "filter": secret() }),
        command(
            "find",
            Refused(Reason::Order),
            |n| doc! { n: "p", "sort": { "nhs": 1 } },
        ),
        command("findAndModify findandmodify", Sealed, move |n| {
            doc! { n: "p", "query": secret(), "update": { "$set": { "notes": "SECRET" } } }
        }),
        command(
            "findAndModify findandmodify",
            Refused(Reason::UpdateOperator),
            |n| {
                doc! { n: "p", "query": {}, "update": { "$inc": { "age": 1 } } }
            },
        ),
        command(
            "insert",
            Sealed,
            move |n| doc! { n: "p", "documents": [secret()] },
        ),
        command(
            "insert",
            Refused(Reason::Type),
            |n| doc! { n: "p", "documents": [{ "nhs": 5 }] },
        ),
        command("update", Sealed, move |n| {
            doc! { n: "p", "updates": [{ "q": secret(), "u": { "$set": { "notes": "SECRET" } } }] }
        }),
        command("update", Refused(Reason::PipelineUpdate), |n| {
            doc! { n: "p", "updates": [{ "q": {}, "u": [{ "$set": { "nhs": "$ward" } }] }] }
        }),
        command("dataSize", Kept, |n| doc! { n: "c.p" }),
        command("dataSize", Refused(Reason::Option), |n| {
            doc! { n: "c.p", "keyPattern": { "nhs": 1 }, "min": { "nhs": "SECRET" }, "max": { "nhs": "SECRET" } }
        }),
        command("planCacheClear", Kept, |n| doc! { n: "p" }),
        command(
            "planCacheClear",
            Refused(Reason::Option),
            move |n| doc! { n: "p", "query": secret() },
        ),
        command("profile", Kept, |n| doc! { n: 0 }),
        command(
            "profile",
            Refused(Reason::Option),
            move |n| doc! { n: 1, "filter": secret() },
        ),
        command("getMore", Kept, |n| doc! { n: 5_i64, "collection": "p" }),
        command(
            "listIndexes collStats collstats compact drop dropIndexes deleteIndexes reIndex validate",
            Kept,
            |n| doc! { n: "p" },
        ),
        command(
            "listCollections abortTransaction addShardToZone balancerStart balancerStatus balancerStop enableSharding \
                 flushRouterConfig getShardMap isdbgrid listShards removeShardFromZone buildInfo buildinfo commitTransaction configureFailPoint connPoolStats \
                 connectionStatus createRole createUser dbStats dbstats dropAllRolesFromDatabase dropAllUsersFromDatabase \
                 dropDatabase dropRole dropUser endSessions features fsync fsyncUnlock getCmdLineOpts getDefaultRWConcern \
                 getFreeMonitoringStatus getParameter getnonce grantPrivilegesToRole grantRolesToRole grantRolesToUser \
                 hostInfo invalidateUserCache killAllSessions killAllSessionsByPattern killCursors killSessions \
                 listCommands listDatabases lockInfo ping refreshSessions replSetGetConfig replSetGetStatus \
                 revokePrivilegesFromRole revokeRolesFromRole revokeRolesFromUser rolesInfo serverStatus \
                 setDefaultRWConcern startSession top updateRole updateUser usersInfo whatsmyuri \
                 setParameter shutdown killOp",
            Kept,
            |n| doc! { n: 1 },
        ),
        command("hello isMaster ismaster logout", Sent, |n| doc! { n: 1 }),
        command(
            "saslStart",
            Sent,
            |n| doc! { n: 1, "mechanism": "SCRAM-SHA-256", "payload": "" },
        ),
        command("saslStart", Refused(Reason::Authentication), |n| {
            doc! { n: 1, "mechanism": "MONGODB-X509", "payload": "" }
        }),
        command(
            "saslContinue",
            Sent,
            |n| doc! { n: 1, "conversationId": 1, "payload": "" },
        ),
        command("authenticate", Refused(Reason::Authentication), |n| {
            doc! { n: 1, "mechanism": "MONGODB-X509" }
        }),
        command("getLog", Kept, |n| doc! { n: "startupWarnings" }),
        command("getLog", Refused(Reason::Command), |n| doc! { n: "global" }),
        command(UNPROTECTED, Kept, |n| doc! { n: "open", "with": "anything" }),
        command(
            UNPROTECTED,
            Refused(Reason::Command),
            |n| doc! { n: "p", "with": "SECRET" },
        ),
        command("renameCollection", Kept, |n| {
            doc! { n: "c.open", "to": "c.elsewhere", "$db": "admin" }
        }),
        command("renameCollection", Refused(Reason::Command), |n| {
            doc! { n: "c.p", "to": "c.elsewhere", "$db": "admin" }
        }),
        // By a protected field of an open collection, by a plain one of a protected collection.
        command(SHARDED, Kept, |n| {
            doc! { n: "c.open", "key": { "nhs": 1 }, "keyPattern": { "nhs": 1 }, "find": { "nhs": 5 }, "$db": "admin" }
        }),
        command(SHARDED, Kept, |n| {
            doc! { n: "c.p", "key": { "ward": 1, "_id": "hashed" }, "to": "shard1", "$db": "admin",
            "find": { "ward": "A" }, "bounds": [{ "ward": "A" }, { "ward": "B" }], "min": { "ward": 1 }, "max": { "ward": 2 },
            "zones": [{ "zone": "z", "min": { "ward": "A" }, "max": { "ward": "B" } }], "keyPattern": { "ward": 1 } }
        }),
        command(
            SHARDED,
            Sent,
            |n| doc! { n: "c.p", "comment": "SECRET", "$db": "admin" },
        ),
        command(SHARDED, Refused(Reason::Index), |n| {
            doc! { n: "c.p", "key": { "ward": 1, "nhs": "hashed" }, "$db": "admin" }
        }),
        command(SHARDED, Refused(Reason::Index), |n| {
            doc! { n: "c.p", "find": { "nhs": "SECRET" }, "$db": "admin" }
        }),
        command(SHARDED, Refused(Reason::Index), |n| {
            doc! { n: "c.p", "middle": { "contacts.phone": "SECRET" }, "$db": "admin" }
        }),
        command(SHARDED, Refused(Reason::Index), |n| {
            doc! { n: "c.p", "bounds": [{ "ward": 1 }, { "contacts": { "phone": "SECRET" } }], "$db": "admin" }
        }),
        command(SHARDED, Refused(Reason::Index), |n| {
            doc! { n: "c.p", "min": { "ward": 1 }, "max": { "nhs": "SECRET" }, "$db": "admin" }
        }),
        command(SHARDED, Refused(Reason::Index), |n| {
            doc! { n: "c.p", "zones": [{ "zone": "z", "min": { "nhs": "SECRET" }, "max": { "nhs": "T" } }], "$db": "admin" }
        }),
        command(
            SHARDED,
            Refused(Reason::Index),
            |n| doc! { n: "p", "keyPattern": { "nhs": 1 } },
        ),
        command(SHARDED, Refused(Reason::Operator), |n| {
            doc! { n: "c.p", "find": { "$or": [{ "nhs": "SECRET" }] }, "$db": "admin" }
        }),
        command(SHARDED, Refused(Reason::Option), |n| {
            doc! { n: "c.p", "future": { "nhs": "SECRET" }, "$db": "admin" }
        }),
        command(
            "applyOps currentOp eval $eval godinsert replSetReconfig",
            Refused(Reason::Command),
            |n| {
                doc! { n: "SECRET" }
            },
        ),
    ]
}

const SHARDED: &str = "shardCollection reshardCollection refineCollectionShardKey analyzeShardKey checkShardingIndex split \
     splitVector moveChunk moveRange mergeChunks clearJumboFlag updateZoneKeyRange mergeAllChunksOnShard moveCollection \
     unshardCollection abortReshardCollection commitReshardCollection cleanupReshardCollection";

const UNPROTECTED: &str = "cloneCollectionAsCapped convertToCapped filemd5 mapReduce mapreduce planCacheListFilters \
     planCacheSetFilter planCacheClearFilters createSearchIndexes dropSearchIndex updateSearchIndex listSearchIndexes";

fn pipeline(stages: Vec<Document>) -> Document {
    doc! { "aggregate": "p", "pipeline": stages, "cursor": {} }
}

fn stage(names: &'static str, want: Want, operand: impl Into<Bson>) -> Case {
    let operand = operand.into();
    case(Table::Stage, names, want, move |n| {
        pipeline(vec![doc! { n: operand.clone() }])
    })
}

fn stages_() -> Vec<Case> {
    let join = |from: &str, to: &str| doc! { "from": "p", "localField": from, "foreignField": to, "as": "j" };
    let graph = |to: &str| {
        doc! { "from": "p", "startWith": "$nhs", "connectFromField": "nhs", "connectToField": to, "as": "g" }
    };
    vec![
        stage("$addFields $set $project", Kept, doc! { "x": "$nhs" }),
        stage(
            "$addFields $set $project",
            Refused(Reason::Expression),
            doc! { "x": { "$year": "$born" } },
        ),
        stage(
            "$bucket",
            Kept,
            doc! { "groupBy": "$ward", "boundaries": ["A", "B"] },
        ),
        stage(
            "$bucket",
            Refused(Reason::Expression),
            doc! { "groupBy": "$nhs", "boundaries": ["SECRET", "T"] },
        ),
        stage("$bucketAuto", Kept, doc! { "groupBy": "$ward", "buckets": 2 }),
        stage(
            "$bucketAuto",
            Refused(Reason::Expression),
            doc! { "groupBy": "$age", "buckets": 2 },
        ),
        stage("$changeStream", Kept, doc! { "fullDocument": "updateLookup" }),
        stage(
            "$changeStream",
            Refused(Reason::Option),
            doc! { "future": "SECRET" },
        ),
        stage(
            "$changeStreamSplitLargeEvent $collStats $indexStats $listLocalSessions $listSearchIndexes $listSessions \
             $operationMetrics $shardedDataDistribution",
            Kept,
            doc! {},
        ),
        stage("$count", Kept, "n"),
        stage(
            "$densify",
            Kept,
            doc! { "field": "x", "range": { "step": 1, "bounds": "full" } },
        ),
        stage(
            "$densify",
            Refused(Reason::Order),
            doc! { "field": "age", "range": { "step": 1, "bounds": "full" } },
        ),
        case(Table::Stage, "$documents", Kept, |n| {
            doc! { "aggregate": 1, "pipeline": [{ n: [{ "a": 1 }] }], "cursor": {} }
        }),
        case(Table::Stage, "$documents", Refused(Reason::Expression), |n| {
            doc! { "aggregate": 1, "cursor": {}, "pipeline": [{ n: [{ "a": "SECRET" }] },
            { "$lookup": { "from": "p", "localField": "a", "foreignField": "nhs", "as": "j" } }] }
        }),
        stage(
            "$facet",
            Sealed,
            doc! { "a": [{ "$match": { "nhs": "SECRET" } }], "n": [{ "$count": "n" }] },
        ),
        stage(
            "$facet",
            Refused(Reason::Order),
            doc! { "a": [{ "$sort": { "nhs": 1 } }] },
        ),
        stage(
            "$fill",
            Kept,
            doc! { "sortBy": { "at": 1 }, "output": { "x": { "method": "locf" } } },
        ),
        stage(
            "$fill",
            Sealed,
            doc! { "output": { "nhs": { "value": "SECRET" } } },
        ),
        stage(
            "$fill",
            Refused(Reason::Order),
            doc! { "sortBy": { "at": 1 }, "output": { "age": { "method": "linear" } } },
        ),
        stage(
            "$geoNear",
            Sealed,
            doc! { "near": [0, 0], "distanceField": "d", "query": { "nhs": "SECRET" } },
        ),
        stage(
            "$geoNear",
            Refused(Reason::Order),
            doc! { "near": [0, 0], "distanceField": "d", "key": "notes" },
        ),
        stage("$graphLookup", Kept, graph("nhs")),
        stage("$graphLookup", Refused(Reason::RandomEquality), graph("notes")),
        stage("$group", Kept, doc! { "_id": "$nhs", "n": { "$sum": 1 } }),
        stage(
            "$group",
            Refused(Reason::RandomEquality),
            doc! { "_id": "$notes" },
        ),
        stage("$limit $skip", Kept, 5),
        stage("$sample", Kept, doc! { "size": 5 }),
        stage("$lookup", Kept, join("nhs", "nhs")),
        stage("$lookup", Refused(Reason::Expression), join("ward", "nhs")),
        stage("$match", Sealed, doc! { "contacts.phone": "SECRET" }),
        stage(
            "$match",
            Refused(Reason::Operator),
            doc! { "nhs": { "$regex": "SECRET" } },
        ),
        stage("$merge", Kept, doc! { "into": "p" }),
        stage("$merge", Refused(Reason::Stage), doc! { "into": "open" }),
        stage("$out", Kept, "p"),
        stage("$out", Refused(Reason::Stage), "open"),
        stage("$redact", Refused(Reason::Stage), "$$KEEP"),
        case(Table::Stage, "$redact", Kept, |n| {
            let keep = doc! { "$cond": [{ "$eq": ["$ward", "A"] }, "$$KEEP", "$$PRUNE"] };
            pipeline(vec![
                doc! { "$project": { "nhs": 1, "ward": 1 } },
                doc! { n: keep },
            ])
        }),
        stage("$replaceRoot", Kept, doc! { "newRoot": "$address" }),
        stage(
            "$replaceRoot",
            Refused(Reason::Expression),
            doc! { "newRoot": "$notes" },
        ),
        stage("$replaceWith", Kept, "$address"),
        stage("$replaceWith", Refused(Reason::Expression), "$notes"),
        stage(
            "$setWindowFields",
            Kept,
            doc! { "partitionBy": "$nhs", "sortBy": { "at": 1 }, "output": { "n": { "$sum": 1 } } },
        ),
        stage(
            "$setWindowFields",
            Refused(Reason::Order),
            doc! { "sortBy": { "nhs": 1 }, "output": { "n": { "$sum": 1 } } },
        ),
        stage("$sort", Kept, doc! { "ward": 1 }),
        stage("$sort", Refused(Reason::Order), doc! { "nhs": 1 }),
        stage("$sortByCount", Kept, "$nhs"),
        stage("$sortByCount", Refused(Reason::RandomEquality), "$notes"),
        stage(
            "$unionWith",
            Sealed,
            doc! { "coll": "p", "pipeline": [{ "$match": { "nhs": "SECRET" } }] },
        ),
        stage(
            "$unionWith",
            Refused(Reason::Operator),
            doc! { "coll": "p", "pipeline": [{ "$match": { "nhs": { "$lt": "SECRET" } } }] },
        ),
        stage("$unset", Kept, "nhs"),
        stage("$unset", Refused(Reason::BelowSealed), "notes.inner"),
        stage("$unwind", Kept, "$tags"),
        stage("$unwind", Refused(Reason::BelowSealed), "$notes"),
        stage(
            "$backupCursor $backupCursorExtend $currentOp $listCatalog $listClusterCatalog $listSampledQueries \
             $planCacheStats $querySettings $queryStats $rankFusion $score $scoreFusion $search $searchMeta $vectorSearch",
            Refused(Reason::Stage),
            doc! { "query": "SECRET" },
        ),
    ]
}

fn expression(names: &'static str, want: Want, operand: impl Into<Bson>) -> Case {
    let operand = operand.into();
    case(Table::Expression, names, want, move |n| {
        pipeline(vec![doc! { "$project": { "x": { n: operand.clone() } } }])
    })
}

const COMPUTING: &str = "$abs $acos $acosh $add $allElementsTrue $anyElementTrue $asin $asinh $atan $atan2 $atanh $avg $binarySize \
     $bitAnd $bitNot $bitOr $bitXor $bsonSize $ceil $concat $convert $cos $cosh $dateAdd $dateDiff $dateFromParts \
     $dateFromString $dateSubtract $dateToParts $dateToString $dateTrunc $dayOfMonth $dayOfWeek $dayOfYear \
     $degreesToRadians $divide $exp $floor $hash $hexHash $hour $indexOfBytes $indexOfCP $isNumber $isoDayOfWeek \
     $isoWeek $isoWeekYear $ln $log $log10 $ltrim $max $maxN $median $millisecond $min $minN $minute $mod $month \
     $multiply $percentile $pow $radiansToDegrees $range $regexFind $regexFindAll $regexMatch $replaceAll $replaceOne \
     $round $rtrim $second $sigmoid $similarityCosine $similarityDotProduct $similarityEuclidean $sin $sinh $split \
     $sqrt $stdDevPop $stdDevSamp $strLenBytes $strLenCP $strcasecmp $substr $substrBytes $substrCP $subtract $subtype \
     $sum $tan $tanh $toArray $toBool $toDate $toDecimal $toDouble $toHashedIndexKey $toInt $toLong $toLower $toObject \
     $toObjectId $toString $toUUID $toUpper $trim $trunc $tsIncrement $tsSecond $week $year $zip";

fn list(items: impl IntoIterator<Item = impl Into<Bson>>) -> Bson {
    Bson::Array(items.into_iter().map(Into::into).collect())
}

fn expressions_() -> Vec<Case> {
    let (e, nothing) = (Reason::Expression, || doc! {});
    let eq = |path: &str| doc! { "$eq": [path, "SECRET"] };
    let over = |each: Document| doc! { "input": "$contacts", "as": "c", "in": each };
    let pick = |test: Document| doc! { "input": "$contacts", "as": "c", "cond": test };
    let step = |step: Bson| doc! { "input": "$contacts", "initialValue": 0, "in": step };
    let bound = |inner: Document| doc! { "vars": { "n": "$nhs" }, "in": inner };
    let choose =
        |case: Bson, then: &str| doc! { "branches": [{ "case": case, "then": then }], "default": "$nhs" };
    vec![
        expression(COMPUTING, Kept, "$ward"),
        expression(COMPUTING, Refused(e), "$nhs"),
        expression("$rand $createObjectId", Kept, nothing()),
        expression(
            "$accumulator $encStrContains $encStrEndsWith $encStrNormalizedEq $encStrStartsWith $function",
            Refused(Reason::Unanalysable),
            doc! { "input": "SECRET" },
        ),
        expression("$eq $ne", Sealed, list(["$nhs", "SECRET"])),
        expression(
            "$eq $ne",
            Refused(Reason::RandomEquality),
            list(["$notes", "SECRET"]),
        ),
        expression(
            "$cmp $gt $gte $lt $lte",
            Kept,
            vec![Bson::from("$nhs"), Bson::Null],
        ),
        expression("$cmp $gt $gte $lt $lte", Refused(e), list(["$nhs", "SECRET"])),
        expression("$in", Sealed, vec![Bson::from("$nhs"), list(["SECRET"])]),
        expression("$in", Refused(e), list(["$nhs", "$list"])),
        expression("$indexOfArray", Sealed, list(["$nhs", "SECRET"])),
        expression("$indexOfArray", Refused(e), list(["$notes", "SECRET"])),
        expression("$and $or $not", Kept, list(["$nhs"])),
        expression("$and $or $not", Refused(e), list(["$notes"])),
        expression(
            "$cond",
            Sealed,
            vec![Bson::from(eq("$nhs")), "SECRET".into(), "$nhs".into()],
        ),
        expression("$cond", Refused(e), list(["$age", "$nhs", "$nhs"])),
        expression("$switch", Sealed, choose(eq("$nhs").into(), "SECRET")),
        expression("$switch", Refused(e), choose("$notes".into(), "SECRET")),
        expression("$ifNull", Sealed, list(["$nhs", "SECRET"])),
        expression(
            "$ifNull",
            Refused(e),
            vec![Bson::from(doc! { "$toLower": "$nhs" }), "SECRET".into()],
        ),
        expression("$let", Sealed, bound(eq("$$n"))),
        expression("$let", Refused(e), bound(doc! { "$toLower": "$$n" })),
        expression("$literal $const", Kept, "$nhs"),
        expression("$type", Kept, "$ward"),
        expression("$type", Refused(e), "$nhs"),
        expression("$size $isArray $first $last $reverseArray", Kept, "$tags"),
        expression("$size $isArray $first $last $reverseArray", Refused(e), "$notes"),
        expression("$arrayElemAt $slice", Kept, vec![Bson::from("$tags"), 1.into()]),
        expression("$arrayElemAt $slice", Refused(e), list(["$tags", "$age"])),
        expression("$firstN $lastN", Kept, doc! { "input": "$tags", "n": 2 }),
        expression("$firstN $lastN", Refused(e), doc! { "input": "$notes", "n": 2 }),
        expression("$filter", Sealed, pick(eq("$$c.phone"))),
        expression(
            "$filter",
            Refused(e),
            pick(doc! { "$gt": ["$$c.phone", "SECRET"] }),
        ),
        expression("$map", Sealed, over(eq("$$c.phone"))),
        expression("$map", Refused(e), over(doc! { "$toLower": "$$c.phone" })),
        expression(
            "$reduce",
            Sealed,
            step(doc! { "$cond": [eq("$$this.phone"), 1, "$$value"] }.into()),
        ),
        expression("$reduce", Refused(e), step("$$this.phone".into())),
        expression(
            "$sortArray",
            Kept,
            doc! { "input": "$contacts", "sortBy": { "kind": 1 } },
        ),
        expression(
            "$sortArray",
            Refused(e),
            doc! { "input": "$contacts", "sortBy": { "phone": 1 } },
        ),
        expression("$concatArrays", Kept, list(["$tags", "$tags"])),
        expression("$concatArrays", Refused(e), list(["$tags", "$notes"])),
        expression(SETS, Sealed, vec![Bson::from("$nhs"), list(["SECRET"])]),
        expression(
            SETS,
            Refused(Reason::RandomEquality),
            vec![Bson::from("$tags"), list(["SECRET"])],
        ),
        expression("$mergeObjects $objectToArray", Kept, "$address"),
        expression("$arrayToObject", Kept, "$contacts"),
        expression(
            "$mergeObjects $objectToArray $arrayToObject",
            Refused(e),
            "$notes",
        ),
        expression("$getField", Kept, "nhs"),
        expression("$getField", Refused(e), doc! { "field": "x", "input": "$notes" }),
        expression(
            "$setField",
            Kept,
            doc! { "field": "x", "input": "$address", "value": 1 },
        ),
        expression(
            "$setField",
            Refused(e),
            doc! { "field": "x", "input": "$notes", "value": "SECRET" },
        ),
        expression("$unsetField", Kept, doc! { "field": "x", "input": "$address" }),
        expression(
            "$unsetField",
            Refused(e),
            doc! { "field": "x", "input": "$notes" },
        ),
        expression("$meta", Kept, "textScore"),
    ]
}

const SETS: &str = "$setUnion $setIntersection $setDifference $setEquals $setIsSubset";

fn accumulator(names: &'static str, want: Want, operand: impl Into<Bson>) -> Case {
    let operand = operand.into();
    case(Table::Accumulator, names, want, move |n| {
        pipeline(vec![
            doc! { "$group": { "_id": "$ward", "x": { n: operand.clone() } } },
        ])
    })
}

fn window(names: &'static str, want: Want, operand: impl Into<Bson>) -> Case {
    let operand = operand.into();
    case(Table::Accumulator, names, want, move |n| {
        pipeline(vec![
            doc! { "$setWindowFields": { "sortBy": { "at": 1 }, "output": { "x": { n: operand.clone() } } } },
        ])
    })
}

const SUMS: &str = "$avg $max $maxN $median $min $minN $percentile $stdDevPop $stdDevSamp $sum";
const WINDOWS: &str =
    "$covariancePop $covarianceSamp $derivative $expMovingAvg $integral $linearFill $minMaxScaler";

fn accumulators_() -> Vec<Case> {
    let e = Reason::Expression;
    let best = |by: &str| doc! { "sortBy": { by: 1 }, "output": "$nhs" };
    vec![
        accumulator(SUMS, Kept, "$visits"),
        accumulator(SUMS, Refused(e), "$age"),
        window(WINDOWS, Kept, "$visits"),
        window(WINDOWS, Refused(e), "$age"),
        accumulator("$first $last $push $concatArrays", Kept, "$nhs"),
        accumulator(
            "$first $last $push $mergeObjects",
            Refused(e),
            doc! { "$toLower": "$nhs" },
        ),
        accumulator("$mergeObjects", Kept, "$address"),
        accumulator("$concatArrays", Refused(e), "$notes"),
        window("$locf", Kept, "$nhs"),
        window("$locf", Refused(e), doc! { "$toLower": "$nhs" }),
        accumulator("$firstN $lastN", Kept, doc! { "input": "$notes", "n": 2 }),
        accumulator(
            "$firstN $lastN",
            Refused(e),
            doc! { "input": "$notes", "n": "$age" },
        ),
        accumulator("$addToSet $setUnion", Kept, "$nhs"),
        accumulator("$addToSet $setUnion", Refused(Reason::RandomEquality), "$notes"),
        accumulator("$top $topN $bottom $bottomN", Kept, best("at")),
        accumulator("$top $topN $bottom $bottomN", Refused(Reason::Order), best("nhs")),
        window("$shift", Kept, doc! { "output": "$nhs", "by": 1 }),
        window(
            "$shift",
            Refused(e),
            doc! { "output": { "$toLower": "$nhs" }, "by": 1 },
        ),
        window("$count $denseRank $documentNumber $rank", Kept, doc! {}),
        accumulator(
            "$accumulator",
            Refused(Reason::Unanalysable),
            doc! { "init": "SECRET" },
        ),
    ]
}

fn filter(names: &'static str, path: &'static str, want: Want, operand: impl Into<Bson>) -> Case {
    let operand = operand.into();
    case(Table::Filter, names, want, move |n| {
        doc! { "find": "p", "filter": { path: { n: operand.clone() } } }
    })
}

fn filters() -> Vec<Case> {
    let refused = Refused(Reason::Operator);
    vec![
        filter("$eq $ne", "nhs", Sealed, "SECRET"),
        filter("$eq $ne", "notes", Refused(Reason::RandomEquality), "SECRET"),
        filter("$in $nin $all", "nhs", Sealed, list(["SECRET", "SECRET2"])),
        filter(
            "$in $nin $all",
            "notes",
            Refused(Reason::RandomEquality),
            list(["SECRET"]),
        ),
        filter("$exists", "notes", Kept, true),
        filter("$not", "nhs", Sealed, doc! { "$eq": "SECRET" }),
        filter("$not", "nhs", refused, doc! { "$gt": "SECRET" }),
        filter("$elemMatch", "contacts", Sealed, doc! { "phone": "SECRET" }),
        filter("$elemMatch", "notes", refused, doc! { "$exists": true }),
        filter("$size", "contacts", Kept, 2),
        filter("$size", "notes", refused, 2),
        filter("$type", "contacts", Kept, "array"),
        filter("$type", "nhs", Kept, "null"),
        filter("$type", "nhs", refused, "string"),
        filter(
            "$gt $gte $lt $lte $regex $mod $bitsAllSet $bitsAnySet $bitsAllClear $bitsAnyClear $geoWithin $geoIntersects $near $nearSphere",
            "nhs",
            refused,
            "SECRET",
        ),
    ]
}

fn top(names: &'static str, want: Want, operand: impl Into<Bson>) -> Case {
    let operand = operand.into();
    case(
        Table::FilterTop,
        names,
        want,
        move |n| doc! { "find": "p", "filter": { n: operand.clone() } },
    )
}

fn tops() -> Vec<Case> {
    vec![
        top(
            "$and $or $nor",
            Sealed,
            vec![Bson::from(doc! { "nhs": "SECRET" })],
        ),
        top(
            "$and $or $nor",
            Refused(Reason::Operator),
            vec![Bson::from(doc! { "nhs": { "$gt": "SECRET" } })],
        ),
        top("$expr", Sealed, doc! { "$eq": ["$nhs", "SECRET"] }),
        top(
            "$expr",
            Refused(Reason::Expression),
            doc! { "$gt": ["$nhs", "SECRET"] },
        ),
        top("$comment", Removed, "SECRET"),
        top("$sampleRate $alwaysTrue $alwaysFalse", Kept, 1),
        top("$where $text", Refused(Reason::Unanalysable), "SECRET"),
        top(
            "$jsonSchema",
            Kept,
            doc! { "required": ["nhs"], "maxProperties": 9 },
        ),
        top(
            "$jsonSchema",
            Refused(Reason::Unanalysable),
            doc! { "properties": { "nhs": { "enum": ["SECRET"] } } },
        ),
    ]
}

fn update(names: &'static str, path: &'static str, want: Want, operand: impl Into<Bson>) -> Case {
    let operand = operand.into();
    case(Table::Update, names, want, move |n| {
        doc! { "update": "p", "updates": [{ "q": {}, "u": { n: { path: operand.clone() } } }] }
    })
}

fn updates() -> Vec<Case> {
    let refused = Refused(Reason::UpdateOperator);
    vec![
        update("$set $setOnInsert $push $addToSet $pull", "nhs", Sealed, "SECRET"),
        update("$pullAll", "nhs", Sealed, list(["SECRET"])),
        update("$unset $pop", "nhs", Kept, 1),
        update(
            "$push $addToSet $pull $pullAll $pop",
            "notes",
            refused,
            list(["SECRET"]),
        ),
        update("$rename", "nhs", refused, "elsewhere"),
        update("$inc $mul $min $max $bit $currentDate", "age", refused, 1),
    ]
}

fn index(name: &'static str, path: &'static str, want: Want, index: Document) -> Case {
    case(Table::Index, name, want, move |_| {
        let mut index = index.clone();
        if !index.contains_key("key") {
            index.insert("key", doc! { path: 1 });
        }
        index.insert("name", "i");
        doc! { "createIndexes": "p", "indexes": [index] }
    })
}

fn indexes() -> Vec<Case> {
    let refused = Refused(Reason::Index);
    let partial = |value: Bson| doc! { "partialFilterExpression": { "nhs": value } };
    vec![
        index("ascending, descending", "nhs", Kept, doc! {}),
        index("ascending, descending", "notes", refused, doc! {}),
        index("unique", "nhs", Kept, doc! { "unique": true }),
        index("unique", "notes", refused, doc! { "unique": true }),
        index(
            "sparse, hidden",
            "nhs",
            Kept,
            doc! { "sparse": true, "hidden": true },
        ),
        index("sparse, hidden", "contacts", refused, doc! { "sparse": true }),
        index(
            "with a collation",
            "nhs",
            refused,
            doc! { "collation": { "locale": "en" } },
        ),
        index("hashed", "", Kept, doc! { "key": { "nhs": "hashed" } }),
        index("hashed", "", refused, doc! { "key": { "notes": "hashed" } }),
        index("wildcard ($**)", "", Kept, doc! { "key": { "$**": 1 } }),
        index(
            "TTL (expireAfterSeconds)",
            "born",
            refused,
            doc! { "expireAfterSeconds": 5 },
        ),
        index("text", "", refused, doc! { "key": { "nhs": "text" } }),
        index("2d", "", refused, doc! { "key": { "nhs": "2d" } }),
        index("2dsphere", "", refused, doc! { "key": { "nhs": "2dsphere" } }),
        index(
            "partial, by $exists",
            "ward",
            Kept,
            partial(doc! { "$exists": true }.into()),
        ),
        index("partial, by a value", "ward", refused, partial("SECRET".into())),
    ]
}

fn all() -> Vec<Case> {
    [
        commands(),
        stages_(),
        expressions_(),
        accumulators_(),
        filters(),
        tops(),
        updates(),
        indexes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Case {
    fn entries(&self) -> Vec<&'static str> {
        // Kinds of index are words, not names.
        if self.table == Table::Index {
            vec![self.names]
        } else {
            self.names.split_whitespace().collect()
        }
    }
}

// --- what every entry needs -------------------------------------------------------------------------------------------

/// What a table says of one of its entries: it lets something through, it refuses something where fields are protected.
type Needs = BTreeMap<(Table, &'static str), (bool, bool)>;

fn by_cells(cells: &[Fit]) -> (bool, bool) {
    (
        cells.iter().any(|cell| *cell != Fit::No),
        cells.iter().any(|cell| *cell != Fit::Yes),
    )
}

fn needs() -> Needs {
    let mut needs = Needs::new();
    for entry in COMMANDS {
        let need = match entry.verdict {
            Verdict::Rewrite(_) | Verdict::Unprotected => (true, true),
            Verdict::Forward => (true, false),
            Verdict::Refuse => (false, true),
            Verdict::Session => match entry.name {
                "authenticate" => (false, true),
                "saslStart" => (true, true),
                _ => (true, false),
            },
        };
        needs.insert((Table::Command, entry.name), need);
    }
    for (name, kind) in STAGES {
        use stages::Kind;
        let need = match kind {
            Kind::Keep | Kind::Count | Kind::Report | Kind::IndexStats => (true, false),
            Kind::Refused | Kind::Never => (false, true),
            _ => (true, true),
        };
        needs.insert((Table::Stage, name), need);
    }
    for (name, kind) in OPERATORS {
        use expressions::Kind;
        let need = match kind {
            Kind::Free | Kind::Literal | Kind::Meta => (true, false),
            Kind::Never => (false, true),
            _ => (true, true),
        };
        needs.insert((Table::Expression, name), need);
    }
    for (name, kind) in ACCUMULATORS {
        use accumulators::Kind;
        let need = match kind {
            Kind::Position => (true, false),
            Kind::Never => (false, true),
            _ => (true, true),
        };
        needs.insert((Table::Accumulator, name), need);
    }
    for row in FILTER {
        let cells = [row.deterministic, row.random, row.each, row.around];
        needs.insert((Table::Filter, row.name), by_cells(&cells));
    }
    for (name, top, _) in FILTER_TOP {
        let need = match top {
            Top::Branches | Top::Expression | Top::Schema => (true, true),
            Top::Removed | Top::Kept => (true, false),
            Top::Refused => (false, true),
        };
        needs.insert((Table::FilterTop, name), need);
    }
    for row in UPDATE {
        let cells = [row.deterministic, row.random, row.each, row.around];
        needs.insert((Table::Update, row.name), by_cells(&cells));
    }
    for row in INDEXES {
        needs.insert(
            (Table::Index, row.name),
            by_cells(&[row.deterministic, row.random, row.around]),
        );
    }
    needs
}

#[test]
fn every_entry_has_the_examples_that_its_verdict_calls_for() {
    let needs = needs();
    let mut had: BTreeMap<(Table, &str), (bool, bool)> = BTreeMap::new();
    let mut strangers = BTreeSet::new();
    for case in all() {
        for name in case.entries() {
            if !needs.contains_key(&(case.table, name)) {
                strangers.insert((case.table, name));
            }
            let has = had.entry((case.table, name)).or_default();
            match case.want {
                Refused(_) => has.1 = true,
                _ => has.0 = true,
            }
        }
    }
    assert!(
        strangers.is_empty(),
        "examples of what is in no table: {strangers:?}"
    );
    let mut missing = Vec::new();
    for (entry, (passes, refuses)) in needs {
        let has = had.get(&entry).copied().unwrap_or_default();
        if passes != has.0 {
            missing.push(format!(
                "{entry:?}: something that passes: wanted {passes}, there {}",
                has.0
            ));
        }
        if refuses != has.1 {
            missing.push(format!(
                "{entry:?}: something refused: wanted {refuses}, there {}",
                has.1
            ));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

// --- the examples are run -----------------------------------------------------------------------------------------------

fn has_key(value: &Bson, key: &str) -> bool {
    match value {
        Bson::Document(doc) => doc.iter().any(|(k, v)| k == key || has_key(v, key)),
        Bson::Array(items) => items.iter().any(|item| has_key(item, key)),
        _ => false,
    }
}

fn run(case: &Case, name: &str) -> Result<(), String> {
    let mut command = (case.command)(name);
    if case.table != Table::Index && !has_key(&Bson::Document(command.clone()), name) {
        return Err("the example does not name the entry".to_owned());
    }
    let db = match command.remove("$db") {
        Some(Bson::String(db)) => db,
        _ => "c".to_owned(),
    };
    let mut harness = Harness::new(1);
    let outcome = harness.command_on(&db, command.clone());
    command.insert("$db", db);
    match (case.want, outcome) {
        (Refused(reason), Outcome::Answered(answer)) => {
            let text = answer.get_str("errmsg").unwrap_or_default();
            let fate = harness.done().last().map(|done| done.outcome);
            if fate
                != Some(Fate::Refused {
                    reason: reason.label(),
                })
            {
                return Err(format!("refused as {fate:?}, not {reason:?}: {text}"));
            }
            if !text.starts_with("fieldveil: ") || text.contains("SECRET") {
                return Err(format!("a bad text: {text}"));
            }
            // An argument of the command itself is answered as the server answers one that it does not know.
            let (code, _) = reason.code();
            let argument = reason == Reason::Option && answer.get_i32("code").ok() == Some(40415);
            if answer.get("code") != Some(&Bson::Int32(code)) && !argument {
                return Err(format!("code {:?}, not {code}", answer.get("code")));
            }
            Ok(())
        }
        (want, Outcome::Answered(answer)) => Err(format!("wanted {want:?}: {answer}")),
        (Refused(_), Outcome::Sent(sent)) => Err(format!("went through: {sent}")),
        (Sent, Outcome::Sent(_)) => Ok(()),
        (Kept, Outcome::Sent(sent)) if sent == command => Ok(()),
        (Kept, Outcome::Sent(sent)) => Err(format!("became {sent}")),
        (Removed, Outcome::Sent(sent)) => {
            if has_key(&Bson::Document(sent.clone()), name) || sent.to_string().contains("SECRET") {
                return Err(format!("still there: {sent}"));
            }
            Ok(())
        }
        (Sealed, Outcome::Sent(sent)) => {
            let text = sent.to_string();
            let same_shape = text.contains(name) && !text.contains("SECRET") && text.contains("Binary(0x80");
            if same_shape {
                Ok(())
            } else {
                Err(format!("not sealed: {text}"))
            }
        }
    }
}

#[test]
fn every_example_comes_out_as_its_entry_says() {
    let mut wrong = Vec::new();
    let mut tried = 0;
    for case in all() {
        for name in case.entries() {
            tried += 1;
            if let Err(why) = run(&case, name) {
                wrong.push(format!("{:?} {name}, wanted {:?}: {why}", case.table, case.want));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(tried > 500, "only {tried} examples");
}

//! The closed table of commands: each has one verdict, and a command that is not in it is refused as soon as it could
//! touch anything protected. `docs/COMMANDS.md` is generated from it.

use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::policy::Refusal;

/// Plans one command on a protected namespace (an aggregate also elsewhere, since it can name other namespaces).
pub type Planner = for<'a, 'm> fn(&CommandView<'a>, &Scope<'m>, &mut Draft<'a>) -> Result<(), Refusal>;

/// What is done with a command.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// Planned: rewritten, forwarded or refused by what it holds.
    Rewrite(Planner),
    /// Forwarded as it is, whatever it names: it carries no field value.
    Forward,
    /// Forwarded where the namespace it names is not protected, refused where it is.
    Unprotected,
    /// Refused while anything at all is protected: it could reveal or move protected values anywhere.
    Refuse,
    /// The session sees to it: hello and authentication.
    Session,
}

/// One command.
pub struct Entry {
    /// Its name on the wire.
    pub name: &'static str,
    /// What is done with it.
    pub verdict: Verdict,
    /// Whether its reply can hold documents whose envelopes are to be opened.
    pub reply: Reply,
    /// One line for the documentation.
    pub note: &'static str,
}

/// What a command's reply holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing of a document, other than in an error.
    Status,
    /// Documents or values, opened wherever they stand.
    Documents,
    /// `distinct` values: opened, then without repetition.
    Values,
    /// Plans and literals, left sealed.
    Sealed,
}

const fn rewrite(name: &'static str, planner: Planner, reply: Reply, note: &'static str) -> Entry {
    Entry {
        name,
        verdict: Verdict::Rewrite(planner),
        reply,
        note,
    }
}

const fn sharded(name: &'static str, note: &'static str) -> Entry {
    rewrite(name, super::shard_key::plan, Reply::Status, note)
}

const fn forward(name: &'static str, note: &'static str) -> Entry {
    Entry {
        name,
        verdict: Verdict::Forward,
        reply: Reply::Status,
        note,
    }
}

const fn unprotected(name: &'static str, note: &'static str) -> Entry {
    Entry {
        name,
        verdict: Verdict::Unprotected,
        reply: Reply::Status,
        note,
    }
}

const fn refuse(name: &'static str, note: &'static str) -> Entry {
    Entry {
        name,
        verdict: Verdict::Refuse,
        reply: Reply::Status,
        note,
    }
}

const fn session(name: &'static str, note: &'static str) -> Entry {
    Entry {
        name,
        verdict: Verdict::Session,
        reply: Reply::Status,
        note,
    }
}

/// Every command that is known, by name.
pub const COMMANDS: &[Entry] = &[
    rewrite(
        "aggregate",
        aggregate,
        Reply::Documents,
        "each stage and expression tracked; see the stage table",
    ),
    rewrite(
        "bulkWrite",
        super::bulk_write::plan,
        Reply::Status,
        "each operation planned as insert, update or delete under the rules of its namespace",
    ),
    rewrite(
        "count",
        super::count::plan,
        Reply::Status,
        "literals in the query are sealed",
    ),
    rewrite(
        "create",
        super::create::plan,
        Reply::Status,
        "views and validators that need no sealed literal, time series by plain fields; no default collation on a protected name",
    ),
    rewrite(
        "collMod",
        super::coll_mod::plan,
        Reply::Status,
        "validators and views as for create; expiry of plain fields",
    ),
    rewrite(
        "createIndexes",
        super::create_indexes::plan,
        Reply::Status,
        "indexes that work on ciphertext; the rest is refused by type",
    ),
    rewrite(
        "delete",
        super::delete::plan,
        Reply::Status,
        "literals in each query are sealed",
    ),
    rewrite(
        "distinct",
        super::distinct::plan,
        Reply::Values,
        "deterministic fields; values are opened and de-duplicated",
    ),
    rewrite(
        "explain",
        super::explain::plan,
        Reply::Sealed,
        "the inner command is planned; the plan shows ciphertext",
    ),
    rewrite(
        "find",
        super::find::plan,
        Reply::Documents,
        "literals in the filter are sealed; documents are opened",
    ),
    rewrite(
        "findAndModify",
        super::find_and_modify::plan,
        Reply::Documents,
        "as find and update together",
    ),
    rewrite(
        "findandmodify",
        super::find_and_modify::plan,
        Reply::Documents,
        "as findAndModify",
    ),
    rewrite(
        "insert",
        super::insert::plan,
        Reply::Status,
        "documents are sealed",
    ),
    rewrite(
        "update",
        super::update::plan,
        Reply::Status,
        "queries, operators, replacements and array filters are sealed",
    ),
    rewrite(
        "dataSize",
        super::namespace::bare,
        Reply::Status,
        "sizes only; bounds on a protected collection are refused",
    ),
    rewrite(
        "planCacheClear",
        super::namespace::bare,
        Reply::Status,
        "all plans of a protected collection; naming one by its literals is refused",
    ),
    rewrite(
        "getLog",
        super::namespace::get_log,
        Reply::Status,
        "the startup warnings, and which logs there are; the log itself can hold values of writers past the proxy",
    ),
    rewrite(
        "profile",
        super::namespace::bare,
        Reply::Status,
        "switches the profiler, which stores ciphertext; a filter is refused where its database is protected",
    ),
    sharded(
        "shardCollection",
        "a key of plain fields; a sealed shard key could never be rotated",
    ),
    sharded("reshardCollection", "as shardCollection, zones included"),
    sharded("refineCollectionShardKey", "as shardCollection"),
    rewrite(
        "analyzeShardKey",
        super::shard_key::plan,
        Reply::Documents,
        "as shardCollection",
    ),
    sharded("checkShardingIndex", "as shardCollection"),
    sharded("split", "by plain fields: find, middle, bounds"),
    rewrite(
        "splitVector",
        super::shard_key::plan,
        Reply::Documents,
        "by plain fields: keyPattern, min, max",
    ),
    sharded("moveChunk", "by plain fields: find, bounds"),
    sharded("moveRange", "by plain fields: min, max"),
    sharded("mergeChunks", "by plain fields: bounds"),
    sharded("clearJumboFlag", "by plain fields: find, bounds"),
    sharded("updateZoneKeyRange", "by plain fields: min, max"),
    sharded("mergeAllChunksOnShard", "names the collection and a shard"),
    sharded("moveCollection", "names the collection and a shard"),
    sharded("unshardCollection", "names the collection and a shard"),
    sharded("abortReshardCollection", "names the collection only"),
    sharded("commitReshardCollection", "names the collection only"),
    sharded("cleanupReshardCollection", "names the collection only"),
    Entry {
        name: "getMore",
        verdict: Verdict::Forward,
        reply: Reply::Documents,
        note: "documents are opened",
    },
    Entry {
        name: "listIndexes",
        verdict: Verdict::Forward,
        reply: Reply::Sealed,
        note: "literals in definitions stay as stored",
    },
    Entry {
        name: "listCollections",
        verdict: Verdict::Forward,
        reply: Reply::Sealed,
        note: "literals in definitions stay as stored",
    },
    session("authenticate", "MONGODB-X509 ends at the proxy and is refused"),
    session("hello", "hosts and limits are rewritten"),
    session("isMaster", "as hello"),
    session("ismaster", "as hello"),
    session("logout", "forwarded; the principal is forgotten"),
    session("saslContinue", "forwarded"),
    session(
        "saslStart",
        "SCRAM passes through; PLAIN, OIDC and AWS pass; X.509 is refused",
    ),
    forward("abortTransaction", "no field value"),
    forward("addShardToZone", "names only"),
    forward("balancerStart", "no field value"),
    forward("balancerStatus", "no field value"),
    forward("balancerStop", "no field value"),
    forward("enableSharding", "no field value"),
    forward("flushRouterConfig", "no field value"),
    forward("getShardMap", "names of shards; addresses are replaced"),
    forward("isdbgrid", "no field value"),
    forward("listShards", "names of shards; addresses are replaced"),
    forward("removeShardFromZone", "names only"),
    forward("buildInfo", "no field value"),
    forward("buildinfo", "no field value"),
    forward("collStats", "sizes only"),
    forward("collstats", "sizes only"),
    forward("commitTransaction", "no field value"),
    forward("compact", "no field value"),
    forward("configureFailPoint", "no field value"),
    forward("connPoolStats", "no field value"),
    forward("connectionStatus", "no field value"),
    forward("createRole", "no field value"),
    forward("createUser", "no field value"),
    forward("dbStats", "sizes only"),
    forward("dbstats", "sizes only"),
    forward("drop", "nothing is revealed"),
    forward("dropAllRolesFromDatabase", "no field value"),
    forward("dropAllUsersFromDatabase", "no field value"),
    forward("dropDatabase", "nothing is revealed"),
    forward("dropIndexes", "nothing is revealed"),
    forward("deleteIndexes", "nothing is revealed"),
    forward("dropRole", "no field value"),
    forward("dropUser", "no field value"),
    forward("endSessions", "no field value"),
    forward("features", "no field value"),
    forward("fsync", "no field value"),
    forward("fsyncUnlock", "no field value"),
    forward("getCmdLineOpts", "the server's own options"),
    forward("getDefaultRWConcern", "no field value"),
    forward("getFreeMonitoringStatus", "no field value"),
    forward("getParameter", "no field value"),
    forward("getnonce", "no field value"),
    forward("grantPrivilegesToRole", "no field value"),
    forward("grantRolesToRole", "no field value"),
    forward("grantRolesToUser", "no field value"),
    forward("hostInfo", "no field value"),
    forward("invalidateUserCache", "no field value"),
    forward("killAllSessions", "no field value"),
    forward("killAllSessionsByPattern", "no field value"),
    forward("killCursors", "no field value"),
    forward("killSessions", "no field value"),
    forward("listCommands", "no field value"),
    forward("listDatabases", "names and sizes only"),
    forward("lockInfo", "no field value"),
    forward("ping", "no field value"),
    forward("reIndex", "nothing is revealed"),
    forward("refreshSessions", "no field value"),
    forward("replSetGetConfig", "no field value"),
    forward("replSetGetStatus", "no field value"),
    forward("revokePrivilegesFromRole", "no field value"),
    forward("revokeRolesFromRole", "no field value"),
    forward("revokeRolesFromUser", "no field value"),
    forward("rolesInfo", "no field value"),
    forward("serverStatus", "counters only"),
    forward("setDefaultRWConcern", "no field value"),
    forward("startSession", "no field value"),
    forward("top", "counters only"),
    forward("updateRole", "no field value"),
    forward("updateUser", "no field value"),
    forward("usersInfo", "no field value"),
    forward("validate", "counters only"),
    forward("whatsmyuri", "no field value"),
    unprotected(
        "cloneCollectionAsCapped",
        "would copy sealed values under another name",
    ),
    unprotected("convertToCapped", "sealed values change size"),
    unprotected("filemd5", "would hash sealed chunks"),
    unprotected("mapReduce", "code cannot be analysed"),
    unprotected("mapreduce", "code cannot be analysed"),
    unprotected("planCacheListFilters", "shows literals"),
    unprotected("planCacheSetFilter", "holds literals"),
    unprotected("planCacheClearFilters", "holds literals"),
    unprotected("renameCollection", "keys and rules belong to a name"),
    unprotected(
        "createSearchIndexes",
        "the search engine cannot read sealed values",
    ),
    unprotected("dropSearchIndex", "the search engine cannot read sealed values"),
    unprotected("updateSearchIndex", "the search engine cannot read sealed values"),
    unprotected("listSearchIndexes", "the search engine cannot read sealed values"),
    refuse("applyOps", "would write past the field map"),
    refuse("currentOp", "shows other clients' commands"),
    refuse("eval", "code cannot be analysed"),
    refuse("$eval", "code cannot be analysed"),
    refuse("godinsert", "test command"),
    refuse(
        "replSetReconfig",
        "a configuration read through the proxy names its listeners, not the members",
    ),
    forward("setParameter", "no field value"),
    forward("shutdown", "no field value"),
    forward("killOp", "no field value"),
];

fn aggregate<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let known = super::views::Known {
        map: scope.map,
        found: scope.found,
    };
    let yields = super::aggregate::plan(view, draft, &known)?;
    if !yields.is_plain() {
        draft.note_yields(yields);
    }
    Ok(())
}

/// The entry of a command.
pub fn find(name: &str) -> Option<&'static Entry> {
    // The ten commands of the data path come first by frequency, the rest by a scan: the table is short.
    COMMANDS.iter().find(|entry| entry.name == name)
}

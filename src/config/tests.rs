use super::*;
use std::collections::HashMap;

const SAMPLE: &str = r#"
[upstream]
uri = "mongodb://svc:${PW}@127.0.0.1:27017/?replicaSet=rs0"

[[listen]]
address = "127.0.0.1:27018"

[tls]
certificate = "certs/server.pem"
private_key = "certs/server.key"

[keys]
vault = "encryption.__keyVault"
master = { provider = "file", path = "data/master.key" }

[audit]
path = "data/audit.jsonl"
on_failure = "refuse"

[admin]
address = "127.0.0.1:9464"

[[collection]]
namespace = "clinic.patients"
subject = "nhs_number"

[collection.fields]
nhs_number       = { mode = "deterministic", type = "string", domain = "nhs_number" }
mrn              = { mode = "deterministic", type = "string" }
postcode         = { mode = "deterministic", type = "string" }
date_of_birth    = { mode = "deterministic", type = "date" }
notes            = { mode = "random" }
"contacts.phone" = { mode = "deterministic", type = "string" }
"address.line1"  = { mode = "random", algorithm = "chacha20-poly1305" }
allergies        = { mode = "random" }
"#;

fn env() -> HashMap<String, String> {
    HashMap::from([("PW".to_owned(), "hunter2".to_owned())])
}

fn mistakes(text: &str) -> Vec<(Option<usize>, String)> {
    match Config::parse("f.toml", text, &env()) {
        Ok(_) => Vec::new(),
        Err(report) => report.mistakes.into_iter().map(|m| (m.line, m.text)).collect(),
    }
}

/// The sample with one line replaced or, for an empty `from`, with text added at its end.
fn changed(from: &str, to: &str) -> String {
    if from.is_empty() {
        return format!("{SAMPLE}{to}");
    }
    assert!(SAMPLE.contains(from), "{from}");
    SAMPLE.replacen(from, to, 1)
}

fn line_of(text: &str, part: &str) -> Option<usize> {
    text.lines().position(|line| line.contains(part)).map(|at| at + 1)
}

#[test]
fn reads_the_sample_and_fills_in_defaults() {
    let config = Config::parse("f.toml", SAMPLE, &env()).unwrap();
    assert!(config.upstream.expose().contains("hunter2"));
    assert_eq!(config.keys.uri, config.upstream);
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.listen[0].advertise, "127.0.0.1:27018");
    assert!(!config.listen[0].plaintext);
    assert_eq!(config.limits.connections, 10_000);
    assert_eq!(config.limits.idle, Some(Duration::from_secs(3600)));
    assert_eq!(config.limits.stall, Some(Duration::from_secs(300)));
    assert_eq!(config.drain, Duration::from_secs(25));
    assert_eq!(config.workers, None);
    assert_eq!(config.audit.fsync, Fsync::Batch);
    let policy = config.fields.lookup("clinic", "patients").unwrap();
    let paths: Vec<_> = policy.rules.iter().map(|rule| &*rule.path).collect();
    assert_eq!(
        paths,
        [
            "nhs_number",
            "mrn",
            "postcode",
            "date_of_birth",
            "notes",
            "contacts.phone",
            "address.line1",
            "allergies"
        ],
        "in the order of the file"
    );
    let warned: Vec<_> = config.warnings.iter().map(|w| w.line).collect();
    assert_eq!(
        warned,
        [line_of(SAMPLE, "postcode "), line_of(SAMPLE, "date_of_birth ")]
    );
}

#[test]
fn never_prints_a_secret() {
    let config = Config::parse("f.toml", SAMPLE, &env()).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    for (from, to) in [
        ("uri = \"mongodb://svc:${PW}@", "uri = \"mongo://svc:hunter2@"),
        ("uri = \"mongodb://svc:${PW}@", "uri = mongodb://svc:hunter2@"),
        (
            "uri = \"mongodb://svc:${PW}@127.0.0.1:27017/?replicaSet=rs0\"",
            "uri = [\"mongodb://svc:hunter2@\"]",
        ),
        (
            "provider = \"file\", path = \"data/master.key\"",
            "provider = \"env\", variable = \"hunter2 \"",
        ),
        ("provider = \"file\", path", "provider = \"hunter2\", path"),
    ] {
        let report = Config::parse("f.toml", &changed(from, to), &env()).unwrap_err();
        assert!(!report.to_string().contains("hunter2"), "{report}");
        assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
    }
}

#[test]
fn tells_the_line_of_each_mistake() {
    // What is changed, into what, which line is blamed, and for what.
    for (from, to, blamed, text) in [
        (
            "certificate =",
            "certficate =",
            "certficate =",
            "unknown key `certficate` in [tls]",
        ),
        ("[admin]", "[adminn]", "[adminn]", "unknown key `adminn`"),
        ("${PW}", "${NOPE}", "${NOPE}", "`NOPE` is not set"),
        (
            "mongodb://",
            "http://",
            "uri =",
            "not a MongoDB connection string",
        ),
        (
            "127.0.0.1:27018",
            "localhost",
            "localhost",
            "not an IP address and a port",
        ),
        (
            "127.0.0.1:9464",
            "9464",
            "\"9464\"",
            "not an IP address and a port",
        ),
        (
            "\"refuse\"",
            "\"ignore\"",
            "\"ignore\"",
            "`on_failure` has a value",
        ),
        ("\"file\"", "\"aws-kms\"", "aws-kms", "not in this version"),
        ("\"file\"", "\"env\"", "\"env\"", "takes a variable"),
        (
            ", path = \"data/master.key\"",
            "",
            "provider",
            "neither a path nor a variable",
        ),
        (
            "encryption.__keyVault",
            "encryption",
            "vault =",
            "not the name of a collection",
        ),
        (
            "clinic.patients",
            "clinic",
            "\"clinic\"",
            "not the name of a collection",
        ),
        (
            "clinic.patients",
            "encryption.__keyVault",
            "namespace =",
            "cannot be protected",
        ),
        (
            "subject = \"nhs_number\"",
            "subject = \"notes\"",
            "subject =",
            "not one of its deterministic",
        ),
        (
            "notes            = { mode = \"random\" }",
            "_id = { mode = \"random\" }",
            "_id =",
            "`_id` cannot be protected",
        ),
        (
            "mrn              = { mode = \"deterministic\", type = \"string\" }",
            "mrn = { mode = \"deterministic\" }",
            "mrn =",
            "needs its `type`",
        ),
        (
            "mrn              = { mode",
            "mrn = { moode",
            "moode",
            "has no mode",
        ),
        (
            "\"contacts.phone\"",
            "contacts.phone",
            "contacts.phone",
            "is not quoted",
        ),
        (
            "allergies        = { mode = \"random\" }",
            "allergies = \"random\"",
            "allergies",
            "has no settings",
        ),
        (
            "allergies        = { mode = \"random\" }",
            "allergies = { mode = \"random\", state = \"done\" }",
            "allergies",
            "`state` has a value",
        ),
        (
            "",
            "\n[limits]\nconnections = 0\n",
            "connections = 0",
            "out of range",
        ),
        (
            "",
            "\n[limits]\nidle_seconds = \"1h\"\n",
            "idle_seconds",
            "must be a whole number",
        ),
        ("", "\n[proxy]\nworkers = -1\n", "workers", "out of range"),
        ("", "\n[log]\nlevel = \"loud\"\n", "level", "`level` has a value"),
        (
            "",
            "\n[[listen]]\naddress = \"127.0.0.1:27018\"\nmember = \"a:1\"\n",
            "address = \"127",
            "appears twice",
        ),
        (
            "",
            "\n[[listen]]\naddress = \"127.0.0.1:1\"\nmember = \"a\"\n",
            "member",
            "not a host and a port",
        ),
        (
            "",
            "\n[[collection]]\nsubject = \"x\"\n",
            "[[collection]]",
            "has no namespace",
        ),
        (
            "",
            "\n[[collection]]\nnamespace = \"a.b\"\n",
            "[[collection]]",
            "names no field",
        ),
        ("[admin]", "[admin", "[admin", "not valid TOML"),
        ("mrn  ", "nhs_number", "", "not valid TOML"),
    ] {
        let file = changed(from, to);
        let found = mistakes(&file);
        let hits: Vec<_> = found.iter().filter(|(_, found)| found.contains(text)).collect();
        assert_eq!(hits.len(), 1, "{text}: {found:?}");
        let lines: Vec<_> = file
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(blamed))
            .map(|(at, _)| Some(at + 1))
            .collect();
        assert!(lines.contains(&hits[0].0), "{text}: {found:?} not in {lines:?}");
    }
}

#[test]
fn tells_all_mistakes_at_once_in_order() {
    let text = "[upstream]\nurl = \"x\"\n[[listen]]\n[tls]\n[keys]\nttl_seconds = 0\n[[collection]]\nnamespace = \"a.b\"\n\
                [collection.fields]\nx = { mode = \"deterministic\", type = \"bool\", wat = 1 }\n_id = { mode = \"random\" }\n";
    let report = Config::parse("dir/f.toml", text, &Empty).unwrap_err().to_string();
    let expected = "\
dir/f.toml:1: [upstream] names no deployment
    write [upstream] with uri = \"mongodb://127.0.0.1:27017\", or uri_env = \"MONGODB_URI\"
dir/f.toml:2: unknown key `url` in [upstream]
    did you mean `uri`?
dir/f.toml:3: [[listen]] has no address
    write address = \"127.0.0.1:27018\"
dir/f.toml:4: [tls] has no certificate
    name both PEM files: certificate and private_key
dir/f.toml:4: [tls] has no private_key
    name both PEM files: certificate and private_key
dir/f.toml:5: [keys] has no master key
    write master = { provider = \"file\", path = \"data/master.key\" }
dir/f.toml:6: `ttl_seconds` is out of range
    write a number from 1 to 31536000
dir/f.toml:10: unknown key `wat` in the field `x`
    known here: mode, type, algorithm, domain, state, each, accept_leakage
dir/f.toml:10: a.b: x: a deterministic bool is not possible: two ciphertexts are no secret
    use mode = \"random\"
dir/f.toml:11: a.b: _id: `_id` cannot be protected: it is the document's address, in every index, log and shard key
    keep identifying data out of `_id`, in a field of its own";
    assert_eq!(report, expected);
}

#[test]
fn names_what_is_missing_altogether() {
    let found = mistakes("");
    assert_eq!(
        found,
        [
            (None, "there is no [upstream]".to_owned()),
            (None, "there is no [[listen]]".to_owned()),
            (None, "there is no [keys]".to_owned()),
        ]
    );
}

#[test]
fn needs_a_certificate_or_consent_to_plaintext() {
    let without = SAMPLE
        .replace("[tls]", "")
        .replace("certificate = \"certs/server.pem\"", "")
        .replace("private_key = \"certs/server.key\"", "");
    assert!(mistakes(&without)[0].1.contains("no certificate"));
    let consented = without.replace("[[listen]]", "[[listen]]\nallow_plaintext = true");
    let config = Config::parse("f.toml", &consented, &env()).unwrap();
    assert!(config.tls.is_none() && config.listen[0].plaintext);
    let open = consented.replace("127.0.0.1:27018", "0.0.0.0:27018");
    let config = Config::parse("f.toml", &open, &env()).unwrap();
    assert!(config.warnings.iter().any(|w| w.text.contains("speaks no TLS")));
    assert!(
        config
            .warnings
            .iter()
            .any(|w| w.text.contains("no place to connect to"))
    );
}

#[test]
fn takes_a_whole_uri_from_the_environment() {
    let by_name = changed(
        "uri = \"mongodb://svc:${PW}@127.0.0.1:27017/?replicaSet=rs0\"",
        "uri_env = \"URI\"",
    );
    let env = HashMap::from([("URI".to_owned(), "mongodb+srv://a:b@c.example/\n".to_owned())]);
    let config = Config::parse("f.toml", &by_name, &env).unwrap();
    assert_eq!(config.upstream.expose(), "mongodb+srv://a:b@c.example/");
    let report = Config::parse("f.toml", &by_name, &Empty).unwrap_err();
    assert!(report.to_string().contains("`URI` is not set"), "{report}");
}

#[test]
fn wants_a_member_for_each_of_several_listeners() {
    let text = changed(
        "",
        "\n[[listen]]\naddress = \"127.0.0.1:27019\"\nmember = \"db2:27017\"\n",
    );
    let found = mistakes(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("which member"), "{found:?}");
    let both = text.replacen(
        "[[listen]]",
        "[[listen]]\nmember = \"db1:27017\"\nadvertise = \"[::1]:5\"",
        1,
    );
    let config = Config::parse("f.toml", &both, &env()).unwrap();
    assert_eq!(config.listen[0].advertise, "[::1]:5");
    assert_eq!(config.listen[1].member.as_deref(), Some("db2:27017"));
    let twice = both.replace("db2", "db1");
    assert!(mistakes(&twice)[0].1.contains("same member"));
}

#[test]
fn takes_the_primary_for_a_member() {
    let text = changed("[[listen]]", "[[listen]]\nmember = \"primary\"")
        + "\n[[listen]]\naddress = \"127.0.0.1:27019\"\nmember = \"db2:27017\"\n";
    let config = Config::parse("f.toml", &text, &env()).unwrap();
    assert_eq!(config.listen[0].member, None);
    assert_eq!(config.listen[1].member.as_deref(), Some("db2:27017"));
}

#[test]
fn reads_listeners_for_members_that_are_found() {
    let text = changed(
        "[[listen]]",
        "[[listen]]\ndiscover = true\nadvertise = \"proxy.internal\"",
    );
    let config = Config::parse("f.toml", &text, &env()).unwrap();
    let listen = &config.listen[0];
    assert_eq!(
        (listen.member.as_deref(), listen.advertise.as_str()),
        (None, "proxy.internal")
    );
    let discover = listen.discover.as_ref().unwrap();
    assert_eq!(discover.ports, 16);
    assert_eq!(discover.remember, std::path::Path::new("data/members.json"));
    let more = text.replace(
        "discover = true",
        "discover = true\nports = 5\nremember = \"m.json\"",
    ) + "\n[[listen]]\naddress = \"127.0.0.1:27023\"\nmember = \"primary\"\n";
    let config = Config::parse("f.toml", &more, &env()).unwrap();
    assert_eq!(config.listen[0].discover.as_ref().unwrap().ports, 5);
    let v6 = text
        .replace("advertise = \"proxy.internal\"", "")
        .replace("127.0.0.1:27018", "[::1]:27018");
    assert_eq!(
        Config::parse("f.toml", &v6, &env()).unwrap().listen[0].advertise,
        "[::1]"
    );
}

#[test]
fn refuses_listeners_that_contradict_themselves() {
    let discover = "[[listen]]\ndiscover = true";
    for (from, to, said) in [
        ("[[listen]]", "[[listen]]\nports = 3", "`ports` says nothing"),
        (
            "[[listen]]",
            "[[listen]]\nremember = \"x\"",
            "`remember` says nothing",
        ),
        (
            "[[listen]]",
            "[[listen]]\ndiscover = true\nmember = \"db1:1\"",
            "`member` and `discover`",
        ),
        (
            "[[listen]]",
            "[[listen]]\ndiscover = true\nadvertise = \"proxy:1\"",
            "is not a host",
        ),
        (
            "[[listen]]",
            "[[listen]]\ndiscover = true\nports = 0",
            "out of range",
        ),
        (
            "[[listen]]\naddress = \"127.0.0.1:27018\"",
            &format!("{discover}\naddress = \"127.0.0.1:65530\""),
            "do not all exist",
        ),
        (
            "[[listen]]\naddress = \"127.0.0.1:27018\"",
            &format!("{discover}\naddress = \"127.0.0.1:0\""),
            "do not all exist",
        ),
        (
            "[[listen]]",
            &format!("{discover}\naddress = \"127.0.0.1:1\"\n{discover}"),
            "two listeners have discover",
        ),
        (
            "[[listen]]",
            &format!("{discover}\naddress = \"127.0.0.1:27010\"\n[[listen]]\nmember = \"primary\""),
            "appears twice",
        ),
        (
            "[[listen]]",
            "[[listen]]\nmember = \"Primary\"",
            "`member` is not",
        ),
    ] {
        let found = mistakes(&changed(from, to));
        assert!(
            found.iter().any(|(_, text)| text.contains(said)),
            "{to}: {found:?}"
        );
    }
}

#[test]
fn survives_whatever_it_is_given() {
    fuzz_config(SAMPLE.as_bytes());
    fuzz_config(b"\xff");
    fuzz_config("[[collection]]\nfields = 1\nnamespace = \"a.b\nc\"".as_bytes());
    for end in 0..SAMPLE.len() {
        fuzz_config(&SAMPLE.as_bytes()[..end]);
        fuzz_config(&SAMPLE.as_bytes()[end..]);
    }
}

#[test]
fn compresses_as_the_listener_and_the_connection_string_say() {
    let read = |listen: &str, options: &str| {
        let text = changed(
            "address = \"127.0.0.1:27018\"",
            &format!("address = \"127.0.0.1:27018\"\n{listen}"),
        )
        .replace("?replicaSet=rs0", &format!("?replicaSet=rs0{options}"));
        let config = Config::parse("f.toml", &text, &env()).unwrap();
        let names = |list: Compressors| list.iter().map(|c| c.name()).collect::<Vec<_>>().join(",");
        (
            names(config.listen[0].compression),
            names(config.upstream_compression),
            config.zlib_level,
        )
    };
    let all = || "snappy,zlib,zstd".to_owned();
    assert_eq!(read("", ""), (all(), String::new(), 6), "the defaults");
    assert_eq!(read("compression = []", "&compressors=none").0, "");
    assert_eq!(
        read(
            "compression = [\"zstd\"]",
            "&compressors=zlib,zstd&zlibCompressionLevel=1"
        ),
        ("zstd".to_owned(), "zlib,zstd".to_owned(), 1)
    );
    assert_eq!(read("", "&zlibCompressionLevel=-1").2, 6);
}

#[test]
fn rejects_unknown_compressors() {
    let text = changed(
        "address = \"127.0.0.1:27018\"",
        "address = \"127.0.0.1:27018\"\ncompression = [\"lz4\"]",
    );
    assert_eq!(
        mistakes(&text),
        [(Some(7), "`compression` names an unknown compressor".to_owned())]
    );
    let text = changed(
        "address = \"127.0.0.1:27018\"",
        "address = \"127.0.0.1:27018\"\ncompression = \"zstd\"",
    );
    assert_eq!(mistakes(&text).len(), 1);
    for options in [
        "&compressors=zstd,lz4",
        "&zlibCompressionLevel=10",
        "&zlibCompressionLevel=x",
    ] {
        let text = changed("?replicaSet=rs0", &format!("?replicaSet=rs0{options}"));
        let found = mistakes(&text);
        assert_eq!((found.len(), found[0].0), (1, Some(2)), "{found:?}");
    }
}

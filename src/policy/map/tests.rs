use super::*;
use crate::crypto::suite::Suite;
use crate::policy::shape::Target;

fn sample() -> CollectionSpec {
    CollectionSpec {
        subject: Some("nhs_number".to_owned()),
        ..CollectionSpec::new(
            "clinic.patients",
            [
                FieldSpec::deterministic("nhs_number", "string").with_domain("nhs_number"),
                FieldSpec::random("notes"),
                FieldSpec::deterministic("contacts.phone", "string"),
                FieldSpec::random("contacts.kin.name").with_algorithm("chacha20-poly1305"),
            ],
        )
    }
}

fn mistakes(specs: impl IntoIterator<Item = CollectionSpec>) -> Vec<String> {
    match FieldMap::build(specs.into_iter().collect()) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

fn assert_refused(field: FieldSpec, reason: &str) {
    let found = mistakes([CollectionSpec::new("a.b", [field])]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(reason), "{found:?}");
}

#[test]
fn resolves_an_exact_name_to_its_tree() {
    let map = FieldMap::build(vec![sample()]).unwrap();
    let policy = map.lookup("clinic", "patients").unwrap();
    assert_eq!(policy.namespace.as_str(), "clinic.patients");
    assert_eq!(&*policy.subject.as_ref().unwrap().path, "nhs_number");
    assert_eq!(&*policy.rules[0].domain, "nhs_number");
    assert_eq!(&*policy.rules[1].domain, "clinic.patients.notes");
    assert_eq!(policy.rules[1].suite, Suite::Aes256Gcm);
    assert_eq!(policy.rules[0].suite, Suite::Aes256Siv);
    assert_eq!(policy.rules[0].state, FieldState::Enforced);
    let at = |path: &str| policy.shape.resolve(path.as_bytes());
    assert!(matches!(at("notes"), Target::Sealed(r) if r == policy.rules[1]));
    assert!(matches!(at("contacts.0.phone"), Target::Sealed(r) if r == policy.rules[2]));
    assert!(matches!(at("contacts.kin.name"), Target::Sealed(r) if r == policy.rules[3]));
    assert!(matches!(at("contacts.kin"), Target::Above(_)));
    assert!(matches!(at("contacts.kind"), Target::Plain));
    assert!(map.lookup("clinic", "visits").is_none());
    assert!(map.lookup("other", "patients").is_none());
    assert!(map.protects_db("clinic") && !map.protects_db("other"));
    assert_eq!(map.rules().count(), 4);
    assert_eq!(map.policies().count(), 1);
}

#[test]
fn gives_each_namespace_of_a_pattern_its_own_domain() {
    let spec = CollectionSpec::new(
        "tenant_*.patients",
        [
            FieldSpec::random("notes"),
            FieldSpec::deterministic("nhs", "string").with_domain("nhs"),
        ],
    );
    let map = FieldMap::build(vec![spec]).unwrap();
    let one = map.lookup("tenant_1", "patients").unwrap();
    let two = map.lookup("tenant_2", "patients").unwrap();
    assert_eq!(&*one.rules[0].domain, "tenant_1.patients.notes");
    assert_eq!(&*two.rules[0].domain, "tenant_2.patients.notes");
    assert_eq!(one.rules[1].domain, two.rules[1].domain);
    assert!(Arc::ptr_eq(&one, &map.lookup("tenant_1", "patients").unwrap()));
    assert!(map.lookup("clinic", "patients").is_none());
    assert!(map.protects_db("tenant_9") && !map.protects_db("clinic"));
    let label = map.rules().next().unwrap();
    assert_eq!((label.0, &*label.1.path), ("tenant_*.patients", "notes"));
}

#[test]
fn lets_an_exact_name_win_over_a_pattern() {
    let map = FieldMap::build(vec![
        CollectionSpec::new("*.patients", [FieldSpec::random("a")]),
        CollectionSpec::new("clinic.patients", [FieldSpec::random("b")]),
    ])
    .unwrap();
    assert_eq!(&*map.lookup("clinic", "patients").unwrap().rules[0].path, "b");
    assert_eq!(&*map.lookup("other", "patients").unwrap().rules[0].path, "a");
}

#[test]
fn never_protects_the_servers_own_namespaces_nor_the_vault() {
    let vault = Namespace::parse("encryption.__keyVault");
    let map = FieldMap::build_beside(
        vec![CollectionSpec::new("*.*", [FieldSpec::random("a")])],
        vault.clone(),
    )
    .unwrap();
    for (db, collection) in [
        ("admin", "x"),
        ("config", "x"),
        ("local", "x"),
        ("clinic", "system.views"),
        ("encryption", "__keyVault"),
        ("encryption", "__keyVault.leases"),
    ] {
        assert!(map.lookup(db, collection).is_none(), "{db}.{collection}");
    }
    assert!(map.lookup("encryption", "other").is_some());
    assert!(!map.protects_db("admin"));
    for namespace in ["admin.users", "x.system.users", "encryption.__keyVault"] {
        let spec = CollectionSpec::new(namespace, [FieldSpec::random("a")]);
        assert!(
            FieldMap::build_beside(vec![spec], vault.clone()).is_err(),
            "{namespace}"
        );
    }
}

#[test]
fn keeps_the_memory_of_resolved_names_bounded() {
    let map = FieldMap::build(vec![CollectionSpec::new("*.p", [FieldSpec::random("a")])]).unwrap();
    for n in 0..MAX_RESOLVED + 10 {
        assert!(map.lookup(&format!("t{n}"), "p").is_some());
    }
    let held: usize = map.resolved.read().unwrap().values().map(HashMap::len).sum();
    assert!(held <= MAX_RESOLVED, "{held}");
}

#[test]
fn keeps_own_domains_within_their_letters_and_length() {
    let long = "p".repeat(120);
    let map = FieldMap::build(vec![CollectionSpec::new(
        "*.*",
        [FieldSpec::random(&long), FieldSpec::random("prénom")],
    )])
    .unwrap();
    let one = map.lookup("t", &"c".repeat(150)).unwrap();
    let two = map.lookup("t", &format!("{}d", "c".repeat(150))).unwrap();
    assert!(one.rules[0].domain.len() <= domain::MAX_DOMAIN);
    assert_ne!(one.rules[0].domain, two.rules[0].domain);
    let odd = map.lookup("t", "a/b c").unwrap();
    assert_eq!(&*odd.rules[1].domain, "t.a%2Fb%20c.pr%C3%A9nom");
}

#[test]
fn rejects_paths_that_cannot_be_kept() {
    for (path, reason) in [
        ("_id", "address"),
        ("_id.x", "address"),
        ("", "no name"),
        ("a..b", "empty component"),
        ("a.$[].b", "begins with `$`"),
        ("$a", "begins with `$`"),
        ("a.0.b", "is a number"),
        ("a\0b", "NUL"),
    ] {
        assert_refused(FieldSpec::random(path), reason);
    }
}

#[test]
fn rejects_types_without_one_stored_form() {
    for (declared, reason) in [
        ("double", "several encodings"),
        ("decimal", "several encodings"),
        ("bool", "two ciphertexts"),
        ("object", "order"),
        ("array", "order"),
        ("text", "not a type"),
    ] {
        assert_refused(FieldSpec::deterministic("x", declared), reason);
    }
    let untyped = FieldSpec {
        declared: None,
        ..FieldSpec::deterministic("x", "string")
    };
    assert_refused(untyped, "needs its `type`");
}

#[test]
fn rejects_settings_that_do_not_fit_the_mode() {
    let det = || FieldSpec::deterministic("x", "string");
    let rnd = || FieldSpec::random("x");
    assert_refused(
        det().with_algorithm("aes-256-gcm"),
        "different ciphertext each time",
    );
    assert_refused(rnd().with_algorithm("aes-256-siv"), "equal ciphertexts");
    assert_refused(rnd().with_algorithm("rot13"), "not an algorithm");
    assert_refused(det().with_each(), "`each` is for random");
    assert_refused(
        FieldSpec {
            declared: Some("string".into()),
            ..rnd()
        },
        "any type",
    );
    assert_refused(
        FieldSpec {
            accept_leakage: Some("x".into()),
            ..rnd()
        },
        "nothing to accept",
    );
    assert_refused(
        FieldSpec {
            accept_leakage: Some(" ".into()),
            ..det()
        },
        "is empty",
    );
    assert_refused(
        FieldSpec {
            mode: "queryable".into(),
            ..rnd()
        },
        "not a mode",
    );
    assert_refused(det().with_domain(""), "domain is empty");
    assert_refused(det().with_domain("a/b"), "character");
    assert_refused(det().with_domain("*"), "character");
    assert_refused(det().with_domain("fieldveil.audit"), "own keys");
    assert_refused(det().with_domain(&"x".repeat(201)), "201 bytes");
    assert_eq!(
        mistakes([CollectionSpec::new("a.b", [rnd().with_each()])]),
        Vec::<String>::new()
    );
    for csfle in ["csfle", "aead-aes-256-cbc-hmac-sha-512"] {
        let map = FieldMap::build(vec![CollectionSpec::new(
            "a.b",
            [
                det().with_algorithm(csfle),
                FieldSpec::random("y").with_algorithm(csfle),
            ],
        )])
        .unwrap();
        let suites: Vec<_> = map.rules().map(|(_, rule)| rule.suite).collect();
        assert_eq!(suites, [Suite::CsfleDeterministic, Suite::CsfleRandom]);
    }
}

#[test]
fn rejects_paths_that_overlap_and_subjects_that_are_not_searchable() {
    let found = mistakes([CollectionSpec::new(
        "a.b",
        [FieldSpec::random("c"), FieldSpec::random("c.d")],
    )]);
    assert!(found[0].starts_with("a.b: c.d: lies below `c`"), "{found:?}");
    let found = mistakes([CollectionSpec::new(
        "a.b",
        [FieldSpec::random("c"), FieldSpec::random("c")],
    )]);
    assert!(found[0].contains("listed twice"), "{found:?}");
    for subject in ["missing", "notes"] {
        let found = mistakes([CollectionSpec {
            subject: Some(subject.into()),
            ..CollectionSpec::new("a.b", [FieldSpec::random("notes")])
        }]);
        assert!(
            found[0].contains("not one of its deterministic fields"),
            "{found:?}"
        );
    }
    assert!(mistakes([CollectionSpec::new("a.b", [])])[0].contains("names no field"));
}

#[test]
fn rejects_namespaces_that_are_malformed_repeated_or_ambiguous() {
    let spec = |namespace: &str| CollectionSpec::new(namespace, [FieldSpec::random("x")]);
    for namespace in ["", "clinic", ".patients", "clinic.", "a b.c", "a.$c", "a.c\0d"] {
        assert!(
            mistakes([spec(namespace)])[0].contains("not the name of a collection"),
            "{namespace}"
        );
    }
    assert!(mistakes([spec("a.b"), spec("a.b")])[0].contains("appears twice"));
    assert!(mistakes([spec("tenant_*.p"), spec("*_1.p")])[0].contains("match both"));
    assert!(mistakes([spec("tenant_*.p"), spec("clinic_*.p")]).is_empty());
}

#[test]
fn rejects_domains_that_would_not_join() {
    let a = CollectionSpec::new(
        "a.a",
        [FieldSpec::deterministic("n", "string").with_domain("nhs")],
    );
    let b = |field: FieldSpec| CollectionSpec::new("a.b", [field.with_domain("nhs")]);
    assert!(mistakes([a.clone(), b(FieldSpec::deterministic("m", "string"))]).is_empty());
    assert!(mistakes([a.clone(), b(FieldSpec::random("m"))]).is_empty());
    for other in [
        FieldSpec::deterministic("m", "long"),
        FieldSpec::deterministic("m", "string").with_algorithm("csfle"),
    ] {
        let found = mistakes([a.clone(), b(other)]);
        assert!(
            found[0].contains("a join would silently find nothing"),
            "{found:?}"
        );
    }
    let found = mistakes([
        CollectionSpec::new("a.b", [FieldSpec::random("c.d")]),
        CollectionSpec::new("a.b.c", [FieldSpec::random("d")]),
    ]);
    assert!(found[0].contains("spelt like that of a.b: c.d"), "{found:?}");
}

#[test]
fn warns_of_few_values_unless_the_reason_is_given() {
    let warned = |field: FieldSpec| {
        FieldMap::build(vec![CollectionSpec::new("a.b", [field])])
            .unwrap()
            .warnings()
            .len()
    };
    assert_eq!(
        warned(FieldSpec::deterministic("person.Blood_Group", "string")),
        1
    );
    assert_eq!(warned(FieldSpec::deterministic("seen_at", "date")), 1);
    assert_eq!(warned(FieldSpec::deterministic("nhs_number", "string")), 0);
    assert_eq!(warned(FieldSpec::random("sex")), 0);
    let accepted = FieldSpec {
        accept_leakage: Some("needed for recall letters".into()),
        ..FieldSpec::deterministic("postcode", "string")
    };
    assert_eq!(warned(accepted), 0);
}

#[test]
fn tells_every_mistake_at_once() {
    let found = mistakes([
        CollectionSpec::new(
            "a",
            [FieldSpec::random("_id"), FieldSpec::deterministic("x", "bool")],
        ),
        CollectionSpec::new("admin.b", [FieldSpec::random("a..b")]),
    ]);
    assert_eq!(found.len(), 5, "{found:#?}");
}

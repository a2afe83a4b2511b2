//! The rooms and their arrows, checked from the code's own `use` lines: an arrow may only point to a lower layer (or
//! stay in its room), layers 0 to 4 name no runtime, socket, file, environment or clock, no file outgrows its bound
//! without a reason, and every file is reachable from the crate root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by layer. A room may use lower layers; beside it only what `SIDEWAYS` lists.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["secret", "name", "error", "limits"]),
    (1, &["wire", "bson", "crypto"]),
    (2, &["policy", "keys", "config", "event"]),
    (3, &["command", "plan", "topology"]),
    (4, &["session"]),
    (5, &["proxy", "kms", "store", "tls", "audit", "metrics", "admin"]),
    (6, &["app", "cli"]),
];

/// Arrows within a layer, each with its reason.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("secret", "error", "words may use words"),
    ("config", "policy", "the configuration builds the field map"),
    ("command", "plan", "commands draft plans"),
    ("proxy", "audit", "connections report events"),
    ("proxy", "metrics", "connections count"),
    ("proxy", "store", "connections resolve keys"),
    ("proxy", "tls", "connections dial"),
    ("admin", "metrics", "the admin listener shows them"),
    ("kms", "metrics", "providers are measured"),
    ("store", "kms", "keys are unwrapped by a provider"),
    ("cli", "app", "subcommands build the application"),
];

/// Below layer 5 nothing may name these.
const BANNED: &[&str] = &[
    "tokio",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "SystemTime",
    "Instant",
    "prometheus",
    "tracing",
];

/// Files past the bound, each with its reason.
const LARGE: &[(&str, &str)] = &[];
const BOUND: usize = 400;

#[test]
fn arrows_point_down() {
    let mut wrong = BTreeSet::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        for used in used_rooms(&text) {
            if used == room || layer(&used) < layer(&room) {
                continue;
            }
            if !SIDEWAYS.iter().any(|(from, to, _)| *from == room && *to == used) {
                wrong.insert(format!(
                    "{} uses {used} (layer {:?} from {:?})",
                    path.display(),
                    layer(&used),
                    layer(&room)
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that do not point down:\n{}",
        list(&wrong)
    );
}

#[test]
fn lower_layers_touch_nothing_of_the_world() {
    let mut wrong = BTreeSet::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        if layer(&room).is_none_or(|layer| layer >= 5) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for banned in BANNED {
                let named = line.match_indices(banned).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                });
                if named {
                    wrong.insert(format!("{}:{number} names {banned}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", list(&wrong));
}

#[test]
fn files_stay_small() {
    let mut wrong = BTreeSet::new();
    for (path, text) in sources() {
        let lines = code_lines(&text).count();
        if path.ends_with("tests.rs") {
            continue;
        }
        let excused = LARGE.iter().any(|(file, _)| path.ends_with(file));
        if lines > BOUND && !excused {
            wrong.insert(format!("{} has {lines} lines of code", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "past {BOUND} lines of code, ask whether it is two files:\n{}",
        list(&wrong)
    );
}

#[test]
fn every_file_is_reachable_and_says_what_it_owns() {
    let all: BTreeMap<PathBuf, String> = sources().collect();
    let mut wrong = BTreeSet::new();
    for (path, text) in &all {
        let is_test = path
            .components()
            .any(|c| c.as_os_str().to_string_lossy().starts_with("tests"));
        if !text.starts_with("//!") && !is_test {
            wrong.insert(format!("{} does not begin with what it owns", path.display()));
        }
        let name = path.file_stem().and_then(|s| s.to_str()).unwrap();
        if matches!(name, "lib" | "main") {
            continue;
        }
        let parent = path.parent().unwrap();
        let (declared_as, owners) = if name == "mod" {
            let dir = parent.file_name().and_then(|s| s.to_str()).unwrap();
            (
                dir,
                vec![
                    parent.parent().unwrap().join("mod.rs"),
                    parent.parent().unwrap().join("lib.rs"),
                    parent.parent().unwrap().with_extension("rs"),
                ],
            )
        } else {
            (
                name,
                vec![
                    parent.join("mod.rs"),
                    parent.join("lib.rs"),
                    parent.with_extension("rs"),
                ],
            )
        };
        let declared = owners
            .iter()
            .filter_map(|owner| all.get(owner))
            .any(|text| text.contains(&format!("mod {declared_as};")));
        if !declared {
            wrong.insert(format!("{} is declared nowhere", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", list(&wrong));
}

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 50, "the sources were not found");
    found.into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    })
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Lines of code with their numbers, up to the inline tests, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//") && !line.trim().is_empty())
        .map(|(number, line)| (number + 1, line))
}

fn used_rooms(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (_, line) in code_lines(text) {
        for (at, _) in line.match_indices("crate::") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let names = rest.strip_prefix('{').map_or(rest, |inner| inner);
            let name: String = names
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if layer(&name).is_some() {
                rooms.insert(name);
            }
        }
    }
    rooms
}

fn room_of(path: &Path) -> Option<String> {
    let inside = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let room = first.trim_end_matches(".rs");
    (!matches!(room, "lib" | "main")).then(|| room.to_owned())
}

fn layer(room: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(_, rooms)| rooms.contains(&room))
        .map(|(layer, _)| *layer)
}

fn list(lines: &BTreeSet<String>) -> String {
    lines.iter().cloned().collect::<Vec<_>>().join("\n")
}

//! Which compressors each side may use: a listener says so itself, the upstream in its connection string.

use crate::config::ConnectionUri;
use crate::config::raw;
use crate::config::report::Mistakes;
use crate::config::table::At;
use crate::wire::compress::ZLIB_LEVEL;
use crate::wire::{Compressor, Compressors};

const HINT: &str = "the known ones are snappy, zlib and zstd";

/// What applications may use: everything, unless the listener has a list.
pub(super) fn listener(list: Option<&At<Vec<String>>>, out: &mut Mistakes) -> Compressors {
    list.map_or_else(Compressors::all, |list| {
        known(
            list.line,
            "compression",
            list.value.iter().map(String::as_str),
            out,
        )
    })
}

/// What the upstream is offered, and zlib's level: nothing, unless the connection string has `compressors`.
pub(super) fn upstream(
    section: Option<&raw::Upstream>,
    uri: Option<&ConnectionUri>,
    out: &mut Mistakes,
) -> (Compressors, u8) {
    let (Some(section), Some(uri)) = (section, uri) else {
        return (Compressors::default(), ZLIB_LEVEL);
    };
    let compressors = match uri.compressors() {
        // Some drivers' word for an empty list.
        None | Some("none") => Compressors::default(),
        Some(list) => known(section.line, "upstream.uri: compressors", list.split(','), out),
    };
    let level = match uri.zlib_level() {
        // Drivers' word for the default.
        None | Some("-1") => Some(ZLIB_LEVEL),
        Some(text) => text.parse().ok().filter(|level| *level <= 9),
    };
    if level.is_none() {
        out.add(
            section.line,
            "upstream.uri: zlibCompressionLevel is out of range",
            "write a number from 0 to 9, or -1 for the default",
        );
    }
    (compressors, level.unwrap_or(ZLIB_LEVEL))
}

fn known<'a>(
    line: usize,
    key: &str,
    names: impl Iterator<Item = &'a str>,
    out: &mut Mistakes,
) -> Compressors {
    names
        .filter_map(|name| {
            let compressor = Compressor::from_name(name);
            if compressor.is_none() {
                out.add(line, format!("`{key}` names an unknown compressor"), HINT);
            }
            compressor
        })
        .collect()
}

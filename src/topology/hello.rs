//! The hello document, both ways: what the server says about the deployment, and what a client says about itself. Owns
//! the list of fields that are rewritten; every other field passes byte for byte.

use super::copier::{Copier, string_value};
use super::hosts::Address;
use super::names::Names;
use crate::bson::build::Builder;
use crate::bson::{Doc, Element, Malformed, kind};
use crate::limits;

/// Longest client-supplied name that is passed on to audit, in bytes: the server refuses longer application names.
const MAX_FACT: usize = 128;

/// The server's hello reply as the driver may see it: member addresses become the listeners' (those without a listener
/// are left out), message and batch limits are lowered so that a batch still fits once sealed, and `compression` becomes
/// `compressors` (left out when empty), whatever the server negotiated with us. Standalone servers and mongos send no
/// addresses: for them only the limits change.
///
/// With `service` the client is behind a load balancer: it is told that id, and no address at all.
///
/// # Errors
/// [`Malformed`] where the reply is not BSON; nothing of it may be passed on then.
pub fn rewrite(
    reply: Doc<'_>,
    names: &Names<'_>,
    compressors: &[&str],
    service: Option<&[u8; 12]>,
) -> Result<Vec<u8>, Malformed> {
    let mut out = Copier::new(reply);
    for element in reply.elements() {
        let element = element?;
        match element.key {
            b"hosts" | b"passives" | b"arbiters" | b"me" | b"primary" if service.is_some() => {}
            b"hosts" | b"passives" | b"arbiters" => {
                if let Some(list) = listed(names, &element)? {
                    out.put(kind::ARRAY, &element, &list);
                }
            }
            b"me" | b"primary" => {
                if let Some(address) = one(names, &element) {
                    out.put(kind::STRING, &element, &string_value(address.as_str()));
                }
            }
            b"errmsg" => match element.text().and_then(|text| names.text(text)) {
                Some(text) => out.put(kind::STRING, &element, &string_value(&text)),
                None => out.keep(&element),
            },
            b"maxMessageSizeBytes" => out.lowered(&element, limits::ADVERTISED_MESSAGE),
            b"maxWriteBatchSize" => out.lowered(&element, limits::ADVERTISED_BATCH),
            // A server behind another load balancer has an id of its own; ours names this process.
            b"compression" | b"serviceId" => {}
            _ => out.keep(&element),
        }
    }
    if !compressors.is_empty() {
        out.append(&string_array("compression", compressors));
    }
    if let Some(service) = service {
        let mut id = Builder::new();
        id.raw(kind::OBJECT_ID, "serviceId", service);
        out.append(&id.finish());
    }
    Ok(out.finish())
}

/// The member that a hello reply says it comes from.
///
/// # Errors
/// [`Malformed`] where the reply is not BSON.
pub fn me(reply: Doc<'_>) -> Result<Option<Address>, Malformed> {
    Ok(reply
        .get(b"me")?
        .and_then(|me| me.text())
        .and_then(Address::parse))
}

fn one<'n>(names: &Names<'n>, element: &Element<'_>) -> Option<&'n Address> {
    names.shown(&Address::parse(element.text()?)?)
}

/// The array's members that have a listener, in its order; `None` where it is no array.
fn listed(names: &Names<'_>, element: &Element<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(members) = element.document()? else {
        return Ok(None);
    };
    let mut shown = Builder::new();
    let mut count = 0usize;
    for member in members.elements() {
        if let Some(address) = one(names, &member?) {
            shown.string(&count.to_string(), address.as_str());
            count += 1;
        }
    }
    Ok(Some(shown.finish()))
}

/// The client's hello as it goes upstream: what we offer (if anything) in place of its `compression`, which is between the
/// client and us, as is `loadBalanced` (a router would refuse it), and without a speculative authentication by certificate:
/// the server would see ours, and take the client for the proxy. `None` where nothing changes, so that the bytes it sent go
/// on. A command wrapped in `$query` (by `OP_QUERY`
/// drivers) is looked into.
///
/// # Errors
/// [`Malformed`] where the document is not BSON.
pub fn rewrite_request(hello: Doc<'_>, offer: &[&str]) -> Result<Option<Vec<u8>>, Malformed> {
    let wrapped = wrapped_command(hello)?;
    let mut out = Copier::new(hello);
    let mut changed = false;
    let (mut offer, inside): (&[&str], &[&str]) = match wrapped {
        Some(_) => (&[], offer),
        None => (offer, &[]),
    };
    for (n, element) in hello.elements().enumerate() {
        let element = element?;
        match wrapped {
            Some(inner) if n == 0 => match rewrite_request(inner, inside)? {
                Some(inner) => {
                    changed = true;
                    out.put(kind::DOCUMENT, &element, &inner);
                }
                None => out.keep(&element),
            },
            _ if element.key == b"loadBalanced" => changed = true,
            _ if element.key == b"compression" => {
                if names(&element)?.is_some() {
                    changed = true;
                } else {
                    // The server says what is wrong with it.
                    offer = &[];
                    out.keep(&element);
                }
            }
            _ if element.key == b"speculativeAuthenticate" && !is_conversation(&element)? => changed = true,
            _ => out.keep(&element),
        }
    }
    if !offer.is_empty() {
        changed = true;
        out.append(&string_array("compression", offer));
    }
    Ok(changed.then(|| out.finish()))
}

/// The strings of an array, as the server reads a list of compressors: an absent element is nothing, and any other kind of
/// element, or of value, is a mistake (`None`).
fn names<'a>(element: &Element<'a>) -> Result<Option<Vec<&'a str>>, Malformed> {
    if element.kind != kind::ARRAY {
        return Ok(None);
    }
    let Some(list) = element.document()? else {
        return Ok(None);
    };
    let mut names = Vec::new();
    for item in list.elements() {
        let item = item?;
        match item.text() {
            // Three compressors exist: a longer list says nothing more.
            Some(name) if names.len() < 8 => names.push(name),
            Some(_) => {}
            None if item.kind == kind::NULL => {}
            None => return Ok(None),
        }
    }
    Ok(Some(names))
}

/// Whether a speculative authentication is a SASL conversation, whose secret the client itself must know.
fn is_conversation(speculative: &Element<'_>) -> Result<bool, Malformed> {
    let Some(start) = speculative.document()? else {
        return Ok(false);
    };
    let mut conversation = false;
    for (n, element) in start.elements().enumerate() {
        let element = element?;
        if n == 0 {
            conversation = element.key == b"saslStart";
        }
        conversation &= element.key != b"mechanism" || element.text() != Some("MONGODB-X509");
    }
    Ok(conversation)
}

/// What a client's hello says about itself. All of it is the client's own word: good for audit, not for a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloFacts<'a> {
    /// `client.application.name`.
    pub application: Option<&'a str>,
    /// `client.driver.name`.
    pub driver: Option<&'a str>,
    /// `client.driver.version`.
    pub driver_version: Option<&'a str>,
    /// `compression`, in the client's order; `None` where it has none, or no list of names.
    pub compressors: Option<Vec<&'a str>>,
    /// `loadBalanced`: it takes whoever answers for the whole deployment.
    pub load_balanced: bool,
}

/// Reads [`HelloFacts`]; a field that is missing, of another type or longer than 128 bytes is `None`.
///
/// # Errors
/// [`Malformed`] where the document is not BSON on the way to these fields.
pub fn facts<'a>(hello: Doc<'a>) -> Result<HelloFacts<'a>, Malformed> {
    let hello = wrapped_command(hello)?.unwrap_or(hello);
    let mut facts = HelloFacts {
        load_balanced: hello.get(b"loadBalanced")?.is_some_and(|flag| flag.truthy()),
        ..HelloFacts::default()
    };
    if let Some(client) = embedded(hello, b"client")? {
        if let Some(application) = embedded(client, b"application")? {
            facts.application = short_text(application, b"name")?;
        }
        if let Some(driver) = embedded(client, b"driver")? {
            facts.driver = short_text(driver, b"name")?;
            facts.driver_version = short_text(driver, b"version")?;
        }
    }
    if let Some(offered) = hello.get(b"compression")? {
        facts.compressors = names(&offered)?;
    }
    Ok(facts)
}

/// A document with one array of strings.
fn string_array(key: &str, items: &[&str]) -> Vec<u8> {
    let mut builder = Builder::new();
    builder.array(key);
    for (n, item) in items.iter().enumerate() {
        builder.string(&n.to_string(), item);
    }
    builder.end();
    builder.finish()
}

/// The command inside `{$query: {…}, …}`, which servers unwrap where it is the first field.
///
/// # Errors
/// [`Malformed`] where the first field is not BSON.
pub fn wrapped_command(doc: Doc<'_>) -> Result<Option<Doc<'_>>, Malformed> {
    match doc.elements().next().transpose()? {
        Some(first) if matches!(first.key, b"$query" | b"query") && first.kind == kind::DOCUMENT => {
            first.document()
        }
        _ => Ok(None),
    }
}

fn embedded<'a>(doc: Doc<'a>, key: &[u8]) -> Result<Option<Doc<'a>>, Malformed> {
    doc.get(key)?.map_or(Ok(None), |element| element.document())
}

fn short_text<'a>(doc: Doc<'a>, key: &[u8]) -> Result<Option<&'a str>, Malformed> {
    let text = doc.get(key)?.and_then(|element| element.text());
    Ok(text.filter(|text| text.len() <= MAX_FACT))
}

#[cfg(test)]
mod tests;

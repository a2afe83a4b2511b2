//! `$jsonSchema`: what it may say about protected fields. The server evaluates it on ciphertext, so a keyword that
//! looks at a protected value would accept or refuse by accident; everything else means what it meant.
//! Knows shapes, not commands. Source: SEMANTICS B1.7, B4; the server manual's list of keywords.

use super::definition::Purpose;
use super::document::shape_of;
use crate::bson::{Doc, Element, kind};
use crate::limits;
use crate::plan::draft::malformed;
use crate::policy::{FieldRule, Reason, Refusal, Shape, Tree};

/// Whether this schema can be evaluated on what is stored.
///
/// # Errors
/// A [`Refusal`] naming the keyword and the field.
pub fn judge(schema: &Element<'_>, shape: &Shape, purpose: Purpose) -> Result<(), Refusal> {
    Judge { purpose }.schema(schema, shape, "", 1)
}

struct Judge {
    purpose: Purpose,
}

impl Judge {
    fn schema(&self, element: &Element<'_>, shape: &Shape, path: &str, depth: usize) -> Result<(), Refusal> {
        if matches!(shape, Shape::Plain) {
            return Ok(());
        }
        if depth > limits::MAX_DEPTH {
            return Err(Refusal::new(
                Reason::Malformed,
                "a schema nests deeper than 200 levels",
            ));
        }
        let doc = document(element)?;
        for keyword in doc.elements() {
            let keyword = keyword.map_err(malformed)?;
            if matches!(keyword.key, b"title" | b"description") {
                continue;
            }
            match (keyword.key, shape) {
                (b"allOf" | b"anyOf" | b"oneOf", _) => {
                    self.each(&keyword, shape, path, depth)?;
                }
                (b"not", _) => self.schema(&keyword, shape, path, depth + 1)?,
                (_, Shape::Tree(tree)) => self.around(&keyword, &doc, shape, tree, path, depth)?,
                (_, Shape::Sealed(rule)) => self.sealed(&keyword, shape, rule, depth)?,
                _ => return Err(self.refuse(&keyword, path)),
            }
        }
        Ok(())
    }

    /// A keyword about a document (or an array of documents) that holds protected fields.
    fn around(
        &self,
        keyword: &Element<'_>,
        schema: &Doc<'_>,
        shape: &Shape,
        tree: &Tree,
        path: &str,
        depth: usize,
    ) -> Result<(), Refusal> {
        match keyword.key {
            // Names and numbers of fields and items, which sealing keeps; and constraints on scalars, which a document
            // never met.
            b"required" | b"minProperties" | b"maxProperties" | b"bsonType" | b"type" | b"minItems"
            | b"maxItems" | b"minimum" | b"maximum" | b"exclusiveMinimum" | b"exclusiveMaximum"
            | b"minLength" | b"maxLength" | b"pattern" | b"multipleOf" => Ok(()),
            b"properties" => {
                for property in document(keyword)?.elements() {
                    let property = property.map_err(malformed)?;
                    let name = property.key_text();
                    let below = if path.is_empty() {
                        name.into_owned()
                    } else {
                        format!("{path}.{name}")
                    };
                    let child = shape_of(&shape.resolve(property.key));
                    // A property's name is no path, but one that reads like a protected path is ambiguous.
                    if property.key.contains(&b'.') && !child.is_plain() {
                        return Err(self.refuse(keyword, &below));
                    }
                    self.schema(&property, &child, &below, depth + 1)?;
                }
                Ok(())
            }
            b"additionalProperties" if keyword.kind == kind::BOOL => Ok(()),
            b"additionalProperties" => {
                let listed = schema.get(b"properties").map_err(malformed)?;
                let listed = match &listed {
                    Some(properties) => Some(document(properties)?),
                    None => None,
                };
                for (name, child) in tree.fields() {
                    let is_listed = match &listed {
                        Some(properties) => properties.get(name).map_err(malformed)?.is_some(),
                        None => false,
                    };
                    if !is_listed && !child.is_plain() && !is_vacuous(keyword)? {
                        return Err(self.refuse(keyword, &String::from_utf8_lossy(name)));
                    }
                }
                Ok(())
            }
            // Which names a pattern takes in is not looked at: any of them could be protected.
            b"patternProperties" => {
                for pattern in document(keyword)?.elements() {
                    if !is_vacuous(&pattern.map_err(malformed)?)? {
                        return Err(self.refuse(keyword, path));
                    }
                }
                Ok(())
            }
            b"dependencies" => {
                for dependency in document(keyword)?.elements() {
                    let dependency = dependency.map_err(malformed)?;
                    if dependency.kind != kind::ARRAY {
                        self.schema(&dependency, shape, path, depth + 1)?;
                    }
                }
                Ok(())
            }
            b"items" | b"additionalItems" => self.items(keyword, shape, path, depth),
            b"uniqueItems" if !keyword.truthy() => Ok(()),
            _ => Err(self.refuse(keyword, path)),
        }
    }

    /// A keyword about a sealed value.
    fn sealed(
        &self,
        keyword: &Element<'_>,
        shape: &Shape,
        rule: &FieldRule,
        depth: usize,
    ) -> Result<(), Refusal> {
        match keyword.key {
            b"bsonType" if self.purpose == Purpose::Stored && is_stored_type(keyword, rule)? => Ok(()),
            // The server's own check of CSFLE values: it looks at the subtype and the type byte.
            b"encrypt" if self.purpose == Purpose::Stored && rule.suite.subtype() == 6 => Ok(()),
            b"items" | b"additionalItems" if rule.seals_elements() => {
                self.items(keyword, shape, &rule.path, depth)
            }
            b"minItems" | b"maxItems" if rule.seals_elements() => Ok(()),
            b"uniqueItems" if !keyword.truthy() => Ok(()),
            _ => Err(self.refuse(keyword, &rule.path)),
        }
    }

    fn items(&self, keyword: &Element<'_>, shape: &Shape, path: &str, depth: usize) -> Result<(), Refusal> {
        match keyword.kind {
            kind::BOOL => Ok(()),
            kind::ARRAY => self.each(keyword, shape, path, depth),
            _ => self.schema(keyword, shape, path, depth + 1),
        }
    }

    fn each(&self, list: &Element<'_>, shape: &Shape, path: &str, depth: usize) -> Result<(), Refusal> {
        let Some(array) = list
            .document()
            .map_err(malformed)?
            .filter(|_| list.kind == kind::ARRAY)
        else {
            return Err(misformed(list));
        };
        for item in array.elements() {
            self.schema(&item.map_err(malformed)?, shape, path, depth + 1)?;
        }
        Ok(())
    }

    fn refuse(&self, keyword: &Element<'_>, path: &str) -> Refusal {
        let field = if path.is_empty() {
            "the whole document"
        } else {
            path
        };
        Refusal::new(
            Reason::Unanalysable,
            format!(
                "$jsonSchema keyword '{}' on '{field}': the server would judge ciphertext; leave protected fields to 'required'{}, and check their values in the application",
                keyword.key_text(),
                match self.purpose {
                    Purpose::Stored => " and `bsonType: \"binData\"`",
                    Purpose::Asked => "",
                }
            ),
        )
    }
}

/// A schema that accepts whatever there is.
fn is_vacuous(element: &Element<'_>) -> Result<bool, Refusal> {
    let Some(doc) = element.document().map_err(malformed)? else {
        return Ok(false);
    };
    Ok(doc
        .elements()
        .all(|e| e.is_ok_and(|e| matches!(e.key, b"title" | b"description"))))
}

/// `binData`, which is what is stored, or `null`, which is never sealed; arrays where they are sealed item by item.
fn is_stored_type(keyword: &Element<'_>, rule: &FieldRule) -> Result<bool, Refusal> {
    let fits = |name: Option<&str>| {
        matches!(name, Some("binData" | "null")) || rule.seals_elements() && name == Some("array")
    };
    match keyword.document().map_err(malformed)? {
        Some(list) => Ok(list
            .elements()
            .all(|item| item.is_ok_and(|item| fits(item.text())))),
        None => Ok(fits(keyword.text())),
    }
}

fn document<'a>(element: &Element<'a>) -> Result<Doc<'a>, Refusal> {
    element
        .document()
        .map_err(malformed)?
        .filter(|_| element.kind == kind::DOCUMENT)
        .ok_or_else(|| misformed(element))
}

fn misformed(element: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::Malformed,
        format!(
            "$jsonSchema: '{}' is not of the kind it must be",
            element.key_text()
        ),
    )
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;
    use crate::command::rehearsal::{det, policy, rule};
    use crate::policy::{DeclaredType, Mode};

    fn judged(schema: Document, purpose: Purpose) -> Result<(), String> {
        let policy = policy(
            "c.p",
            vec![
                det("nhs", DeclaredType::String),
                rule("notes", Mode::Random),
                det("contacts.phone", DeclaredType::String),
            ],
        );
        let bytes = bson::serialize_to_vec(&doc! { "$jsonSchema": schema }).unwrap();
        let doc = Doc::at(&bytes, 0).unwrap();
        let element = doc.elements().next().unwrap().unwrap();
        judge(&element, &policy.shape, purpose).map_err(|refusal| refusal.text)
    }

    #[test]
    fn accepts_what_ciphertext_cannot_change() {
        for schema in [
            doc! { "bsonType": "object", "required": ["nhs", "ward"], "additionalProperties": false,
            "properties": { "nhs": {}, "notes": { "description": "free text" }, "ward": { "enum": ["A1", "B2"], "pattern": "^[A-Z]" } } },
            doc! { "properties": { "contacts": { "bsonType": "array", "minItems": 1, "items": { "required": ["phone"], "properties": { "kind": { "minLength": 2 } } } } } },
            doc! { "anyOf": [{ "required": ["nhs"] }, { "properties": { "ward": { "minLength": 1 } } }], "not": { "required": ["secret"] } },
            doc! { "dependencies": { "nhs": ["ward"], "ward": { "required": ["nhs"] } }, "patternProperties": { "^x": {} }, "minProperties": 2 },
            doc! { "properties": { "nhs": {}, "notes": {}, "contacts": {} }, "additionalProperties": { "bsonType": "int" } },
            doc! { "properties": { "nhs": { "minItems": 1 } } },
        ] {
            for purpose in [Purpose::Stored, Purpose::Asked] {
                assert_eq!(judged(schema.clone(), purpose), Ok(()), "{schema}");
            }
        }
        for stored in [
            doc! { "properties": { "nhs": { "bsonType": ["binData", "null"] }, "notes": { "bsonType": "binData" } } },
            doc! { "properties": { "nhs": { "bsonType": "array", "items": { "bsonType": "binData" } } } },
        ] {
            assert_eq!(judged(stored.clone(), Purpose::Stored), Ok(()), "{stored}");
            assert!(judged(stored, Purpose::Asked).is_err());
        }
    }

    #[test]
    fn rejects_what_would_judge_ciphertext() {
        for (schema, field) in [
            (doc! { "properties": { "nhs": { "bsonType": "string" } } }, "nhs"),
            (doc! { "properties": { "nhs": { "type": "string" } } }, "nhs"),
            (
                doc! { "properties": { "nhs": { "bsonType": ["binData", "string"] } } },
                "nhs",
            ),
            (doc! { "properties": { "nhs": { "pattern": "^SECRET" } } }, "nhs"),
            (doc! { "properties": { "nhs": { "enum": ["SECRET"] } } }, "nhs"),
            (doc! { "properties": { "notes": { "maxLength": 5 } } }, "notes"),
            (doc! { "properties": { "notes": { "minItems": 5 } } }, "notes"),
            (
                doc! { "properties": { "notes": { "properties": { "a": {} } } } },
                "notes",
            ),
            (
                doc! { "properties": { "notes": { "bsonType": "array" } } },
                "notes",
            ),
            (doc! { "properties": { "notes": { "encrypt": {} } } }, "notes"),
            (
                doc! { "properties": { "contacts": { "items": { "properties": { "phone": { "minLength": 3 } } } } } },
                "contacts.phone",
            ),
            (
                doc! { "properties": { "contacts": { "uniqueItems": true } } },
                "contacts",
            ),
            (
                doc! { "properties": { "contacts": { "enum": [[]] } } },
                "contacts",
            ),
            (
                doc! { "not": { "properties": { "nhs": { "maxLength": 3 } } } },
                "nhs",
            ),
            (
                doc! { "allOf": [{ "dependencies": { "ward": { "properties": { "nhs": { "minLength": 3 } } } } }] },
                "nhs",
            ),
            (
                doc! { "additionalProperties": { "bsonType": "string" } },
                "additionalProperties",
            ),
            (
                doc! { "patternProperties": { "^n": { "minLength": 3 } } },
                "patternProperties",
            ),
            (doc! { "enum": [{ "nhs": "SECRET" }] }, "enum"),
            (doc! { "surprise": 1 }, "surprise"),
        ] {
            let said = judged(schema.clone(), Purpose::Stored).unwrap_err();
            assert!(
                said.contains(field) && !said.contains("SECRET"),
                "{schema}: {said}"
            );
        }
    }
}

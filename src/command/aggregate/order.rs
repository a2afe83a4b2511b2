//! Stages that order documents or fill gaps between them: only by plain fields, since ciphertext has another order.

use super::{Flow, Planner, reshape};
use crate::bson::{Element, kind};
use crate::command::document::shape_of;
use crate::command::expression::shapes::{merge, protected_path};
use crate::command::expression::{Arguments, Variables, children, misformed, string};
use crate::policy::{Reason, Refusal, Shape, Target};

/// Sort keys: paths of plain values only.
pub(super) fn keys(name: &str, by: &Element<'_>, shape: &Shape) -> Result<(), Refusal> {
    if by.kind != kind::DOCUMENT {
        return Err(misformed(name));
    }
    for key in children(by)? {
        // `{$meta: …}`: by a score, whatever the key is called.
        if key.kind == kind::DOCUMENT {
            let inner = children(&key)?;
            if inner.iter().all(|f| f.key == b"$meta") && !inner.is_empty() {
                continue;
            }
            return Err(misformed(name));
        }
        plain_path(name, key.key, shape)?;
    }
    Ok(())
}

/// A path whose values are ordered, spaced or interpolated.
pub(super) fn plain_path(name: &str, path: &[u8], shape: &Shape) -> Result<(), Refusal> {
    let target = shape_of(&shape.resolve(path));
    if target.is_plain() {
        return Ok(());
    }
    let path = String::from_utf8_lossy(path);
    Err(match protected_path(&target) {
        Some(field) => Refusal::new(
            Reason::Order,
            format!(
                "{name} by '{path}': field '{field}' is sealed, and ciphertext has another order than the values; order by an unprotected field, or sort in the application"
            ),
        ),
        None => Refusal::new(
            Reason::UnknownShape,
            format!(
                "{name} by '{path}': it cannot be told here whether it holds protected values; put this stage before the one that makes it ambiguous"
            ),
        ),
    })
}

impl<'a> Planner<'_, '_, 'a, '_> {
    pub(super) fn densify(
        &mut self,
        stage: &Element<'a>,
        mut flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$densify";
        let named = Arguments::read(name, stage, &["field", "partitionByFields", "range"])?;
        let shape = flow.shape();
        let field = named.string(name, "field")?;
        plain_path(name, field, &shape)?;
        if let Some(fields) = named.get("partitionByFields") {
            self.partitioned(name, fields, &shape, variables)?;
        }
        // The documents that it makes have the field, whether or not the others do.
        flow.set(field, Shape::Plain)?;
        Ok(flow)
    }

    pub(super) fn fill(
        &mut self,
        stage: &Element<'a>,
        mut flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$fill";
        let named = Arguments::read(
            name,
            stage,
            &["partitionBy", "partitionByFields", "sortBy", "output"],
        )?;
        let shape = flow.shape();
        if let Some(by) = named.get("partitionBy") {
            self.at(&shape, variables).grouping(name, by)?;
        }
        if let Some(fields) = named.get("partitionByFields") {
            self.partitioned(name, fields, &shape, variables)?;
        }
        if let Some(by) = named.get("sortBy") {
            keys(name, by, &shape)?;
        }
        for field in children(named.need(name, "output")?)? {
            let how = Arguments::read(name, &field, &["value", "method"])?;
            let held = match shape.resolve(field.key) {
                Target::Sealed(rule) if !field.key.contains(&b'.') => Shape::Sealed(rule),
                _ => {
                    plain_path(name, field.key, &shape)?;
                    Shape::Plain
                }
            };
            let filled = match how.get("value") {
                // As `{$ifNull: ["$field", value]}`, which is what the server makes of it.
                Some(value) => {
                    let yielded = self.at(&shape, variables).stored(value, &held)?;
                    merge(&held, &yielded)
                }
                None if how.get("method").is_some_and(|method| string(method) == b"locf") => held,
                // It computes.
                None => {
                    plain_path(name, field.key, &shape)?;
                    Shape::Plain
                }
            };
            // Listed even where it is plain: from here on the documents have it.
            flow.set(field.key, filled)?;
        }
        Ok(flow)
    }

    /// Documents are told apart by the values of these fields.
    fn partitioned(
        &mut self,
        name: &str,
        fields: &Element<'a>,
        shape: &Shape,
        variables: &Variables,
    ) -> Result<(), Refusal> {
        for field in children(fields)? {
            let by = reshape::at_path(shape, string(&field))?;
            self.at(shape, variables).distinguishable(name, &by)?;
        }
        Ok(())
    }
}

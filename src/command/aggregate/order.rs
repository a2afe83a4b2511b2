//! Stages that order documents or fill gaps between them: only by plain fields, since ciphertext has another order.

use super::{Flow, Planner};
use crate::bson::{Element, kind};
use crate::command::document::shape_of;
use crate::command::expression::shapes::protected_path;
use crate::command::expression::{Arguments, Variables, children, misformed, not_plain, string};
use crate::policy::{Reason, Refusal, Shape};

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

pub(super) fn densify(stage: &Element<'_>, flow: Flow) -> Result<Flow, Refusal> {
    let name = "$densify";
    let named = Arguments::read(name, stage, &["field", "partitionByFields", "range"])?;
    let shape = flow.shape();
    plain_path(name, named.string(name, "field")?, &shape)?;
    if let Some(fields) = named.get("partitionByFields") {
        for field in children(fields)? {
            plain_path(name, string(&field), &shape)?;
        }
    }
    Ok(flow)
}

impl<'a> Planner<'_, '_, 'a, '_> {
    pub(super) fn fill(
        &mut self,
        stage: &Element<'a>,
        flow: Flow,
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
            self.at(&shape, variables).plain(name, by)?;
        }
        if let Some(fields) = named.get("partitionByFields") {
            for field in children(fields)? {
                plain_path(name, string(&field), &shape)?;
            }
        }
        if let Some(by) = named.get("sortBy") {
            keys(name, by, &shape)?;
        }
        for field in children(named.need(name, "output")?)? {
            plain_path(name, field.key, &shape)?;
            let how = Arguments::read(name, &field, &["value", "method"])?;
            if let Some(value) = how.get("value") {
                let yielded = self.at(&shape, variables).expression(value)?;
                if !yielded.is_plain() {
                    return Err(not_plain(name, &yielded));
                }
            }
        }
        Ok(flow)
    }
}

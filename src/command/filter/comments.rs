//! `$comment` wherever the server takes one below a path that holds nothing protected. It goes to the server's log and
//! profiler and could hold anything; the rest of such a condition is left as it is.

use super::written_operators;
use crate::bson::{Doc, Element};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal};

/// Drops the comments inside a condition on a path.
pub(super) fn drop_inside(
    draft: &mut Draft<'_>,
    condition: &Element<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let Some(operators) = written_operators(condition)? else {
        return Ok(());
    };
    too_deep(depth)?;
    let region = draft.open_doc(&operators);
    for operator in operators.elements() {
        operand(draft, &operator.map_err(malformed)?, depth)?;
    }
    draft.close(region, operators.end());
    Ok(())
}

fn operand(draft: &mut Draft<'_>, operator: &Element<'_>, depth: usize) -> Result<(), Refusal> {
    match operator.key {
        b"$not" => drop_inside(draft, operator, depth + 1),
        b"$elemMatch" => match operator.document().map_err(malformed)? {
            Some(fields) => clauses(draft, &fields, depth + 1),
            None => Ok(()),
        },
        b"$all" => each(draft, operator, depth, drop_inside),
        _ => Ok(()),
    }
}

fn clauses(draft: &mut Draft<'_>, doc: &Doc<'_>, depth: usize) -> Result<(), Refusal> {
    too_deep(depth)?;
    let region = draft.open_doc(doc);
    for clause in doc.elements() {
        let clause = clause.map_err(malformed)?;
        match clause.key {
            b"$comment" => draft.drop_element(&clause),
            b"$and" | b"$or" | b"$nor" => each(draft, &clause, depth, |draft, branch, depth| {
                match branch.document().map_err(malformed)? {
                    Some(branch) => clauses(draft, &branch, depth),
                    None => Ok(()),
                }
            })?,
            [b'$', ..] => operand(draft, &clause, depth)?,
            _ => drop_inside(draft, &clause, depth + 1)?,
        }
    }
    draft.close(region, doc.end());
    Ok(())
}

fn each(
    draft: &mut Draft<'_>,
    list: &Element<'_>,
    depth: usize,
    drop: impl Fn(&mut Draft<'_>, &Element<'_>, usize) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(items) = list.document().map_err(malformed)? else {
        return Ok(());
    };
    let region = draft.open_doc(&items);
    for item in items.elements() {
        drop(draft, &item.map_err(malformed)?, depth + 1)?;
    }
    draft.close(region, items.end());
    Ok(())
}

fn too_deep(depth: usize) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "filters nest deeper than 200 levels",
        ));
    }
    Ok(())
}

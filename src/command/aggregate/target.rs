//! What a pipeline stores: by `$out` and `$merge` in another collection, or as an update in its own. The rules of that
//! collection must agree with what its documents will hold, path by path. No sealed value leaves to an unprotected path,
//! and no plain one enters a protected path.

use super::scan::{self, array_of};
use super::stages::Kind;
use super::{Flow, PipelineContext, Planner, reshape};
use crate::bson::{Doc, Element, kind};
use crate::command::expression::shapes::{protected_path, same_seal};
use crate::command::expression::{Arguments, Variables, children, misformed, string};
use crate::plan::draft::malformed;
use crate::policy::{FieldState, Reason, Refusal, Rest, Shape, Tree};

impl<'a> Planner<'_, '_, 'a, '_> {
    pub(super) fn out(&mut self, stage: &Element<'a>, flow: Flow) -> Result<Flow, Refusal> {
        let target = scan::Target::read(stage, self.ctx)?;
        agree("$out", &target.name, &flow, &target.shape())?;
        Ok(flow)
    }

    pub(super) fn merge(
        &mut self,
        stage: &Element<'a>,
        flow: Flow,
        variables: &Variables,
        depth: usize,
    ) -> Result<Flow, Refusal> {
        let name = "$merge";
        if stage.kind == kind::STRING {
            let target = scan::Target::read(stage, self.ctx)?;
            agree(name, &target.name, &flow, &target.shape())?;
            return Ok(flow);
        }
        let named = Arguments::read(
            name,
            stage,
            &["into", "on", "let", "whenMatched", "whenNotMatched"],
        )?;
        let target = scan::Target::read(named.need(name, "into")?, self.ctx)?;
        let shape = target.shape();
        agree(name, &target.name, &flow, &shape)?;
        if let Some(on) = named.get("on") {
            let fields = if on.kind == kind::ARRAY {
                children(on)?
            } else {
                vec![*on]
            };
            for field in fields {
                // The same field on both sides: equal where it can be told apart at all.
                let stored = reshape::at_path(&shape, string(&field))?;
                self.at(&flow.shape(), variables)
                    .joinable(name, &stored, &stored)?;
            }
        }
        let Some(pipeline) = named.get("whenMatched").filter(|how| how.kind == kind::ARRAY) else {
            return Ok(flow);
        };
        let here = flow.shape();
        let mut inner = variables.clone();
        inner.bind(b"new", here.clone())?;
        if let Some(bound) = named.get("let") {
            for variable in children(bound)? {
                let yielded = self.at(&here, variables).expression(&variable)?;
                inner.bind(variable.key, yielded)?;
            }
        }
        let array = array_of(name, pipeline)?;
        for item in children(pipeline)? {
            if !super::update::is_update(scan::kind_of(&scan::stage_of(&item)?)?) {
                return Err(misformed(name));
            }
        }
        // What the update assigns is stored there: its constants are sealed by the target's rules.
        let before = self.stored.replace(shape.clone());
        let updated = self.stages(&array, Flow::open(shape.clone()), &inner, depth + 1);
        self.stored = before;
        agree(name, &target.name, &updated?, &shape)?;
        Ok(flow)
    }
}

/// The rules of the namespace that the last stage of a pipeline stores its documents in.
pub(super) fn at_end(array: &Doc<'_>, ctx: &PipelineContext<'_>) -> Result<Option<Shape>, Refusal> {
    let Some(last) = array.elements().last() else {
        return Ok(None);
    };
    let stage = scan::stage_of(&last.map_err(malformed)?)?;
    let named = match scan::kind_of(&stage)? {
        Kind::Out => Some(stage),
        Kind::Merge if stage.kind == kind::STRING => Some(stage),
        Kind::Merge => children(&stage)?.into_iter().find(|field| field.key == b"into"),
        _ => None,
    };
    match named {
        Some(named) => Ok(Some(scan::Target::read(&named, ctx)?.shape())),
        None => Ok(None),
    }
}

/// Whether documents of this flow may be stored under these rules.
fn agree(name: &str, target: &str, flow: &Flow, rules: &Shape) -> Result<(), Refusal> {
    Into {
        what: &format!("stage {name}"),
        target,
        reason: Reason::Stage,
        way: "list the fields with $project so that it is left out, or write through the application",
    }
    .all(flow, rules)
}

/// Whether documents of this flow may take the place of those that an update finds in `target`.
pub(super) fn agree_in_place(target: &str, flow: &Flow, rules: &Shape) -> Result<(), Refusal> {
    Into {
        what: "pipeline update",
        target,
        reason: Reason::PipelineUpdate,
        way: "assign it a constant or its own value (also by $cond, $switch, $ifNull), $unset it, or use update operators in an update of its own",
    }
    .all(flow, rules)
}

struct Into<'n> {
    /// What stores, for messages.
    what: &'n str,
    /// Where.
    target: &'n str,
    /// Why a plain value at a protected path is refused.
    reason: Reason,
    /// The way out of that.
    way: &'n str,
}

impl Into<'_> {
    fn all(&self, flow: &Flow, rules: &Shape) -> Result<(), Refusal> {
        let none = Tree::default();
        let rules = match rules {
            Shape::Tree(tree) => tree,
            _ => &none,
        };
        match &flow.tree {
            Some(tree) => self.fields(tree, flow.closed, rules, &[]),
            None => Err(self.unknown(b"(the whole document)")),
        }
    }

    fn fields(&self, source: &Tree, closed: bool, rules: &Tree, prefix: &[u8]) -> Result<(), Refusal> {
        if source.rest() == Rest::Unknown {
            return Err(self.unknown(prefix));
        }
        for (key, stored) in rules.fields() {
            if source.get(key).is_none() && closed {
                continue;
            }
            self.value(&source.child(key), stored, &join(prefix, key))?;
        }
        for (key, shape) in source.fields() {
            if rules.get(key).is_none() {
                self.value(shape, &rules.child(key), &join(prefix, key))?;
            }
        }
        Ok(())
    }

    fn value(&self, source: &Shape, stored: &Shape, path: &[u8]) -> Result<(), Refusal> {
        match (source, stored) {
            (source, stored) if source.is_plain() && stored.is_plain() => Ok(()),
            (Shape::Unknown, _) | (_, Shape::Unknown) => Err(self.unknown(path)),
            (Shape::Sealed(a), Shape::Sealed(b)) if same_seal(a, b) && a.each == b.each => {
                if a.state == FieldState::Migrating && b.state == FieldState::Enforced {
                    return Err(Refusal::new(
                        Reason::Rotation,
                        format!(
                            "{}: field '{}' is still migrating and may hold plaintext, which '{}' does not allow; finish the migration first",
                            self.what, a.path, self.target
                        ),
                    ));
                }
                Ok(())
            }
            (Shape::Sealed(a), Shape::Sealed(b)) => Err(Refusal::new(
                self.reason,
                format!(
                    "{}: field '{}' would be stored in '{}' of '{}', whose rule differs; give both the same domain, mode, type and algorithm in the field map",
                    self.what, a.path, b.path, self.target
                ),
            )),
            (Shape::Tree(source), Shape::Tree(stored)) => self.fields(source, false, stored, path),
            (Shape::Tree(source), Shape::Plain) => self.fields(source, false, &Tree::default(), path),
            (Shape::Plain, Shape::Tree(stored)) => self.fields(&Tree::default(), false, stored, path),
            (Shape::Plain, stored) | (Shape::Tree(_), stored @ Shape::Sealed(_)) => Err(Refusal::new(
                self.reason,
                format!(
                    "{}: path '{}' may hold plain values, but field '{}' of '{}' is protected; {}",
                    self.what,
                    String::from_utf8_lossy(path),
                    protected_path(stored).unwrap_or_else(|| "…".into()),
                    self.target,
                    self.way
                ),
            )),
            (Shape::Sealed(rule), _) => Err(Refusal::new(
                self.reason,
                format!(
                    "{}: field '{}' is sealed, but path '{}' of '{}' is not protected; give it the same rule in the field map, or leave the field out with $unset",
                    self.what,
                    rule.path,
                    String::from_utf8_lossy(path),
                    self.target
                ),
            )),
        }
    }

    fn unknown(&self, path: &[u8]) -> Refusal {
        Refusal::new(
            Reason::UnknownShape,
            format!(
                "{}: it cannot be told whether path '{}' holds protected values, so it cannot be stored in '{}'; leave it out with $unset, or list the fields with $project",
                self.what,
                String::from_utf8_lossy(path),
                self.target
            ),
        )
    }
}

fn join(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    if prefix.is_empty() {
        key.to_vec()
    } else {
        [prefix, b".", key].concat()
    }
}

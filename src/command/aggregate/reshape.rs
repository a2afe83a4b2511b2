//! Stages that turn each document into others: unwound, replaced, pruned, counted.

use super::{Flow, Planner, order};
use crate::bson::{Element, kind};
use crate::command::document::shape_of;
use crate::command::expression::{Arguments, Variables, children, misformed, not_plain, shapes, string};
use crate::policy::{Mode, Reason, Refusal, Rest, Shape, Target, Tree};

/// `$count`.
pub(super) fn count(stage: &Element<'_>) -> Result<Flow, Refusal> {
    if stage.kind != kind::STRING {
        return Err(misformed("$count"));
    }
    let mut tree = Tree::default();
    tree.set(string(stage), Shape::Plain);
    Ok(Flow::closed(tree))
}

impl<'a> Planner<'_, '_, 'a, '_> {
    pub(super) fn unwind(&mut self, stage: &Element<'a>, mut flow: Flow) -> Result<Flow, Refusal> {
        let name = "$unwind";
        let (path, index) = if stage.kind == kind::STRING {
            (string(stage), None)
        } else {
            let named = Arguments::read(
                name,
                stage,
                &["path", "includeArrayIndex", "preserveNullAndEmptyArrays"],
            )?;
            let index = named
                .get("includeArrayIndex")
                .filter(|index| index.kind == kind::STRING)
                .map(string);
            (named.string(name, "path")?, index)
        };
        let Some(path) = path.strip_prefix(b"$") else {
            return Err(misformed(name));
        };
        match flow.shape().resolve(path) {
            Target::Plain | Target::Above(_) => {}
            Target::Sealed(rule) if rule.seals_elements() => {
                self.draft.touch(&rule);
                flow.set(path, shapes::element_of(&Shape::Sealed(rule)))?;
            }
            Target::Sealed(rule) | Target::Below(rule) => {
                return Err(Refusal::new(
                    Reason::BelowSealed,
                    format!(
                        "stage {name}: field '{}' is sealed as one value, so the server sees no array; set `each = true` for it in the field map to seal element by element, or unwind in the application",
                        rule.path
                    ),
                ));
            }
            Target::Unknown => return Err(not_plain(name, &Shape::Unknown)),
        }
        if let Some(index) = index {
            flow.set(index, Shape::Plain)?;
        }
        Ok(flow)
    }

    pub(super) fn replace_root(
        &mut self,
        stage: &Element<'a>,
        flow: &Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let named = Arguments::read("$replaceRoot", stage, &["newRoot"])?;
        let root = *named.need("$replaceRoot", "newRoot")?;
        self.replace_with("$replaceRoot", &root, flow, variables)
    }

    pub(super) fn replace_with(
        &mut self,
        name: &str,
        root: &Element<'a>,
        flow: &Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let shape = flow.shape();
        let fields = children(root)?;
        let is_object = root.kind == kind::DOCUMENT && !fields.iter().any(|f| f.key.first() == Some(&b'$'));
        let place = self.stored.clone().unwrap_or(Shape::Plain);
        let yielded = self.at(&shape, variables).stored(root, &place)?;
        if let Shape::Sealed(_) = &yielded {
            return Err(not_plain(name, &yielded));
        }
        let mut next = Flow::open(yielded);
        // Written out, the new document has these fields and no others.
        if is_object && let Some(tree) = &mut next.tree {
            for field in &fields {
                let child = tree.child(field.key);
                shapes::list(tree, field.key, child)?;
            }
            next.closed = true;
        }
        Ok(next)
    }

    /// `$redact` evaluates its expression at every level, with paths that start there.
    pub(super) fn redact(
        &mut self,
        stage: &Element<'a>,
        flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let shape = flow.shape();
        if let Some(field) = opaque(&shape) {
            return Err(Refusal::new(
                Reason::Stage,
                format!(
                    "stage $redact: field '{field}' is sealed as one value, so what is inside cannot be pruned; leave the field out with $unset before this stage"
                ),
            ));
        }
        let levels = every_level(&shape);
        self.at(&shape, variables)
            .starting_at(levels)
            .plain("$redact", stage)?;
        Ok(flow)
    }

    pub(super) fn geo_near(
        &mut self,
        stage: &Element<'a>,
        mut flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let name = "$geoNear";
        let named = Arguments::read(
            name,
            stage,
            &[
                "near",
                "distanceField",
                "spherical",
                "maxDistance",
                "minDistance",
                "query",
                "distanceMultiplier",
                "includeLocs",
                "key",
            ],
        )?;
        let shape = flow.shape();
        for key in ["near", "maxDistance", "minDistance", "distanceMultiplier"] {
            if let Some(value) = named.get(key) {
                self.at(&shape, variables).plain(name, value)?;
            }
        }
        if named.get("key").is_some() {
            order::plain_path(name, named.string(name, "key")?, &shape)?;
        }
        if let Some(query) = named.get("query") {
            self.filter(name, query, shape, variables)?;
        }
        for key in ["distanceField", "includeLocs"] {
            if named.get(key).is_some() {
                flow.set(named.string(name, key)?, Shape::Plain)?;
            }
        }
        Ok(flow)
    }
}

/// A field that is sealed as one value and could hold documents, or that nothing is known of.
fn opaque(shape: &Shape) -> Option<String> {
    match shape {
        Shape::Plain => None,
        Shape::Unknown => Some("…".to_owned()),
        Shape::Sealed(rule) => (rule.mode == Mode::Random).then(|| rule.path.to_string()),
        Shape::Tree(tree) if tree.rest() == Rest::Unknown => Some("…".to_owned()),
        Shape::Tree(tree) => tree.fields().find_map(|(_, child)| opaque(child)),
    }
}

/// A shape that holds for the documents at every level at once.
fn every_level(shape: &Shape) -> Shape {
    let Shape::Tree(tree) = shape else {
        return shape.clone();
    };
    tree.fields()
        .filter(|(_, child)| matches!(child, Shape::Tree(_)))
        .fold(
            // Documents in plain fields are levels too.
            shapes::merge(shape, &Shape::Plain),
            |all, (_, child)| shapes::merge(&all, &every_level(child)),
        )
}

/// What the path in a stage's argument leads to.
pub(super) fn at_path(shape: &Shape, path: &[u8]) -> Result<Shape, Refusal> {
    match shape.resolve(path) {
        Target::Below(rule) => Err(Refusal::new(
            Reason::BelowSealed,
            format!(
                "path '{}' leads into field '{}', which is sealed as one value; the server cannot look inside",
                String::from_utf8_lossy(path),
                rule.path
            ),
        )),
        target => Ok(shape_of(&target)),
    }
}

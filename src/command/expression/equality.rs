//! Comparisons: a sealed value meets a literal, another sealed value, or null. Everything else would be silently false
//! and is refused.

use std::sync::Arc;

use super::edits::{Change, Edit};
use super::shapes::{protected_path, same_seal};
use super::{Analyser, LiteralElement, Yield, children, misformed, not_plain, operands, string};
use crate::bson::{Element, kind};
use crate::policy::{DeclaredType, FieldRule, Mode, Reason, Refusal, Shape};

/// What two values need so that their comparison means what it meant.
enum Meeting<'a> {
    /// Nothing.
    Fine,
    /// These literals meet values sealed by this rule.
    Literals(Vec<LiteralElement<'a>>, Arc<FieldRule>),
}

impl<'a> Analyser<'_, '_, 'a> {
    /// `$eq`, `$ne`.
    pub(super) fn equal(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let [left, right] = self.pair(name, element)?;
        let a = self.eval(&left, depth + 1)?;
        let b = self.eval(&right, depth + 1)?;
        let Meeting::Literals(literals, rule) = self.meet(name, &a, &b)? else {
            return Ok(Yield::PLAIN);
        };
        if !self.draft.is_expanded(&rule) {
            self.seal_all(&literals, &Shape::Sealed(rule));
            return Ok(Yield::PLAIN);
        }
        // Several forms may be stored: equality becomes membership. The path is copied, so it must be a mere path.
        let (needle, constant) = if matches!(a, Yield::Literal(_)) {
            (right, left)
        } else {
            (left, right)
        };
        let [literal] = literals.as_slice() else {
            return Err(rotation(name, &rule));
        };
        let scalar = !matches!(literal.0.kind, kind::ARRAY | kind::DOCUMENT);
        if !scalar
            || !is_direct(&constant, literal)?
            || needle.kind != kind::STRING
            || string(&needle).first() != Some(&b'$')
        {
            return Err(rotation(name, &rule));
        }
        self.edits.push(Edit {
            element: *element,
            change: Change::Membership {
                needle,
                literal: literal.0,
                rule,
                negate: element.key == b"$ne",
            },
        });
        Ok(Yield::PLAIN)
    }

    /// `$gt` and its like: null sorts below every value that can be sealed, and below every ciphertext.
    pub(super) fn order(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let pair = self.pair(name, element)?;
        let yields = [self.eval(&pair[0], depth + 1)?, self.eval(&pair[1], depth + 1)?];
        if yields.iter().any(Yield::is_null) {
            return Ok(Yield::PLAIN);
        }
        for yielded in yields {
            let shape = yielded.into_shape();
            if !shape.is_plain() {
                return Err(not_plain(name, &shape));
            }
        }
        Ok(Yield::PLAIN)
    }

    /// `$in`.
    pub(super) fn contains(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let [needle, haystack] = self.pair(name, element)?;
        let wanted = self.eval(&needle, depth + 1)?;
        let array = self.eval(&haystack, depth + 1)?;
        Self::array_like(name, &array)?;
        let Meeting::Literals(literals, rule) = self.meet(name, &wanted, &array)? else {
            return Ok(Yield::PLAIN);
        };
        if !self.draft.is_expanded(&rule) {
            self.seal_all(&literals, &Shape::Sealed(rule));
            return Ok(Yield::PLAIN);
        }
        let [literal @ LiteralElement(list)] = literals.as_slice() else {
            return Err(rotation(name, &rule));
        };
        let scalars = children(list)?
            .iter()
            .all(|item| !matches!(item.kind, kind::ARRAY | kind::DOCUMENT));
        let fixed = list.kind == kind::ARRAY && is_direct(&haystack, literal)?;
        if !fixed || !scalars || matches!(wanted, Yield::Literal(_)) {
            return Err(rotation(name, &rule));
        }
        self.edits.push(Edit {
            element: *list,
            change: Change::Forms {
                rule,
                wrap: list.start == haystack.start,
            },
        });
        Ok(Yield::PLAIN)
    }

    /// `$indexOfArray`.
    pub(super) fn index_of(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let list = operands(element)?;
        let [array, wanted, bounds @ ..] = list.as_slice() else {
            return Err(misformed(name));
        };
        let haystack = self.eval(array, depth + 1)?;
        Self::array_like(name, &haystack)?;
        let needle = self.eval(wanted, depth + 1)?;
        self.settle(name, &haystack, &needle)?;
        for bound in bounds {
            self.operand(name, bound, depth + 1)?;
        }
        Ok(Yield::PLAIN)
    }

    /// `$setUnion` and its like: elements of all the operands are compared with each other.
    pub(super) fn sets(
        &mut self,
        name: &str,
        element: &Element<'a>,
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let mut yields = Vec::new();
        for operand in operands(element)? {
            let yielded = self.eval(&operand, depth + 1)?;
            Self::array_like(name, &yielded)?;
            yields.push(yielded);
        }
        // The first operand that holds something of the document is what all others must fit.
        let Some(at) = yields
            .iter()
            .position(|y| matches!(y, Yield::Of(s) if !s.is_plain()))
        else {
            return Ok(Yield::PLAIN);
        };
        let first = yields.remove(at);
        for other in &yields {
            self.settle(name, &first, other)?;
        }
        let shape = first.into_shape();
        // A set keeps one of several equal elements, even when it is the only operand.
        self.distinguishable(name, &shape)?;
        Ok(Yield::Of(shape))
    }

    /// Values of this shape are equal exactly where their plaintexts are.
    pub(crate) fn distinguishable(&mut self, name: &str, shape: &Shape) -> Result<(), Refusal> {
        match shape {
            Shape::Plain => Ok(()),
            Shape::Unknown => Err(not_plain(name, shape)),
            Shape::Sealed(rule) => self.searchable(name, rule).and_then(|()| {
                if self.draft.is_expanded(rule) {
                    Err(rotation(name, rule))
                } else {
                    Ok(())
                }
            }),
            Shape::Tree(tree) => {
                if tree.rest() == crate::policy::Rest::Unknown {
                    return Err(not_plain(name, &Shape::Unknown));
                }
                tree.fields()
                    .try_for_each(|(_, child)| self.distinguishable(name, child))
            }
        }
    }

    /// Two sealed fields, or paths, that are joined by equality.
    pub(crate) fn joinable(&mut self, name: &str, a: &Shape, b: &Shape) -> Result<(), Refusal> {
        self.settle(name, &Yield::Of(a.clone()), &Yield::Of(b.clone()))
    }

    /// An expression that is joined with sealed or plain values by equality.
    pub(crate) fn joins(&mut self, name: &str, element: &Element<'a>, with: &Shape) -> Result<(), Refusal> {
        let yielded = self.eval(element, 1)?;
        self.settle(name, &yielded, &Yield::Of(with.clone()))
    }

    /// As [`Self::meet`], sealing literals in their one form.
    fn settle(&mut self, name: &str, a: &Yield<'a>, b: &Yield<'a>) -> Result<(), Refusal> {
        if let Meeting::Literals(literals, rule) = self.meet(name, a, b)? {
            if self.draft.is_expanded(&rule) {
                return Err(rotation(name, &rule));
            }
            self.seal_all(&literals, &Shape::Sealed(rule));
        }
        Ok(())
    }

    fn meet(&mut self, name: &str, a: &Yield<'a>, b: &Yield<'a>) -> Result<Meeting<'a>, Refusal> {
        if a.is_null() || b.is_null() {
            return Ok(Meeting::Fine);
        }
        match (a, b) {
            (Yield::Literal(_), Yield::Literal(_)) => Ok(Meeting::Fine),
            (Yield::Literal(list), Yield::Of(shape)) | (Yield::Of(shape), Yield::Literal(list)) => {
                match shape {
                    Shape::Plain => Ok(Meeting::Fine),
                    Shape::Unknown => Err(not_plain(name, shape)),
                    Shape::Tree(_) => {
                        if list.iter().all(|literal| is_hollow(&literal.0)) {
                            Ok(Meeting::Fine)
                        } else {
                            Err(whole(name, shape))
                        }
                    }
                    Shape::Sealed(rule) => {
                        self.searchable(name, rule)?;
                        Ok(Meeting::Literals(list.clone(), Arc::clone(rule)))
                    }
                }
            }
            (Yield::Of(a), Yield::Of(b)) => match (a, b) {
                (a, b) if a.is_plain() && b.is_plain() => Ok(Meeting::Fine),
                (Shape::Unknown, _) | (_, Shape::Unknown) => Err(not_plain(name, &Shape::Unknown)),
                (Shape::Tree(_), _) => Err(whole(name, a)),
                (_, Shape::Tree(_)) => Err(whole(name, b)),
                (Shape::Sealed(left), Shape::Sealed(right)) => self.both_sealed(name, left, right),
                (Shape::Sealed(rule), _) | (_, Shape::Sealed(rule)) => Err(Refusal::new(
                    Reason::Expression,
                    format!(
                        "{name} compares field '{}', which is sealed, with a value that is not: they would never be equal. Compare it with a constant, or with a field of the same domain",
                        rule.path
                    ),
                )),
                (Shape::Plain, Shape::Plain) => Ok(Meeting::Fine),
            },
        }
    }

    fn both_sealed(
        &mut self,
        name: &str,
        left: &Arc<FieldRule>,
        right: &Arc<FieldRule>,
    ) -> Result<Meeting<'a>, Refusal> {
        self.searchable(name, left)?;
        self.searchable(name, right)?;
        if !same_seal(left, right) {
            return Err(Refusal::new(
                Reason::Expression,
                format!(
                    "{name} compares fields '{}' and '{}', which are sealed under different domains, types or algorithms: they would never be equal. Give both the same `domain`, `type` and algorithm in the field map",
                    left.path, right.path
                ),
            ));
        }
        for rule in [left, right] {
            if self.draft.is_expanded(rule) {
                return Err(rotation(name, rule));
            }
        }
        Ok(Meeting::Fine)
    }

    fn searchable(&self, name: &str, rule: &FieldRule) -> Result<(), Refusal> {
        let Mode::Deterministic(declared) = rule.mode else {
            return Err(Refusal::new(
                Reason::RandomEquality,
                format!(
                    "{name}: field '{}' is sealed with a random algorithm, so equal values differ; only comparison with null works on it, or make it deterministic in the field map",
                    rule.path
                ),
            ));
        };
        if self.variables.collation() && declared == DeclaredType::String {
            return Err(Refusal::new(
                Reason::Collation,
                format!(
                    "{name}: a collation has no effect on field '{}', which is sealed, so the result would differ; leave the collation out, or use {{locale: \"simple\"}}",
                    rule.path
                ),
            ));
        }
        Ok(())
    }

    fn pair(&self, name: &str, element: &Element<'a>) -> Result<[Element<'a>; 2], Refusal> {
        <[Element<'a>; 2]>::try_from(operands(element)?).map_err(|_| misformed(name))
    }
}

/// The operand is the literal itself, bare or in `$literal`: not one branch among several.
fn is_direct(operand: &Element<'_>, literal: &LiteralElement<'_>) -> Result<bool, Refusal> {
    if operand.start == literal.0.start {
        return Ok(true);
    }
    Ok(match children(operand)?.as_slice() {
        [only] => (only.key == b"$literal" || only.key == b"$const") && only.start == literal.0.start,
        _ => false,
    })
}

/// A literal that holds no field, so that no protected field can be compared inside it.
fn is_hollow(literal: &Element<'_>) -> bool {
    match literal.document() {
        Ok(Some(doc)) => doc.is_empty(),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn whole(name: &str, shape: &Shape) -> Refusal {
    let field = protected_path(shape).unwrap_or_else(|| "…".into());
    Refusal::new(
        Reason::WholeDocument,
        format!(
            "{name} compares a whole document or array that holds protected field '{field}'; compare its fields one by one by dotted path"
        ),
    )
}

pub(super) fn rotation(name: &str, rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::Rotation,
        format!(
            "{name}: field '{}' is migrating or its key is rotating, so equal values may be stored in several forms; finish the migration or rotation first, or compare the bare field with one constant in $match",
            rule.path
        ),
    )
}

//! Aggregation expressions, tracked symbolically: what each expression yields is plain, sealed by a rule, a document of
//! such, or unknown. A literal that meets a sealed value is sealed too; an operator that would compute with ciphertext
//! is refused. Knows shapes and operators, not stages: the same code plans `$expr`, projections and every stage.
//! Source: SEMANTICS B0.9, B1.5.

mod arguments;
mod arrays;
mod control;
pub(crate) mod edits;
mod equality;
mod objects;
pub mod operators;
mod references;
pub mod shapes;
mod store;
mod variables;
mod yields;

#[cfg(test)]
mod tests;

use crate::bson::{Element, kind};
use crate::command::document;
use crate::limits;
use crate::plan::Draft;
use crate::policy::{DeclaredType, Mode, Reason, Refusal, Shape, Tree};

pub(crate) use arguments::{Arguments, children, misformed, not_plain, string};
use arguments::{is_operator, operands, written};
pub(crate) use edits::{Change, Edit};
use operators::Kind;
use shapes::{bounded, normal, protected_path};
pub use variables::Variables;
use variables::{Bound, MAX_VARIABLES, refuse_system_name};
use yields::{LiteralElement, Yield};

/// Plans one expression over documents of this shape; returns what it yields. An element with the key `$expr` is a
/// condition: only its truth counts.
///
/// # Errors
/// A [`Refusal`] naming the expression and the field.
pub fn plan(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    shape: &Shape,
    variables: &Variables,
) -> Result<Shape, Refusal> {
    let mut list = Vec::new();
    let mut analyser = Analyser::new(draft, &mut list, shape, variables);
    let yielded = if element.key == b"$expr" {
        analyser.condition("$expr", element, 1)?;
        Shape::Plain
    } else {
        analyser.expression(element)?
    };
    edits::record(draft, element, list)?;
    Ok(yielded)
}

/// Works out what expressions yield over documents of one shape, and collects the edits they need.
pub(crate) struct Analyser<'x, 'd, 'a> {
    draft: &'x mut Draft<'d>,
    edits: &'x mut Vec<Edit<'a>>,
    root: Shape,
    /// `$$CURRENT`: what paths start from.
    current: Shape,
    variables: &'x Variables,
    /// Bound by `$let`, `$map` and their like; the last one wins.
    locals: Bound,
    /// Paths of protected fields that the documents no longer have.
    removed: &'x [Box<[u8]>],
}

impl<'x, 'd, 'a> Analyser<'x, 'd, 'a> {
    pub(crate) fn new(
        draft: &'x mut Draft<'d>,
        edits: &'x mut Vec<Edit<'a>>,
        shape: &Shape,
        variables: &'x Variables,
    ) -> Self {
        Self {
            draft,
            edits,
            root: shape.clone(),
            current: shape.clone(),
            variables,
            locals: Vec::new(),
            removed: &[],
        }
    }

    /// The same, over documents that have lost these protected fields: nothing may be compared with one.
    pub(crate) fn without(mut self, removed: &'x [Box<[u8]>]) -> Self {
        self.removed = removed;
        self
    }

    /// The same, where paths start elsewhere than at the document (`$redact`).
    pub(crate) fn starting_at(mut self, current: Shape) -> Self {
        self.current = current;
        self
    }

    /// What the expression in `element` yields.
    pub(crate) fn expression(&mut self, element: &Element<'a>) -> Result<Shape, Refusal> {
        self.eval(element, 1).map(Yield::into_shape)
    }

    /// An expression whose value the operator or stage called `name` computes with.
    pub(crate) fn plain(&mut self, name: &str, element: &Element<'a>) -> Result<(), Refusal> {
        self.operand(name, element, 1)
    }

    /// The operands of an accumulator that computes with them, be they listed, named or alone.
    pub(crate) fn values(&mut self, name: &str, element: &Element<'a>) -> Result<(), Refusal> {
        self.operands_plain(name, element, 1)
    }

    /// An expression whose values are told apart by equality (`$group._id`, `$addToSet`).
    pub(crate) fn grouping(&mut self, name: &str, element: &Element<'a>) -> Result<Shape, Refusal> {
        let shape = self.expression(element)?;
        self.distinguishable(name, &shape)?;
        Ok(shape)
    }

    pub(crate) fn eval(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        if depth > limits::MAX_DEPTH {
            return Err(Refusal::new(
                Reason::Malformed,
                "expressions nest deeper than 200 levels",
            ));
        }
        match element.kind {
            kind::NULL => Ok(Yield::Literal(Vec::new())),
            kind::STRING => match string(element) {
                [b'$', b'$', path @ ..] => self.variable(path),
                [b'$', path @ ..] => {
                    self.refuse_removed(path)?;
                    let current = self.current.clone();
                    self.path(&current, path)
                }
                _ => Ok(Yield::one(element)),
            },
            kind::DOCUMENT => self.document(element, depth),
            kind::ARRAY => self.array(element, depth),
            _ => {
                document::refuse_ciphertext(element)?;
                Ok(Yield::one(element))
            }
        }
    }

    /// An operator, or an object whose fields are expressions.
    fn document(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let fields = written(element)?;
        match fields.as_slice() {
            [] => Ok(Yield::one(element)),
            [only] if is_operator(only) => self.operator(only, depth + 1),
            fields => {
                if let Some(odd) = fields.iter().find(|f| is_operator(f)) {
                    return Err(Refusal::new(
                        Reason::Malformed,
                        format!("operator '{}' stands beside other fields", odd.key_text()),
                    ));
                }
                self.object(element, fields, depth + 1)
            }
        }
    }

    fn object(
        &mut self,
        element: &Element<'a>,
        fields: &[Element<'a>],
        depth: usize,
    ) -> Result<Yield<'a>, Refusal> {
        let mut tree = Tree::default();
        let mut constant = true;
        for field in fields {
            let yielded = self.eval(field, depth)?;
            constant &= yielded.is_just(field);
            let shape = yielded.into_shape();
            // The server takes no key twice; should it ever, either value may count.
            let shape = match tree.get(field.key) {
                Some(earlier) => shapes::merge(earlier, &shape),
                None => shape,
            };
            if !shape.is_plain() {
                shapes::list(&mut tree, field.key, shape)?;
            }
        }
        if constant {
            return Ok(Yield::one(element));
        }
        Ok(Yield::Of(bounded(normal(tree))))
    }

    fn array(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let items = children(element)?;
        let mut constant = true;
        let mut yields = Vec::with_capacity(items.len());
        for item in &items {
            let yielded = self.eval(item, depth + 1)?;
            constant &= yielded.is_just(item);
            yields.push(yielded);
        }
        if constant {
            return Ok(Yield::one(element));
        }
        let all_literals = yields.iter().all(|y| matches!(y, Yield::Literal(_)));
        let joined = self.join(yields);
        Ok(match joined {
            // An array of nulls is no null.
            nulls if all_literals && nulls.is_null() => Yield::PLAIN,
            Yield::Of(shape) => Yield::Of(shapes::array_of(&shape)),
            literals @ Yield::Literal(_) => literals,
        })
    }

    fn operator(&mut self, element: &Element<'a>, depth: usize) -> Result<Yield<'a>, Refusal> {
        let name = element.key_text();
        let Some(kind) = operators::kind(element.key) else {
            return self.unheard_of(&name);
        };
        match kind {
            Kind::Values => {
                self.operands_plain(&name, element, depth)?;
                Ok(Yield::PLAIN)
            }
            Kind::Free => Ok(Yield::PLAIN),
            Kind::Never => Err(Refusal::new(
                Reason::Unanalysable,
                format!(
                    "expression {name} cannot be analysed and is not supported where protected fields are in play; use other operators, or compute in the application"
                ),
            )),
            Kind::Literal => {
                document::refuse_ciphertext(element)?;
                Ok(if element.kind == kind::NULL {
                    Yield::Literal(Vec::new())
                } else {
                    Yield::one(element)
                })
            }
            Kind::Meta => Ok(Yield::Of(match string(element) {
                b"textScore" | b"geoNearDistance" | b"geoNearPoint" | b"randVal" | b"recordId"
                | b"searchScore" | b"vectorSearchScore" | b"score" => Shape::Plain,
                _ => Shape::Unknown,
            })),
            Kind::Equal => self.equal(&name, element, depth),
            Kind::Order => self.order(&name, element, depth),
            Kind::In => self.contains(&name, element, depth),
            Kind::IndexOf => self.index_of(&name, element, depth),
            Kind::Sets => self.sets(&name, element, depth),
            Kind::SetTest => self.sets(&name, element, depth).map(|_| Yield::PLAIN),
            Kind::Logic => self.logic(&name, element, depth),
            Kind::Cond => self.cond(element, depth),
            Kind::Switch => self.switch(element, depth),
            Kind::IfNull => self.if_null(element, depth),
            Kind::Let => self.bind(element, depth),
            Kind::Reduce => self.reduce(element, depth),
            Kind::Type => self.type_of(&name, element, depth),
            Kind::Length => self.length(&name, element, depth),
            Kind::Element => self.one_element(&name, element, depth),
            Kind::Part => self.part(&name, element, depth),
            Kind::PartN => self.part_n(&name, element, depth),
            Kind::Filter => self.filter(element, depth),
            Kind::Map => self.map(element, depth),
            Kind::SortArray => self.sort_array(element, depth),
            Kind::Concat => self.concat(&name, element, depth),
            Kind::MergeObjects => self.merge_objects(element, depth),
            Kind::ObjectToArray => self.object_to_array(&name, element, depth),
            Kind::ArrayToObject => self.array_to_object(&name, element, depth),
            Kind::GetField => self.get_field(element, depth),
            Kind::SetField => self.set_field(element, depth),
            Kind::UnsetField => self.unset_field(element, depth),
        }
    }

    /// An operator that the table does not know can do nothing wrong where nothing protected is in reach.
    fn unheard_of(&self, name: &str) -> Result<Yield<'a>, Refusal> {
        let reach = self.root.is_plain()
            && self.current.is_plain()
            && self.variables.all_plain()
            && self.locals.iter().all(|(_, shape)| shape.is_plain());
        if reach {
            return Ok(Yield::PLAIN);
        }
        let field = protected_path(&self.root)
            .or_else(|| protected_path(&self.current))
            .unwrap_or_else(|| "…".into());
        Err(Refusal::new(
            Reason::Expression,
            format!(
                "expression {name} is not known and field '{field}' is within its reach; $project the protected fields away before it, or compute in the application"
            ),
        ))
    }

    /// Every operand of an operator must be plain, be they listed, named or alone.
    fn operands_plain(&mut self, name: &str, element: &Element<'a>, depth: usize) -> Result<(), Refusal> {
        match element.kind {
            kind::ARRAY => {
                for item in children(element)? {
                    self.operand(name, &item, depth + 1)?;
                }
                Ok(())
            }
            kind::DOCUMENT => {
                let fields = children(element)?;
                if fields.iter().any(is_operator) {
                    return self.operand(name, element, depth);
                }
                for field in fields {
                    self.operand(name, &field, depth + 1)?;
                }
                Ok(())
            }
            _ => self.operand(name, element, depth),
        }
    }

    fn operand(&mut self, name: &str, element: &Element<'a>, depth: usize) -> Result<(), Refusal> {
        let shape = self.eval(element, depth)?.into_shape();
        if shape.is_plain() {
            Ok(())
        } else {
            Err(not_plain(name, &shape))
        }
    }

    /// An operand of which only the truth counts: null, false and 0 are false. A sealed number would always be true.
    fn condition(&mut self, name: &str, element: &Element<'a>, depth: usize) -> Result<(), Refusal> {
        match self.eval(element, depth)?.into_shape() {
            Shape::Plain | Shape::Tree(_) => Ok(()),
            Shape::Sealed(rule) => match rule.mode {
                Mode::Deterministic(
                    DeclaredType::String
                    | DeclaredType::Date
                    | DeclaredType::ObjectId
                    | DeclaredType::BinData,
                ) => Ok(()),
                Mode::Deterministic(DeclaredType::Int | DeclaredType::Long) | Mode::Random => {
                    Err(Refusal::new(
                        Reason::Expression,
                        format!(
                            "expression {name}: field '{}' stands for true or false, but a sealed value is always true; compare it with null instead",
                            rule.path
                        ),
                    ))
                }
            },
            Shape::Unknown => Err(not_plain(name, &Shape::Unknown)),
        }
    }

    /// The value of any one of several branches. Literals in them are sealed where another branch is.
    fn join(&mut self, yields: Vec<Yield<'a>>) -> Yield<'a> {
        let mut literals = Vec::new();
        let mut merged: Option<Shape> = None;
        for yielded in yields {
            match yielded {
                Yield::Literal(list) => literals.extend(list),
                Yield::Of(shape) => {
                    merged = Some(match merged {
                        None => shape,
                        Some(earlier) => shapes::merge(&earlier, &shape),
                    });
                }
            }
        }
        let Some(shape) = merged else {
            return Yield::Literal(literals);
        };
        if matches!(shape, Shape::Sealed(_) | Shape::Tree(_)) {
            self.seal_all(&literals, &shape);
        }
        Yield::Of(shape)
    }

    fn seal_all(&mut self, literals: &[LiteralElement<'a>], shape: &Shape) {
        self.edits.extend(literals.iter().map(|literal| Edit {
            element: literal.0,
            change: Change::Seal(shape.clone()),
        }));
    }

    /// The value must be an array that the server can look into.
    fn array_like(name: &str, yielded: &Yield<'_>) -> Result<(), Refusal> {
        match yielded {
            Yield::Of(Shape::Sealed(rule)) if !rule.seals_elements() => Err(Refusal::new(
                Reason::Expression,
                format!(
                    "{name}: field '{}' is sealed as one value, so the server sees no array; set `each = true` for it in the field map to seal element by element, or do this in the application",
                    rule.path
                ),
            )),
            Yield::Of(Shape::Unknown) => Err(not_plain(name, &Shape::Unknown)),
            _ => Ok(()),
        }
    }

    fn scoped<T>(
        &mut self,
        bound: Bound,
        inner: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let before = self.locals.len();
        if before + bound.len() > MAX_VARIABLES {
            return Err(Refusal::new(
                Reason::Limit,
                "more than 1000 variables are in scope; bind fewer",
            ));
        }
        bound.iter().try_for_each(|(name, _)| refuse_system_name(name))?;
        self.locals.extend(bound);
        let result = inner(self);
        self.locals.truncate(before);
        result
    }
}

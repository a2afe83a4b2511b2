//! A rehearsal of plans for tests: carries the edits out with a pretended sealing, so that a test can compare whole
//! documents. A sealed value becomes the text `⟦domain:value⟧`, with the key's number in front for all but the first.

use std::sync::Arc;

use bson::{Bson, Document};

use crate::bson::kind;
use crate::crypto::suite::Suite;
use crate::name::{KeyId, Namespace};
use crate::plan::{Catalogue, Op, Plan, Value, Versions};
use crate::policy::{CollectionPolicy, DeclaredType, FieldRule, FieldState, Mode, Rest, Shape, Tree};

/// Every domain has this many keys.
pub(crate) struct Keys(pub(crate) usize);

impl Catalogue for Keys {
    fn readable(&self, _domain: &str) -> Option<usize> {
        Some(self.0)
    }

    fn has(&self, _id: &KeyId) -> bool {
        true
    }
}

/// A rule whose domain is its path, unless it is renamed.
pub(crate) fn rule(path: &str, mode: Mode) -> FieldRule {
    FieldRule {
        path: path.into(),
        mode,
        suite: if mode == Mode::Random {
            Suite::Aes256Gcm
        } else {
            Suite::Aes256Siv
        },
        domain: path.into(),
        state: FieldState::Enforced,
        each: false,
    }
}

/// A deterministic rule.
pub(crate) fn det(path: &str, declared: DeclaredType) -> FieldRule {
    rule(path, Mode::Deterministic(declared))
}

/// The policy with these rules.
pub(crate) fn policy(namespace: &str, rules: Vec<FieldRule>) -> Arc<CollectionPolicy> {
    let rules: Vec<Arc<FieldRule>> = rules.into_iter().map(Arc::new).collect();
    let mut root = Tree::new(Rest::Plain, []);
    for rule in &rules {
        place(&mut root, rule.path.as_bytes(), rule);
    }
    Arc::new(CollectionPolicy {
        namespace: Namespace::parse(namespace).unwrap(),
        subject: None,
        rules,
        shape: Shape::Tree(Arc::new(root)),
    })
}

fn place(tree: &mut Tree, path: &[u8], rule: &Arc<FieldRule>) {
    match path.iter().position(|b| *b == b'.') {
        None => tree.set(path, Shape::Sealed(Arc::clone(rule))),
        Some(dot) => {
            let mut child = match tree.get(&path[..dot]) {
                Some(Shape::Tree(child)) => child.to_owned_tree(),
                _ => Tree::new(Rest::Plain, []),
            };
            place(&mut child, &path[dot + 1..], rule);
            tree.set(&path[..dot], Shape::Tree(Arc::new(child)));
        }
    }
}

/// The document that the plan makes of `frame`.
pub(crate) fn perform(frame: &[u8], plan: &Plan, keys: usize) -> Document {
    let mut stage = Stage {
        frame,
        plan,
        keys,
        out: Vec::new(),
        at: 0,
        open: Vec::new(),
    };
    for op in &plan.ops {
        stage.step(op);
    }
    stage.copy(frame.len());
    assert!(stage.open.is_empty(), "regions left open");
    Document::try_from(bson::raw::RawDocumentBuf::from_bytes(stage.out).unwrap()).unwrap()
}

struct Stage<'a> {
    frame: &'a [u8],
    plan: &'a Plan,
    keys: usize,
    out: Vec<u8>,
    at: usize,
    open: Vec<(usize, usize)>,
}

impl Stage<'_> {
    fn step(&mut self, op: &Op) {
        match op {
            Op::Open { at } => {
                self.copy(*at as usize + 4);
                self.open.push((self.out.len() - 4, 0));
            }
            Op::Close { end } => {
                self.copy(*end as usize);
                self.close();
            }
            Op::Drop { from, to } => {
                self.copy(*from as usize);
                self.at = *to as usize;
            }
            Op::Put { at, bytes } => {
                if *at as usize > self.at {
                    self.copy(*at as usize);
                }
                self.out.extend_from_slice(bytes);
            }
            Op::Begin => {
                self.open.push((self.out.len(), 0));
                self.out.extend_from_slice(&[0; 4]);
            }
            Op::End => {
                self.out.push(0);
                self.close();
            }
            Op::Item { value, seal: None } => self.plain_item(value),
            Op::Item {
                value,
                seal: Some((rule, versions)),
            } => {
                if *versions == Versions::EveryAndPlain {
                    self.plain_item(value);
                }
                let last = if *versions == Versions::Write {
                    1
                } else {
                    self.keys
                };
                for key in 0..last {
                    let item = self.item();
                    self.sealed(item.as_bytes(), value, *rule, key);
                }
            }
            Op::PutSealed { key, value, rule } => self.sealed(key, value, *rule, 0),
            Op::Seal {
                from,
                value_at,
                to,
                value,
                rule,
            } => {
                self.copy(*from as usize);
                let key = &self.frame[*from as usize + 1..*value_at as usize - 1];
                self.sealed(key, value, *rule, 0);
                self.at = *to as usize;
            }
            Op::Unseal { .. } => panic!("nothing is opened in a command"),
        }
    }

    fn copy(&mut self, to: usize) {
        assert!(to >= self.at, "edits out of order: at {} back to {to}", self.at);
        self.out.extend_from_slice(&self.frame[self.at..to]);
        self.at = to;
    }

    fn close(&mut self) {
        let (start, _) = self.open.pop().unwrap();
        let len = i32::try_from(self.out.len() - start).unwrap();
        self.out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn item(&mut self) -> String {
        let (_, items) = self.open.last_mut().unwrap();
        *items += 1;
        (*items - 1).to_string()
    }

    fn plain_item(&mut self, value: &Value) {
        let item = self.item();
        self.out.push(value.kind);
        self.out.extend_from_slice(item.as_bytes());
        self.out.push(0);
        self.out.extend_from_slice(value.slice(self.frame));
    }

    fn sealed(&mut self, key: &[u8], value: &Value, rule: u16, number: usize) {
        let rule = &self.plan.summary.rules[usize::from(rule)].0;
        let shown = show(value, self.frame);
        let number = if number == 0 {
            String::new()
        } else {
            format!("{number}/")
        };
        let text = format!("⟦{number}{}:{shown}⟧", rule.domain);
        self.out.push(kind::STRING);
        self.out.extend_from_slice(key);
        self.out.push(0);
        let len = i32::try_from(text.len() + 1).unwrap();
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
    }
}

fn show(value: &Value, frame: &[u8]) -> String {
    let mut bytes = vec![0; 4];
    bytes.push(value.kind);
    bytes.extend_from_slice(b"v\0");
    bytes.extend_from_slice(value.slice(frame));
    bytes.push(0);
    let len = i32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    let doc = Document::try_from(bson::raw::RawDocumentBuf::from_bytes(bytes).unwrap()).unwrap();
    match doc.get("v").unwrap() {
        Bson::String(text) => text.clone(),
        other => other.to_string(),
    }
}

//! What open cursors show: the shape of the documents that their later batches hold, since a `getMore` names neither
//! the projection nor the pipeline. Shared by all connections, because a driver goes on with a cursor on any of its own.
//! Bounded: the oldest are forgotten, and their later batches are opened without a look at the places.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::MAX_CURSORS;
use crate::policy::Shape;
use crate::topology::Scope;

/// The cursors that show protected fields. A lock is taken only for replies that leave a cursor open, and for `getMore`.
#[derive(Default)]
pub struct Cursors(Mutex<Open>);

#[derive(Default)]
struct Open {
    shapes: HashMap<i64, (u64, Shape)>,
    /// Those whose documents name the server.
    naming: HashMap<i64, Scope>,
    /// In the order of their opening; may name cursors that are closed by now.
    order: VecDeque<(u64, i64)>,
    opened: u64,
}

impl Cursors {
    /// A cursor stays open; what it shows.
    pub(super) fn keep(&self, id: i64, shape: &Shape) {
        let mut open = self.lock();
        if open.shapes.contains_key(&id) {
            return;
        }
        open.opened += 1;
        let turn = open.opened;
        open.shapes.insert(id, (turn, shape.clone()));
        open.order.push_back((turn, id));
        while open.order.len() > MAX_CURSORS {
            open.forget_oldest();
        }
    }

    /// What an open cursor shows, where that is known.
    pub(super) fn shape(&self, id: i64) -> Option<Shape> {
        self.lock().shapes.get(&id).map(|(_, shape)| shape.clone())
    }

    /// A cursor stays open whose documents name the server.
    pub(super) fn keep_naming(&self, id: i64, scope: Scope) {
        let mut open = self.lock();
        // Rare enough that nobody has so many at a time: what is left of them was never read to its end.
        if open.naming.len() >= MAX_CURSORS {
            open.naming.clear();
        }
        open.naming.insert(id, scope);
    }

    /// Where an open cursor's documents name the server.
    pub(super) fn naming(&self, id: i64) -> Option<Scope> {
        self.lock().naming.get(&id).copied()
    }

    /// Other rules hold from now on: what was known of places was known by the old ones.
    pub fn forget_places(&self) {
        let mut open = self.lock();
        open.shapes.clear();
        open.order.clear();
    }

    /// A cursor is exhausted.
    pub(super) fn forget(&self, id: i64) {
        let mut open = self.lock();
        open.naming.remove(&id);
        if open.shapes.remove(&id).is_some() && open.shapes.is_empty() {
            open.order.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn forget_oldest(&mut self) {
        let Some((turn, id)) = self.order.pop_front() else {
            return;
        };
        if self.shapes.get(&id).is_some_and(|(opened, _)| *opened == turn) {
            self.shapes.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_and_what_is_exhausted() {
        let cursors = Cursors::default();
        let last = i64::try_from(MAX_CURSORS).unwrap() + 9;
        for id in 0..=last {
            cursors.keep(id, &Shape::Unknown);
        }
        assert!(cursors.shape(0).is_none() && cursors.shape(9).is_none());
        assert!(cursors.shape(10).is_some() && cursors.shape(last).is_some());
        cursors.forget(last);
        assert!(cursors.shape(last).is_none());
        assert!(cursors.lock().order.len() <= MAX_CURSORS);
    }
}

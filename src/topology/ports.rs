//! Which port stands for which member, where listeners are made for the members that are found. A member keeps its port
//! for as long as it can: drivers remember addresses longer than a set keeps its shape.

use std::collections::BTreeMap;

use super::hosts::Address;

/// A range of ports and the members that have one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    count: u16,
    given: BTreeMap<Address, u16>,
}

impl Ports {
    /// `count` ports from `first` on. `kept` is what was given earlier: what is outside the range, or is given twice, is
    /// forgotten.
    pub fn new(first: u16, count: u16, kept: impl IntoIterator<Item = (Address, u16)>) -> Self {
        let mut ports = Self {
            first,
            count,
            given: BTreeMap::new(),
        };
        for (member, port) in kept {
            if ports.range().contains(&port) && !ports.is_given(port) {
                ports.given.insert(member, port);
            }
        }
        ports
    }

    /// Gives each of these members a port if it has none; returns those for which no port is left. Members that are gone
    /// keep theirs, in case they come back, until somebody else needs it.
    pub fn give<'a>(&mut self, members: &'a [Address]) -> Vec<&'a Address> {
        let mut left_out = Vec::new();
        for member in members {
            if self.given.contains_key(member) {
                continue;
            }
            match self.free().or_else(|| self.take_back(members)) {
                Some(port) => {
                    self.given.insert(member.clone(), port);
                }
                None => left_out.push(member),
            }
        }
        left_out
    }

    /// The port of a member.
    pub fn of(&self, member: &Address) -> Option<u16> {
        self.given.get(member).copied()
    }

    /// Every member that has a port, gone ones included.
    pub fn given(&self) -> impl Iterator<Item = (&Address, u16)> {
        self.given.iter().map(|(member, port)| (member, *port))
    }

    fn range(&self) -> std::ops::Range<u16> {
        self.first..self.first.saturating_add(self.count)
    }

    fn is_given(&self, port: u16) -> bool {
        self.given.values().any(|given| *given == port)
    }

    fn free(&self) -> Option<u16> {
        self.range().find(|port| !self.is_given(*port))
    }

    /// A port of a member that is not there.
    fn take_back(&mut self, members: &[Address]) -> Option<u16> {
        let gone = self
            .given
            .keys()
            .find(|member| !members.contains(member))?
            .clone();
        self.given.remove(&gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| Address::parse(name).unwrap()).collect()
    }

    fn port(ports: &Ports, name: &str) -> Option<u16> {
        ports.of(&Address::parse(name).unwrap())
    }

    #[test]
    fn keeps_a_members_port_whoever_comes_and_goes() {
        let mut ports = Ports::new(100, 4, []);
        assert!(ports.give(&members(&["b", "c"])).is_empty());
        assert_eq!((port(&ports, "b"), port(&ports, "c")), (Some(100), Some(101)));
        assert!(ports.give(&members(&["a", "c"])).is_empty());
        assert_eq!(
            (port(&ports, "a"), port(&ports, "b"), port(&ports, "c")),
            (Some(102), Some(100), Some(101))
        );
    }

    #[test]
    fn reuses_the_port_of_a_member_that_is_gone_only_when_there_is_no_other() {
        let mut ports = Ports::new(100, 2, []);
        ports.give(&members(&["a", "b"]));
        ports.give(&members(&["b", "c"]));
        assert_eq!((port(&ports, "a"), port(&ports, "c")), (None, Some(100)));
        let three = members(&["b", "c", "d"]);
        assert_eq!(ports.give(&three), [&three[2]]);
    }

    #[test]
    fn forgets_what_does_not_fit_the_range() {
        let kept = |name: &str, port| (Address::parse(name).unwrap(), port);
        let ports = Ports::new(
            100,
            2,
            [kept("a", 99), kept("b", 101), kept("c", 101), kept("d", 102)],
        );
        assert_eq!(ports.given().collect::<Vec<_>>(), [(&members(&["b"])[0], 101)]);
        let mut top = Ports::new(u16::MAX, 10, []);
        top.give(&members(&["a"]));
        assert_eq!(port(&top, "a"), None, "a range ends where ports do");
    }
}

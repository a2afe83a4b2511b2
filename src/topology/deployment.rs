//! What is known of the upstream deployment at one moment: its members, and who takes writes. Learns nothing itself:
//! the driver's monitors see, `store` fills in, connections ask.

use super::hosts::Address;

/// What kind of deployment it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeploymentKind {
    /// No server has answered yet.
    #[default]
    Unknown,
    /// One server, whatever it is: standalone, or reached directly.
    Single,
    /// A replica set.
    ReplicaSet,
    /// A sharded cluster, reached through its routers.
    Sharded,
}

/// The deployment as the monitors saw it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deployment {
    /// Counts what was seen: a higher number is newer.
    pub version: u64,
    /// What kind it is.
    pub kind: DeploymentKind,
    /// All members or routers that are known, in order.
    pub members: Vec<Address>,
    /// The primary, while there is one.
    pub primary: Option<Address>,
    /// Routers that answer, in order.
    pub routers: Vec<Address>,
}

impl Deployment {
    /// Whether there is but one server to go to, so that nothing has to be found out.
    pub fn is_alone(&self) -> bool {
        self.members.len() < 2
    }

    /// The server that takes writes: the primary, or any router (`turn` spreads connections over them).
    pub fn writable(&self, turn: usize) -> Option<&Address> {
        match self.kind {
            DeploymentKind::Sharded => self.routers.get(turn.checked_rem(self.routers.len())?),
            DeploymentKind::Unknown => None,
            DeploymentKind::Single => self.members.first(),
            DeploymentKind::ReplicaSet => self.primary.as_ref(),
        }
    }

    /// Whether writes go to another member than this one: a connection that follows the primary then has no business
    /// there any more. Without a primary nobody can say.
    pub fn has_moved_from(&self, member: &Address) -> bool {
        self.kind == DeploymentKind::ReplicaSet
            && self.primary.as_ref().is_some_and(|primary| primary != member)
    }

    /// The set's members as its primary names them; `None` while there is no primary, because seeds under other names and
    /// members that have gone are then still among them.
    pub fn settled(&self) -> Option<&[Address]> {
        (self.kind == DeploymentKind::ReplicaSet && self.primary.is_some()).then_some(&*self.members)
    }
}

/// Whether an error code of the server says that it is no primary (any more), or is going away: what makes a driver look
/// for another one. Source: MongoDB specifications, `server-discovery-and-monitoring`, "not writable primary" and "node
/// is recovering".
pub fn is_state_change(code: i32) -> bool {
    matches!(code, 91 | 189 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn set(primary: Option<&str>) -> Deployment {
        Deployment {
            version: 1,
            kind: DeploymentKind::ReplicaSet,
            members: ["a:1", "b:1", "c:1"].map(address).to_vec(),
            primary: primary.map(address),
            routers: Vec::new(),
        }
    }

    #[test]
    fn follows_the_primary() {
        let (with, without) = (set(Some("b:1")), set(None));
        assert_eq!(with.writable(7), Some(&address("b:1")));
        assert_eq!(without.writable(0), None);
        assert!(with.has_moved_from(&address("a:1")));
        assert!(!with.has_moved_from(&address("b:1")));
        assert!(!without.has_moved_from(&address("a:1")));
    }

    #[test]
    fn spreads_connections_over_routers_that_answer() {
        let mut sharded = Deployment {
            kind: DeploymentKind::Sharded,
            members: ["a:1", "b:1", "c:1"].map(address).to_vec(),
            ..Deployment::default()
        };
        assert_eq!(sharded.writable(0), None);
        sharded.routers = ["a:1", "c:1"].map(address).to_vec();
        let turns: Vec<_> = (0..4)
            .map(|turn| sharded.writable(turn).unwrap().as_str())
            .collect();
        assert_eq!(turns, ["a:1", "c:1", "a:1", "c:1"]);
        assert!(!sharded.has_moved_from(&address("b:1")));
    }

    #[test]
    fn names_members_only_on_a_primarys_word() {
        assert_eq!(set(Some("a:1")).settled().unwrap().len(), 3);
        assert_eq!(set(None).settled(), None);
        assert_eq!(Deployment::default().settled(), None);
    }

    #[test]
    fn tells_state_changes_from_other_errors() {
        assert!(
            [91, 189, 10058, 10107, 11600, 11602, 13435, 13436]
                .into_iter()
                .all(is_state_change)
        );
        assert!(
            ![0, 6, 13, 112, 251, 11000, 11601]
                .into_iter()
                .any(is_state_change)
        );
    }
}

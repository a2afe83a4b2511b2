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
    /// Members that nothing has been heard of yet, good or bad, in order.
    pub awaited: Vec<Address>,
    /// The router that listeners without a server of their own lead to: see [`Deployment::settle_on_a_router`].
    pub router: Option<Address>,
}

impl Deployment {
    /// Whether there is but one server to go to, so that nothing has to be found out.
    pub fn is_alone(&self) -> bool {
        self.members.len() < 2
    }

    /// Whether it is a sharded cluster, also while a reload asks everybody anew: there are servers behind these.
    pub fn is_routed(&self) -> bool {
        self.router.is_some() || !self.routers.is_empty()
    }

    /// Chooses one router: the one of `last`, unless it is known not to answer, else any (`turn` differs from proxy to proxy,
    /// so that they spread). All connections through a listener have to lead to the same one: drivers take the listener for
    /// one server, and continue a cursor or a transaction on any of their connections to it, while a router knows only its
    /// own.
    pub fn settle_on_a_router(&mut self, last: &Self, turn: usize) {
        let mut able: Vec<&Address> = self.routers.iter().chain(&self.awaited).collect();
        able.sort();
        let stays = last.router.as_ref().filter(|router| able.contains(router));
        let any = || able.get(turn.checked_rem(able.len())?).copied();
        self.router = match self.kind {
            DeploymentKind::Sharded => stays.or_else(any).cloned(),
            // A reload asks everybody anew.
            DeploymentKind::Unknown => last.router.clone(),
            DeploymentKind::Single | DeploymentKind::ReplicaSet => None,
        };
    }

    /// The server that takes writes: the primary, or the router that was settled on.
    pub fn writable(&self) -> Option<&Address> {
        match self.kind {
            DeploymentKind::Sharded => self
                .router
                .as_ref()
                .filter(|router| self.routers.contains(router)),
            DeploymentKind::Unknown => None,
            DeploymentKind::Single => self.members.first(),
            DeploymentKind::ReplicaSet => self.primary.as_ref(),
        }
    }

    /// Whether writes go to another server than this one: a connection that follows them then has no business there any
    /// more. Without a primary, or a router that answers, nobody can say.
    pub fn has_moved_from(&self, member: &Address) -> bool {
        matches!(self.kind, DeploymentKind::ReplicaSet | DeploymentKind::Sharded)
            && self.writable().is_some_and(|writable| writable != member)
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
            ..Deployment::default()
        }
    }

    #[test]
    fn follows_the_primary() {
        let (with, without) = (set(Some("b:1")), set(None));
        assert_eq!(with.writable(), Some(&address("b:1")));
        assert_eq!(without.writable(), None);
        assert!(with.has_moved_from(&address("a:1")));
        assert!(!with.has_moved_from(&address("b:1")));
        assert!(!without.has_moved_from(&address("a:1")));
    }

    fn sharded(routers: &[&str]) -> Deployment {
        Deployment {
            kind: DeploymentKind::Sharded,
            members: ["a:1", "b:1", "c:1"].map(address).to_vec(),
            routers: routers.iter().map(|router| address(router)).collect(),
            ..Deployment::default()
        }
    }

    #[test]
    fn settles_on_one_router_for_as_long_as_it_answers() {
        let mut last = Deployment::default();
        let mut seen = |routers: &[&str], turn| {
            let mut now = sharded(routers);
            now.settle_on_a_router(&last, turn);
            last = now.clone();
            now
        };
        let writable = |seen: &Deployment| seen.writable().map(|router| router.as_str().to_owned());
        assert_eq!(writable(&seen(&[], 5)), None);
        let first = seen(&["b:1", "c:1"], 3);
        assert_eq!(
            writable(&first).as_deref(),
            Some("c:1"),
            "another turn, another router"
        );
        assert!(first.has_moved_from(&address("b:1")) && !first.has_moved_from(&address("c:1")));
        assert_eq!(writable(&seen(&["a:1", "b:1", "c:1"], 3)).as_deref(), Some("c:1"));
        let other = seen(&["a:1", "b:1"], 3);
        assert_eq!(writable(&other).as_deref(), Some("b:1"));
        assert!(other.has_moved_from(&address("c:1")));
        assert_eq!(
            writable(&seen(&["a:1", "b:1", "c:1"], 3)).as_deref(),
            Some("b:1"),
            "one that is back changes nothing"
        );
        let none = seen(&[], 3);
        assert!(
            !none.has_moved_from(&address("b:1")),
            "connections may outlive what monitors see"
        );
    }

    #[test]
    fn waits_for_word_of_its_router_before_it_takes_another() {
        let mut before = sharded(&["a:1", "b:1"]);
        before.settle_on_a_router(&Deployment::default(), 1);
        let mut unknown = Deployment {
            awaited: ["a:1", "b:1", "c:1"].map(address).to_vec(),
            ..Deployment::default()
        };
        unknown.settle_on_a_router(&before, 0);
        assert_eq!(unknown.writable(), None);
        let mut half = sharded(&["a:1"]);
        half.awaited = vec![address("b:1")];
        half.settle_on_a_router(&unknown, 0);
        assert_eq!(half.writable(), None);
        assert!(!half.has_moved_from(&address("b:1")));
        let mut whole = sharded(&["a:1", "b:1"]);
        whole.settle_on_a_router(&half, 0);
        assert_eq!(whole.writable(), Some(&address("b:1")));
        let mut without = sharded(&["a:1"]);
        without.settle_on_a_router(&half, 0);
        assert_eq!(without.writable(), Some(&address("a:1")));
    }

    #[test]
    fn has_a_router_in_a_sharded_cluster_only() {
        let mut one = set(Some("a:1"));
        one.settle_on_a_router(&sharded(&["a:1"]), 0);
        assert_eq!(one.router, None);
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

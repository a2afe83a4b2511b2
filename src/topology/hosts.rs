//! Which listener stands for which upstream member. Owns addresses and their normal form; resolves no name.

use std::fmt;

/// Port of an address that names none, as MongoDB's own.
const DEFAULT_PORT: u16 = 27017;

/// `host:port` in normal form: lower case, port always there, IPv6 in brackets. Drivers compare addresses in lower case,
/// so two spellings must not be two members.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Box<str>);

impl Address {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. `None` where the host is empty or holds what no host can, or
    /// the port is not 1 to 65535.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = split(text)?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        if host.is_empty() || port == 0 || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        Some(Self(format!("{}:{port}", host.to_lowercase()).into_boxed_str()))
    }

    /// `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host alone, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or(&self.0, |(host, _)| host)
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        let digits = self.0.rsplit_once(':').map(|(_, port)| port);
        digits.and_then(|port| port.parse().ok()).unwrap_or(DEFAULT_PORT)
    }
}

/// Host (brackets kept) and port.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let close = text.find(']')?;
        let (host, rest) = text.split_at(close + 1);
        let inside = host.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    (!host.contains(['[', ']', '/', '@'])).then_some((host, port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One listener of the proxy, as drivers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address that hello shows for it.
    pub advertise: Address,
    /// The upstream member it stands for; `None` means whichever takes writes.
    pub member: Option<Address>,
}

/// All listeners: upstream member ↔ advertised address, one to one; and the members that have none.
#[derive(Clone, Debug, Default)]
pub struct HostMap {
    listeners: Vec<Listener>,
    unlisted: Vec<Address>,
    routed: bool,
}

impl HostMap {
    /// Checks that no member and no advertised address is named twice.
    ///
    /// # Errors
    /// [`HostMapError`] naming the address that is.
    pub fn new(listeners: Vec<Listener>) -> Result<Self, HostMapError> {
        for (n, listener) in listeners.iter().enumerate() {
            let others = &listeners[..n];
            if others.iter().any(|other| other.advertise == listener.advertise) {
                return Err(HostMapError::AdvertisedTwice(listener.advertise.clone()));
            }
            if let Some(member) = &listener.member
                && others.iter().any(|other| other.member.as_ref() == Some(member))
            {
                return Err(HostMapError::MemberTwice(member.clone()));
            }
        }
        Ok(Self {
            listeners,
            unlisted: Vec::new(),
            routed: false,
        })
    }

    /// The same map of a sharded cluster's routers: behind them are servers that nobody has told of.
    #[must_use]
    pub fn routed(mut self, routed: bool) -> Self {
        self.routed = routed;
        self
    }

    /// Whether replies may name servers that are not [known](Self::known).
    pub fn is_routed(&self) -> bool {
        self.routed
    }

    /// The same map that also knows these members: whichever of them has no listener must not be named.
    #[must_use]
    pub fn knowing<'a>(mut self, members: impl IntoIterator<Item = &'a Address>) -> Self {
        self.unlisted = members
            .into_iter()
            .filter(|member| self.advertised(member).is_none())
            .cloned()
            .collect();
        self
    }

    /// Every member that is known, with a listener or without.
    pub fn known(&self) -> impl Iterator<Item = &Address> {
        let listed = self
            .listeners
            .iter()
            .filter_map(|listener| listener.member.as_ref());
        listed.chain(&self.unlisted)
    }

    /// The advertised address of the listener that stands for this member by configuration.
    pub fn advertised(&self, member: &Address) -> Option<&Address> {
        self.listeners
            .iter()
            .find(|listener| listener.member.as_ref() == Some(member))
            .map(|listener| &listener.advertise)
    }

    /// The member that the listener with this advertised address stands for by configuration.
    pub fn member(&self, advertised: &Address) -> Option<&Address> {
        self.listeners
            .iter()
            .find(|listener| listener.advertise == *advertised)?
            .member
            .as_ref()
    }

    /// Whether this listener stands for whichever member takes writes: to its clients it is the only member there is.
    pub fn follows_writes(&self, advertised: &Address) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.member.is_none() && listener.advertise == *advertised)
    }
}

/// Why listeners do not make a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMapError {
    /// Two listeners advertise this address.
    AdvertisedTwice(Address),
    /// Two listeners stand for this member.
    MemberTwice(Address),
}

impl fmt::Display for HostMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdvertisedTwice(address) => {
                write!(f, "two listeners advertise {address}; give each its own")
            }
            Self::MemberTwice(address) => write!(f, "two listeners stand for member {address}; keep one"),
        }
    }
}

impl std::error::Error for HostMapError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn listener(advertise: &str, member: Option<&str>) -> Listener {
        Listener {
            advertise: address(advertise),
            member: member.map(address),
        }
    }

    #[test]
    fn normalises_case_and_port() {
        for (text, want) in [
            ("DB1.Internal", "db1.internal:27017"),
            ("db1:1", "db1:1"),
            ("127.0.0.1:27018", "127.0.0.1:27018"),
            ("[::1]", "[::1]:27017"),
            ("[FE80::1]:65535", "[fe80::1]:65535"),
        ] {
            assert_eq!(address(text).as_str(), want);
        }
    }

    #[test]
    fn rejects_what_is_no_address() {
        for text in [
            "",
            ":1",
            "db:",
            "db:0",
            "db:65536",
            "db:+1",
            "db:1:2",
            "::1",
            "[::1",
            "[::1]x",
            "[x]:1",
            "a b",
            "a\0:1",
            "/tmp/mongodb.sock",
            "mongodb://db:1",
            "user@db",
        ] {
            assert_eq!(Address::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn maps_both_ways() {
        let map = HostMap::new(vec![
            listener("proxy:1", Some("DB1")),
            listener("proxy:2", Some("db2")),
        ])
        .unwrap();
        assert_eq!(map.advertised(&address("db2:27017")), Some(&address("proxy:2")));
        assert_eq!(map.member(&address("Proxy:1")), Some(&address("db1")));
        assert_eq!(map.advertised(&address("db3")), None);
        assert_eq!(map.member(&address("proxy:3")), None);
        assert!(!map.follows_writes(&address("proxy:1")));
    }

    #[test]
    fn listeners_without_a_member_follow_writes() {
        let map = HostMap::new(vec![listener("p:1", None), listener("p:2", Some("db2"))]).unwrap();
        assert!(map.follows_writes(&address("p:1")));
        assert!(!map.follows_writes(&address("p:2")));
        assert!(!map.follows_writes(&address("p:3")));
    }

    #[test]
    fn knows_members_without_a_listener() {
        let map = HostMap::new(vec![listener("p:1", Some("db1"))]).unwrap();
        let map = map.knowing(&[address("db1"), address("db2")]);
        assert_eq!(
            map.known().collect::<Vec<_>>(),
            [&address("db1"), &address("db2")]
        );
        assert_eq!(map.advertised(&address("db2")), None);
    }

    #[test]
    fn rejects_addresses_named_twice() {
        assert_eq!(
            HostMap::new(vec![listener("P:1", None), listener("p:1", Some("db"))]).err(),
            Some(HostMapError::AdvertisedTwice(address("p:1")))
        );
        assert_eq!(
            HostMap::new(vec![
                listener("p:1", Some("db")),
                listener("p:2", Some("DB:27017"))
            ])
            .err(),
            Some(HostMapError::MemberTwice(address("db")))
        );
    }
}

//! A connection string that does not show what is secret in it.

use std::fmt;
use std::sync::Arc;

/// A driver's connection string; it may hold a password, so printing it shows the hosts only.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionUri {
    text: Arc<str>,
    compressors: Option<Arc<str>>,
    zlib_level: Option<Arc<str>>,
}

impl ConnectionUri {
    /// Checks the scheme and that a host is named; everything else is the driver's to judge.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let rest = text
            .strip_prefix("mongodb://")
            .or_else(|| text.strip_prefix("mongodb+srv://"))
            .ok_or("is not a MongoDB connection string")?;
        if host_part(rest).is_empty() {
            return Err("names no host");
        }
        let mut uri = Self {
            text: text.into(),
            compressors: None,
            zlib_level: None,
        };
        uri.take_compression();
        Ok(uri)
    }

    /// Moves the options about compression out of the text. Names of options know no case, and the last of two counts.
    fn take_compression(&mut self) {
        // A password that holds an unescaped `?` is malformed; what follows the hosts is not.
        let hosts = self.text.rfind('@').unwrap_or(0);
        let Some(query) = self.text[hosts..].find('?').map(|at| hosts + at + 1) else {
            return;
        };
        let mut kept = Vec::new();
        for option in self.text[query..].split('&') {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if key.eq_ignore_ascii_case("compressors") {
                self.compressors = Some(value.into());
            } else if key.eq_ignore_ascii_case("zlibCompressionLevel") {
                self.zlib_level = Some(value.into());
            } else {
                kept.push(option);
            }
        }
        let kept = format!("{}{}", &self.text[..query], kept.join("&"));
        self.text = kept.into();
    }

    /// Whether it holds credentials, or names a way to log in that needs none in it (a certificate, an instance's role).
    pub fn has_credentials(&self) -> bool {
        self.text.contains('@') || self.text.to_ascii_lowercase().contains("authmechanism=")
    }

    /// `compressors`, as it is written. The driver of the service's own connections was built without any, and would
    /// refuse the option: it never sees it.
    pub fn compressors(&self) -> Option<&str> {
        self.compressors.as_deref()
    }

    /// `zlibCompressionLevel`, as it is written.
    pub fn zlib_level(&self) -> Option<&str> {
        self.zlib_level.as_deref()
    }

    /// The whole text but for the compressors, password included: for the driver, never for a log.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

/// What follows the last `@`, up to the database or the options. A password that holds an unescaped `@`, `/` or `?`
/// is malformed, but must not be shown for that.
fn host_part(rest: &str) -> &str {
    let rest = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    rest.split(['/', '?']).next().unwrap_or("")
}

impl fmt::Display for ConnectionUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.text.split_once("://").unwrap_or(("", ""));
        let user = if rest.contains('@') { "***@" } else { "" };
        write!(f, "{scheme}://{user}{}", host_part(rest))
    }
}

impl fmt::Debug for ConnectionUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_whether_there_are_credentials() {
        for (text, has) in [
            ("mongodb://u:pw@h1:1,h2:2/db?a=b", true),
            ("mongodb+srv://h/?AuthMechanism=MONGODB-X509", true),
            ("mongodb://127.0.0.1:27017", false),
            ("mongodb://h1,h2/?replicaSet=rs0&tls=true", false),
        ] {
            assert_eq!(ConnectionUri::new(text).unwrap().has_credentials(), has, "{text}");
        }
    }

    #[test]
    fn takes_compression_out_of_what_the_driver_sees() {
        let read = |text| {
            let uri = ConnectionUri::new(text).unwrap();
            let own = |text: Option<&str>| text.map(str::to_owned);
            (
                own(uri.compressors()),
                own(uri.zlib_level()),
                uri.expose().to_owned(),
            )
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(
                "mongodb://u:p?w@h/db?tls=true&Compressors=zlib&compressors=zstd,snappy&x&zlibCompressionLevel=3"
            ),
            (
                some("zstd,snappy"),
                some("3"),
                "mongodb://u:p?w@h/db?tls=true&x".to_owned()
            )
        );
        assert_eq!(
            read("mongodb://h/?compressors=zlib"),
            (some("zlib"), None, "mongodb://h/?".to_owned())
        );
        assert_eq!(
            read("mongodb://u:p?compressors=zlib@h"),
            (None, None, "mongodb://u:p?compressors=zlib@h".to_owned())
        );
    }

    #[test]
    fn never_shows_a_password() {
        for (text, shown) in [
            ("mongodb://u:pw@h1:1,h2:2/db?a=b", "mongodb://***@h1:1,h2:2"),
            ("mongodb+srv://u:p@w@host.x/", "mongodb+srv://***@host.x"),
            ("mongodb://u:p/w@h", "mongodb://***@h"),
            ("mongodb://u:p?w@h", "mongodb://***@h"),
            ("mongodb://h/?tlsCertificateKeyFilePassword=pw", "mongodb://h"),
            ("mongodb://127.0.0.1:27017", "mongodb://127.0.0.1:27017"),
        ] {
            let uri = ConnectionUri::new(text).unwrap();
            assert_eq!(uri.to_string(), shown);
            assert_eq!(format!("{uri:?}"), shown);
            assert_eq!(uri.expose(), text);
        }
        assert!(ConnectionUri::new("http://x").is_err());
        assert!(ConnectionUri::new("mongodb:///db").is_err());
    }
}

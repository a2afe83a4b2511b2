//! The proxies under test: one with every key, and one that knows only the first key of each domain, which is what
//! wrote the older documents of a rotation.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bson::doc;
use fieldveil::crypto::MATERIAL;
use fieldveil::keys::{DekStore as _, KeyProvider as _, KeyRecord};
use fieldveil::kms::EnvKey;
use fieldveil::name::{KeyId, Namespace};
use fieldveil::secret::Secret;
use fieldveil::store::MongoStore;

use crate::Outcome;
use crate::model::{Map, State};
use crate::wire::Connection;

const VAULTS: &str = "differential_vaults";
const MASTER: &str = "FIELDVEIL_DIFFERENTIAL_MASTER";
const MASTER_VALUE: &str = "5c6b7a8990a1b2c3d4e5f60718293a4b5c6b7a8990a1b2c3d4e5f60718293a4b";

/// `fieldveil serve`, ended with its owner.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) log: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Ends either way: at worst it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Proxy {
    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn start(
        binary: &Path,
        directory: &Path,
        name: &str,
        upstream: &str,
        maps: &[Map],
    ) -> Outcome<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut config = format!(
            "[upstream]\nuri = \"{upstream}\"\n\n[[listen]]\naddress = \"{address}\"\nallow_plaintext = true\n\n[keys]\n\
             vault = \"{VAULTS}.{name}\"\nmaster = {{ provider = \"env\", variable = \"{MASTER}\" }}\n\n\
             [audit]\npath = \"{name}.jsonl\"\n\n"
        );
        for map in maps {
            config.push_str(&map.toml());
        }
        let file = directory.join(format!("{name}.toml"));
        fs::write(&file, config)?;
        let log = directory.join(format!("{name}.log"));
        let sink = fs::File::create(&log)?;
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&file)
            .env(MASTER, MASTER_VALUE)
            .env("RUST_LOG", "warn")
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(sink.try_clone()?)
            .stderr(sink)
            .spawn()?;
        let mut proxy = Self { child, address, log };
        let begun = Instant::now();
        loop {
            let hello = doc! { "hello": 1, "$db": "admin" };
            if let Ok(reply) = Connection::open(address).and_then(|mut c| c.must(&hello))
                && matches!(reply.get_bool("isWritablePrimary"), Ok(true))
            {
                return Ok(proxy);
            }
            if !proxy.alive() || begun.elapsed() > Duration::from_secs(60) {
                return Err(format!("the proxy did not start:\n{}", fs::read_to_string(&proxy.log)?).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Two vaults: `before` holds version 1 of the rotating domains, `now` holds versions 1 and 2.
pub(crate) fn prepare_vaults(uri: &str, maps: &[Map]) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let provider = EnvKey::new(MASTER, MASTER_VALUE).map_err(|e| e.to_string())?;
        let now = store(uri, "now").await?;
        let before = store(uri, "before").await?;
        now.prepare().await.map_err(|e| e.to_string())?;
        before.prepare().await.map_err(|e| e.to_string())?;
        for map in maps.iter().filter(|m| m.state == State::Rotating) {
            for domain in map.domains() {
                for version in 1..=2 {
                    let mut material = [0; MATERIAL];
                    for half in material.chunks_mut(16) {
                        half.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
                    }
                    let id = KeyId(*uuid::Uuid::new_v4().as_bytes());
                    let wrapped = provider
                        .wrap(&id, &Secret::new(material))
                        .await
                        .map_err(|e| e.to_string())?;
                    let record = KeyRecord {
                        id,
                        alt_names: vec![format!("fieldveil/{domain}/{version}")],
                        wrapped,
                        master: provider.describe(),
                        enabled: true,
                    };
                    now.insert(&record).await.map_err(|e| e.to_string())?;
                    if version == 1 {
                        before.insert(&record).await.map_err(|e| e.to_string())?;
                    }
                }
            }
        }
        Ok(())
    })
}

async fn store(uri: &str, name: &str) -> Outcome<MongoStore> {
    let namespace = Namespace::new(VAULTS, name).ok_or("a bad name")?;
    Ok(MongoStore::connect(uri, &namespace)
        .await
        .map_err(|e| e.to_string())?)
}

/// `now` and `before` start empty.
pub(crate) fn drop_vaults(server: &mut Connection) -> Outcome<()> {
    server.must(&doc! { "dropDatabase": 1, "$db": VAULTS })?;
    Ok(())
}

//! Starts and ends everything that the benchmark talks to: `mongod` as a replica set of one with access control,
//! HAProxy, fieldveil. All of it lives in one temporary directory, on free ports of 127.0.0.1.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::doc;
use rustls::{ClientConfig, RootCertStore};

use crate::Outcome;
use crate::connection::Connection;
use crate::patient::FIELD_MAP;
use crate::process::Process;
use crate::scram::Login;

const USER: &str = "bench";
const PASSWORD: &str = "bench-only";
const START: Duration = Duration::from_secs(30);

/// The directory, the certificates in it, and how a client trusts them.
pub(crate) struct Site {
    directory: PathBuf,
    pub(crate) tls: Arc<ClientConfig>,
    /// Removes the directory in the end.
    _temporary: Option<tempfile::TempDir>,
}

/// A server that ends with its owner.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    name: String,
    log: PathBuf,
}

impl Site {
    /// A fresh directory with a certificate authority and one server certificate (ECDSA P-256).
    pub(crate) fn new(keep: bool) -> Outcome<Self> {
        let temporary = tempfile::Builder::new().prefix("fieldveil-bench-").tempdir()?;
        let (directory, temporary) = if keep {
            let directory = temporary.keep();
            eprintln!("servers live in {}", directory.display());
            (directory, None)
        } else {
            (temporary.path().to_owned(), Some(temporary))
        };
        let tls = write_certificates(&directory)?;
        Ok(Self {
            directory,
            tls,
            _temporary: temporary,
        })
    }

    pub(crate) fn login(&self) -> Login {
        Login::new(USER, PASSWORD)
    }

    /// The connection string of an application that reaches the database at `address`.
    pub(crate) fn uri(&self, address: SocketAddr) -> String {
        format!(
            "mongodb://{USER}:{PASSWORD}@{address}/?authSource=admin&{}",
            self.uri_options()
        )
    }

    fn uri_options(&self) -> String {
        format!(
            "directConnection=true&tls=true&tlsCAFile={}",
            self.path("ca.pem").display()
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `mongod` with default durability, a small cache and its own diagnostics off; ready for writes on return.
    pub(crate) async fn start_mongod(&self, program: &Path) -> Outcome<Server> {
        fs::create_dir(self.path("db"))?;
        write_private(&self.path("replica.key"), "YmVuY2gtb25seS1ub3QtYS1zZWNyZXQ=\n")?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .args([
                "--bind_ip",
                "127.0.0.1",
                "--port",
                &address.port().to_string(),
                "--nounixsocket",
            ])
            .args([
                "--replSet",
                "bench",
                "--auth",
                "--oplogSize",
                "512",
                "--wiredTigerCacheSizeGB",
                "0.5",
            ])
            .args([
                "--tlsMode",
                "requireTLS",
                "--tlsAllowConnectionsWithoutCertificates",
            ])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .arg("--dbpath")
            .arg(self.path("db"))
            .arg("--keyFile")
            .arg(self.path("replica.key"))
            .arg("--tlsCertificateKeyFile")
            .arg(self.path("server-both.pem"))
            .arg("--tlsCAFile")
            .arg(self.path("ca.pem"));
        let mut server = self.spawn("mongod", command, address)?;
        let mut connection = server.wait_until_ready(&self.tls).await?;
        let members = doc! { "_id": "bench", "members": [{ "_id": 0, "host": address.to_string() }] };
        connection
            .run(doc! { "replSetInitiate": members, "$db": "admin" })
            .await?;
        let begun = Instant::now();
        while !connection
            .run(doc! { "hello": 1, "$db": "admin" })
            .await?
            .get_bool("isWritablePrimary")?
        {
            if begun.elapsed() > START {
                return Err("mongod did not become primary".into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        connection
            .run(doc! { "createUser": USER, "pwd": PASSWORD, "roles": ["root"], "$db": "admin" })
            .await?;
        Ok(server)
    }

    /// HAProxy in TCP mode, TLS on both legs, as many threads as fieldveil has workers.
    pub(crate) async fn start_haproxy(
        &self,
        program: &Path,
        name: &str,
        upstream: SocketAddr,
    ) -> Outcome<Server> {
        let address = free_address()?;
        let configuration = format!(
            "global\n    nbthread {threads}\n    maxconn 8192\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
             frontend clients\n    bind {address} ssl crt {pem}\n    default_backend database\n\
             backend database\n    server mongod {upstream} ssl verify required verifyhost localhost ca-file {ca}\n",
            threads = workers(),
            pem = self.path("server-both.pem").display(),
            ca = self.path("ca.pem").display(),
        );
        let path = self.path(&format!("{name}.cfg"));
        fs::write(&path, configuration)?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(path);
        let mut server = self.spawn(name, command, address)?;
        server.wait_until_ready(&self.tls).await?;
        Ok(server)
    }

    /// fieldveil in front of `upstream`; `namespaces` get the field map.
    pub(crate) async fn start_fieldveil(
        &self,
        program: &Path,
        name: &str,
        upstream: SocketAddr,
        namespaces: &[String],
    ) -> Outcome<Server> {
        let address = free_address()?;
        let path = self.path(&format!("{name}.toml"));
        write_private(
            &path,
            &self.fieldveil_configuration(name, address, upstream, namespaces)?,
        )?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--config")
            .arg(path)
            .current_dir(&self.directory);
        let mut server = self.spawn(name, command, address)?;
        server.wait_until_ready(&self.tls).await?;
        Ok(server)
    }

    fn fieldveil_configuration(
        &self,
        name: &str,
        address: SocketAddr,
        upstream: SocketAddr,
        namespaces: &[String],
    ) -> Outcome<String> {
        let at = |file: &str| self.path(file).display().to_string();
        let (options, service) = (self.uri_options(), self.uri(upstream));
        let mut text = format!(
            "[upstream]\nuri = \"mongodb://{upstream}/?{options}\"\n\n\
             [[listen]]\naddress = \"{address}\"\n\n\
             [tls]\ncertificate = \"{}\"\nprivate_key = \"{}\"\n\n\
             [keys]\nvault = \"encryption_{name}.__keyVault\"\n\
             uri = \"{service}\"\n\
             master = {{ provider = \"file\", path = \"{}\" }}\n\n\
             [admin]\naddress = \"{}\"\n\n\
             [audit]\npath = \"{}\"\n",
            at("server.pem"),
            at("server.key"),
            at(&format!("{name}-master.key")),
            free_address()?,
            at(&format!("{name}-audit.jsonl")),
        );
        for namespace in namespaces {
            write!(text, "\n[[collection]]\nnamespace = \"{namespace}\"\n")?;
            text.push_str("subject = \"nhs_number\"\n\n[collection.fields]\n");
            for (field, rule) in FIELD_MAP {
                writeln!(text, "\"{field}\" = {rule}")?;
            }
        }
        Ok(text)
    }

    fn spawn(&self, name: &str, mut command: Command, address: SocketAddr) -> Outcome<Server> {
        let log = self.path(&format!("{name}.log"));
        let output = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        Ok(Server {
            child,
            address,
            name: name.to_owned(),
            log,
        })
    }
}

impl Server {
    pub(crate) fn process(&self) -> Process {
        Process { id: self.child.id() }
    }

    /// Waits until `hello` is answered over TLS; a server that ends instead shows the end of its log.
    async fn wait_until_ready(&mut self, tls: &Arc<ClientConfig>) -> Outcome<Connection> {
        let begun = Instant::now();
        loop {
            let problem = match Connection::open(self.address, tls).await {
                Ok(connection) => return Ok(connection),
                Err(problem) => problem,
            };
            let ended = self.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > START {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                let name = &self.name;
                return Err(
                    format!("{name} is not ready ({ended:?}): {problem}\n{}", tail.join("\n")).into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; its files go with the directory either way.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Threads of each forwarder: one per processor.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn write_private(path: &Path, text: &str) -> Outcome<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn write_certificates(directory: &Path) -> Outcome<Arc<ClientConfig>> {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };

    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "bench authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server
        .distinguished_name
        .push(rcgen::DnType::CommonName, "localhost");
    // mongod also calls itself with this certificate when it forms the replica set.
    server.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    fs::write(directory.join("ca.pem"), authority.pem())?;
    fs::write(directory.join("server.pem"), certificate.pem())?;
    write_private(&directory.join("server.key"), &key.serialize_pem())?;
    write_private(
        &directory.join("server-both.pem"),
        &(certificate.pem() + &key.serialize_pem()),
    )?;

    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(tls))
}

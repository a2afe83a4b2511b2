//! The listener over real sockets.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::admin::{Latch, Readiness};
use crate::metrics::{Labels, Metrics};

struct Running {
    address: SocketAddr,
    readiness: Arc<Readiness>,
    audit_works: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let labels = Labels {
        commands: &["find"],
        refusals: &["r"],
        failures: &["f"],
        providers: &["file"],
    };
    let metrics = Arc::new(Metrics::new(&labels, &[]).unwrap());
    let readiness = Arc::new(Readiness::new());
    let audit_works = Arc::new(AtomicBool::new(true));
    let works = Arc::clone(&audit_works);
    let admin = Admin::new(metrics, Arc::clone(&readiness), move |metrics, readiness| {
        let works = works.load(Ordering::Acquire);
        readiness.set(Latch::Audit, works);
        metrics.set_audit(works, 7, 0, 0);
    });
    let server = AdminServer::bind(([127, 0, 0, 1], 0).into(), admin)
        .await
        .unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.serve(async {
        let _ = stopped.await;
    }));
    Running {
        address,
        readiness,
        audit_works,
        stop,
        task,
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that has seen enough may close before all is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn says_what_is_missing_until_everything_works_and_again_when_it_stops() {
    let running = start().await;
    assert!(get(running.address, "/livez").await.starts_with("HTTP/1.1 200"));
    let answer = get(running.address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("{\"missing\":[\"listeners\",\"upstream\",\"key_vault\"],\"ready\":false}"),
        "{answer}"
    );
    for latch in [Latch::Listeners, Latch::Upstream, Latch::KeyVault] {
        running.readiness.set(latch, true);
    }
    let answer = get(running.address, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"ready\":true"),
        "{answer}"
    );
    running.audit_works.store(false, Ordering::Release);
    assert!(get(running.address, "/readyz").await.contains("[\"audit\"]"));
    assert!(get(running.address, "/livez").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn shows_metrics_as_they_are_now() {
    let running = start().await;
    let answer = get(running.address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("text/plain; version=0.0.4"));
    assert!(answer.contains("\nfieldveil_audit_sequence 7\n"));
    assert!(answer.contains("\nfieldveil_audit_healthy 1\n"));
    running.audit_works.store(false, Ordering::Release);
    assert!(
        get(running.address, "/metrics")
            .await
            .contains("\nfieldveil_audit_healthy 0\n")
    );
}

#[tokio::test]
async fn rejects_other_methods_paths_and_oversize_heads() {
    let running = start().await;
    let answer = ask(
        running.address,
        "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(
        get(running.address, "/../etc/passwd")
            .await
            .starts_with("HTTP/1.1 404")
    );
    let head = ask(running.address, "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let wide = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    assert!(!ask(running.address, &wide).await.contains(" 200 "));
    let many = format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert!(!ask(running.address, &many).await.contains(" 200 "));
    assert!(
        !ask(running.address, "not http at all\r\n\r\n")
            .await
            .contains(" 200 ")
    );
    assert!(get(running.address, "/livez").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn closes_connections_past_the_limit_and_serves_again_after() {
    let running = start().await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    assert_eq!(get(running.address, "/livez").await, "");
    drop(held);
    let served = async {
        while !get(running.address, "/livez").await.contains(" 200 ") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), served).await.unwrap();
}

#[tokio::test]
async fn stops_when_told() {
    let running = start().await;
    running.stop.send(()).unwrap();
    timeout(Duration::from_secs(10), running.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

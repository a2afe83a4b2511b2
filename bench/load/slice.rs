//! One slice: so many connections of one way do one operation for so long.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Outcome;
use crate::connection::Connection;
use crate::operation::{Operation, Worker};
use crate::patient::Patients;
use crate::process::{Process, Spent};
use crate::targets::Target;

/// Time for the servers to finish what the last reply left over, so that it is counted with its slice.
const SETTLE: Duration = Duration::from_millis(20);
/// A slice that takes this much longer than it should has stalled.
const STALLED: Duration = Duration::from_secs(60);

/// What is the same for all slices.
pub(crate) struct Setting {
    pub(crate) patients: Arc<Patients>,
    pub(crate) database: Process,
    pub(crate) length: Duration,
    pub(crate) warm_up: Duration,
}

/// What a slice came to.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) operations: usize,
    /// Operations per second.
    pub(crate) throughput: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processor time per operation in microseconds.
    pub(crate) proxy_cpu: Option<f64>,
    pub(crate) database_cpu: f64,
    pub(crate) load_cpu: f64,
    /// Resident bytes of the proxy when the slice ended.
    pub(crate) proxy_memory: Option<u64>,
    /// The most it ever had, since it started.
    pub(crate) proxy_peak: Option<u64>,
    /// Documents whose write was acknowledged, the warm-up's included.
    pub(crate) acknowledged: usize,
}

/// Runs `operation` over `connections` and hands them back.
pub(crate) async fn run(
    setting: &Setting,
    target: &Target,
    operation: Operation,
    connections: &mut Vec<Connection>,
) -> Outcome<Slice> {
    let collection = if operation.writes() {
        target.way.write_collection()
    } else {
        target.way.read_collection()
    };
    let fresh = Arc::new(AtomicUsize::new(0));
    let mut pairs = Vec::with_capacity(connections.len());
    for (number, connection) in connections.drain(..).enumerate() {
        pairs.push((
            connection,
            Worker::new(operation, collection, &setting.patients, &fresh, number)?,
        ));
    }
    let (pairs, warmed) = drive(pairs, setting.warm_up).await?;
    tokio::time::sleep(SETTLE).await;

    let books = Books::open(setting, target)?;
    let begun = Instant::now();
    let (pairs, mut latencies) = drive(pairs, setting.length).await?;
    let took = begun.elapsed();
    tokio::time::sleep(SETTLE).await;
    let (proxy, database, load) = books.close()?;

    connections.extend(pairs.into_iter().map(|(connection, _)| connection));
    latencies.sort_unstable();
    let operations = latencies.len();
    let memory = target.proxy.map(|proxy| proxy.memory()).transpose()?;
    let per_operation = |spent: Duration| spent.as_secs_f64() * 1e6 / operations as f64;
    Ok(Slice {
        operations,
        throughput: operations as f64 / took.as_secs_f64(),
        p50: percentile(&latencies, 0.50),
        p99: percentile(&latencies, 0.99),
        proxy_cpu: proxy.map(per_operation),
        database_cpu: per_operation(database),
        load_cpu: per_operation(load),
        proxy_memory: memory.map(|memory| memory.now),
        proxy_peak: memory.map(|memory| memory.peak),
        acknowledged: if operation.writes() {
            (operations + warmed.len()) * operation.documents()
        } else {
            0
        },
    })
}

type Pair = (Connection, Worker);

/// The closed loop; the latencies are nanoseconds.
async fn drive(pairs: Vec<Pair>, length: Duration) -> Outcome<(Vec<Pair>, Vec<u64>)> {
    let deadline = Instant::now() + length;
    let mut tasks = JoinSet::new();
    for pair in pairs {
        tasks.spawn(repeat(pair, deadline));
    }
    let joined = tokio::time::timeout(length + STALLED, async {
        let (mut pairs, mut latencies) = (Vec::new(), Vec::new());
        while let Some(ended) = tasks.join_next().await {
            let (pair, mut own) = ended??;
            pairs.push(pair);
            latencies.append(&mut own);
        }
        Outcome::Ok((pairs, latencies))
    });
    joined.await.map_err(|_| "a slice stalled")?
}

async fn repeat((mut connection, mut worker): Pair, deadline: Instant) -> Outcome<(Pair, Vec<u64>)> {
    let mut latencies = Vec::with_capacity(4096);
    let mut sent = Instant::now();
    // At least one, however short the slice: no figure comes from nothing.
    loop {
        let reply = connection.exchange(worker.next()).await?;
        latencies.push(u64::try_from(sent.elapsed().as_nanos())?);
        worker.check(&reply)?;
        sent = Instant::now();
        if sent >= deadline {
            return Ok(((connection, worker), latencies));
        }
    }
}

/// The processor time of everybody when the slice began.
struct Books {
    proxy: Option<(Process, Spent)>,
    database: (Process, Spent),
    load: (Process, Spent),
}

impl Books {
    fn open(setting: &Setting, target: &Target) -> Outcome<Self> {
        let entry = |process: Process| Outcome::Ok((process, process.spent()?));
        Ok(Self {
            proxy: target.proxy.map(entry).transpose()?,
            database: entry(setting.database)?,
            load: entry(Process::own())?,
        })
    }

    fn close(self) -> Outcome<(Option<Duration>, Duration, Duration)> {
        let since = |(process, before): (Process, Spent)| Outcome::Ok(process.spent()?.since(before));
        Ok((
            self.proxy.map(since).transpose()?,
            since(self.database)?,
            since(self.load)?,
        ))
    }
}

/// Of sorted nanoseconds, in microseconds.
fn percentile(sorted: &[u64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    sorted
        .get(index)
        .map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e3)
}

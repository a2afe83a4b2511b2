//! The pump of one connection: bytes in, whole frames to the session, bytes out. Owns back-pressure and time limits;
//! decides nothing about a frame.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::end::End;
use super::incoming::{FRAME_TIME, Incoming};
use super::leg::Leg;
use super::observe::Observer;
use super::outgoing::Outgoing;
use super::shared::{Live, Shared};
use super::upstream::Reached;
use crate::limits;
use crate::session::{Context, Session, Step};
use crate::topology::Address;
use crate::wire::deframe::{Peeled, peel};

/// While draining, a peer that takes nothing for so long is not waited for.
const DRAIN_STALL: Duration = Duration::from_secs(2);
/// A client whose end has come may have closed its own direction only; it may as well be gone, and a server that says
/// nothing for so long has nothing for it.
const GONE_TIME: Duration = Duration::from_secs(60);

/// Something that happens once.
type Signal = Pin<Box<dyn Future<Output = ()>>>;

/// One connection with both of its sides up.
pub(super) struct Connection {
    client: Leg,
    server: Leg,
    session: Session,
    shared: Arc<Shared>,
    place: Place,
    observer: Observer,
    from_client: Incoming,
    from_server: Incoming,
    to_client: Outgoing,
    to_server: Outgoing,
    active: Instant,
    timer: Pin<Box<Sleep>>,
    stop: Signal,
    stopping: bool,
    /// Where the connection follows writes: the member it leads to, and when that is no longer the right one.
    following: Option<(Address, Signal)>,
    moved: bool,
}

/// Where the client came in.
struct Place {
    /// The listener's advertised address.
    listener: Address,
    /// Its connections follow the member of a set that takes writes, and there are others.
    follows: bool,
}

/// What a wait came back with.
enum Woke {
    Client,
    Server,
    Wrote,
    Timer,
    Drain,
    Moved,
}

impl Connection {
    pub(super) fn new(
        client: Leg,
        reached: Reached,
        session: Session,
        shared: Arc<Shared>,
        listener: Address,
    ) -> Self {
        let observer = shared.observer();
        let stop: Signal = Box::pin(shared.stop());
        let following = reached.following.map(|member| {
            let moved: Signal = Box::pin(shared.moved_from(member.clone()));
            (member, moved)
        });
        // A router that says that it takes no writes passes on what a shard said, and is still the one to ask.
        let follows = following.is_some() && !shared.members().now().is_routed();
        Self {
            client,
            server: reached.leg,
            session,
            shared,
            place: Place { listener, follows },
            observer,
            from_client: Incoming::default(),
            from_server: Incoming::default(),
            to_client: Outgoing::default(),
            to_server: Outgoing::default(),
            active: Instant::now(),
            timer: Box::pin(tokio::time::sleep(FRAME_TIME)),
            stop,
            stopping: false,
            following,
            moved: false,
        }
    }

    /// Runs until either side is done.
    pub(super) async fn run(mut self) -> End {
        let end = match self.pump().await {
            Ok(end) | Err(end) => end,
        };
        if let (End::Moved, false, Some((member, _))) = (end, self.moved, &self.following) {
            // The server said so before any monitor did.
            self.shared.depose(member.clone()).await;
        }
        self.last_words().await;
        end
    }

    async fn pump(&mut self) -> Result<End, End> {
        loop {
            match self.wait().await.map_err(|_| End::Io)? {
                Woke::Client => self.client_frames().await?,
                Woke::Server => self.server_frames().await?,
                Woke::Wrote => self.active = Instant::now(),
                Woke::Timer => self.check_time()?,
                Woke::Drain => return Ok(End::Drained),
                Woke::Moved => return Ok(End::Moved),
            }
            self.count_written();
            self.observer.report(&mut self.session);
            if self.from_server.is_over() && self.to_client.is_drained() {
                return Ok(End::ServerClosed);
            }
            // A client may have closed its own direction only, and still take what it asked for.
            let rests = self.to_server.is_drained() && self.to_client.is_drained();
            if self.from_client.is_over() && self.session.is_quiet() && rests {
                return Ok(End::ClientClosed);
            }
        }
    }

    /// Counts what the sockets have taken, whole messages or not.
    fn count_written(&mut self) {
        self.observer.client_got(self.to_client.take_count());
        self.observer.server_got(self.to_server.take_count());
    }

    /// Waits until bytes can be moved in any direction that back-pressure allows.
    async fn wait(&mut self) -> io::Result<Woke> {
        let idle = self.session.is_quiet() && self.to_client.is_drained() && self.to_server.is_drained();
        poll_fn(|cx| {
            if !self.to_server.is_drained() {
                match self.to_server.poll_drain(cx, Pin::new(&mut self.server)) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(Woke::Wrote)),
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {}
                }
            }
            if !self.to_client.is_drained() {
                match self.to_client.poll_drain(cx, Pin::new(&mut self.client)) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(Woke::Wrote)),
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {}
                }
            }
            if self.to_client.has_room() && !self.from_server.is_over() {
                if self.from_server.whole {
                    return Poll::Ready(Ok(Woke::Server));
                }
                match self.from_server.poll_fill(cx, Pin::new(&mut self.server)) {
                    Poll::Ready(Ok(n)) => {
                        self.observer.server_sent(n);
                        return Poll::Ready(Ok(Woke::Server));
                    }
                    // A server that goes away is the client's business to notice, after what it has sent.
                    Poll::Ready(Err(_)) => {
                        self.from_server.closed = true;
                        return Poll::Ready(Ok(Woke::Server));
                    }
                    Poll::Pending => {}
                }
            } else {
                self.from_server.hold();
            }
            let takes = self.takes_requests();
            if takes && self.from_client.whole {
                return Poll::Ready(Ok(Woke::Client));
            }
            if !takes || self.from_client.closed {
                self.from_client.hold();
            }
            if !self.from_client.closed && (takes || self.from_client.reads_ahead()) {
                match self.from_client.poll_fill(cx, Pin::new(&mut self.client)) {
                    Poll::Ready(Ok(n)) => {
                        self.observer.client_sent(n);
                        return Poll::Ready(Ok(Woke::Client));
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {}
                }
            }
            // Kept registered over the connection's life: being told to stop costs nothing until it happens.
            self.stopping = self.stopping || self.stop.as_mut().poll(cx).is_ready();
            for due in [self.stall_ends(), self.gone_ends()].into_iter().flatten() {
                if due < self.timer.deadline() {
                    self.timer.as_mut().reset(due);
                }
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Woke::Timer));
            }
            if idle && self.stopping {
                return Poll::Ready(Ok(Woke::Drain));
            }
            if let Some((_, moved)) = &mut self.following {
                self.moved = self.moved || moved.as_mut().poll(cx).is_ready();
                if idle && self.moved {
                    return Poll::Ready(Ok(Woke::Moved));
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn client_frames(&mut self) -> Result<(), End> {
        self.active = Instant::now();
        let bytes = std::mem::take(&mut self.from_client.bytes);
        let mut at = 0;
        self.from_client.whole = false;
        loop {
            let max = self.session.largest_request(self.shared.live().login);
            let rest = bytes.get(at..).unwrap_or_default();
            match peel(rest, max) {
                // How large one may be can depend on what is waited for, too.
                Ok(Peeled::Frame(_)) | Err(_) if !self.takes_requests() => {
                    self.from_client.whole = true;
                    break;
                }
                Ok(Peeled::Frame(length)) => {
                    self.client_frame(rest.get(..length).unwrap_or_default()).await?;
                    at += length;
                }
                Ok(Peeled::Incomplete { .. }) => break,
                Err(_) => return Err(End::Closed("malformed frame")),
            }
        }
        self.from_client.keep_rest(bytes, at);
        Ok(())
    }

    /// Whether a further request may be taken: the buffers are bounded, as is the number of those that wait for their
    /// reply, and some must be answered before the next one is looked at.
    fn takes_requests(&self) -> bool {
        self.to_server.has_room() && self.to_client.has_room() && self.session.takes_requests()
    }

    async fn client_frame(&mut self, frame: &[u8]) -> Result<(), End> {
        loop {
            let live = self.shared.live();
            let begun = self.shared.now_us();
            let step = with_context(&self.shared, &live, &self.place, begun, |cx| {
                self.session
                    .on_client(frame, cx, &mut self.to_server.bytes, &mut self.to_client.bytes)
            });
            self.session.charge(self.shared.now_us() - begun);
            match step {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::NeedKeys(wanted)) => {
                    if let Err(why) = self.shared.resolve(&wanted).await {
                        let now = self.shared.now_us();
                        let refused = with_context(&self.shared, &live, &self.place, now, |cx| {
                            let (to_server, to_client) = (&mut self.to_server, &mut self.to_client);
                            self.session.refuse_client(
                                frame,
                                cx,
                                &why,
                                &mut to_server.bytes,
                                &mut to_client.bytes,
                            )
                        });
                        return refused.map_err(End::from);
                    }
                }
                Err(closing) => return Err(closing.into()),
            }
        }
    }

    async fn server_frames(&mut self) -> Result<(), End> {
        self.active = Instant::now();
        let bytes = std::mem::take(&mut self.from_server.bytes);
        let mut at = 0;
        self.from_server.whole = false;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match peel(rest, limits::MAX_MESSAGE) {
                Ok(Peeled::Frame(_)) if !self.to_client.has_room() => {
                    self.from_server.whole = true;
                    break;
                }
                Ok(Peeled::Frame(length)) => {
                    self.server_frame(rest.get(..length).unwrap_or_default()).await?;
                    at += length;
                }
                Ok(Peeled::Incomplete { .. }) => break,
                Err(_) => return Err(End::Closed("malformed reply")),
            }
        }
        self.from_server.keep_rest(bytes, at);
        Ok(())
    }

    async fn server_frame(&mut self, frame: &[u8]) -> Result<(), End> {
        loop {
            let live = self.shared.live();
            let begun = self.shared.now_us();
            let step = with_context(&self.shared, &live, &self.place, begun, |cx| {
                self.session
                    .on_server(frame, cx, &mut self.to_server.bytes, &mut self.to_client.bytes)
            });
            for change in self.session.take_changes() {
                self.shared.change_views(change);
            }
            self.session.charge(self.shared.now_us() - begun);
            match step {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::NeedKeys(wanted)) => {
                    if let Err(why) = self.shared.resolve(&wanted).await {
                        let now = self.shared.now_us();
                        let refused = with_context(&self.shared, &live, &self.place, now, |cx| {
                            let (to_server, to_client) = (&mut self.to_server, &mut self.to_client);
                            self.session
                                .refuse_server(&why, cx, &mut to_server.bytes, &mut to_client.bytes)
                        });
                        return refused.map_err(End::from);
                    }
                }
                Err(closing) => return Err(closing.into()),
            }
        }
    }

    /// When a peer that takes nothing of what waits for it has done so for too long.
    fn stall_ends(&self) -> Option<Instant> {
        let since = match (self.to_client.stalled_since(), self.to_server.stalled_since()) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        let limit = self.shared.stall_limit();
        let limit = if self.stopping {
            Some(limit.map_or(DRAIN_STALL, |limit| limit.min(DRAIN_STALL)))
        } else {
            limit
        };
        limit.map(|limit| since + limit)
    }

    /// When a client that will say nothing more is not waited for any longer: everything has been written, and nothing
    /// comes of it.
    fn gone_ends(&self) -> Option<Instant> {
        let rests = self.to_client.is_drained() && self.to_server.is_drained();
        (self.from_client.closed && rests).then(|| self.active + GONE_TIME)
    }

    fn check_time(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.from_client.is_late(now) || self.from_server.is_late(now) {
            return Err(End::Slow);
        }
        let stall_ends = self.stall_ends();
        if stall_ends.is_some_and(|due| due <= now) {
            return Err(End::Stalled);
        }
        if self.gone_ends().is_some_and(|due| due <= now) {
            return Err(End::ClientClosed);
        }
        let mut next = now + FRAME_TIME;
        if let Some(idle) = self.shared.idle_limit() {
            if now - self.active >= idle && self.session.is_idle() {
                return Err(End::Idle);
            }
            next = next.min(self.active + idle).max(now + Duration::from_millis(100));
        }
        self.timer
            .as_mut()
            .reset(stall_ends.map_or(next, |due| next.min(due)));
        Ok(())
    }

    /// Sends what is still due to the client, for a short while, and says goodbye properly.
    async fn last_words(&mut self) {
        let live = self.shared.live();
        with_context(&self.shared, &live, &self.place, self.shared.now_us(), |cx| {
            self.session.abandon(cx);
        });
        drop(live);
        self.observer.report(&mut self.session);
        // Writes that expect no reply may stand before the frame that ended it all.
        let last_writes = poll_fn(|cx| self.to_server.poll_drain(cx, Pin::new(&mut self.server)));
        let goodbye = async {
            poll_fn(|cx| self.to_client.poll_drain(cx, Pin::new(&mut self.client))).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut self.client).await
        };
        // Whether the client still listens changes nothing any more.
        let both = async { tokio::join!(goodbye, last_writes) };
        drop(tokio::time::timeout(Duration::from_secs(2), both).await);
        self.count_written();
    }
}

fn with_context<T>(
    shared: &Shared,
    live: &Live,
    place: &Place,
    now_us: u64,
    step: impl FnOnce(&Context<'_>) -> T,
) -> T {
    let ring = shared.ring();
    let found = shared.found();
    let hosts = shared.hosts();
    step(&Context {
        map: &live.fields,
        found: &found,
        ring: &ring,
        hosts: &hosts,
        listener: &place.listener,
        follows: place.follows,
        service: shared.service(),
        cursors: shared.cursors(),
        pseudonymizer: shared.pseudonymizer(),
        now_us,
        unix_ms: shared.unix_ms_at(now_us),
        login: live.login,
        audit_ready: shared.audit_ready(),
    })
}

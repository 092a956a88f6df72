//! One connection: bytes between the socket and the session's state, messages between the state and the fleet.
//!
//! One loop waits for whatever comes first. Nothing is buffered while the connection is idle; while a message is on
//! its way to its owner the socket is still read, as far as the session has room.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::admit::{Admitted, EXPIRY_MAX_S, Refusal, admit};
use super::end::End;
use super::packet::{self, Bad, Frame, next_frame};
use super::sessions::TakeOver;
use super::up::Outcome;
use super::{Arrival, Peer, Shared};
use crate::clock::Now;
use crate::device::NotOwned;
use crate::registry::{Principal, Registry};

/// Largest CONNECT; nobody is authenticated yet.
const CONNECT_BYTES_MAX: u32 = 16 << 10;
/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;
/// A client that takes nothing for so long is gone.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Between two looks at a client without a keep-alive that owes nothing.
const UNWATCHED: Duration = Duration::from_secs(3600);
/// For the last words and for a message still on its way when a connection ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    mut io: S,
    peer: Peer,
    shared: Arc<Shared>,
    waiting: Arrival,
    mut shutdown: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Boxed: these phases are over when the connection idles, and their state must not stay with it.
    let mut inbuf = BytesMut::new();
    let admitted = tokio::select! {
        a = Box::pin(arrive(&mut io, &mut inbuf, &peer, &shared)) => a,
        _ = shutdown.wait_for(|stop| *stop) => Err(End::ShuttingDown),
    };
    drop(waiting);
    let end = match admitted {
        Ok(admitted) => {
            let revocations = shared.registry.revocations();
            let mut c = Box::new(Connection {
                io,
                inbuf,
                a: admitted,
                shared: Arc::clone(&shared),
                handing: None,
                flushing: false,
                last_in: Instant::now(),
                stalled: None,
            });
            let (end, successor) = c.run(revocations, &mut shutdown).await;
            Box::pin(c.finish(end, successor)).await;
            end
        }
        Err(end) => end,
    };
    shared.count_end(end, peer.addr);
}

/// Reads the first packet and decides on it; a refused peer gets its answer here.
async fn arrive<S>(
    io: &mut S,
    inbuf: &mut BytesMut,
    peer: &Peer,
    shared: &Arc<Shared>,
) -> Result<Admitted, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout(shared.limits.connect_timeout, first_frame(io, inbuf))
        .await
        .map_err(|_| End::ConnectTimeout)?
        .map_err(|_| End::Broken)?;
    match admit(shared, first, peer).await {
        Ok(admitted) => Ok(admitted),
        Err(refusal) => {
            let Refusal { connack, end } = *refusal;
            // The peer may be gone, or never read: nothing depends on it.
            let _ = timeout(GOODBYE_MAX, say_last(io, &connack)).await;
            Err(end)
        }
    }
}

async fn first_frame<S: AsyncRead + Unpin>(
    io: &mut S,
    inbuf: &mut BytesMut,
) -> io::Result<Result<Frame, Bad>> {
    loop {
        match next_frame(inbuf, CONNECT_BYTES_MAX) {
            Ok(None) => poll_fn(|cx| poll_fill(io, inbuf, cx)).await?,
            Ok(Some(frame)) => return Ok(Ok(frame)),
            Err(bad) => return Ok(Err(bad)),
        }
    }
}

async fn say_last<S: AsyncWrite + Unpin>(io: &mut S, bytes: &[u8]) -> io::Result<()> {
    io.write_all(bytes).await?;
    io.shutdown().await
}

/// Reads what is there, without a buffer while there is nothing. An end of the stream is an error.
fn poll_fill<S: AsyncRead + Unpin>(
    io: &mut S,
    inbuf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut scratch = [MaybeUninit::uninit(); READ_BYTES];
    let mut read = ReadBuf::uninit(&mut scratch);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    if read.filled().is_empty() {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    inbuf.extend_from_slice(read.filled());
    Poll::Ready(Ok(()))
}

type Handing = Pin<Box<dyn Future<Output = Outcome>>>;

struct Connection<S> {
    io: S,
    inbuf: BytesMut,
    a: Admitted,
    shared: Arc<Shared>,
    /// A message on its way to its owner.
    handing: Option<Handing>,
    flushing: bool,
    last_in: Instant,
    /// Since when the client takes no bytes.
    stalled: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Runs until something ends the connection; with the asker if that was a take-over.
    ///
    /// What is waited for is made once and kept, and one wake-up goes as far as it can: a `select!` around each step
    /// would make, poll and drop all of it several times a message.
    async fn run(
        &mut self,
        revocations: watch::Receiver<u64>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> (End, Option<TakeOver>) {
        let registry = self.shared.registry.clone();
        let mut revoked = pin!(revoked(registry, self.a.principal.clone(), revocations));
        let mut stopping = pin!(async {
            // The sender lives as long as the gateway.
            let _ = shutdown.wait_for(|stop| *stop).await;
        });
        let queue = Arc::clone(&self.a.queue);
        let mut pushed = pin!(queue.pushed());
        let mut timer = pin!(sleep_until(self.deadline()));
        poll_fn(|cx| {
            // First what ends the connection: a client that never pauses must not outlast it.
            if let Poll::Ready(asker) = Pin::new(&mut self.a.taken_over).poll(cx) {
                return Poll::Ready((End::TakenOver, asker.ok()));
            }
            if revoked.as_mut().poll(cx).is_ready() {
                return Poll::Ready((End::Revoked, None));
            }
            if stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready((End::ShuttingDown, None));
            }
            loop {
                match self.advance(cx) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(end) => return Poll::Ready((end, None)),
                }
                if self.a.session.wants_downlinks() && pushed.as_mut().poll(cx).is_ready() {
                    pushed.set(queue.pushed());
                    continue;
                }
                let stalls = !self.a.session.out.is_empty();
                if stalls && timer.deadline() > Instant::now() + WRITE_STALL_MAX {
                    timer.as_mut().reset(self.deadline());
                }
                ready!(timer.as_mut().poll(cx));
                if let Err(end) = self.check_time(self.a.session.wants_packets()) {
                    return Poll::Ready((end, None));
                }
                timer.as_mut().reset(self.deadline());
            }
        })
        .await
    }

    /// One step of work, if there is any; the tokio budget of this wake-up bounds how many there are.
    fn advance(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        self.work()?;
        if let Some(handing) = &mut self.handing
            && let Poll::Ready(outcome) = handing.as_mut().poll(cx)
        {
            self.handing = None;
            self.a.session.handle_outcome(outcome)?;
            return Ok(true);
        }
        let reads = self.a.session.wants_packets();
        let out = &mut self.a.session.out;
        match poll_io(
            &mut self.io,
            &mut self.inbuf,
            out,
            &mut self.flushing,
            reads,
            cx,
        ) {
            Poll::Ready(done) => self.after_io(&done).map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Everything that can be done without waiting.
    fn work(&mut self) -> Result<(), End> {
        while self.a.session.wants_packets() {
            let max = self.shared.limits.packet_bytes_max;
            let Some(frame) = next_frame(&mut self.inbuf, max)? else {
                break;
            };
            self.last_in = Instant::now();
            let packet = packet::packet(self.a.session.version(), &frame)?;
            let handled = self.a.session.handle_packet(packet, Now::read());
            self.tell_faults();
            handled?;
        }
        if self.inbuf.is_empty() {
            self.inbuf = BytesMut::new();
        }
        if self.a.session.poll_listening() {
            self.shared.fleet.listening(&self.a.device);
        }
        self.hand_over()?;
        while self.a.session.wants_downlinks()
            && let Some(d) = self.a.queue.pop()
        {
            self.a.session.handle_downlink(d, std::time::Instant::now());
        }
        Ok(())
    }

    /// What the client did against the rules goes into its device's state.
    fn tell_faults(&mut self) {
        for fault in self.a.session.take_faults() {
            self.shared.fleet.fault(&self.a.device, fault);
        }
    }

    /// Sends the next message on its way, unless one is under way.
    fn hand_over(&mut self) -> Result<(), End> {
        let a = &mut self.a;
        while self.handing.is_none()
            && let Some(up) = a.session.poll_uplink()
        {
            // Only now: an earlier message may have announced the aircraft this one speaks for.
            if !self
                .shared
                .codecs
                .may_publish(a.device.as_str(), &a.topology.borrow(), &up.topic)
            {
                up.shed("not_authorized");
                let refused = a.session.handle_outcome(Outcome::Unauthorized);
                for fault in a.session.take_faults() {
                    self.shared.fleet.fault(&a.device, fault);
                }
                refused?;
                continue;
            }
            let (fleet, device, id) = (self.shared.fleet.clone(), a.device.clone(), a.id);
            self.handing = Some(Box::pin(async move {
                match fleet.message(&device, id, up).await {
                    Ok(()) => Outcome::Owned,
                    Err(NotOwned::Refused) => Outcome::Refused,
                    Err(NotOwned::Poison) => Outcome::Hopeless,
                }
            }));
        }
        Ok(())
    }

    /// Messages that came before the end still find their owner; those acknowledged now are not sent again.
    async fn drain(&mut self) -> Result<(), End> {
        loop {
            self.hand_over()?;
            let Some(handing) = &mut self.handing else {
                return Ok(());
            };
            let outcome = handing.await;
            self.handing = None;
            self.a.session.handle_outcome(outcome)?;
        }
    }

    fn after_io(&mut self, done: &io::Result<Moved>) -> Result<(), End> {
        let Ok(moved) = done else {
            return Err(End::Broken);
        };
        let out = &mut self.a.session.out;
        if out.is_empty() {
            *out = BytesMut::new();
            self.stalled = None;
        } else if moved.wrote {
            self.stalled = Some(Instant::now());
        }
        Ok(())
    }

    /// The next moment at which time itself may end the connection.
    fn deadline(&self) -> Instant {
        let look = Instant::now() + WRITE_STALL_MAX;
        match self.a.keep_alive.map(|k| self.last_in + k) {
            Some(alive) if self.a.session.out.is_empty() => alive,
            Some(alive) => alive.min(look),
            None if self.a.session.out.is_empty() => look + UNWATCHED,
            None => look,
        }
    }

    fn check_time(&mut self, reads: bool) -> Result<(), End> {
        let now = Instant::now();
        if !reads {
            // We did not listen: the client may have spoken.
            self.last_in = now;
        }
        if let Some(k) = self.a.keep_alive
            && now >= self.last_in + k
        {
            return Err(End::KeepAlive);
        }
        if !self.a.session.out.is_empty() {
            match self.stalled {
                Some(since) if now >= since + WRITE_STALL_MAX => return Err(End::NotReading),
                Some(_) => {}
                None => self.stalled = Some(now),
            }
        }
        Ok(())
    }

    /// Last words, the will, and what becomes of the session.
    async fn finish(mut self: Box<Self>, end: End, successor: Option<TakeOver>) {
        if end != End::Revoked && !matches!(timeout(GOODBYE_MAX, self.drain()).await, Ok(Ok(()))) {
            tracing::debug!(device = %self.a.device, "not all last messages were taken");
        }
        self.handing = None;
        self.a.session.say_goodbye(end);
        let out = std::mem::take(&mut self.a.session.out);
        // The client may be gone: nothing depends on its hearing this.
        let _ = timeout(GOODBYE_MAX, say_last(&mut self.io, &out)).await;

        let a = self.a;
        let shared = self.shared;
        if let Some(fault) = end.fault() {
            shared.fleet.fault(&a.device, fault);
        }
        let expiry = match end {
            End::Revoked => Duration::ZERO,
            _ => a.session.expiry(EXPIRY_MAX_S),
        };
        let mut later = None;
        if let Some(will) = a.will.filter(|_| end.publishes_will()) {
            let delay = Duration::from_secs(will.delay_s.into()).min(expiry);
            if delay.is_zero() {
                shared.publish_will(&a.device, a.id, will).await;
            } else {
                later = Some((std::time::Instant::now() + delay, will));
            }
        }
        let kept = (!expiry.is_zero()).then(|| {
            let until = std::time::Instant::now() + expiry;
            a.session.into_kept(a.issue, a.queue, later, until)
        });
        // Its successor's opening replaces this session; without one it is closed here.
        let mut asker = successor;
        if asker.is_none() {
            shared.fleet.close(&a.device, a.id).await;
            // Somebody may have asked while this connection was ending.
            let mut taken_over = a.taken_over;
            asker = taken_over.try_recv().ok();
        }
        match asker {
            None => {
                let evicted = shared.sessions.release(&a.device, &a.client_id, a.id, kept);
                if let Some(will) = evicted {
                    shared.publish_will(&a.device, a.id, will).await;
                }
            }
            Some(asker) => {
                if asker.send(kept).is_err() {
                    tracing::debug!(device = %a.device, "a session was asked for and not taken");
                }
            }
        }
    }
}

/// Completes when the account is not valid any more; it may be so from the beginning.
async fn revoked(registry: Registry, principal: Principal, mut revocations: watch::Receiver<u64>) {
    while registry.is_valid(&principal) {
        if revocations.changed().await.is_err() {
            return;
        }
    }
}

/// Which way bytes went.
#[derive(Clone, Copy)]
struct Moved {
    wrote: bool,
}

/// Writes what is to be written, then reads if `reads`. Ready when bytes went either way.
fn poll_io<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    inbuf: &mut BytesMut,
    out: &mut BytesMut,
    flushing: &mut bool,
    reads: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Moved>> {
    let mut wrote = false;
    while !out.is_empty() {
        match Pin::new(&mut *io).poll_write(cx, out) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(n) => {
                out.advance(n?);
                wrote = true;
                *flushing = true;
            }
            Poll::Pending => break,
        }
    }
    if *flushing && out.is_empty() && Pin::new(&mut *io).poll_flush(cx)?.is_ready() {
        *flushing = false;
    }
    let read = reads && poll_fill(io, inbuf, cx)?.is_ready();
    if read || wrote {
        Poll::Ready(Ok(Moved { wrote }))
    } else {
        Poll::Pending
    }
}

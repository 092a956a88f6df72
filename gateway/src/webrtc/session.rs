//! The task of one session: it owns the connection and moves media between it and a stream.
//!
//! Here: the two loops, playing and publishing, and what ends them. Not here: protocols (`transport`), RTP (`egress`,
//! `ingress`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Sleep, sleep_until};

use super::answer::Plan;
use super::egress::Egress;
use super::feedback::{self, Feedback};
use super::ingress::Ingress;
use super::metrics::{DROPPED, ENDED, JOIN, PACKETS, dropped};
use super::sessions::{Datagram, Role};
use super::transport::{End, Input, Transport};
use crate::clock;
use crate::ids::StreamId;
use crate::registry::{Principal, Registry};
use crate::stream::{Item, NewFrame, Publisher, Reader, Streams};

/// Sender and receiver reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Datagrams handled before media gets its turn.
const BURST: usize = 64;

/// What a session is born with.
pub struct Session {
    pub stream: StreamId,
    pub streams: Streams,
    pub plan: Plan,
    pub transport: Transport,
    pub inbox: mpsc::Receiver<Datagram>,
    pub leave: Leave,
    /// When the offer came.
    pub offered: Instant,
}

/// What can end a session from outside.
pub struct Leave {
    pub owner: Principal,
    pub registry: Registry,
    pub stop: Arc<Notify>,
    pub shutdown: watch::Receiver<bool>,
    pub revocations: watch::Receiver<u64>,
}

impl Leave {
    /// Waits until something ends the session. Cancel-safe.
    async fn wanted(&mut self) -> End {
        loop {
            tokio::select! {
                () = self.stop.notified() => return End("client"),
                _ = self.shutdown.wait_for(|s| *s) => return End("gateway_stops"),
                changed = self.revocations.changed() => {
                    if changed.is_err() {
                        return End("gateway_stops");
                    }
                    if !self.registry.is_valid(&self.owner) {
                        return End("revoked");
                    }
                }
            }
        }
    }
}

impl Session {
    /// Sends a stream to a reader until one of them ends.
    pub async fn play(mut self, reader: Reader) {
        let End(reason) = self.play_until(reader).await;
        self.ended(Role::Play, reason).await;
    }

    /// Takes a stream from a publisher until it ends.
    pub async fn publish(mut self) {
        let End(reason) = self.publish_until().await;
        self.ended(Role::Publish, reason).await;
    }

    async fn ended(self, role: Role, reason: &'static str) {
        let now = Instant::now();
        self.transport.close(now).await;
        ENDED.with_label_values(&[role.name(), reason]).inc();
        let seconds = now.saturating_duration_since(self.offered).as_secs();
        tracing::info!(stream = %self.stream, who = self.leave.owner.name(), role = role.name(), reason, seconds, "WebRTC session ended");
    }

    async fn play_until(&mut self, mut reader: Reader) -> End {
        let mut egress = Egress::new(&self.plan);
        let mut out = Vec::new();
        let mut report_at = Instant::now() + REPORT_EVERY;
        let mut joined = false;
        let mut was_ready = false;
        let timer = sleep_until(self.transport.deadline().into());
        tokio::pin!(timer);
        loop {
            if let Err(end) = self.transport.flush().await {
                return end;
            }
            let ready = self.transport.is_ready();
            if ready && !was_ready {
                was_ready = true;
                // The handshake took time: begin at the newest key frame of now.
                if let Ok(fresh) = self.streams.read(&self.stream, Duration::ZERO).await
                    && fresh.media() == reader.media()
                {
                    reader = fresh;
                }
            }
            set(timer.as_mut(), self.transport.deadline().min(report_at));
            let step = tokio::select! {
                end = self.leave.wanted() => Err(end),
                d = self.inbox.recv() => self.readers_datagrams(d, &mut egress, &reader, &mut out).await,
                item = reader.next(), if ready => match item {
                    Item::Frame { frame, time } => {
                        out.clear();
                        egress.frame(&frame, time, |p| self.transport.protect(p, &mut out));
                        if !joined && !out.is_empty() {
                            joined = true;
                            self.joined(Role::Play);
                        }
                        PACKETS.with_label_values(&["out"]).inc_by(out.len() as u64);
                        self.transport.transmit(&out).await
                    }
                    Item::Skipped { frames } => {
                        tracing::debug!(stream = %self.stream, who = self.leave.owner.name(), frames, "a slow reader skipped to the newest key frame");
                        Ok(())
                    }
                    // Parameter sets are in-band.
                    Item::Media(_) => Ok(()),
                    Item::Ended(why) => {
                        tracing::debug!(stream = %self.stream, why, "stream ended");
                        Err(End("stream_ended"))
                    }
                },
                () = timer.as_mut() => {
                    let now = Instant::now();
                    let mut step = self.transport.handle_timeout(now);
                    if step.is_ok() && now >= report_at {
                        report_at = now + REPORT_EVERY;
                        let wall = Duration::from_millis(clock::unix_ms().unsigned_abs());
                        if ready {
                            step = self.transport.transmit_rtcp(egress.reports(now, wall)).await;
                        }
                    }
                    step
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// A datagram and those right behind it: feedback is answered, anything else is the transport's.
    async fn readers_datagrams(
        &mut self,
        first: Option<Datagram>,
        egress: &mut Egress,
        reader: &Reader,
        out: &mut Vec<Bytes>,
    ) -> Result<(), End> {
        let mut next = first;
        let mut left = BURST;
        out.clear();
        while let Some(d) = next {
            match self.transport.handle(Instant::now(), &d)? {
                Some(Input::Rtcp(packet)) => {
                    for f in feedback::parse(&packet) {
                        match f {
                            Feedback::KeyFrame { .. } => reader.want_key_frame(),
                            Feedback::Nack { ssrc, seqs } => {
                                let r =
                                    egress.resend(ssrc, &seqs, |p| self.transport.protect(p, out));
                                PACKETS
                                    .with_label_values(&["resent"])
                                    .inc_by(r.packets.into());
                                count("nack_gone", r.gone);
                                count("nack_refused", r.refused);
                            }
                        }
                    }
                }
                Some(Input::Rtp(_)) => dropped("media_from_a_reader"),
                None => {}
            }
            left -= 1;
            next = if left > 0 {
                self.inbox.try_recv().ok()
            } else {
                None
            };
        }
        self.transport.transmit(out).await
    }

    async fn publish_until(&mut self) -> End {
        let mut ingress = Ingress::new(&self.plan);
        let mut publisher: Option<Publisher> = None;
        let mut report_at = Instant::now() + REPORT_EVERY;
        let mut joined = false;
        let timer = sleep_until(self.transport.deadline().into());
        tokio::pin!(timer);
        loop {
            if let Err(end) = self.transport.flush().await {
                return end;
            }
            if publisher.is_none() && self.transport.is_ready() {
                let media = self.plan.media.iter().map(|a| a.codec.clone()).collect();
                match self.streams.publish(&self.stream, media, "whip") {
                    Ok(p) => publisher = Some(p),
                    Err(error) => {
                        tracing::warn!(stream = %self.stream, %error, "cannot be published");
                        return End("streams_full");
                    }
                }
            }
            let mut due = self.transport.deadline().min(report_at);
            if let Some(t) = ingress.poll_timeout() {
                due = due.min(t);
            }
            set(timer.as_mut(), due);
            let mut frames = Vec::new();
            let wanted = async {
                match &publisher {
                    Some(p) => p.key_frame_wanted().await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                end = self.leave.wanted() => Err(end),
                d = self.inbox.recv() => self.publishers_datagrams(d, &mut ingress, &mut frames),
                () = wanted => {
                    let pli = ingress.key_frame_request(Instant::now());
                    self.transport.transmit_rtcp(pli.into_iter().collect()).await
                }
                () = timer.as_mut() => self.transport.handle_timeout(Instant::now()),
            };
            if let Err(end) = step {
                return end;
            }
            let now = Instant::now();
            frames.extend(ingress.poll(now));
            let Some(publisher) = &publisher else {
                continue;
            };
            if !joined && !frames.is_empty() {
                joined = true;
                self.joined(Role::Publish);
            }
            let mut asks = ingress.repairs(now);
            if now >= report_at {
                report_at = now + REPORT_EVERY;
                asks.extend(ingress.reports(now));
            }
            if push(publisher, &mut ingress, frames).is_err() || publisher.is_superseded() {
                return End("superseded");
            }
            if let Err(end) = self.transport.transmit_rtcp(asks).await {
                return end;
            }
        }
    }

    fn publishers_datagrams(
        &mut self,
        first: Option<Datagram>,
        ingress: &mut Ingress,
        frames: &mut Vec<NewFrame>,
    ) -> Result<(), End> {
        let mut next = first;
        let mut left = BURST;
        let mut packets = 0;
        while let Some(d) = next {
            let now = Instant::now();
            match self.transport.handle(now, &d)? {
                Some(Input::Rtp(packet)) => {
                    packets += 1;
                    frames.extend(ingress.rtp(now, &packet));
                }
                Some(Input::Rtcp(packet)) if ingress.rtcp(now, &packet) => {
                    return Err(End("goodbye"));
                }
                Some(Input::Rtcp(_)) | None => {}
            }
            left -= 1;
            next = if left > 0 {
                self.inbox.try_recv().ok()
            } else {
                None
            };
        }
        PACKETS.with_label_values(&["in"]).inc_by(packets);
        Ok(())
    }

    fn joined(&self, role: Role) {
        let took = self.offered.elapsed();
        JOIN.with_label_values(&[role.name()])
            .observe(took.as_secs_f64());
        tracing::info!(stream = %self.stream, who = self.leave.owner.name(), role = role.name(), took_ms = took.as_millis(), "WebRTC session joined");
    }
}

fn push(
    publisher: &Publisher,
    ingress: &mut Ingress,
    frames: Vec<NewFrame>,
) -> Result<(), crate::stream::Superseded> {
    if let Some(media) = ingress.media_changed() {
        publisher.set_media(media)?;
    }
    for f in frames {
        publisher.push(f)?;
    }
    Ok(())
}

fn count(reason: &'static str, n: u32) {
    if n > 0 {
        DROPPED.with_label_values(&[reason]).inc_by(n.into());
    }
}

/// Moves the timer only when it has to: most rounds of a loop do not change it.
fn set(timer: std::pin::Pin<&mut Sleep>, at: Instant) {
    let at = at.into();
    if timer.deadline() != at {
        timer.reset(at);
    }
}

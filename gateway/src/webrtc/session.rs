//! The task of one session: it owns the connection and moves media between it and a stream.
//!
//! Here: the two loops, playing and publishing, and what ends them. Not here: protocols (`transport`), RTP (`egress`,
//! `ingress`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::rtp::rtcp::Report;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Sleep, sleep_until};

use super::egress::Egress;
use super::feedback::{self, Feedback};
use super::ingress::{self, Lanes, WINDOW};
use super::metrics::{ENDED, JOIN, PACKETS, count, dropped};
use super::notices::{Notice, Notices};
use super::plan::Plan;
use super::sessions::{Datagram, Role};
use super::transport::{End, Input, Transport};
use crate::clock;
use crate::ids::StreamId;
use crate::registry::{Principal, Registry};
use crate::stream::{Ingress, Item, Reader, Streams, Superseded};

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
        let mut notices = self.plan.data.map(|_| Notices::new());
        let mut out = Vec::new();
        let mut report_at = Instant::now() + REPORT_EVERY;
        let mut joined = false;
        let mut was_ready = false;
        let timer = sleep_until(self.transport.deadline().into());
        tokio::pin!(timer);
        loop {
            if let Some(n) = &mut notices {
                let now = Instant::now();
                self.transport.write_data(now, &n.poll_transmit(now));
            }
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
            let mut due = self.transport.deadline().min(report_at);
            if let Some(t) = notices.as_ref().and_then(Notices::poll_timeout) {
                due = due.min(t);
            }
            set(timer.as_mut(), due);
            let step = tokio::select! {
                end = self.leave.wanted() => Err(end),
                d = self.inbox.recv() => self.readers_datagrams(d, &mut egress, &mut notices, &reader, &mut out).await,
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
                        if let Some(n) = &mut notices {
                            n.tell(Instant::now(), Notice { skipped: frames, lost: reader.lost() });
                        }
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
                    if let Some(n) = &mut notices {
                        n.handle_timeout(now);
                    }
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
        notices: &mut Option<Notices>,
        reader: &Reader,
        out: &mut Vec<Bytes>,
    ) -> Result<(), End> {
        let mut next = first;
        let mut left = BURST;
        out.clear();
        while let Some(d) = next {
            let now = Instant::now();
            match self.transport.handle(now, &d)? {
                Some(Input::Data(packets)) => {
                    if let Some(n) = notices {
                        packets.into_iter().for_each(|p| n.handle(now, p.freeze()));
                    }
                }
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
                                count("nack_gone", r.gone as usize);
                                count("nack_refused", r.refused as usize);
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
        let mut lanes = Lanes::new(&self.plan, Instant::now());
        let mut ingress: Option<Ingress> = None;
        let mut reports = Reports::default();
        let mut joined = false;
        let timer = sleep_until(self.transport.deadline().into());
        tokio::pin!(timer);
        loop {
            if let Err(end) = self.transport.flush().await {
                return end;
            }
            if ingress.is_none() && self.transport.is_ready() {
                match self.begin() {
                    Ok(i) => {
                        ingress = Some(i);
                        reports.begin(Instant::now());
                    }
                    Err(end) => return end,
                }
            }
            let due = [reports.poll_timeout(), lanes.poll_timeout()]
                .into_iter()
                .flatten()
                .fold(self.transport.deadline(), Instant::min);
            set(timer.as_mut(), due);
            let wanted = async {
                match &ingress {
                    Some(i) => i.publisher().key_frame_wanted().await,
                    None => std::future::pending().await,
                }
            };
            let mut asks = Vec::new();
            let step = tokio::select! {
                end = self.leave.wanted() => Err(end),
                d = self.inbox.recv() => self.publishers_datagrams(d, &mut lanes, ingress.as_mut()),
                () = wanted => {
                    asks.extend(lanes.key_frame_request(Instant::now()));
                    Ok(0)
                }
                () = timer.as_mut() => {
                    let now = Instant::now();
                    let ticked = ingress.as_mut().map_or(Ok(()), |i| i.tick(now));
                    match self.transport.handle_timeout(now) {
                        Ok(()) => ticked.map(|()| 0).map_err(superseded),
                        Err(end) => Err(end),
                    }
                }
            };
            match step {
                Ok(packets) if packets > 0 && !joined => {
                    joined = true;
                    self.joined(Role::Publish);
                }
                Ok(_) => {}
                Err(end) => return end,
            }
            let Some(ingress) = &mut ingress else {
                continue;
            };
            if ingress.publisher().is_superseded() {
                return superseded(Superseded);
            }
            let now = Instant::now();
            asks.extend(lanes.repairs(now, ingress.key_frame_due()));
            if reports.handle_timeout(now) {
                asks.extend(lanes.reports(now));
            }
            if !asks.is_empty()
                && let Err(end) = self.transport.transmit_rtcp(asks).await
            {
                return end;
            }
        }
    }

    /// The connection stands: takes the stream over.
    fn begin(&self) -> Result<Ingress, End> {
        let media: Vec<_> = self.plan.media.iter().map(|a| a.codec.clone()).collect();
        match self.streams.publish(&self.stream, media.clone(), "whip") {
            Ok(p) => {
                let mut ingress = Ingress::new(p, "whip", &media, WINDOW, Instant::now());
                for (medium, window) in ingress::windows(&self.plan) {
                    ingress.set_window(medium, window);
                }
                Ok(ingress)
            }
            Err(error) => {
                tracing::warn!(stream = %self.stream, %error, "cannot be published");
                Err(End("streams_full"))
            }
        }
    }

    /// A datagram and those right behind it; gives how many media packets they were.
    fn publishers_datagrams(
        &mut self,
        first: Option<Datagram>,
        lanes: &mut Lanes,
        mut ingress: Option<&mut Ingress>,
    ) -> Result<u64, End> {
        let mut next = first;
        let mut left = BURST;
        let mut packets = 0;
        while let Some(d) = next {
            let now = Instant::now();
            let input = self.transport.handle(now, &d)?;
            match (input, ingress.as_deref_mut()) {
                (Some(Input::Rtp(packet)), Some(ingress)) => {
                    packets += 1;
                    if let Some((medium, packet)) = lanes.rtp(now, &packet) {
                        ingress.packet(medium, packet, now).map_err(superseded)?;
                    }
                }
                (Some(Input::Rtcp(packet)), Some(ingress)) => {
                    let Some(reports) = lanes.rtcp(now, &packet) else {
                        return Err(End("goodbye"));
                    };
                    for (medium, report) in reports {
                        if let Report::Sender { ssrc, ntp, time } = report {
                            ingress.sender_report(medium, ssrc, ntp, time);
                        }
                    }
                }
                (Some(Input::Data(_)), _) => dropped("data_from_a_publisher"),
                // Media in the very datagram burst that finished the handshake.
                (Some(_), None) => dropped("not_ready"),
                (None, _) => {}
            }
            left -= 1;
            next = if left > 0 {
                self.inbox.try_recv().ok()
            } else {
                None
            };
        }
        PACKETS.with_label_values(&["in"]).inc_by(packets);
        Ok(packets)
    }

    fn joined(&self, role: Role) {
        let took = self.offered.elapsed();
        JOIN.with_label_values(&[role.name()])
            .observe(took.as_secs_f64());
        tracing::info!(stream = %self.stream, who = self.leave.owner.name(), role = role.name(), took_ms = took.as_millis(), "WebRTC session joined");
    }
}

/// When a publisher gets receiver reports: not before it publishes, or the loop would spin until then.
#[derive(Default)]
struct Reports(Option<Instant>);

impl Reports {
    fn begin(&mut self, now: Instant) {
        self.0 = Some(now + REPORT_EVERY);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0
    }

    /// Is one due?
    fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.0.is_some_and(|at| now >= at);
        if due {
            self.begin(now);
        }
        due
    }
}

/// Another publisher took the stream over, or its device was cut.
fn superseded(_: Superseded) -> End {
    End("superseded")
}

/// Moves the timer only when it has to: most rounds of a loop do not change it.
fn set(timer: std::pin::Pin<&mut Sleep>, at: Instant) {
    let at = at.into();
    if timer.deadline() != at {
        timer.reset(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_wake_nobody_before_there_is_media() {
        let now = Instant::now();
        let mut r = Reports::default();
        assert_eq!(r.poll_timeout(), None);
        assert!(!r.handle_timeout(now + 10 * REPORT_EVERY));
        assert_eq!(r.poll_timeout(), None);
        r.begin(now);
        let at = r.poll_timeout().unwrap();
        assert!(!r.handle_timeout(now));
        assert!(r.handle_timeout(at));
        assert!(r.poll_timeout().unwrap() > at, "or the loop would spin");
    }
}

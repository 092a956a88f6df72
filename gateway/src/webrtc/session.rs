//! The task of one session: it owns the connection until it stands, and a publisher's for good.
//!
//! Here: connecting, the loop of a publisher, what ends a session. Not here: protocols (`transport`), RTP (`egress`,
//! `ingress`), a reader that is connected (`viewer`: it has no task, but a place on a fan-out thread).

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kerbside_codecs::rtp::rtcp::Report;
use tokio::time::{Sleep, sleep_until};

use super::inbox::Inbox;
use super::ingress::{self, Lanes, WINDOW};
use super::metrics::{ENDED, JOIN, PACKETS, dropped};
use super::plan::Plan;
use super::sessions::{Datagram, Role};
use super::transport::{End, Input, Transport};
use super::viewer::Viewer;
use crate::ids::StreamId;
use crate::log::Sparing;
use crate::registry::Principal;
use crate::stream::{Fanout, Ingress, Reader, Streams, Superseded};
use crate::udp::Burst;

/// Sender and receiver reports.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Datagrams handled before media gets its turn.
pub const BURST: usize = 64;

/// By the session's owner: a device that comes and goes all the time does not fill the log.
static LINES: LazyLock<Sparing<String>> = LazyLock::new(Sparing::default);

/// May another line be written about a session of this owner?
pub fn may_say(owner: &Principal) -> bool {
    LINES.may_say(owner.name().to_owned(), Instant::now())
}

/// What a session is born with.
pub struct Session {
    pub stream: StreamId,
    pub streams: Streams,
    pub plan: Plan,
    pub transport: Transport,
    pub inbox: Arc<Inbox>,
    pub owner: Principal,
    pub fanout: Fanout,
    /// When the offer came.
    pub offered: Instant,
}

impl Session {
    /// Connects a reader and puts it on a fan-out thread.
    pub async fn play(mut self, reader: Reader) {
        if let Err(End(reason)) = self.connect().await {
            return self.ended(Role::Play, reason);
        }
        // The handshake took time: begin at the newest key frame of now.
        let fresh = self.streams.read(&self.stream, Duration::ZERO).await;
        let mut reader = match fresh {
            Ok(fresh) if fresh.media() == reader.media() => fresh,
            _ => reader,
        };
        let Some(remote) = self.transport.remote() else {
            return self.ended(Role::Play, "setup_timeout");
        };
        reader.introduce(self.owner.name(), "whep", remote, self.offered);
        let place = self.fanout.place(self.transport.thread());
        let fanout = self.fanout.clone();
        let inbox = self.inbox.clone();
        let viewer = Viewer::new(self, place.clone());
        fanout.join(&place, reader, None, Box::new(viewer));
        inbox.serve_by(&place);
    }

    /// ICE and DTLS, until media can be sent.
    async fn connect(&mut self) -> Result<(), End> {
        let mut burst = Burst::default();
        loop {
            self.transport.flush(&mut burst);
            if self.transport.is_ready() {
                return Ok(());
            }
            let due = self.transport.deadline().into();
            tokio::select! {
                reason = self.inbox.until_over() => return Err(End(reason)),
                d = self.inbox.next() => {
                    if self.transport.handle(Instant::now(), &d)?.is_some() {
                        dropped("not_ready");
                    }
                }
                () = sleep_until(due) => self.transport.handle_timeout(Instant::now())?,
            }
        }
    }

    /// Takes a stream from a publisher until it ends.
    pub async fn publish(mut self) {
        let End(reason) = self.publish_until().await;
        self.ended(Role::Publish, reason);
    }

    /// Says goodbye, counts and logs it.
    pub fn ended(mut self, role: Role, reason: &'static str) {
        let now = Instant::now();
        self.transport.close(now, &mut Burst::default());
        ENDED.with_label_values(&[role.name(), reason]).inc();
        let seconds = now.saturating_duration_since(self.offered).as_secs();
        if may_say(&self.owner) {
            tracing::info!(stream = %self.stream, who = self.owner.name(), role = role.name(), reason, seconds, "WebRTC session ended");
        }
    }

    async fn publish_until(&mut self) -> End {
        let mut lanes = Lanes::new(&self.plan, Instant::now());
        let mut ingress: Option<Ingress> = None;
        let mut reports = Reports::default();
        let mut joined = false;
        let mut burst = Burst::default();
        let timer = sleep_until(self.transport.deadline().into());
        tokio::pin!(timer);
        loop {
            self.transport.flush(&mut burst);
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
                reason = self.inbox.until_over() => Err(End(reason)),
                d = self.inbox.next() => self.publishers_datagrams(d, &mut lanes, ingress.as_mut()),
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
            let (nacks, key_frames) = lanes.asked();
            ingress.asked(nacks, key_frames);
            if !asks.is_empty() {
                self.transport.transmit_rtcp(&asks, &mut burst);
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
                if may_say(&self.owner) {
                    tracing::warn!(stream = %self.stream, %error, "cannot be published");
                }
                Err(End("streams_full"))
            }
        }
    }

    /// A datagram and those right behind it; gives how many media packets they were.
    fn publishers_datagrams(
        &mut self,
        first: Datagram,
        lanes: &mut Lanes,
        mut ingress: Option<&mut Ingress>,
    ) -> Result<u64, End> {
        let mut next = Some(first);
        let mut left = BURST;
        let mut packets = 0;
        while let Some(d) = next {
            let now = Instant::now();
            let input = self.transport.handle(now, &d)?;
            match (input, ingress.as_deref_mut()) {
                (Some(Input::Rtp(packet)), Some(ingress)) => {
                    packets += 1;
                    if let Some((medium, p)) = lanes.rtp(now, &packet) {
                        let (ssrc, time) = (p.header.ssrc, p.header.time);
                        ingress.packet(medium, p, now).map_err(superseded)?;
                        if let Some(told) = lanes.capture_time(medium, &packet) {
                            ingress.capture_time(medium, ssrc, time, told);
                        }
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
            next = if left > 0 { self.inbox.pop() } else { None };
        }
        PACKETS.with_label_values(&["in"]).inc_by(packets);
        Ok(packets)
    }

    pub fn joined(&self, role: Role) {
        let took = self.offered.elapsed();
        JOIN.with_label_values(&[role.name()])
            .observe(took.as_secs_f64());
        if may_say(&self.owner) {
            tracing::info!(stream = %self.stream, who = self.owner.name(), role = role.name(), took_ms = took.as_millis(), "WebRTC session joined");
        }
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

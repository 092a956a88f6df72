//! A connected reader's side of the fan-out: a frame is encrypted into one burst and sent with one call; what the reader
//! asks for is answered in between.
//!
//! Not here: connecting (`session`), numbering and retransmission (`egress`), encryption (`seal`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::egress::{Egress, Resent};
use super::feedback::{self, Feedback};
use super::inbox::Inbox;
use super::metrics::{PACKETS, PACKETS_OUT, count, dropped};
use super::notices::{Notice, Notices};
use super::session::{BURST, REPORT_EVERY, Session};
use super::sessions::Role;
use super::transport::{End, Input};
use crate::stream::{At, Flow, Frame, Kick, Outlet, Reader};

/// The first sender report: soon after the first frame, so that sound and picture belong together.
const FIRST_REPORT: Duration = Duration::from_millis(100);

pub struct Viewer {
    session: Session,
    inbox: Arc<Inbox>,
    place: Kick,
    egress: Egress,
    notices: Option<Notices>,
    joined: bool,
    report_at: Option<Instant>,
    /// When the connection or the data channel need time to be looked at. Kept: to ask them costs more than a frame.
    due: Instant,
}

impl Viewer {
    pub fn new(session: Session, place: Kick) -> Self {
        Self {
            egress: Egress::new(&session.plan),
            notices: session.plan.data.map(|_| Notices::new()),
            inbox: session.inbox.clone(),
            session,
            place,
            joined: false,
            report_at: None,
            due: Instant::now(),
        }
    }

    fn datagrams(&mut self, reader: &mut Reader, at: &mut At<'_>) -> Result<(), End> {
        for _ in 0..BURST {
            let Some(d) = self.inbox.pop() else {
                return Ok(());
            };
            match self.session.transport.handle(at.now, &d)? {
                Some(Input::Data(packets)) => {
                    if let Some(n) = &mut self.notices {
                        for p in packets {
                            n.handle(at.now, p.freeze());
                        }
                    }
                }
                Some(Input::Rtcp(packet)) => {
                    for f in feedback::parse(&packet) {
                        self.feedback(f, reader, at);
                    }
                }
                Some(Input::Rtp(_)) => dropped("media_from_a_reader"),
                None => {}
            }
        }
        // The others first.
        at.waker.wake_by_ref();
        Ok(())
    }

    fn feedback(&mut self, f: Feedback, reader: &mut Reader, at: &mut At<'_>) {
        match f {
            Feedback::KeyFrame { .. } => reader.resync(at.now),
            Feedback::Nack { ssrc, seqs } => {
                at.burst.clear();
                let Some(sealer) = self.session.transport.sealer() else {
                    return;
                };
                let burst = &mut *at.burst;
                let Resent {
                    packets,
                    gone,
                    refused,
                } = self.egress.resend(ssrc, &seqs, |header, payload, index| {
                    if sealer.seal(header, payload, index, burst).is_err() {
                        dropped("not_encrypted");
                    }
                });
                self.session.transport.transmit(at.burst);
                PACKETS
                    .with_label_values(&["resent"])
                    .inc_by(packets.into());
                count("nack_gone", gone as usize);
                count("nack_refused", refused as usize);
                reader.about().nacked(seqs.len() as u64, packets.into());
            }
            Feedback::Report {
                ssrc,
                fraction_lost,
                jitter,
            } => {
                if let Some(rate) = self.egress.clock_rate(ssrc) {
                    let us = u64::from(jitter) * 1_000_000 / u64::from(rate.max(1));
                    let us = u32::try_from(us).unwrap_or(u32::MAX);
                    reader.about().reported(fraction_lost, us);
                }
            }
        }
    }

    /// What time alone brings.
    fn timers(&mut self, at: &mut At<'_>) -> Result<(), End> {
        let now = at.now;
        if now >= self.due {
            self.session.transport.handle_timeout(now)?;
        }
        if let Some(n) = &mut self.notices {
            if n.poll_timeout().is_some_and(|t| now >= t) {
                n.handle_timeout(now);
            }
            let packets = n.poll_transmit(now);
            self.session.transport.write_data(now, &packets);
        }
        self.session.transport.flush(at.burst);
        let notices = self.notices.as_ref().and_then(Notices::poll_timeout);
        let connection = self.session.transport.deadline();
        self.due = notices.map_or(connection, |n| n.min(connection));
        Ok(())
    }
}

impl Outlet for Viewer {
    fn protocol(&self) -> &'static str {
        "whep"
    }

    fn ready(&mut self, _: &mut At<'_>) -> Flow {
        if self.session.transport.has_room(&self.place) {
            Flow::Go
        } else {
            Flow::Blocked
        }
    }

    fn frame(&mut self, frame: &Arc<Frame>, time: u64, reader: &Reader, at: &mut At<'_>) {
        let Some(sealer) = self.session.transport.sealer() else {
            return;
        };
        let burst = &mut *at.burst;
        burst.clear();
        let live = !reader.is_replay(frame);
        self.egress
            .frame(frame, time, live, |header, payload, index| {
                if sealer.seal(header, payload, index, burst).is_err() {
                    dropped("not_encrypted");
                }
            });
        self.session.transport.transmit(burst);
        PACKETS_OUT.inc_by(burst.len() as u64);
        // With the frames: a timer of its own would wake the thread for each reader.
        if self.report_at.is_some_and(|t| at.now >= t) {
            self.report_at = Some(at.now + REPORT_EVERY);
            let reports = self.egress.reports(|medium| reader.edge(medium));
            self.session.transport.transmit_rtcp(&reports, at.burst);
        } else if !self.joined && !at.burst.is_empty() {
            self.joined = true;
            self.report_at = Some(at.now + FIRST_REPORT);
            self.session.joined(Role::Play);
        }
    }

    fn woken(&mut self, reader: &mut Reader, at: &mut At<'_>) -> Flow {
        if let Some(reason) = self.inbox.over() {
            return Flow::Over(reason);
        }
        let done = self.datagrams(reader, at).and_then(|()| self.timers(at));
        match done {
            Ok(()) => Flow::Go,
            Err(End(reason)) => Flow::Over(reason),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn skipped(&mut self, frames: u64, reader: &Reader, at: &mut At<'_>) {
        tracing::debug!(stream = %reader.stream_id(), who = self.session.owner.name(), frames, "a slow reader skipped to the newest key frame");
        if let Some(n) = &mut self.notices {
            let notice = Notice {
                skipped: frames,
                lost: reader.lost(),
            };
            n.tell(at.now, notice);
            let packets = n.poll_transmit(at.now);
            self.session.transport.write_data(at.now, &packets);
            self.session.transport.flush(at.burst);
        }
    }

    fn is_paced(&self) -> bool {
        !self.session.transport.is_tcp()
    }

    fn end(self: Box<Self>, reason: &'static str, _: &Reader, _: &mut At<'_>) {
        self.session.ended(Role::Play, reason);
    }
}

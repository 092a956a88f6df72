//! What the picture knows of streams: their phase, and the rules on its changes.

use super::{Effects, State, Stream, live_streams};
use crate::clock::Now;
use crate::picture::feed::{Change, Key};
use crate::picture::latch::Latches;
use crate::picture::raise::{self, Rulebook};
use crate::picture::rules::StreamView;
use crate::picture::view;
use crate::stream::StreamStatus;

impl State {
    pub(super) fn stream(&mut self, status: StreamStatus, now: Now, fx: &mut Effects) {
        let id = status.stream.clone();
        let former = self.streams.remove(&id);
        if status.phase == "gone" {
            fx.changes.push(Change::Gone(Key::Stream(id)));
            return;
        }
        if former.is_none()
            && matches!(status.phase, "waiting" | "lost")
            && self.devices.get(&id.device).is_none()
        {
            // The end of a revoked device.
            return;
        }
        let (was, mut latches) =
            former.map_or(("", Latches::default()), |s| (s.status.phase, s.latches));
        fx.changes.push(view::stream_change(&status));
        if was != status.phase {
            let change = StreamView {
                phase: status.phase,
                was,
            };
            let book = Rulebook {
                rules: &self.rules,
                grid: &self.grid,
                now,
            };
            let streams = || live_streams(&self.streams, &id.device);
            let device = self.devices.get(&id.device);
            fx.add(raise::on_stream(
                book,
                device,
                &id,
                &mut latches,
                change,
                streams,
            ));
        }
        self.streams.insert(id.clone(), Stream { status, latches });
        if let Some(d) = self
            .devices
            .get_mut(&id.device)
            .filter(|d| d.fixed && !d.registered)
        {
            let online = !live_streams(&self.streams, &id.device).is_empty();
            if std::mem::replace(&mut d.online, online) != online {
                fx.changes.push(d.view(&self.grid).change(false));
            }
        }
    }
}

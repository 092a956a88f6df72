//! Pictures that come in another order than they are shown (B-frames), for decoders that show them as they come.
//!
//! Decoders of browsers (libwebrtc) take every picture of H.264 as the next one to show: they fail at each that steps
//! back and then want a key frame, and the picture stands still. Without those pictures they play smoothly, at a lower
//! frame rate; where other pictures lean on one that was left out, the decoder conceals it.
//!
//! Here: noticing B-frames, and which frames such viewers do not get. Not here: time that jumps (`time`).

use crate::media::{Codec, Payloads};

/// B-frames come again and again; a clock set back a little steps once.
const STEPS_WITHIN_FRAMES: u64 = 300;
/// More in a row than this step back only when the clock was set back: no encoder makes so many B-frames.
const ROW_MAX: u32 = 16;

/// The pictures of one medium in the order of decoding.
#[derive(Debug, Default)]
pub(super) struct ShownOrder {
    frames: u64,
    newest: u64,
    /// Frames that stepped back since the newest one.
    row: u32,
    /// Which frames stepped back last: the one before the last, the last.
    last: [Option<u64>; 2],
}

impl ShownOrder {
    /// Takes a frame and marks its payloads if some viewers must not get it. `time`: without jumps.
    pub fn frame(&mut self, codec: &Codec, time: u64, payloads: Payloads) -> Payloads {
        self.frames += 1;
        if time >= self.newest || self.row >= ROW_MAX {
            self.row = 0;
            self.newest = time;
            return payloads;
        }
        self.row += 1;
        self.last = [self.last[1], Some(self.frames)];
        match codec {
            Codec::H264 { .. } => payloads.that_steps_back(),
            _ => payloads,
        }
    }

    /// Did at least two of the newest frames step back?
    pub fn has_b_frames(&self) -> bool {
        self.last[0].is_some_and(|at| self.frames - at < STEPS_WITHIN_FRAMES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn h264() -> Codec {
        Codec::H264 {
            sps: Bytes::new(),
            pps: Bytes::new(),
        }
    }

    /// The times of the frames that a browser gets.
    fn browser(order: &mut ShownOrder, codec: &Codec, times: &[u64]) -> Vec<u64> {
        let whole = || Payloads::single(Bytes::from_static(b"picture"));
        let mut out = Vec::new();
        for time in times {
            let payloads = order.frame(codec, *time, whole());
            assert_eq!(payloads.len(), 1, "others get it as it is");
            out.extend(payloads.in_order().iter().map(|_| *time));
        }
        out
    }

    #[test]
    fn browsers_get_what_they_can_show() {
        let mut order = ShownOrder::default();
        assert_eq!(browser(&mut order, &h264(), &[10, 40, 20]), [10, 40], "IPB");
        assert!(!order.has_b_frames(), "one step is a clock that was set");
        // A pyramid: P B' B B.
        assert_eq!(
            browser(&mut order, &h264(), &[80, 60, 50, 70, 90]),
            [80, 90]
        );
        assert!(order.has_b_frames());
        let long: Vec<u64> = (100..500).collect();
        assert_eq!(browser(&mut order, &h264(), &long), long);
        assert!(!order.has_b_frames(), "they are forgotten");
    }

    #[test]
    fn other_codecs_are_left_as_they_are() {
        let h265 = Codec::H265 {
            vps: Bytes::new(),
            sps: Bytes::new(),
            pps: Bytes::new(),
        };
        let mut order = ShownOrder::default();
        let times = [10, 30, 20, 60, 40];
        assert_eq!(browser(&mut order, &h265, &times), times);
        assert!(order.has_b_frames());
    }

    #[test]
    fn a_clock_set_back_a_little_costs_few_frames() {
        let mut order = ShownOrder::default();
        browser(&mut order, &h264(), &[200]);
        let times: Vec<u64> = (100..120).collect();
        assert_eq!(browser(&mut order, &h264(), &times), times[16..]);
    }
}

//! The times that a reader gets, over anything that can happen to it: join, replay, jumps, the picture lost, another
//! publisher. They never step back, and sound stays with the picture.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::{Captured, Codec, Medium, Payloads};
use proptest::prelude::*;

use super::{Item, NewFrame, Publisher, Reader, Streams, StreamsLimits};
use crate::ids::StreamId;

const VIDEO_RATE: u32 = 90_000;
const AUDIO_RATE: u32 = 48_000;
const AUDIO_MS: u64 = 20;

#[derive(Clone, Debug)]
enum Step {
    /// So many milliseconds of the stream arrive.
    Arrive(u64),
    /// The reader takes at most so many items.
    Take(usize),
    LosesPicture,
    /// Another publisher after so many milliseconds, whose clock stands at so many seconds.
    Publisher(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..6000).prop_map(Step::Arrive),
        4 => (1usize..400).prop_map(Step::Take),
        2 => Just(Step::LosesPicture),
        1 => (0u64..12_000, 0u64..100_000).prop_map(|(gap, at)| Step::Publisher(gap, at)),
    ];
    prop::collection::vec(step, 1..40)
}

fn media() -> Vec<Medium> {
    let (sps, pps) = (Bytes::new(), Bytes::new());
    vec![
        Medium {
            codec: Codec::H264 { sps, pps },
            clock_rate: VIDEO_RATE,
        },
        Medium {
            codec: Codec::Opus { channels: 2 },
            clock_rate: AUDIO_RATE,
        },
    ]
}

/// A stream whose frames arrive when they are captured.
struct Source {
    streams: Streams,
    id: StreamId,
    publisher: Publisher,
    began: Instant,
    /// Milliseconds since `began`, and what the publisher's clock says beyond them.
    ms: u64,
    clock_ms: u64,
    frame_ms: u64,
    group: u64,
    video: u64,
}

impl Source {
    fn new(frame_ms: u64, group: u64) -> Self {
        let streams = Streams::new(StreamsLimits::default());
        let id = StreamId::new("bc-01", "main").unwrap();
        Self {
            publisher: streams.publish(&id, media(), "test").unwrap(),
            streams,
            id,
            began: Instant::now(),
            ms: 0,
            clock_ms: 7_000_000,
            frame_ms,
            group,
            video: 0,
        }
    }

    fn arrive(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ms += 1;
            if self.ms.is_multiple_of(self.frame_ms) {
                self.push(0, VIDEO_RATE, self.video.is_multiple_of(self.group));
                self.video += 1;
            }
            if self.ms.is_multiple_of(AUDIO_MS) {
                self.push(1, AUDIO_RATE, true);
            }
        }
    }

    fn push(&self, medium: u8, rate: u32, key: bool) {
        let frame = NewFrame {
            medium,
            key,
            time: (self.ms + self.clock_ms) * u64::from(rate) / 1000,
            arrived: self.began + Duration::from_millis(self.ms),
            captured: Captured {
                utc_us: i64::try_from(self.ms * 1000).unwrap(),
                uncertainty_us: 0,
            },
            payloads: Payloads::single(Bytes::from_static(&[0; 100])),
        };
        self.publisher.push(frame).unwrap();
    }

    fn change(&mut self, gap_ms: u64, clock_s: u64) {
        self.ms += gap_ms;
        self.clock_ms = clock_s * 1000;
        self.video = 0;
        self.publisher = self.streams.publish(&self.id, media(), "test").unwrap();
    }
}

/// What the reader was given so far.
#[derive(Default)]
struct Given {
    latest: [Option<u64>; 2],
    /// Of the newest live frame of each medium: its time for the reader less its time of capture, in milliseconds.
    shift: [Option<f64>; 2],
}

impl Given {
    fn take(&mut self, r: &mut Reader, most: usize) -> Result<(), TestCaseError> {
        for _ in 0..most {
            let Some(item) = r.poll() else { break };
            let Item::Frame { frame, time } = item else {
                continue;
            };
            let m = usize::from(frame.medium);
            let before = self.latest[m].replace(time);
            prop_assert!(
                before.is_none_or(|b| b < time),
                "medium {m} steps from {before:?} to {time}"
            );
            if !r.is_replay(&frame) {
                let rate = [VIDEO_RATE, AUDIO_RATE][m];
                #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
                let shift =
                    time as f64 * 1000.0 / f64::from(rate) - frame.captured.utc_us as f64 / 1000.0;
                self.shift[m] = Some(shift);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn times_never_step_back_and_sound_stays_with_the_picture(
        frame_ms in 8u64..70,
        group in 1u64..120,
        before in 0u64..5000,
        steps in steps(),
    ) {
        let mut s = Source::new(frame_ms, group);
        s.arrive(before);
        let mut r = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(s.streams.read(&s.id, Duration::ZERO))
            .unwrap();
        let mut given = Given::default();
        let mut changes = 0;
        for step in steps {
            match step {
                Step::Arrive(ms) => s.arrive(ms),
                Step::Take(n) => given.take(&mut r, n)?,
                Step::LosesPicture => r.resync(s.began + Duration::from_millis(s.ms)),
                Step::Publisher(gap, clock) => {
                    s.change(gap, clock);
                    changes += 1;
                }
            }
        }
        // Both media reach the live edge, of one publisher.
        for ms in [2 * group * frame_ms, 500, 500] {
            s.arrive(ms);
            given.take(&mut r, usize::MAX)?;
        }
        let [Some(video), Some(audio)] = given.shift else {
            return Err(TestCaseError::fail("both media are live in the end"));
        };
        // A replay may last 5 ms beyond the last frame before a publisher changes.
        let most = f64::from(10 * changes + 1);
        prop_assert!((video - audio).abs() <= most, "{} ms apart after {changes} changes", video - audio);
    }
}

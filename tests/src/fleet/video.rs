//! Pictures of a device: a test pattern with clock and device id burnt in, H.264, and the push by RTSP over TCP.
//!
//! Here: GStreamer pipelines. Not here: WHIP, which takes RTP packets from `rtp_source`.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use futures_util::StreamExt;
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::watch;

use super::{Backoff, Counters, Device, halted};

/// Patterns that cost little and tell devices apart.
const PATTERNS: [&str; 6] = [
    "ball",
    "smpte",
    "pinwheel",
    "circular",
    "checkers-8",
    "smpte75",
];

/// Width and height, written `480x270`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let sides = text
            .split_once('x')
            .and_then(|(w, h)| Some((w.parse::<u32>().ok()?, h.parse::<u32>().ok()?)));
        match sides {
            Some((width, height))
                if (16..=3840).contains(&width)
                    && (16..=2160).contains(&height)
                    && width % 2 == 0
                    && height % 2 == 0 =>
            {
                Ok(Size { width, height })
            }
            _ => Err(format!(
                "{text:?} is not WIDTHxHEIGHT in even numbers from 16x16 to 3840x2160"
            )),
        }
    }
}

/// What a device films.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    pub size: Size,
    pub fps: u32,
    /// Which test pattern; any number.
    pub pattern: usize,
}

impl Picture {
    /// About 0.12 bit per pixel: enough for a test pattern.
    fn kbit_per_s(&self) -> u32 {
        (self.size.width * self.size.height * self.fps * 12 / 100_000).clamp(100, 4_000)
    }

    /// Launch text up to H.264; the overlay named `id` and the encoder named `encoder` are set by property.
    fn launch(&self) -> String {
        let Picture {
            size: Size { width, height },
            fps,
            pattern,
        } = *self;
        format!(
            "videotestsrc is-live=true pattern={} ! \
             video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 ! \
             clockoverlay halignment=right valignment=top font-desc=\"Sans 14\" ! \
             textoverlay name=id halignment=left valignment=bottom font-desc=\"Sans 18\" ! \
             x264enc name=encoder tune=zerolatency speed-preset=ultrafast threads=1 bitrate={} key-int-max={} ! \
             video/x-h264,profile=constrained-baseline ! h264parse config-interval=-1",
            PATTERNS[pattern % PATTERNS.len()],
            self.kbit_per_s(),
            fps * 2,
        )
    }
}

/// A pipeline that stops when it is dropped.
pub(super) struct Pipeline(pub gst::Pipeline);

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Err(fault) = self.0.set_state(gst::State::Null) {
            tracing::warn!(%fault, "pipeline does not stop");
        }
    }
}

impl Pipeline {
    pub(super) fn build(
        device: &Device,
        picture: &Picture,
        rest: &str,
    ) -> anyhow::Result<Pipeline> {
        let text = format!("{} ! {rest}", picture.launch());
        let pipeline = gst::parse::launch(&text)
            .context("GStreamer lacks a part (plugins base, good, bad, ugly and rtsp are needed)")?
            .downcast::<gst::Pipeline>()
            .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
        if let Some(overlay) = pipeline.by_name("id") {
            overlay.set_property("text", &device.id);
        }
        Ok(Pipeline(pipeline))
    }

    /// Plays until it fails or ends; gives the reason.
    pub(super) async fn ended(&self) -> String {
        let Some(bus) = self.0.bus() else {
            return "no bus".into();
        };
        let mut messages = bus.stream();
        while let Some(message) = messages.next().await {
            match message.view() {
                gst::MessageView::Error(error) => return error.error().to_string(),
                gst::MessageView::Eos(_) => return "ended".into(),
                _ => {}
            }
        }
        "bus closed".into()
    }
}

/// Pushes a device's video by RTSP over TCP until the fleet stops; comes back when it is lost.
pub(super) async fn push_rtsp(
    device: &Device,
    rtsp: &str,
    picture: Picture,
    counters: Arc<Counters>,
    mut stopping: watch::Receiver<bool>,
) {
    let location = format!("rtsp://{rtsp}/{}/main", device.id);
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let began = tokio::time::Instant::now();
        let pushed = push_once(device, &location, &picture, &counters, &mut stopping).await;
        if *stopping.borrow() {
            return;
        }
        let reason = match pushed {
            Ok(reason) => reason,
            Err(fault) => format!("{fault:#}"),
        };
        if began.elapsed().as_secs() > 20 {
            backoff.reset();
            told.clear();
        }
        if reason != told {
            tracing::warn!(device = %device.id, %reason, "video lost, tried again");
            told = reason;
        }
        if !backoff.wait(&mut stopping).await {
            return;
        }
    }
}

async fn push_once(
    device: &Device,
    location: &str,
    picture: &Picture,
    counters: &Counters,
    stopping: &mut watch::Receiver<bool>,
) -> anyhow::Result<String> {
    let pipeline = Pipeline::build(
        device,
        picture,
        "rtspclientsink name=sink protocols=tcp latency=0",
    )?;
    let sink = pipeline.0.by_name("sink").context("no rtspclientsink")?;
    sink.set_property("location", location);
    sink.set_property("user-id", &device.id);
    sink.set_property("user-pw", &device.password);
    pipeline
        .0
        .set_state(gst::State::Playing)
        .context("video does not start")?;
    counters.streaming.fetch_add(1, Ordering::Relaxed);
    let reason = tokio::select! {
        reason = pipeline.ended() => reason,
        () = halted(stopping) => String::new(),
    };
    counters.streaming.fetch_sub(1, Ordering::Relaxed);
    // TEARDOWN waits for the network: not on a worker thread of ours.
    tokio::task::spawn_blocking(move || drop(pipeline)).await?;
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_even_and_bounded() {
        assert_eq!(
            "480x270".parse(),
            Ok(Size {
                width: 480,
                height: 270
            })
        );
        for bad in ["", "480", "481x270", "0x0", "99999x2", "axb"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}

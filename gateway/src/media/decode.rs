//! From a key frame to a JPEG: one short GStreamer pipeline for each picture, bounded in time, size and threads.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};

use super::still::{self, Format, Still};
use super::{Fault, Snapshot};

/// From the start of the pipeline to its end.
const DECODE_MAX: Duration = Duration::from_secs(2);
const JPEG_QUALITY: i32 = 85;

/// What a format needs of GStreamer.
struct Needs {
    codec: &'static str,
    caps: &'static str,
    parser: &'static str,
    /// openh264dec is not one: it gives nothing for a single picture.
    decoder: &'static str,
    package: &'static str,
}

fn needs(format: Format) -> Needs {
    match format {
        Format::H264 => Needs {
            codec: "H264",
            caps: "video/x-h264,stream-format=byte-stream,alignment=au",
            parser: "h264parse",
            decoder: "avdec_h264",
            package: "gstreamer1.0-libav",
        },
    }
}

/// GStreamer, started once. The first time on a machine it looks at all its plugins, which takes seconds; it keeps what
/// it found in `GST_REGISTRY`.
fn engine() -> Result<(), Fault> {
    static ENGINE: LazyLock<Result<(), String>> = LazyLock::new(|| {
        let begun = Instant::now();
        let started = gst::init().map_err(|e| e.to_string());
        match &started {
            Ok(()) => {
                hear_of_concealment();
                let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(took_ms, "GStreamer started");
            }
            Err(e) => tracing::error!(
                error = e,
                "GStreamer does not start: there are no snapshots"
            ),
        }
        started
    });
    ENGINE.clone().map_err(Fault::Engine)
}

thread_local! {
    /// What libav said about the picture that this thread is decoding.
    static CONCEALED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// libav makes up what it cannot decode and says so in its log alone: grey areas would pass for what the camera saw.
fn hear_of_concealment() {
    const CATEGORY: &str = "libav";
    if std::env::var_os("GST_DEBUG").is_none() {
        gst::log::remove_default_log_function();
    }
    gst::log::add_log_function(|category, _, _, _, _, _, message| {
        if category.name() != CATEGORY {
            return;
        }
        if let Some(said) = message.get()
            && (said.starts_with("concealing") || said.starts_with("error while decoding"))
        {
            let said = said.trim().to_owned();
            CONCEALED.with_borrow_mut(|first| first.get_or_insert(said).truncate(200));
        }
    });
    gst::log::set_active(true);
    gst::log::set_threshold_for_name(CATEGORY, gst::DebugLevel::Info);
}

/// Decodes and encodes, on this thread and those of GStreamer. `width`: at most so many pixels, the height follows.
///
/// # Errors
/// [`Fault`]; [`Fault::Slow`] after two seconds.
pub fn jpeg(still: &Still, width: Option<u16>) -> Result<Snapshot, Fault> {
    engine()?;
    let pipeline = Pipeline::build(still.format, width)?;
    let (jpeg, width, height) = pipeline.run(&still.data)?;
    Ok(Snapshot {
        jpeg,
        width,
        height,
        captured: still.captured,
    })
}

/// A pipeline that is torn down when dropped.
struct Pipeline {
    whole: gst::Pipeline,
    source: AppSrc,
    sink: AppSink,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Err(fault) = self.whole.set_state(gst::State::Null) {
            tracing::warn!(%fault, "a pipeline does not stop");
        }
    }
}

impl Pipeline {
    fn build(format: Format, width: Option<u16>) -> Result<Self, Fault> {
        let needs = needs(format);
        let caps = |text: &str| {
            text.parse::<gst::Caps>()
                .map_err(|e| Fault::Engine(format!("{text}: {e}")))
        };
        let source = AppSrc::builder()
            .caps(&caps(needs.caps)?)
            .format(gst::Format::Time)
            .build();
        let sink = AppSink::builder()
            .sync(false)
            .max_buffers(1)
            .drop(true)
            .wait_on_eos(false)
            .build();
        let decoder = decoder(&needs)?;
        // Square pixels and the colours of JFIF (full range, BT.601), whatever the camera has.
        let width = width.map_or(String::new(), |w| format!("width=(int)[1,{w}],"));
        let target = caps(&format!(
            "video/x-raw,format=I420,{width}pixel-aspect-ratio=1/1,colorimetry=(string)1:4:7:1"
        ))?;
        let filter = element("capsfilter", "gstreamer1.0-plugins-base")?;
        filter.set_property("caps", target);
        let encoder = element("jpegenc", "gstreamer1.0-plugins-good")?;
        encoder.set_property("quality", JPEG_QUALITY);
        let parts = [
            source.clone().upcast(),
            element(needs.parser, "gstreamer1.0-plugins-bad")?,
            decoder,
            element("videoscale", "gstreamer1.0-plugins-base")?,
            element("videoconvert", "gstreamer1.0-plugins-base")?,
            filter,
            encoder,
            sink.clone().upcast(),
        ];
        let whole = gst::Pipeline::new();
        whole
            .add_many(&parts)
            .and_then(|()| gst::Element::link_many(&parts))
            .map_err(|e| Fault::Engine(e.to_string()))?;
        Ok(Self {
            whole,
            source,
            sink,
        })
    }

    /// The JPEG with its width and height.
    fn run(&self, frame: &Bytes) -> Result<(Bytes, u32, u32), Fault> {
        let broken = |e: &dyn std::fmt::Display| Fault::Engine(e.to_string());
        let bus = self
            .whole
            .bus()
            .ok_or_else(|| broken(&"a pipeline has no bus"))?;
        let deadline = Instant::now() + DECODE_MAX;
        self.whole
            .set_state(gst::State::Playing)
            .map_err(|e| broken(&e))?;
        let mut buffer = gst::Buffer::from_slice(frame.clone());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::ZERO);
        }
        self.source.push_buffer(buffer).map_err(|e| broken(&e))?;
        self.source.end_of_stream().map_err(|e| broken(&e))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let left = gst::ClockTime::try_from(left).unwrap_or(gst::ClockTime::ZERO);
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = bus.timed_pop_filtered(left, &ends).ok_or(Fault::Slow)?;
        if let gst::MessageView::Error(e) = end.view() {
            return Err(Fault::Damaged(e.error().message().to_owned()));
        }
        let nothing = || Fault::Damaged("the decoder made no picture of it".to_owned());
        let sample = self
            .sink
            .try_pull_sample(gst::ClockTime::ZERO)
            .ok_or_else(nothing)?;
        let side = |name| {
            let side = sample.caps()?.structure(0)?.get::<i32>(name).ok()?;
            u32::try_from(side).ok()
        };
        let (width, height) = side("width").zip(side("height")).ok_or_else(nothing)?;
        let data = sample
            .buffer()
            .and_then(|b| b.map_readable().ok())
            .ok_or_else(nothing)?;
        Ok((Bytes::copy_from_slice(&data), width, height))
    }
}

fn element(name: &'static str, package: &'static str) -> Result<gst::Element, Fault> {
    gst::ElementFactory::make(name).build().map_err(|_| {
        Fault::Engine(format!(
            "its part {name} is missing: an admin installs the package {package}"
        ))
    })
}

/// The decoder, of one thread, guarded against pictures larger than allowed and pictures that it made up.
fn decoder(needs: &Needs) -> Result<gst::Element, Fault> {
    let made = gst::ElementFactory::make(needs.decoder).build();
    let decoder = made.map_err(|_| Fault::NoDecoder {
        codec: needs.codec,
        package: needs.package,
    })?;
    for (name, value) in [
        ("max-threads", 1.to_value()),
        ("output-corrupt", false.to_value()),
        ("discard-corrupted-frames", true.to_value()),
    ] {
        // Decoders and their versions differ in what they have.
        if decoder.find_property(name).is_some() {
            decoder.set_property_from_value(name, &value);
        }
    }
    let pad = |name| {
        let pad = decoder.static_pad(name);
        pad.ok_or_else(|| Fault::Engine(format!("{} has no {name}", needs.decoder)))
    };
    let events = gst::PadProbeType::EVENT_DOWNSTREAM;
    pad("sink")?.add_probe(events, |pad, info| match info.event().map(|e| e.view()) {
        Some(gst::EventView::Caps(caps)) => {
            caps.caps()
                .structure(0)
                .map_or(gst::PadProbeReturn::Ok, |parsed| {
                    let side = |name| parsed.get::<i32>(name).unwrap_or(0).unsigned_abs();
                    let (width, height) = (side("width"), side("height"));
                    if width.saturating_mul(height) > still::PIXELS_MAX {
                        return refuse(pad, &still::too_large(width, height));
                    }
                    gst::PadProbeReturn::Ok
                })
        }
        Some(gst::EventView::StreamStart(_)) => {
            // The thread may have decoded another picture before.
            CONCEALED.take();
            gst::PadProbeReturn::Ok
        }
        _ => gst::PadProbeReturn::Ok,
    });
    // The decoder runs on the thread of its source: the end passes where the picture was decoded.
    pad("src")?.add_probe(events, |pad, info| match info.event().map(|e| e.view()) {
        Some(gst::EventView::Eos(_)) => match CONCEALED.take() {
            Some(said) => refuse(pad, &said),
            None => gst::PadProbeReturn::Ok,
        },
        _ => gst::PadProbeReturn::Ok,
    });
    Ok(decoder)
}

/// Ends the pipeline with this reason, instead of what the probe saw.
fn refuse(pad: &gst::Pad, why: &str) -> gst::PadProbeReturn {
    if let Some(decoder) = pad.parent_element() {
        gst::element_error!(decoder, gst::StreamError::Decode, ("{why}"));
    }
    gst::PadProbeReturn::Handled
}

#[cfg(test)]
mod tests {
    use super::super::still::tests::{IDR, PPS, SPS, WHEN, huge_sps, still};
    use super::*;

    /// Width and height of the frame header (ITU-T T.81 B.2.2: SOF0).
    fn size(jpeg: &[u8]) -> (u32, u32) {
        assert_eq!(jpeg[..2], [0xff, 0xd8], "a JPEG begins with SOI");
        assert_eq!(jpeg[jpeg.len() - 2..], [0xff, 0xd9], "and ends with EOI");
        let at = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        let number = |i: usize| u32::from(u16::from_be_bytes([jpeg[at + i], jpeg[at + i + 1]]));
        (number(7), number(5))
    }

    #[test]
    fn a_key_frame_becomes_a_jpeg() {
        let key_frame = still(&[SPS, PPS, IDR]).unwrap();
        let made = jpeg(&key_frame, None).unwrap();
        assert_eq!((made.width, made.height), (64, 48));
        assert_eq!(size(&made.jpeg), (64, 48));
        assert_eq!(made.captured, WHEN);
        let narrow = jpeg(&key_frame, Some(32)).unwrap();
        assert_eq!(size(&narrow.jpeg), (32, 24));
        let wide = jpeg(&key_frame, Some(1920)).unwrap();
        assert_eq!(size(&wide.jpeg), (64, 48), "never made larger");
    }

    #[test]
    fn what_cannot_be_decoded_is_told() {
        let mut broken = IDR.to_vec();
        for byte in &mut broken[4..] {
            *byte = 0x55;
        }
        for slice in [&broken[..], &IDR[..9]] {
            let told = jpeg(&still(&[SPS, PPS, slice]).unwrap(), None);
            assert!(matches!(told, Err(Fault::Damaged(_))), "{told:?}");
        }
    }

    #[test]
    fn the_parser_is_asked_for_the_size_too() {
        // Built past the check of the SPS: the probe alone must hold.
        engine().unwrap();
        let pipeline = Pipeline::build(Format::H264, None).unwrap();
        let huge = huge_sps();
        let start = &[0, 0, 0, 1][..];
        let unit = [start, &huge, start, PPS, start, IDR].concat();
        let told = pipeline.run(&Bytes::from(unit)).unwrap_err();
        assert!(told.to_string().contains("megapixels"), "{told}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(40))]
        #[test]
        fn any_damage_ends(
            damage in proptest::collection::vec((1..IDR.len(), proptest::num::u8::ANY), 1..12),
            length in 4..IDR.len(),
        ) {
            let mut slice = IDR.to_vec();
            for (at, byte) in damage {
                slice[at] = byte;
            }
            slice.truncate(length);
            if let Ok(key_frame) = still(&[SPS, PPS, &slice])
                && let Err(fault) = jpeg(&key_frame, None)
            {
                proptest::prop_assert!(matches!(fault, Fault::Damaged(_) | Fault::Slow), "{fault}");
            }
        }
    }
}

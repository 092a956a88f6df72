//! The parsers of `kerbside-codecs`. Each function takes any bytes and panics only for a fault.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kerbside_codecs::media::{Codec, Medium};
use kerbside_codecs::rtp::aac::Packing;
use kerbside_codecs::rtp::extension::{self, CaptureTime};
use kerbside_codecs::rtp::rtcp::{self, Reception};
use kerbside_codecs::rtp::{Assembler, Header, PAYLOAD_BYTES_MAX, Packet, Window};
use kerbside_codecs::rtsp::digest::{Credentials, Nonces};
use kerbside_codecs::rtsp::{
    AnsweredTransport, Call, Framer, Heard, Incoming, Login, Offer, ReplyFramer, Session, base,
    control, describe, session_control,
};

use kerbside_codecs::geo;
use kerbside_codecs::telemetry::report::PROPERTIES_MAX;
use kerbside_codecs::telemetry::{self, Codecs, Datum, Decoded, Speaker, datagram};

/// What is fuzzed; it panics for a fault.
pub type Target = fn(&[u8]);

/// Each by its name.
pub const TARGETS: [(&str, Target); 13] = [
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("rtsp", rtsp),
    ("reply", reply),
    ("sdp", sdp),
    ("h264", h264),
    ("h265", h265),
    ("av1", av1),
    ("aac", aac),
    ("mavlink", mavlink),
    ("klv", klv),
    ("nmea", nmea),
    ("datagram", datagram),
];

/// When the datagrams of the telemetry targets arrive, ms since 1970 UTC.
const ARRIVED_MS: i64 = 1_795_219_200_000;

/// Datagrams of a drone, 50 ms apart: each with a byte of its length before it. The first byte: bit 0 is a key.
pub fn mavlink(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let key = (how & 1 == 1).then_some(datagram::Key([7; 32]));
    let mut link = telemetry::mavlink::Link::new(1, key);
    // The first one whole: inputs that are nothing but frames are found sooner.
    told(&link.handle("d", data, ARRIVED_MS), data);
    for (datagram, at) in cut(rest).zip((ARRIVED_MS..).step_by(50)) {
        told(&link.handle("d", datagram, at), datagram);
    }
}

/// KLV packets in one datagram.
pub fn klv(data: &[u8]) {
    told(&telemetry::klv::decode("d", data), data);
}

/// Datagrams of a receiver, 50 ms apart, cut as for [`mavlink`].
pub fn nmea(data: &[u8]) {
    let mut link = telemetry::nmea::Link::default();
    told(&link.handle("d", Datum::Wgs84, data, ARRIVED_MS), data);
    for (datagram, at) in cut(data).zip((ARRIVED_MS..).step_by(50)) {
        told(&link.handle("d", Datum::Gcj02, datagram, at), datagram);
    }
}

/// Datagrams of one source, of any format, cut as for [`mavlink`].
pub fn datagram(data: &[u8]) {
    let codecs = Codecs::default();
    let mut link = datagram::Link::new(1, None);
    let speaker = Speaker {
        device: "d",
        datum: Datum::Wgs84,
        aircraft: None,
    };
    telemetry::mavlink::speaks(data, 1);
    for (datagram, at) in std::iter::once(data)
        .chain(cut(data))
        .zip((ARRIVED_MS..).step_by(50))
    {
        told(&link.decode(&codecs, speaker, datagram, at), datagram);
    }
}

fn cut(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (size, rest) = data.split_first()?;
        let (datagram, rest) = rest.split_at(usize::from(*size).min(rest.len()));
        data = rest;
        Some(datagram)
    })
}

/// Whatever was said: positions on the earth, angles within a turn, and not more than was in it.
fn told(decoded: &Decoded, datagram: &[u8]) {
    assert!(decoded.reports.len() <= 256 && decoded.faults.len() <= datagram.len() + 1);
    let turn = |angle: Option<f64>| angle.is_none_or(|a| (0.0..360.0).contains(&a));
    let place = |(lat, lon): (f64, f64)| geo::valid(lat, lon);
    for report in &decoded.reports {
        assert!(
            report
                .battery_pct
                .is_none_or(|b| (0.0..=100.0).contains(&b))
        );
        assert!(report.properties.len() <= PROPERTIES_MAX);
        if let Some(fix) = &report.fix {
            assert!(place((fix.lat, fix.lon)) && (fix.lat, fix.lon) != (0.0, 0.0));
            assert!(turn(fix.heading_deg) && turn(fix.course_deg));
            let numbers = [fix.alt_m, fix.accuracy_m, fix.speed_mps, fix.climb_mps];
            assert!(numbers.into_iter().flatten().all(f64::is_finite));
        }
        if let Some(sight) = &report.sight {
            assert!(turn(sight.azimuth_deg) && sight.corners.len() <= 4);
            assert!(sight.centre.is_none_or(place) && sight.corners.iter().all(|c| place(*c)));
            let up = sight.elevation_deg;
            assert!(up.is_none_or(|e| (-90.0..=90.0).contains(&e)));
        }
    }
}

/// A datagram as an RTP packet with its header extensions.
pub fn rtp(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(packet) = Packet::parse(&bytes) {
        assert!(packet.payload.len() + 12 <= data.len());
    }
    let mut read = 0;
    for (_, element) in extension::elements(data) {
        read += element.len() + 1;
        if let Some(told) = CaptureTime::parse(element) {
            rtcp::utc_us_of(told.by_sender());
        }
    }
    assert!(read <= data.len(), "elements overlap");
}

/// A datagram as RTCP, and what a receiver makes of it.
pub fn rtcp(data: &[u8]) {
    let now = Instant::now();
    let mut reception = Reception::new(90_000);
    if let Ok((header, _)) = Header::parse(data) {
        reception.packet(&header, now);
    }
    let mut reports = 0;
    for report in rtcp::parse(data) {
        reports += 1;
        reception.report(report, now);
    }
    assert!(reports <= data.len() / 4);
    if let Some(report) = reception.receiver_report(1, now + Duration::from_secs(1)) {
        assert!(report.len() < 100);
    }
}

/// A client's connection to our RTSP server; the first byte says how it is cut into reads.
pub fn rtsp(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let mut framer = Framer::default();
    let mut session = Session::new("id".to_owned(), cut & 1 == 1);
    let nonces = Nonces::new([7; 32]);
    let mut out = BytesMut::new();
    let (mut units, mut asked) = (0, 0);
    for part in stream.chunks(usize::from(*cut) + 1) {
        framer.buffer().extend_from_slice(part);
        while let Ok(Some(unit)) = framer.next() {
            units += 1;
            let Incoming::Request(request) = unit else {
                continue;
            };
            asked += request.body().len();
            if let Some(value) = request.header(&rtsp_types::headers::AUTHORIZATION)
                && let Some(Credentials::Digest(d)) = Credentials::parse(value.as_str())
            {
                nonces.check("0", 1);
                d.verify("00", "PLAY");
            }
            match session.check(&request) {
                Ok(call) => follow(&mut session, call),
                Err(refused) => refused.0.write(&request, &mut out),
            }
        }
    }
    assert!(units <= stream.len(), "more units than bytes");
    assert!(asked <= stream.len(), "bodies longer than the stream");
    assert!(session.tracks().len() <= 8, "more tracks than media");
    assert!(out.len() <= stream.len() * 12, "answers explode");
}

fn follow(session: &mut Session, call: Call) {
    match call {
        Call::Announce(target, offer) => session.announced(target.stream, offer),
        Call::Describe(target) => session.described(target.stream, media()),
        Call::SetUp {
            target,
            record,
            transport,
        } => {
            if !record && !session.knows(&target) {
                session.described(target.stream.clone(), media());
            }
            drop(session.set_up(&target, record, transport));
        }
        Call::Play => session.playing(),
        Call::Record => session.recording(),
        Call::Pause => session.paused(),
        Call::Teardown => session.reset(),
        Call::Options | Call::KeepAlive => {}
    }
}

/// A camera's side of a connection to it; the first byte says how it is cut into reads.
pub fn reply(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let mut framer = ReplyFramer::default();
    let mut login = Login::new(Some(("u".to_owned(), "p".to_owned())), cut & 1 == 1);
    for part in stream.chunks(usize::from(*cut) + 1) {
        framer.buffer().extend_from_slice(part);
        while let Ok(Some(heard)) = framer.next() {
            let Heard::Reply(reply) = heard else {
                continue;
            };
            reply.session();
            reply.cseq();
            if reply.status == 401 && login.challenged(&reply).is_ok() {
                login.authorization("DESCRIBE", "rtsp://h/1", "c");
            }
            if let Some(transport) = reply.header("Transport") {
                AnsweredTransport::parse(transport);
            }
            let named = reply.header("Content-Base");
            control(
                &base(named, None, "rtsp://h/1"),
                session_control(&reply.body).as_deref(),
            );
        }
    }
    assert!(framer.garbage() <= stream.len());
}

/// An announced or described SDP; what is understood can be described again and means the same.
pub fn sdp(data: &[u8]) {
    session_control(data);
    let offer = match Offer::parse(data) {
        Ok(offer) => offer,
        Err(reason) => {
            assert!(reason.to_string().len() <= 1024, "a reason explodes");
            return;
        }
    };
    let media: Vec<Medium> = offer.carried().cloned().collect();
    let written = describe("bc-01/main", &media);
    assert!(written.len() <= 64 << 10, "a description explodes");
    let again = Offer::parse(&written).expect("what we describe can be read");
    let names = |m: &[Medium]| m.iter().map(|m| m.codec.name()).collect::<Vec<_>>();
    let read: Vec<Medium> = again.carried().cloned().collect();
    assert_eq!(names(&read), names(&media));
}

pub fn h264(data: &[u8]) {
    let known = data.first().is_some_and(|b| b & 1 == 1);
    let set = |bytes: &'static [u8]| match known {
        true => Bytes::from_static(bytes),
        false => Bytes::new(),
    };
    assemble(
        data,
        Codec::H264 {
            sps: set(&[0x67, 66, 0, 30, 0x80, 1]),
            pps: set(&[0x68, 0x80]),
        },
        90_000,
    );
}

pub fn h265(data: &[u8]) {
    assemble(
        data,
        Codec::H265 {
            vps: Bytes::from_static(&[0x40, 0x01, 0x0c]),
            sps: Bytes::new(),
            pps: Bytes::from_static(&[0x44, 0x01, 0xc1]),
        },
        90_000,
    );
}

pub fn av1(data: &[u8]) {
    let codec = Codec::Av1 {
        profile: 0,
        level_idx: 5,
        tier: 0,
    };
    assemble(data, codec, 90_000);
}

pub fn aac(data: &[u8]) {
    // AAC-lbr too: other sizes of the fields.
    let packing = match data.first() {
        Some(b) if b & 1 == 1 => Packing {
            size: 6,
            index: 2,
            index_delta: 2,
        },
        _ => Packing::HBR,
    };
    let codec = Codec::Aac {
        config: Bytes::from_static(&[0x11, 0x90]),
        channels: 2,
        packing,
    };
    assemble(data, codec, 48_000);
}

fn media() -> Vec<Medium> {
    let medium = |codec, clock_rate| Medium { codec, clock_rate };
    vec![medium(Codec::Pcma, 8000), medium(Codec::Pcmu, 8000)]
}

/// Packets through an [`Assembler`]. The first byte: bit 1 is the window. Then packets: a byte of what is unusual about
/// it (bit 0 marker, 1–2 sequence number, 3–4 time, 5 source, 6 it waits), two of its length, the payload.
fn assemble(data: &[u8], codec: Codec, clock_rate: u32) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let window = if first & 2 == 0 {
        Window::IN_ORDER
    } else {
        Window::UDP
    };
    let mut assembler = Assembler::with_window(&Medium { codec, clock_rate }, window);
    let mut now = Instant::now();
    let mut header = Header {
        marker: false,
        payload_type: 96,
        seq: 65_530,
        time: 0,
        ssrc: 7,
    };
    let (mut packets, mut frames, mut bytes) = (0, 0, 0);
    while let [how, high, low, behind @ ..] = rest {
        let size = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (payload, next) = behind.split_at(size);
        rest = next;
        packets += 1;
        header.marker = how & 1 == 1;
        header.seq = header
            .seq
            .wrapping_add([1, 2, 0, 0xffff][usize::from(how >> 1 & 3)]);
        let steps = [0, 3000, 3000_u32.wrapping_neg(), 1 << 30];
        header.time = header.time.wrapping_add(steps[usize::from(how >> 3 & 3)]);
        header.ssrc = 7 + u32::from(how >> 5 & 1);
        now += Duration::from_millis(if how & 0x40 == 0 { 1 } else { 600 });
        let packet = Packet {
            header,
            payload: Bytes::copy_from_slice(payload),
        };
        let mut out = assembler.push(packet, now);
        out.extend(assembler.poll(now));
        if rest.len() < 3 {
            out.extend(assembler.poll(now + Duration::from_secs(1)));
        }
        for frame in out {
            frames += 1;
            assert!(!frame.payloads.is_empty(), "an empty frame");
            for payload in frame.payloads.iter() {
                assert!(payload.len() <= PAYLOAD_BYTES_MAX, "{}", payload.len());
                bytes += payload.len();
            }
        }
        assembler.medium_changed();
    }
    // AAC: 64 units in a packet; video: two, one of which the packet before left.
    assert!(
        frames <= packets * 64,
        "{frames} frames of {packets} packets"
    );
    // Parameter sets come before each key frame: 24 sets of 1 kB at most.
    let bound = data.len() * 8 + frames * (24 << 10);
    assert!(bytes <= bound, "{bytes} bytes of {}", data.len());
}

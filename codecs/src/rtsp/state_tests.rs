use super::*;
use crate::media::Codec;
use crate::rtsp::{Framer, Incoming};

const OFFER: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n\
    m=audio 0 RTP/AVP 8\r\na=control:rtsp://h/bc-01/main/sound\r\n";

fn request(text: &str) -> Request {
    let mut f = Framer::default();
    f.buffer().extend_from_slice(text.as_bytes());
    match f.next() {
        Ok(Some(Incoming::Request(r))) => r,
        other => panic!("{other:?}"),
    }
}

fn ask(method: &str, path: &str, extra: &str) -> Request {
    request(&format!(
        "{method} rtsp://h:8554{path} RTSP/1.0\r\nCSeq: 1\r\n{extra}\r\n"
    ))
}

fn status(r: Result<Call, Refused>) -> u16 {
    r.map_or_else(|r| r.0.status.code(), |_| 200)
}

fn session() -> Session {
    Session::new("s1".into(), false)
}

const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";

fn media() -> Vec<Medium> {
    [Codec::Pcma, Codec::Pcmu]
        .map(|codec| Medium {
            codec,
            clock_rate: 8000,
        })
        .into()
}

#[test]
fn methods_at_the_wrong_time_are_455() {
    let s = session();
    for m in ["PLAY", "RECORD", "PAUSE"] {
        assert_eq!(status(s.check(&ask(m, "/bc-01/main", ""))), 455, "{m}");
    }
    let mut s = session();
    s.announced("bc-01/main".into(), Offer::parse(OFFER.as_bytes()).unwrap());
    assert_eq!(status(s.check(&ask("RECORD", "/bc-01/main", ""))), 455);
    assert_eq!(status(s.check(&ask("DESCRIBE", "/bc-01/main", ""))), 455);
    assert_eq!(status(s.check(&ask("SETUP", "/bc-02/main", TCP))), 455);
}

#[test]
fn unknown_things_have_their_own_answers() {
    let s = session();
    assert_eq!(
        status(s.check(&ask("PLAY", "/bc-01/main", "Session: other\r\n"))),
        454
    );
    assert_eq!(status(s.check(&ask("DESCRIBE", "/bc-01", ""))), 404);
    assert_eq!(status(s.check(&ask("REDIRECT", "/bc-01/main", ""))), 501);
    assert_eq!(
        status(s.check(&ask("DESCRIBE", "/bc-01/main", "Require: x\r\n"))),
        551
    );
    for t in [
        "",
        "Transport: RTP/AVP;multicast\r\n",
        "Transport: RTP/SAVP;client_port=1-2\r\n",
        "Transport: \"\r\n",
    ] {
        assert_eq!(status(s.check(&ask("SETUP", "/bc-01/main", t))), 461, "{t}");
    }
    let encrypted = Session::new("s1".into(), true);
    let udp = "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n";
    assert_eq!(
        status(encrypted.check(&ask("SETUP", "/bc-01/main", udp))),
        461
    );
}

#[test]
fn publishing_sets_up_tracks_by_name_number_or_order() {
    for controls in [["streamid=0", "sound"], ["stream=0", "stream=1"], ["", ""]] {
        let mut s = session();
        s.announced("bc-01/main".into(), Offer::parse(OFFER.as_bytes()).unwrap());
        for (i, c) in controls.iter().enumerate() {
            let Ok(Call::SetUp {
                target,
                record: true,
                transport,
            }) = s.check(&ask("SETUP", &format!("/bc-01/main/{c}"), TCP))
            else {
                panic!("{c}");
            };
            let track = s.set_up(&target, true, transport).unwrap();
            assert_eq!(track.index, i, "{c}");
            // The same channels asked for twice: the second track gets others.
            let c = u8::try_from(i).unwrap() * 2;
            assert_eq!(
                track.transport,
                Transport::Tcp {
                    rtp: c,
                    rtcp: c + 1
                }
            );
        }
        assert_eq!(
            s.tracks()
                .iter()
                .map(|t| t.payload_type)
                .collect::<Vec<_>>(),
            [96, 8]
        );
        assert_eq!(
            s.check(&ask("RECORD", "/bc-01/main", "Session: s1;timeout=60\r\n")),
            Ok(Call::Record)
        );
    }
}

#[test]
fn playing_needs_no_describe() {
    let mut s = session();
    let Ok(Call::SetUp {
        target,
        record: false,
        transport,
    }) = s.check(&ask("SETUP", "/bc-01/main/trackID=1", TCP))
    else {
        panic!("SETUP before DESCRIBE");
    };
    assert!(!s.knows(&target));
    s.described(target.stream.clone(), media());
    assert_eq!(s.set_up(&target, false, transport).unwrap().payload_type, 0);
    assert_eq!(
        s.set_up(&target, false, transport).unwrap_err().0.status,
        Status::NotValidInThisState
    );
    let none = Target {
        control: "trackID=7".into(),
        ..target
    };
    assert_eq!(
        s.set_up(&none, false, transport).unwrap_err().0.status,
        Status::NotFound
    );
    assert_eq!(s.check(&ask("PLAY", "/bc-01/main", "")), Ok(Call::Play));
    s.playing();
    assert_eq!(status(s.check(&ask("SETUP", "/bc-01/main", TCP))), 455);
    s.reset();
    assert_eq!(status(s.check(&ask("PLAY", "/bc-01/main", ""))), 455);
}

#[test]
fn targets() {
    let t = |u| Target::parse(u).map(|t| (t.stream, t.control));
    let is = |s: &str, c: &str| Some((s.to_owned(), c.to_owned()));
    assert_eq!(t("rtsp://h:1/a/b"), is("a/b", ""));
    assert_eq!(t("rtsp://h/a/b/"), is("a/b", ""));
    assert_eq!(t("rtsp://h/a/b/trackID=0"), is("a/b", "trackID=0"));
    assert_eq!(t("rtsp://h/a/b?x=1/trackID=1"), is("a/b", "trackID=1"));
    assert_eq!(t("/a/b/c/d"), is("a/b", "c/d"));
    assert_eq!(t("rtsp://h"), None);
    assert_eq!(t("rtsp://h/a"), None);
}

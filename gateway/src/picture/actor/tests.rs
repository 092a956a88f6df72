use std::path::Path;

use kerbside_codecs::telemetry::{Report, Sos};

use crate::clock::Now;
use crate::ids::StreamId;
use crate::outbox::{Appended, Outbox};
use crate::picture::rules::tests::rule;
use crate::picture::{Audience, Fact, GridFile, NotOwned, Picture, Rules};
use crate::stream::StreamStatus;

fn text(message: bytes::Bytes) -> String {
    String::from_utf8(message.into()).unwrap()
}

fn sos(id: &str) -> Fact {
    Fact::Report {
        report: Report {
            device: "bc-01".into(),
            sos: Some(Sos {
                id: Some(id.into()),
                note: None,
            }),
            ..Report::default()
        },
        registered: None,
        restricted: false,
        arrived: Now::read(),
    }
}

fn picture(state: &Path) -> (Picture, Outbox) {
    let outbox = Outbox::open(state, &[]).unwrap();
    let rules = Rules::compile(&[
        rule("sos", "report.sos"),
        rule("stream_lost", "stream.phase == 'lost'"),
    ])
    .unwrap();
    let picture = Picture::start(
        GridFile::parse(None).unwrap(),
        rules,
        outbox.clone(),
        vec![],
        None,
        [],
    );
    (picture, outbox)
}

#[test]
fn told_means_owned_by_the_outbox() {
    let dir = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let (picture, outbox) = picture(dir.path());
        let mut screen = picture.feed().subscribe(None, Audience::default());
        assert!(text(screen.next().await).contains(r#""events":[]"#));
        // Two copies at once, as a device sends that lost its acknowledgement: one event.
        let (a, b) = tokio::join!(picture.tell(sos("a1")), picture.tell(sos("a1")));
        let raised: Vec<_> = a
            .unwrap()
            .raised
            .into_iter()
            .chain(b.unwrap().raised)
            .collect();
        assert_eq!(raised.len(), 1);
        let stored = outbox.recent(10, None).await.unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].0.id, raised[0]);
        while !text(screen.next().await).contains(&raised[0].to_string()) {}
        assert_eq!(
            outbox.append(stored[0].0.clone()).await.ok(),
            Some(Appended::Again(raised[0]))
        );
    });
}

#[test]
fn a_call_that_nobody_owns_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let (picture, outbox) = picture(dir.path());
        outbox.close().await;
        for _ in 0..2 {
            let answer = picture.tell(sos("a1")).await;
            assert!(matches!(answer, Err(NotOwned::Outbox(_))), "{answer:?}");
        }
        assert!(text(picture.feed().snapshot(&Audience::default())).contains(r#""events":[]"#));
        let plain = Fact::Report {
            report: Report {
                device: "bc-01".into(),
                ..Report::default()
            },
            registered: None,
            restricted: false,
            arrived: Now::read(),
        };
        assert!(picture.tell(plain).await.unwrap().raised.is_empty());
    });
}

#[test]
fn an_event_of_our_own_is_tried_again_until_it_is_owned() {
    let dir = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let (picture, outbox) = picture(dir.path());
        let disk = rusqlite::Connection::open(dir.path().join("events.db")).unwrap();
        disk.execute_batch(
            "CREATE TRIGGER bad BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'bad disk'); END",
        )
        .unwrap();
        let call = picture.tell(sos("a1")).await;
        assert!(
            matches!(call, Err(NotOwned::Outbox(_))),
            "the device says it again"
        );
        let lost = Fact::Streams(vec![StreamStatus {
            stream: StreamId::parse("bc-01/main").unwrap(),
            phase: "lost",
            protocol: None,
            codecs: vec![],
            readers: 0,
            frames: 0,
            ring_bytes: 0,
            publisher: None,
            health: None,
            b_frames: false,
            awaits_key_frame: false,
        }]);
        assert!(picture.tell(lost).await.unwrap().raised.is_empty());
        picture.tell(Fact::Tick).await.unwrap();
        assert!(outbox.recent(10, None).await.unwrap().is_empty());

        disk.execute_batch("DROP TRIGGER bad").unwrap();
        let mut screen = picture.feed().subscribe(None, Audience::default());
        while !text(screen.next().await).contains(r#""kind":"stream_lost""#) {
            picture.tell(Fact::Tick).await.unwrap();
        }
        picture.tell(Fact::Tick).await.unwrap();
        let stored = outbox.recent(10, None).await.unwrap();
        assert_eq!(stored.len(), 1, "once");
    });
}

#[test]
fn the_picture_goes_to_every_thread() {
    fn any_thread<T: Clone + Send + Sync + 'static>() {}
    any_thread::<Picture>();
}

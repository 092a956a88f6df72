use kerbside_codecs::telemetry::Sos;
use serde_json::Value;

use super::super::feed::Feed;
use super::super::rules::tests::rule;
use super::super::track::tests::{fix, grid};
use super::devices::ANNOUNCED_MAX;
use super::events::EARLY_MAX;
use super::*;
use crate::event::DeliveryState;
use crate::registry::DeviceKind;

const SECOND: Duration = Duration::from_secs(1);

/// A picture with the four usual rules, its feed and its clock.
struct Scene {
    state: State,
    feed: Feed,
    now: Now,
}

impl Scene {
    fn new() -> Self {
        let rules = Rules::compile(&[
            rule("sos", "report.sos"),
            rule("zone_left", "size(track.left_zones) > 0"),
            rule("battery_low", "track.battery_pct < 15"),
            rule("stream_lost", "stream.phase == 'lost' && stream.was != ''"),
            rule("gone_silent", "track.state == 'lost' && track.online"),
        ])
        .unwrap();
        Self {
            state: State::new(Arc::new(grid()), rules, vec![]).0,
            feed: Feed::default(),
            now: Now::read(),
        }
    }

    fn tell(&mut self, fact: Fact) -> Vec<Raised> {
        let fx = self.state.apply(fact, self.now);
        assert!(fx.failed_rules.is_empty(), "{:?}", fx.failed_rules);
        self.feed.publish(fx.changes);
        fx.raised
    }

    /// Tells, and the outbox takes all.
    fn owned(&mut self, fact: Fact) -> Vec<String> {
        let raised = self.tell(fact);
        let kinds = raised.iter().map(|r| r.event.kind.clone()).collect();
        for r in raised {
            self.answer(r, Some(&Appended::New));
        }
        kinds
    }

    fn answer(&mut self, raised: Raised, answer: Option<&Appended>) {
        let mut fx = Effects::default();
        self.state.conclude(raised, answer, &mut fx);
        self.feed.publish(fx.changes);
    }

    fn snapshot(&self) -> Value {
        serde_json::from_slice(&self.feed.snapshot(&Default::default())).unwrap()
    }

    fn device(&self) -> Value {
        self.snapshot()["devices"][0].clone()
    }

    fn wait(&mut self, seconds: u32) {
        self.now = self.now.plus(SECOND * seconds);
    }
}

fn registered() -> registry::Device {
    registry::Device {
        unit: Some("patrol-1".into()),
        person: Some("p-7".into()),
        ..registry::Device::new("bc-01", DeviceKind::Bodycam)
    }
}

fn bare() -> Report {
    Report {
        device: "bc-01".into(),
        ..Report::default()
    }
}

fn at(lat: f64, lon: f64) -> Report {
    Report {
        fix: Some(fix(lat, lon)),
        ..bare()
    }
}

impl Scene {
    fn said(&self, report: Report) -> Fact {
        Fact::Report {
            report,
            registered: Some(registered().into()),
            restricted: false,
            arrived: self.now,
        }
    }

    fn report(&mut self, report: Report) -> Vec<String> {
        let fact = self.said(report);
        self.owned(fact)
    }

    fn sos(&self, id: Option<&str>, device_time_ms: Option<i64>) -> Fact {
        self.said(Report {
            sos: Some(Sos {
                id: id.map(Into::into),
                note: Some("help".into()),
            }),
            device_time_ms,
            ..bare()
        })
    }
}

#[test]
fn a_device_as_the_contract_shows_it() {
    let mut s = Scene::new();
    s.owned(Fact::Known(vec![registered()]));
    assert_eq!(s.device()["state"], "silent");
    assert_eq!(s.device()["position"], Value::Null);
    s.owned(Fact::Session {
        device: DeviceId::parse("bc-01").unwrap(),
        registered: registered(),
        online: true,
    });
    s.report(Report {
        model: Some("X5".into()),
        battery_pct: Some(83.0),
        faults: vec![Fault::BadField],
        device_time_ms: Some(1_795_219_200_000),
        ..at(37.005, 112.005)
    });
    let mut d = s.device();
    let arrived = s.now.unix_ms;
    assert!(d["position"]["age_ms"].as_i64().unwrap() < 60_000);
    d["position"]["age_ms"] = 0.into();
    // Its clock is years off: it happened just before it arrived.
    let happened = d["position"]["happened_ms"].take().as_i64().unwrap();
    assert!((0..=300).contains(&(arrived - happened)));
    assert!(d["position"]["happened_sigma_ms"].take().as_i64().unwrap() > 0);
    let clock = d["clock"].take();
    assert_eq!(clock["behind_ms"], happened - 1_795_219_200_000);
    assert_eq!(
        (&clock["drift_ppm"], &clock["jumps"]),
        (&Value::Null, &0.into())
    );
    assert_eq!(
        d,
        serde_json::json!({
            "id":"bc-01","kind":"bodycam","unit":"patrol-1","agency":null,"model":"X5","mode":null,"state":"live","online":true,
            "person":"p-7","primary":true,"clock":null,
            "position":{"lat":37.005,"lon":112.005,"sigma_m":6.6,"motion":null,"raw":[112.005,37.005],
                "happened_ms":null,"happened_sigma_ms":null,"alt_m":null,"accuracy_m":null,"speed_mps":null,"heading_deg":null,
                "time_ms":1_795_219_200_000_i64,"arrived_ms":arrived,"age_ms":0,"datum":"wgs84","source_datum":"wgs84"},
            "cell":"c1","cells":["c1"],"zones":["beat"],"battery_pct":83.0,"sos":false,"alarms":[],"properties":{},"video_delays":[],"footprint":null,"faults":{"bad_field":1},
            "trail":[[112.005,37.005]]})
    );
}

#[test]
fn a_call_for_help_is_one_event_however_often_it_is_sent() {
    let mut s = Scene::new();
    s.report(at(37.005, 112.005));
    let raised = s.tell(s.sos(Some("a1"), None));
    assert_eq!(raised.len(), 1);
    let event = &raised[0].event;
    assert_eq!(event.dedup_key.as_deref(), Some("sos:bc-01:a1"));
    assert_eq!(event.note.as_deref(), Some("help"));
    assert_eq!(event.cell.as_deref(), Some("c1"));
    assert_eq!(event.position_ms, Some(s.now.unix_ms));
    // The same call while the first one is not owned yet: the outbox has to say that it is the same.
    let again = s.tell(s.sos(Some("a1"), None));
    assert_eq!(again[0].event.dedup_key, raised[0].event.dedup_key);
    let first = raised[0].event.id;
    s.answer(raised[0].clone(), Some(&Appended::New));
    s.answer(again[0].clone(), Some(&Appended::Again(first)));
    assert_eq!(s.snapshot()["events"].as_array().unwrap().len(), 1);
    assert_eq!(s.snapshot()["devices"][0]["sos"], true);

    assert!(
        s.owned(s.sos(Some("a1"), None)).is_empty(),
        "owned: nothing to do"
    );
    s.report(at(37.005, 112.005));
    assert!(
        s.owned(s.sos(Some("a1"), None)).is_empty(),
        "also after other reports"
    );
    assert_eq!(s.owned(s.sos(Some("a2"), None)), ["sos"]);
    s.wait(601);
    s.owned(Fact::Tick);
    assert_eq!(s.device()["sos"], false);
}

/// Devices count their calls from 1 again after each start, or always send the same id.
#[test]
fn an_id_used_again_an_hour_later_is_another_call() {
    let mut s = Scene::new();
    assert_eq!(s.owned(s.sos(Some("1"), None)), ["sos"]);
    s.wait(3599);
    assert!(s.owned(s.sos(Some("1"), None)).is_empty());
    s.wait(1);
    assert_eq!(s.owned(s.sos(Some("1"), None)), ["sos"]);
}

#[test]
fn calls_without_id_go_by_time_or_by_ten_seconds() {
    let mut s = Scene::new();
    let raised = s.tell(s.sos(None, Some(1_795_219_200_000)));
    assert_eq!(
        raised[0].event.dedup_key.as_deref(),
        Some("sos:bc-01:1795219200000")
    );
    let mut s = Scene::new();
    assert_eq!(s.owned(s.sos(None, None)), ["sos"]);
    s.wait(9);
    assert!(s.owned(s.sos(None, None)).is_empty());
    s.wait(2);
    assert_eq!(s.owned(s.sos(None, None)), ["sos"]);
}

#[test]
fn an_event_that_nobody_owns_is_raised_again() {
    let mut s = Scene::new();
    let low = |s: &Scene, pct| {
        s.said(Report {
            battery_pct: Some(pct),
            ..bare()
        })
    };
    let raised = s.tell(low(&s, 14.0));
    assert_eq!(raised.len(), 1);
    assert!(s.tell(low(&s, 14.0)).is_empty(), "on its way");
    s.answer(raised[0].clone(), None);
    assert_eq!(s.snapshot()["events"], serde_json::json!([]));
    assert_eq!(s.owned(low(&s, 14.0)), ["battery_low"]);
    assert!(s.owned(low(&s, 10.0)).is_empty(), "still low");
    assert!(s.report(bare()).is_empty(), "nothing said about it");
    assert!(s.owned(low(&s, 90.0)).is_empty());
    assert_eq!(s.owned(low(&s, 14.0)), ["battery_low"]);

    let call = s.tell(s.sos(Some("x"), None));
    s.answer(call[0].clone(), None);
    assert_eq!(s.owned(s.sos(Some("x"), None)), ["sos"]);
}

#[test]
fn leaving_the_own_zone_is_one_event_each_time() {
    let mut s = Scene::new();
    let mut step = |lat| {
        s.wait(120);
        s.report(at(lat, 112.005))
    };
    assert!(step(37.0095).is_empty());
    assert_eq!(step(37.0108), ["zone_left"]);
    assert!(step(37.0112).is_empty());
    assert!(step(37.0095).is_empty(), "back");
    assert_eq!(step(37.0108), ["zone_left"]);
}

#[test]
fn an_old_report_is_counted_and_moves_nothing_but_a_call_for_help_counts() {
    let mut s = Scene::new();
    let timed = |time, r: Report| Report {
        device_time_ms: Some(time),
        ..r
    };
    s.report(timed(2000, at(37.005, 112.005)));
    s.report(timed(
        1000,
        Report {
            battery_pct: Some(5.0),
            ..at(37.009, 112.005)
        },
    ));
    let d = s.device();
    assert_eq!(d["position"]["lat"], 37.005);
    assert_eq!(d["battery_pct"], Value::Null);
    assert_eq!(d["faults"]["stale"], 1);
    assert_eq!(s.owned(s.sos(Some("late"), Some(1500))), ["sos"]);
}

#[test]
fn a_device_that_falls_silent_ages_and_rules_see_it() {
    let mut s = Scene::new();
    s.owned(Fact::Session {
        device: DeviceId::parse("bc-01").unwrap(),
        registered: registered(),
        online: true,
    });
    s.report(at(37.005, 112.005));
    s.wait(10);
    assert!(s.owned(Fact::Tick).is_empty());
    assert_eq!(s.device()["state"], "stale");
    s.wait(50);
    assert_eq!(s.owned(Fact::Tick), ["gone_silent"]);
    assert_eq!(s.device()["state"], "lost");
    assert_eq!(s.state.census()[4], (Freshness::Lost, 1));
}

#[test]
fn revoked_devices_go_and_stay_away() {
    let mut s = Scene::new();
    s.owned(Fact::Known(vec![registered()]));
    s.owned(Fact::Known(vec![]));
    s.report(at(37.005, 112.005));
    s.owned(Fact::Session {
        device: DeviceId::parse("bc-01").unwrap(),
        registered: registered(),
        online: false,
    });
    assert_eq!(s.snapshot()["devices"], serde_json::json!([]));
    s.owned(Fact::Known(vec![registered()]));
    s.report(at(37.005, 112.005));
    assert_eq!(s.device()["state"], "live");
}

#[test]
fn an_aircraft_that_left_its_dock_is_off_line() {
    let mut s = Scene::new();
    let mut say = |online, registered: Option<registry::Device>| {
        let report = Report {
            device: "uav-1".into(),
            online,
            ..Report::default()
        };
        s.owned(Fact::Report {
            report,
            registered: registered.map(Into::into),
            restricted: false,
            arrived: s.now,
        });
        s.device()["online"] == true
    };
    let drone = || Some(registry::Device::new("uav-1", DeviceKind::Drone));
    assert!(say(Some(true), None) && !say(Some(false), None) && say(None, None));
    assert!(!say(Some(false), drone()) && !say(None, drone()) && say(Some(true), drone()));
}

#[test]
fn a_clock_that_is_hours_ahead_is_measured_and_believed_nothing() {
    let mut s = Scene::new();
    const AHEAD_MS: i64 = 7_200_000;
    for i in 0..4 {
        s.wait(10);
        s.report(Report {
            device_time_ms: Some(s.now.unix_ms + AHEAD_MS),
            ..at(37.005 + f64::from(i) * 1e-5, 112.005)
        });
    }
    let d = s.device();
    let about = |v: &Value, ms: i64| (v.as_i64().unwrap() - ms).abs() < 1000;
    assert!(about(&d["clock"]["behind_ms"], -AHEAD_MS), "{d}");
    assert!(about(&d["position"]["happened_ms"], s.now.unix_ms));
    assert_eq!(d["position"]["time_ms"], s.now.unix_ms + AHEAD_MS);
}

#[test]
fn an_aircraft_is_as_restricted_as_its_dock() {
    let mut s = Scene::new();
    s.state.keep_history(Duration::ZERO);
    let report = Report {
        device: "uav-1".into(),
        sos: Some(Sos::default()),
        ..at(37.005, 112.005)
    };
    let fact = Fact::Report {
        report,
        registered: None,
        restricted: true,
        arrived: s.now,
    };
    let fx = s.state.apply(fact, s.now);
    assert!(fx.points[0].spot.is_restricted);
    assert!(fx.raised[0].event.restricted);
    let covert = |c: &Change| matches!(c, Change::Put { tags, .. } if tags.restricted);
    assert!(fx.changes.iter().any(covert));
}

#[test]
fn announced_aircraft_are_bounded_and_forgotten() {
    let mut s = Scene::new();
    for i in 0..ANNOUNCED_MAX + 5 {
        s.now = s.now.plus(Duration::from_millis(1));
        s.tell(Fact::Report {
            report: Report {
                device: format!("uav-{i}"),
                kind: Some("drone".into()),
                ..bare()
            },
            registered: None,
            restricted: false,
            arrived: s.now,
        });
    }
    assert_eq!(s.state.devices.counts(), (ANNOUNCED_MAX, ANNOUNCED_MAX));
    assert!(
        s.state
            .devices
            .get(&DeviceId::parse("uav-0").unwrap())
            .is_none()
    );
    s.wait(3601);
    s.owned(Fact::Tick);
    assert_eq!(s.state.devices.counts(), (0, 0));
}

fn status(phase: &'static str) -> Fact {
    Fact::Streams(vec![StreamStatus {
        stream: StreamId::parse("bc-01/main").unwrap(),
        phase,
        protocol: Some("rtsp"),
        codecs: vec!["H264"],
        readers: 2,
        frames: 1,
        ring_bytes: 1,
        publisher: None,
        health: (phase == "live").then_some(crate::stream::Health {
            state: crate::stream::HealthState::NoFrames,
            since_ms: 7,
        }),
        b_frames: false,
        awaits_key_frame: false,
    }])
}

#[test]
fn streams_are_shown_and_their_loss_is_an_event() {
    let mut s = Scene::new();
    s.owned(Fact::Known(vec![registered()]));
    assert!(s.owned(status("live")).is_empty());
    assert_eq!(
        s.snapshot()["streams"],
        serde_json::json!([{"stream":"bc-01/main","device":"bc-01","phase":"live","protocol":"rtsp",
            "codecs":["H264"],"readers":2,"health":"no_frames","b_frames":false}])
    );
    assert_eq!(
        s.tell(s.sos(Some("a"), None))[0].event.streams,
        ["bc-01/main"]
    );
    s.owned(status("waiting"));
    let lost = s.tell(status("lost"));
    assert_eq!(lost[0].event.streams, ["bc-01/main"]);
    assert_eq!(lost[0].event.unit.as_deref(), Some("patrol-1"));
    s.answer(lost[0].clone(), Some(&Appended::New));
    assert!(s.owned(status("lost")).is_empty());
    s.owned(status("live"));
    assert_eq!(s.owned(status("lost")), ["stream_lost"]);
    assert!(s.owned(status("gone")).is_empty());
    assert_eq!(s.snapshot()["streams"], serde_json::json!([]));
}

#[test]
fn a_fixed_camera_stands_and_is_online_with_its_stream() {
    let mut s = Scene::new();
    s.owned(Fact::Fixed {
        device: DeviceId::parse("bc-01").unwrap(),
        kind: DeviceKind::Camera,
        unit: None,
        lat: 37.005,
        lon: 112.005,
    });
    s.wait(1000);
    s.owned(Fact::Tick);
    s.owned(status("live"));
    let d = s.device();
    assert_eq!(
        (&d["state"], &d["online"], &d["cell"]),
        (&"live".into(), &true.into(), &"c1".into())
    );
    s.owned(Fact::Known(vec![]));
    s.owned(status("lost"));
    assert_eq!(s.device()["online"], false);
}

#[test]
fn deliveries_find_their_event_also_when_they_are_early() {
    let mut s = Scene::new();
    let delivery = |state| Delivery {
        platform: "joint".into(),
        state,
        attempts: 1,
        error: None,
        updated_ms: 1,
    };
    let raised = s.tell(s.sos(Some("a"), None));
    let id = raised[0].event.id;
    s.owned(Fact::Delivery {
        event: id,
        delivery: delivery(DeliveryState::Pending),
    });
    s.answer(raised[0].clone(), Some(&Appended::New));
    let state = |s: &Scene| s.snapshot()["events"][0]["deliveries"][0]["state"].clone();
    assert_eq!(state(&s), "pending");
    s.owned(Fact::Delivery {
        event: id,
        delivery: delivery(DeliveryState::Delivered),
    });
    assert_eq!(state(&s), "delivered");
    let event = s.snapshot()["events"][0].clone();
    assert_eq!(event["id"], id.to_string());
    assert_eq!(
        (&event["priority"], &event["severity"]),
        (&"P0".into(), &"critical".into())
    );
    assert!(event.get("dedup_key").is_none());
    for _ in 0..EARLY_MAX + 5 {
        s.owned(Fact::Delivery {
            event: crate::event::new_event_id(),
            delivery: delivery(DeliveryState::Pending),
        });
    }
    assert_eq!(s.state.events.early.len(), EARLY_MAX);
}

fn square(properties: &Value) -> Value {
    serde_json::json!({"type":"Feature","properties":properties,"geometry":{"type":"Polygon","coordinates":[[
        [112.0,37.0],[112.01,37.0],[112.01,37.01],[112.0,37.01],[112.0,37.0]]]}})
}

fn grid_of(zones: &[Value]) -> Arc<Grid> {
    let text = serde_json::json!({"type":"FeatureCollection",
        "features":zones.iter().map(square).collect::<Vec<_>>()});
    Arc::new(Grid::parse(&text.to_string()).unwrap())
}

impl Scene {
    fn with(rules: &[(&str, &str)], grid: Arc<Grid>) -> Self {
        let rules: Vec<_> = rules.iter().map(|(kind, when)| rule(kind, when)).collect();
        let rules = Rules::compile(&rules).unwrap_or_else(|f| panic!("{f:?}"));
        Self {
            state: State::new(grid, rules, vec![]).0,
            feed: Feed::default(),
            now: Now::read(),
        }
    }

    fn at(&mut self, lat: f64) -> Fact {
        let report = Report {
            device: "bc-01".into(),
            fix: Some(fix(lat, 112.005)),
            ..Report::default()
        };
        Fact::Report {
            report,
            registered: Some(Arc::new(registered())),
            restricted: false,
            arrived: self.now,
        }
    }

    fn move_to(&mut self, lat: f64) -> Vec<String> {
        self.wait(60);
        let fact = self.at(lat);
        self.owned(fact)
    }
}

#[test]
fn rules_on_crossings_fire_once_for_each() {
    let mut s = Scene::with(
        &[
            ("in", "'closed' in track.entered"),
            ("out", "track.left.exists(z, z == 'closed')"),
            (
                "cell",
                "track.entered_cell != '' && track.left_cell != track.entered_cell",
            ),
        ],
        grid_of(&[
            serde_json::json!({"type":"zone","id":"closed","kind":"restricted"}),
            serde_json::json!({"type":"grid","id":"g1"}),
        ]),
    );
    let told: Vec<_> = [37.02, 37.005, 37.0051, 37.02, 37.02, 37.005]
        .into_iter()
        .map(|lat| {
            // An officer walks there.
            s.wait(600);
            s.move_to(lat)
        })
        .collect();
    let both = vec!["in".to_owned(), "cell".to_owned()];
    let none = Vec::<String>::new();
    assert_eq!(
        told,
        [
            none.clone(),
            both.clone(),
            none.clone(),
            vec!["out".into()],
            none,
            both
        ]
    );
}

#[test]
fn a_crossing_that_nobody_owns_is_raised_again() {
    let mut s = Scene::with(
        &[("in", "'closed' in track.entered")],
        grid_of(&[serde_json::json!({"type":"zone","id":"closed"})]),
    );
    let fact = s.at(37.005);
    let raised = s.tell(fact).pop().unwrap();
    s.answer(raised, None);
    assert_eq!(s.move_to(37.005), ["in"], "the device says it again");
    assert_eq!(s.move_to(37.005), [""; 0]);
}

#[test]
fn time_inside_is_noticed_while_the_device_is_quiet() {
    let mut s = Scene::with(
        &[
            (
                "long",
                "'closed' in track.inside_s && track.inside_s['closed'] > 90.0",
            ),
            ("cell", "track.cell_s > 90.0"),
        ],
        grid_of(&[serde_json::json!({"type":"zone","id":"closed"})]),
    );
    assert_eq!(s.move_to(37.005), [""; 0]);
    s.wait(89);
    assert_eq!(s.owned(Fact::Tick), [""; 0]);
    s.wait(9);
    assert_eq!(s.owned(Fact::Tick), [""; 0], "looked at every ten seconds");
    s.wait(1);
    assert_eq!(s.owned(Fact::Tick), ["long"]);
    s.wait(10);
    assert_eq!(s.owned(Fact::Tick), [""; 0]);
}

#[test]
fn a_zone_that_begins_and_a_new_grid_find_who_stands_there() {
    let from = crate::clock::rfc3339(crate::clock::unix_ms() + 100_000);
    let fair = serde_json::json!({"type":"zone","id":"fair","from":from});
    let mut s = Scene::with(
        &[("in", "size(track.entered) > 0")],
        grid_of(std::slice::from_ref(&fair)),
    );
    s.owned(Fact::Tick);
    assert_eq!(s.move_to(37.005), [""; 0]);
    assert_eq!(s.device()["zones"], serde_json::json!([]));
    s.wait(50);
    assert_eq!(s.owned(Fact::Tick), ["in"], "it begins");
    assert_eq!(s.device()["zones"], serde_json::json!(["fair"]));
    let cell = serde_json::json!({"type":"cell","id":"c9"});
    assert_eq!(
        s.owned(Fact::Grid(grid_of(&[cell.clone(), fair.clone()]))),
        [""; 0]
    );
    assert_eq!(
        (&s.device()["cell"], &s.device()["zones"]),
        (&"c9".into(), &serde_json::json!(["fair"]))
    );
    let new = serde_json::json!({"type":"zone","id":"new"});
    assert_eq!(s.owned(Fact::Grid(grid_of(&[new, fair]))), ["in"]);
    assert_eq!(s.owned(Fact::Grid(grid_of(&[]))), [""; 0]);
    assert_eq!(
        (&s.device()["cell"], &s.device()["zones"]),
        (&Value::Null, &serde_json::json!([]))
    );
}

#[test]
fn positions_become_points_with_both_times() {
    let mut s = Scene::new();
    let apply = |s: &mut Scene, lat, time_ms: Option<i64>| {
        let mut fact = s.at(lat);
        if let Fact::Report { report, .. } = &mut fact {
            report.device_time_ms = time_ms;
        }
        let (now, fx) = (s.now, s.state.apply(fact, s.now));
        s.feed.publish(fx.changes);
        let points = fx.points;
        points.first().map(|p| {
            (
                p.spot.happened_ms - now.unix_ms,
                p.spot.known_ms - now.unix_ms,
                p.spot.is_back_filled,
            )
        })
    };
    assert_eq!(apply(&mut s, 37.0, None), None, "no history is kept");
    s.state.keep_history(SECOND * 10);
    let now = s.now.unix_ms;
    let (happened, known, late) = apply(&mut s, 37.0, Some(now - 2000)).unwrap();
    assert!(
        (-2000..=0).contains(&happened),
        "{happened}: its clock is not known yet"
    );
    assert_eq!((known, late), (0, false));
    assert_eq!(apply(&mut s, 37.0, Some(now - 1000)), None, "thinned");
    let (happened, known, late) = apply(&mut s, 37.001, Some(now - 60_000)).unwrap();
    assert!((-61_000..-57_000).contains(&happened), "{happened}");
    assert_eq!((known, late), (0, true), "told late");
    assert_eq!(s.device()["position"]["lat"], 37.0);
    s.wait(20);
    assert_eq!(
        apply(&mut s, 37.0, Some(1)),
        Some((0, 0, true)),
        "nobody believes that time"
    );
}

#[test]
fn one_person_with_two_devices_is_one_track() {
    let mut s = Scene::new();
    let radio = registry::Device {
        person: Some("p-7".into()),
        ..registry::Device::new("r-01", DeviceKind::Radio)
    };
    s.owned(Fact::Known(vec![registered(), radio.clone()]));
    let exact = |lat, accuracy_m| Fix {
        accuracy_m: Some(accuracy_m),
        ..fix(lat, 112.005)
    };
    let say = |s: &mut Scene, r: &registry::Device, fix| {
        s.owned(Fact::Report {
            report: Report {
                device: r.id.clone(),
                fix: Some(fix),
                ..Report::default()
            },
            registered: Some(r.clone().into()),
            restricted: false,
            arrived: s.now,
        })
    };
    let primaries = |s: &Scene| {
        let all = s.snapshot()["devices"].as_array().unwrap().clone();
        let of = |d: &&Value| d["primary"] == true;
        let ids = all.iter().filter(of).map(|d| d["id"].clone());
        ids.collect::<Vec<_>>()
    };
    say(&mut s, &registered(), exact(37.005, 3.0));
    say(&mut s, &radio, exact(37.0051, 20.0));
    assert_eq!(primaries(&s), ["bc-01"]);
    let live = |s: &State| s.census()[1].1;
    assert_eq!(live(&s.state), 1, "two devices, one track");
    // The camera falls silent; the radio goes on.
    for _ in 0..3 {
        s.wait(5);
        say(&mut s, &radio, exact(37.0051, 20.0));
        s.owned(Fact::Tick);
    }
    assert_eq!(primaries(&s), ["r-01"]);
    // The radio goes to somebody else: two persons, two tracks.
    let other = registry::Device {
        person: Some("p-8".into()),
        ..radio
    };
    s.owned(Fact::Known(vec![registered(), other]));
    assert_eq!(primaries(&s).len(), 2);
    s.owned(Fact::Known(vec![registered()]));
    assert_eq!(primaries(&s), ["bc-01"]);
}

#[test]
fn what_a_drone_sees_is_on_the_picture() {
    use kerbside_codecs::telemetry::report::{Property, Sight, Value as Said};
    let mut s = Scene::new();
    s.report(Report {
        sight: Some(Box::new(Sight {
            azimuth_deg: Some(0.0),
            elevation_deg: Some(-90.0),
            hfov_deg: Some(60.0),
            vfov_deg: Some(40.0),
            height_m: Some(100.0),
            ..Sight::default()
        })),
        properties: vec![Property {
            name: "wind_speed_mps".into(),
            value: Said::Number(3.5),
        }],
        ..at(37.005, 112.005)
    });
    let d = s.device();
    assert_eq!(d["footprint"]["polygon"].as_array().unwrap().len(), 4);
    assert_eq!(
        d["footprint"]["centre"],
        serde_json::json!([112.005, 37.005])
    );
    assert_eq!(d["properties"], serde_json::json!({"wind_speed_mps":3.5}));
    s.report(Report {
        online: Some(false),
        ..bare()
    });
    assert_eq!(s.device()["online"], false);
}

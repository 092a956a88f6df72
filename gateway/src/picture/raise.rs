//! Rules on a fact: which of them are evaluated, and which events that raises.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kerbside_codecs::telemetry::{Report, Sos};

use super::device::Device;
use super::grid::Grid;
use super::latch::{Latches, Verdict};
use super::rules::{Cause, Inputs, Outcome, Rule, Rules, StreamView, TrackView};
use crate::clock::Now;
use crate::event::{DEDUP_WINDOW, Event, new_event_id};
use crate::ids::{DeviceId, StreamId};

/// Calls for help without id and time within this window are one.
const SOS_WINDOW: Duration = Duration::from_secs(10);

/// Whose latch an event closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Device(DeviceId),
    Stream(StreamId),
}

/// An event that the outbox does not own yet.
#[derive(Clone, Debug)]
pub struct Raised {
    pub event: Event,
    pub subject: Subject,
    pub rule: u16,
    pub key: u64,
    /// A device said it and says it again when it gets no acknowledgement.
    pub is_said: bool,
}

/// What came of the rules.
#[derive(Debug, Default)]
pub struct Raising {
    pub raised: Vec<Raised>,
    /// Rules that failed, with the reason.
    pub failed: Vec<(u16, String)>,
}

/// What happened to a device.
#[derive(Clone, Copy)]
pub enum Occasion<'a> {
    /// It reported.
    Report(&'a Report),
    /// It reported something older than what is known: only a call for help counts.
    OldReport(&'a Report),
    /// It came, went, or its position aged.
    Presence,
}

impl<'a> Occasion<'a> {
    fn report(self) -> Option<&'a Report> {
        match self {
            Self::Report(r) | Self::OldReport(r) => Some(r),
            Self::Presence => None,
        }
    }

    fn concerns(self, rule: &Rule) -> bool {
        if rule.reads_stream {
            return false;
        }
        match self {
            Self::Report(_) => true,
            Self::OldReport(_) => rule.cause == Cause::Sos,
            Self::Presence => !rule.reads_report,
        }
    }
}

/// What every evaluation needs.
#[derive(Clone, Copy)]
pub struct Rulebook<'a> {
    pub rules: &'a Rules,
    pub grid: &'a Grid,
    pub now: Now,
}

/// Evaluates the rules that this can affect, and closes and opens the latches of the device.
pub fn on_device(
    Rulebook { rules, grid, now }: Rulebook<'_>,
    device: &mut Device,
    occasion: Occasion<'_>,
    live_streams: impl Fn() -> Vec<String>,
) -> Raising {
    let mut latches = std::mem::take(&mut device.latches);
    let mut raising = Raising::default();
    let inputs = Inputs {
        report: occasion.report().map(|r| device.report_view(r)),
        track: device.track_view(grid, now),
        stream: None,
    };
    for (number, rule) in rules.iter().filter(|(_, r)| occasion.concerns(r)) {
        if rule.cause == Cause::Sos {
            latches.expire(number, DEDUP_WINDOW, now);
        }
        let (key, dedup_key, closed) = match rules.evaluate(rule, &inputs) {
            Outcome::True => cause(number, rule, device, occasion, &latches, now),
            Outcome::False => {
                // Two calls for help may have ordinary reports between them.
                if rule.cause != Cause::Sos {
                    latches.open(number);
                }
                continue;
            }
            Outcome::Undecided => continue,
            Outcome::Failed(reason) => {
                raising.failed.push((number, reason));
                continue;
            }
        };
        let verdict = latches.close(number, key, closed);
        // A repeated call is owned when the outbox says so, not because the first one is on its way.
        let again = verdict == Verdict::Pending && dedup_key.is_some();
        if verdict != Verdict::Raise && !again {
            continue;
        }
        let report = occasion.report();
        raising.raised.push(Raised {
            event: Event {
                device_time_ms: report.and_then(|r| r.device_time_ms),
                note: report
                    .and_then(|r| r.sos.as_ref())
                    .filter(|_| rule.cause == Cause::Sos)
                    .and_then(|s| s.note.clone())
                    .or_else(|| rule.spec.note.clone()),
                dedup_key,
                ..event(rule, device, grid, live_streams(), now)
            },
            subject: Subject::Device(device.id.clone()),
            rule: number,
            key,
            is_said: report.is_some(),
        });
    }
    device.latches = latches;
    raising
}

/// The key of the latch, the key that makes two events one, and when the latch counts as closed.
fn cause(
    number: u16,
    rule: &Rule,
    device: &Device,
    occasion: Occasion<'_>,
    latches: &Latches,
    now: Now,
) -> (u64, Option<String>, Now) {
    let report = occasion.report();
    let sos = report.and_then(|r| r.sos.as_ref());
    match (rule.cause, sos) {
        (Cause::Sos, Some(sos)) => {
            let time_ms = report.and_then(|r| r.device_time_ms);
            let (call, since) = call(sos, time_ms, || {
                latches
                    .closed_within(number, SOS_WINDOW, now)
                    .unwrap_or(now)
            });
            let dedup_key = format!("{}:{}:{call}", rule.spec.kind, device.id);
            let mut hasher = DefaultHasher::new();
            dedup_key.hash(&mut hasher);
            (hasher.finish(), Some(dedup_key), since.unwrap_or(now))
        }
        (Cause::ZoneLeft, _) => (device.borders.leavings().into(), None, now),
        (Cause::Crossing, _) => (device.borders.crossings().into(), None, now),
        (Cause::Sos | Cause::Condition, _) => (0, None, now),
    }
}

/// What tells this call from the next one: the device's id for it, its time, or the window it came in.
fn call(sos: &Sos, time_ms: Option<i64>, window: impl Fn() -> Now) -> (String, Option<Now>) {
    match (&sos.id, time_ms) {
        (Some(id), _) => (id.clone(), None),
        (None, Some(time_ms)) => (time_ms.to_string(), None),
        (None, None) => {
            let since = window();
            (format!("at:{}", since.unix_ms), Some(since))
        }
    }
}

/// Evaluates the rules on streams.
pub fn on_stream(
    Rulebook { rules, grid, now }: Rulebook<'_>,
    device: Option<&Device>,
    stream: &StreamId,
    latches: &mut Latches,
    change: StreamView<'_>,
    live_streams: impl Fn() -> Vec<String>,
) -> Raising {
    let mut raising = Raising::default();
    let inputs = Inputs {
        report: None,
        track: device.map_or_else(TrackView::default, |d| d.track_view(grid, now)),
        stream: Some(change),
    };
    for (number, rule) in rules.iter().filter(|(_, r)| r.reads_stream) {
        match rules.evaluate(rule, &inputs) {
            Outcome::True => {}
            Outcome::False => {
                latches.open(number);
                continue;
            }
            Outcome::Undecided => continue,
            Outcome::Failed(reason) => {
                raising.failed.push((number, reason));
                continue;
            }
        }
        if latches.close(number, 0, now) != Verdict::Raise {
            continue;
        }
        // The stream that it is about comes first, live or not.
        let name = stream.to_string();
        let mut streams = live_streams();
        streams.retain(|s| *s != name);
        streams.insert(0, name);
        let of = device.map_or_else(
            || {
                event(
                    rule,
                    &Device::new(stream.device.clone(), grid, now),
                    grid,
                    vec![],
                    now,
                )
            },
            |d| event(rule, d, grid, vec![], now),
        );
        raising.raised.push(Raised {
            event: Event { streams, ..of },
            subject: Subject::Stream(stream.clone()),
            rule: number,
            key: 0,
            is_said: false,
        });
    }
    raising
}

fn event(rule: &Rule, device: &Device, grid: &Grid, streams: Vec<String>, now: Now) -> Event {
    let last = device.track.last();
    Event {
        id: new_event_id(),
        kind: rule.spec.kind.clone(),
        rule: rule.spec.name.clone(),
        severity: rule.spec.severity,
        priority: rule.spec.priority,
        device: device.id.clone(),
        unit: device.unit.as_deref().map(str::to_owned),
        raised_ms: now.unix_ms,
        device_time_ms: None,
        position: last.map(|l| l.fix),
        position_ms: last.map(|l| l.arrived.unix_ms),
        cell: device.cell(grid).map(str::to_owned),
        streams,
        note: rule.spec.note.clone(),
        restricted: device.restricted,
        dedup_key: None,
    }
}

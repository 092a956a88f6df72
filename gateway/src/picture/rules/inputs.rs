//! What conditions read, handed to CEL without copying.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::common::types::{CelBool, CelDouble, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;

/// The variables and their fields.
pub const FIELDS: [(&str, &[&str]); 3] = [
    ("report", &["battery_pct", "sos", "has_fix", "mode", "kind"]),
    (
        "track",
        &[
            "left_zones",
            "zones",
            "cell",
            "entered",
            "left",
            "entered_cell",
            "left_cell",
            "inside_s",
            "cell_s",
            "state",
            "speed_mps",
            "battery_pct",
            "online",
        ],
    ),
    ("stream", &["phase", "was"]),
];

/// What a report says, for `report.*`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportView<'a> {
    pub battery_pct: Option<f64>,
    pub sos: bool,
    pub has_fix: bool,
    /// Empty: not told.
    pub mode: &'a str,
    pub kind: &'a str,
}

/// What is known of the device, for `track.*`.
#[derive(Clone, Debug, Default)]
pub struct TrackView<'a> {
    /// Own zones that it was in and now is outside of.
    pub left_zones: Vec<&'a str>,
    /// Zones that it is in.
    pub zones: Vec<&'a str>,
    /// Empty: in no cell.
    pub cell: &'a str,
    /// Zones that it entered and left with its newest position.
    pub entered: Vec<&'a str>,
    pub left: Vec<&'a str>,
    /// The cell that it entered and left with its newest position; empty: none.
    pub entered_cell: &'a str,
    pub left_cell: &'a str,
    /// For how long it is in zones, seconds, by their ids.
    pub inside_s: Vec<(&'a str, f64)>,
    /// For how long it is in its cell, seconds.
    pub cell_s: Option<f64>,
    /// `live`, `stale`, `lost`, `silent`.
    pub state: &'a str,
    pub speed_mps: Option<f64>,
    pub battery_pct: Option<f64>,
    pub online: bool,
}

/// A change of a stream, for `stream.*`: `idle`, `live`, `waiting`, `lost`; `was` is empty for a new one.
#[derive(Clone, Copy, Debug)]
pub struct StreamView<'a> {
    pub phase: &'a str,
    pub was: &'a str,
}

/// What the rules are evaluated on.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub report: Option<ReportView<'a>>,
    pub track: TrackView<'a>,
    pub stream: Option<StreamView<'a>>,
}

enum Field<'a> {
    Bool(bool),
    Number(f64),
    Text(&'a str),
    List(&'a [&'a str]),
    Numbers(&'a [(&'a str, f64)]),
}

impl Inputs<'_> {
    /// None: no such field, or nobody told yet.
    fn field(&self, variable: &str, field: &str) -> Option<Field<'_>> {
        use Field::{Bool, List, Number, Numbers, Text};
        match variable {
            "report" => {
                let r = self.report.as_ref()?;
                match field {
                    "battery_pct" => r.battery_pct.map(Number),
                    "sos" => Some(Bool(r.sos)),
                    "has_fix" => Some(Bool(r.has_fix)),
                    "mode" => Some(Text(r.mode)),
                    "kind" => Some(Text(r.kind)),
                    _ => None,
                }
            }
            "track" => {
                let t = &self.track;
                match field {
                    "left_zones" => Some(List(&t.left_zones)),
                    "zones" => Some(List(&t.zones)),
                    "cell" => Some(Text(t.cell)),
                    "entered" => Some(List(&t.entered)),
                    "left" => Some(List(&t.left)),
                    "entered_cell" => Some(Text(t.entered_cell)),
                    "left_cell" => Some(Text(t.left_cell)),
                    "inside_s" => Some(Numbers(&t.inside_s)),
                    "cell_s" => t.cell_s.map(Number),
                    "state" => Some(Text(t.state)),
                    "speed_mps" => t.speed_mps.map(Number),
                    "battery_pct" => t.battery_pct.map(Number),
                    "online" => Some(Bool(t.online)),
                    _ => None,
                }
            }
            "stream" => {
                let s = self.stream.as_ref()?;
                match field {
                    "phase" => Some(Text(s.phase)),
                    "was" => Some(Text(s.was)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The whole variable, for `has(…)` and for fields that are not there.
    fn whole(&self, variable: &str) -> Option<Value> {
        let (_, fields) = FIELDS.iter().find(|(v, _)| *v == variable)?;
        let told: HashMap<String, Value> = fields
            .iter()
            .filter_map(|f| Some(((*f).to_owned(), self.field(variable, f)?.to_value())))
            .collect();
        Some(told.into())
    }
}

impl Field<'_> {
    fn to_value(&self) -> Value {
        match self {
            Self::Bool(b) => (*b).into(),
            Self::Number(n) => (*n).into(),
            Self::Text(t) => (*t).into(),
            Self::List(l) => Value::List(Arc::new(l.iter().map(|t| (*t).into()).collect())),
            Self::Numbers(all) => {
                let map: HashMap<String, Value> = all
                    .iter()
                    .map(|(name, n)| ((*name).to_owned(), (*n).into()))
                    .collect();
                map.into()
            }
        }
    }
}

impl VariableResolver for Inputs<'_> {
    /// CEL asks for the longest name first: `report.sos` before `report`.
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let Some((variable, field)) = name.split_once('.') else {
            let whole: Box<dyn Val> = self.whole(name)?.try_into().ok()?;
            return Some(CowVal::Owned(whole));
        };
        match self.field(variable, field)? {
            Field::Bool(b) => Some(CowVal::owned(CelBool::from(b))),
            Field::Number(n) => Some(CowVal::owned(CelDouble::from(n))),
            Field::Text(t) => Some(CowVal::owned(CelString::from(t))),
            list @ (Field::List(_) | Field::Numbers(_)) => {
                let list: Box<dyn Val> = list.to_value().try_into().ok()?;
                Some(CowVal::Owned(list))
            }
        }
    }
}

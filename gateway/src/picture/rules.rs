//! Rules: conditions in CEL (Common Expression Language) over what is known, that raise events.
//!
//! A rule reads `report` (one report of a device), `track` (what is known of the device) or `stream` (a change of one
//! of its streams). It is evaluated only when one of those changes. A condition that reads a number nobody has told
//! yet (no battery in this report, no speed) is undecided: it neither raises an event nor ends one.
//!
//! Here: compiling with clear errors, evaluating. Not here: when an event is raised again (`latch`).

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr};
use cel::common::types::{CelBool, CelDouble, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value};

use crate::config;

/// What is wrong with a rule and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule:?}: {reason}")]
pub struct RuleFault {
    pub rule: String,
    pub reason: String,
}

/// The variables and their fields.
const FIELDS: [(&str, &[&str]); 3] = [
    ("report", &["battery_pct", "sos", "has_fix", "mode", "kind"]),
    (
        "track",
        &[
            "left_zones",
            "zones",
            "cell",
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
}

impl Inputs<'_> {
    /// None: no such field, or nobody told yet.
    fn field(&self, variable: &str, field: &str) -> Option<Field<'_>> {
        use Field::{Bool, List, Number, Text};
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
            list @ Field::List(_) => {
                let list: Box<dyn Val> = list.to_value().try_into().ok()?;
                Some(CowVal::Owned(list))
            }
        }
    }
}

/// What a condition came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    True,
    False,
    /// It reads something that nobody told yet.
    Undecided,
    /// In words, for the log.
    Failed(String),
}

/// What tells one cause of an event from the next, beside false in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A call for help: each call is one event.
    Sos,
    /// Each leaving of a zone is one event.
    ZoneLeft,
    /// The condition itself.
    Condition,
}

/// A compiled rule.
pub struct Rule {
    pub spec: config::Rule,
    pub cause: Cause,
    pub reads_report: bool,
    pub reads_stream: bool,
    program: Program,
}

/// All rules, compiled.
#[derive(Default)]
pub struct Rules {
    all: Vec<Rule>,
    env: Arc<Env>,
}

impl Rules {
    /// Compiles and tries each rule. Also the check of the configuration.
    ///
    /// # Errors
    /// All faults of all rules.
    pub fn compile(specs: &[config::Rule]) -> Result<Self, Vec<RuleFault>> {
        let env = Arc::new(Env::stdlib());
        let mut all = Vec::new();
        let mut faults = Vec::new();
        for spec in specs {
            match Rule::compile(spec, &env) {
                Ok(rule) => all.push(rule),
                Err(reason) => faults.push(RuleFault {
                    rule: spec.name.clone(),
                    reason,
                }),
            }
        }
        if specs.len() > usize::from(u16::MAX) {
            faults.push(RuleFault {
                rule: String::new(),
                reason: format!("more than {} rules", u16::MAX),
            });
        }
        if faults.is_empty() {
            Ok(Self { all, env })
        } else {
            Err(faults)
        }
    }

    /// With their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Rule)> {
        (0..).zip(&self.all)
    }

    pub fn get(&self, number: u16) -> Option<&Rule> {
        self.all.get(usize::from(number))
    }

    pub fn evaluate(&self, rule: &Rule, inputs: &Inputs<'_>) -> Outcome {
        evaluate(&self.env, &rule.program, inputs)
    }
}

fn evaluate(env: &Arc<Env>, program: &Program, inputs: &Inputs<'_>) -> Outcome {
    let mut context = Context::with_env(env.clone());
    context.set_variable_resolver(inputs);
    match program.execute(&context) {
        Ok(Value::Bool(true)) => Outcome::True,
        Ok(Value::Bool(false)) => Outcome::False,
        Ok(other) => Outcome::Failed(format!(
            "the condition must be true or false, but is {}",
            other.type_of()
        )),
        Err(ExecutionError::NoSuchKey(_)) => Outcome::Undecided,
        Err(e) => Outcome::Failed(e.to_string()),
    }
}

impl Rule {
    fn compile(spec: &config::Rule, env: &Arc<Env>) -> Result<Self, String> {
        let program = env.compile(&spec.when).map_err(|e| {
            let told: Vec<_> = e
                .errors
                .iter()
                .map(|e| format!("column {}: {}", e.pos.1, e.msg))
                .collect();
            format!("not CEL: {}", told.join("; "))
        })?;
        let mut used = Used::default();
        used.walk(program.expression(), &mut Vec::new())?;
        if !(used.report || used.track || used.stream) {
            return Err("reads none of report, track, stream: it would never change".into());
        }
        if used.report && used.stream {
            return Err(
                "reads both report and stream; a report changes no stream: make two rules".into(),
            );
        }
        try_on_samples(env, &program, &used)?;
        Ok(Self {
            spec: spec.clone(),
            cause: if used.sos {
                Cause::Sos
            } else if used.left_zones {
                Cause::ZoneLeft
            } else {
                Cause::Condition
            },
            reads_report: used.report,
            reads_stream: used.stream,
            program,
        })
    }
}

/// Wrong types and unknown functions come to light with everything told.
fn try_on_samples(env: &Arc<Env>, program: &Program, used: &Used) -> Result<(), String> {
    for flag in [false, true] {
        let inputs = Inputs {
            report: used.report.then_some(ReportView {
                battery_pct: Some(if flag { 5.5 } else { 95.5 }),
                sos: flag,
                has_fix: flag,
                mode: "patrol",
                kind: "bodycam",
            }),
            track: TrackView {
                left_zones: if flag { vec!["beat-1"] } else { vec![] },
                zones: if flag { vec![] } else { vec!["beat-1"] },
                cell: "1",
                state: if flag { "lost" } else { "live" },
                speed_mps: Some(1.5),
                battery_pct: Some(if flag { 5.5 } else { 95.5 }),
                online: flag,
            },
            stream: used.stream.then_some(StreamView {
                phase: if flag { "lost" } else { "live" },
                was: if flag { "live" } else { "" },
            }),
        };
        if let Outcome::Failed(reason) = evaluate(env, program, &inputs) {
            return Err(reason);
        }
    }
    Ok(())
}

/// What an expression reads.
#[derive(Default)]
struct Used {
    report: bool,
    track: bool,
    stream: bool,
    sos: bool,
    left_zones: bool,
}

impl Used {
    /// `locals`: names bound by macros (`exists`, `all`…) around this place.
    fn walk<'e>(&mut self, e: &'e IdedExpr, locals: &mut Vec<&'e str>) -> Result<(), String> {
        match &e.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                if !locals.contains(&name.as_str()) {
                    self.variable(name)?;
                }
                Ok(())
            }
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && !locals.contains(&name.as_str())
                {
                    self.field(name, &select.field)
                } else {
                    self.walk(&select.operand, locals)
                }
            }
            Expr::Call(call) => call
                .target
                .iter()
                .map(AsRef::as_ref)
                .chain(&call.args)
                .try_for_each(|x| self.walk(x, locals)),
            Expr::List(list) => list.elements.iter().try_for_each(|x| self.walk(x, locals)),
            Expr::Map(map) => self.entries(map.entries.iter().map(|x| &x.expr), locals),
            Expr::Struct(s) => self.entries(s.entries.iter().map(|x| &x.expr), locals),
            Expr::Comprehension(c) => {
                self.walk(&c.iter_range, locals)?;
                self.walk(&c.accu_init, locals)?;
                let outer = locals.len();
                locals.push(&c.iter_var);
                locals.extend(c.iter_var2.as_deref());
                locals.push(&c.accu_var);
                for x in [&c.loop_cond, &c.loop_step, &c.result] {
                    self.walk(x, locals)?;
                }
                locals.truncate(outer);
                Ok(())
            }
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        locals: &mut Vec<&'e str>,
    ) -> Result<(), String> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(f) => self.walk(&f.value, locals)?,
                EntryExpr::MapEntry(m) => {
                    self.walk(&m.key, locals)?;
                    self.walk(&m.value, locals)?;
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: &str) -> Result<&'static [&'static str], String> {
        match name {
            "report" => self.report = true,
            "track" => self.track = true,
            "stream" => self.stream = true,
            _ => {}
        }
        FIELDS
            .iter()
            .find(|(v, _)| *v == name)
            .map(|(_, fields)| *fields)
            .ok_or_else(|| format!("there is no {name:?}; a rule reads report, track and stream"))
    }

    fn field(&mut self, name: &str, field: &str) -> Result<(), String> {
        let fields = self.variable(name)?;
        if !fields.contains(&field) {
            return Err(format!(
                "there is no {name}.{field}; {name} has {}",
                fields.join(", ")
            ));
        }
        self.sos |= (name, field) == ("report", "sos");
        self.left_zones |= (name, field) == ("track", "left_zones");
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{Priority, Severity};

    pub fn rule(kind: &str, when: &str) -> config::Rule {
        config::Rule {
            name: kind.into(),
            kind: kind.into(),
            when: when.into(),
            severity: Severity::Critical,
            priority: Priority::P0,
            note: None,
        }
    }

    fn fault(when: &str) -> String {
        let faults = Rules::compile(&[rule("r", when)]).err().unwrap();
        assert_eq!(faults.len(), 1);
        faults[0].to_string()
    }

    #[test]
    fn mistakes_are_told_at_load() {
        for (when, expected) in [
            ("report.sos &&", "not CEL: column"),
            (
                "report.battery < 15",
                "there is no report.battery; report has battery_pct, sos",
            ),
            (
                "device.sos",
                "there is no \"device\"; a rule reads report, track and stream",
            ),
            ("report.battery_pct < '15'", "overload"),
            ("track.speed_mps > 10.0 / 0", "division"),
            ("report.battery_pct", "must be true or false, but is float"),
            ("sizes(track.zones) > 0", "sizes"),
            ("true", "reads none of report, track, stream"),
            ("report.sos && stream.phase == 'lost'", "make two rules"),
            ("track.zones.exists(z, y == 'a')", "there is no \"y\""),
        ] {
            let told = fault(when);
            assert!(told.contains(expected), "{when}: {told}");
            assert!(told.starts_with("rule \"r\": "), "{told}");
        }
    }

    #[test]
    fn what_a_rule_reads() {
        let rules = Rules::compile(&[
            rule("sos", "report.sos"),
            rule("zone_left", "size(track.left_zones) > 0"),
            rule(
                "battery_low",
                "has(report.battery_pct) && report.battery_pct < 15",
            ),
            rule("stream_lost", "stream.phase == 'lost' && stream.was != ''"),
            rule("beat", "track.zones.exists(z, z.startsWith('beat-'))"),
        ])
        .unwrap();
        let told: Vec<_> = rules
            .iter()
            .map(|(_, r)| (r.cause, r.reads_report, r.reads_stream))
            .collect();
        assert_eq!(
            told,
            [
                (Cause::Sos, true, false),
                (Cause::ZoneLeft, false, false),
                (Cause::Condition, true, false),
                (Cause::Condition, false, true),
                (Cause::Condition, false, false),
            ]
        );
    }

    #[test]
    fn what_nobody_told_decides_nothing() {
        let rules = Rules::compile(&[
            rule("a", "report.battery_pct < 15"),
            rule("b", "has(report.battery_pct) && report.battery_pct < 15"),
            rule("c", "report.sos || report.battery_pct < 15"),
        ])
        .unwrap_or_else(|f| panic!("{f:?}"));
        let on = |battery_pct, sos| {
            let inputs = Inputs {
                report: Some(ReportView {
                    battery_pct,
                    sos,
                    ..ReportView::default()
                }),
                track: TrackView::default(),
                stream: None,
            };
            rules
                .iter()
                .map(|(_, r)| rules.evaluate(r, &inputs))
                .collect::<Vec<_>>()
        };
        assert_eq!(on(Some(14.0), false)[..3], [const { Outcome::True }; 3]);
        assert_eq!(on(Some(15.0), false)[..3], [const { Outcome::False }; 3]);
        let none = on(None, false);
        assert_eq!(
            none[..3],
            [Outcome::Undecided, Outcome::False, Outcome::Undecided]
        );
        assert_eq!(on(None, true)[2], Outcome::True);
    }
}

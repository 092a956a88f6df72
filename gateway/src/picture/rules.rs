//! Rules: conditions in CEL (Common Expression Language) over what is known, that raise events.
//!
//! A rule reads `report` (one report of a device), `track` (what is known of the device) or `stream` (a change of one
//! of its streams). It is evaluated only when one of those changes. A condition that reads a number nobody has told
//! yet (no battery in this report, no speed) is undecided: it neither raises an event nor ends one.
//!
//! Here: compiling with clear errors, evaluating. Not here: when an event is raised again (`latch`).

mod inputs;
mod reads;

use std::sync::Arc;

use cel::{Context, Env, ExecutionError, Program, Value};

pub use inputs::{Inputs, ReportView, StreamView, TrackView};
use reads::Used;

use crate::config;

/// What is wrong with a rule and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule:?}: {reason}")]
pub struct RuleFault {
    pub rule: String,
    pub reason: String,
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
    /// Each leaving of a zone of its own is one event.
    ZoneLeft,
    /// Each crossing of a border is one event.
    Crossing,
    /// The condition itself.
    Condition,
}

/// A compiled rule.
pub struct Rule {
    pub spec: config::Rule,
    pub cause: Cause,
    pub reads_report: bool,
    pub reads_stream: bool,
    /// It becomes true because time passes.
    reads_time: bool,
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

    /// Is there one that becomes true because time passes?
    pub fn read_time(&self) -> bool {
        self.all.iter().any(|r| r.reads_time)
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
            } else if used.crossed {
                Cause::Crossing
            } else if used.left_zones {
                Cause::ZoneLeft
            } else {
                Cause::Condition
            },
            reads_report: used.report,
            reads_stream: used.stream,
            reads_time: used.time,
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
                entered: if flag { vec!["beat-1"] } else { vec![] },
                left: if flag { vec![] } else { vec!["beat-1"] },
                entered_cell: if flag { "1" } else { "" },
                left_cell: "",
                inside_s: if flag {
                    vec![("beat-1", 700.5)]
                } else {
                    vec![]
                },
                cell_s: Some(if flag { 700.5 } else { 0.5 }),
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
            ("track.speed_mps > 10.0 / 0", "div"),
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

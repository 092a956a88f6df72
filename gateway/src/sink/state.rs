//! What an answer means and what to do next, for one platform. Pure: the clock, the dice and the answer come in.
//!
//! A platform is *up* or *down*. Up: as many requests at once as configured. Down: one event is tried at a time, at
//! growing intervals, instead of a hammering with the whole backlog; the first answer that settles an event, even a
//! refusal, means up.
//!
//! - 2xx: delivered.
//! - No connection, 429, 502, 503, 504: the platform takes nothing now. Down; the event is due again with the next try.
//! - Time-outs, broken connections, 408, 500 and other 5xx: the platform, or this event? The event gets a back-off of
//!   its own, so that others pass it; three of these in a row mean down.
//! - Anything else refuses the event: parked.

use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::outbox::Outcome;

/// Longest wait that a platform may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Doubtful failures in a row that mean down.
const DOUBTS_MAX: u32 = 3;
/// Characters of a refusal's body that an operator sees.
const BODY_CHARS: usize = 200;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub retry_min: Duration,
    pub retry_max: Duration,
    pub concurrency: usize,
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Status {
        code: u16,
        /// `Retry-After`, as a wait from now.
        retry_after: Option<Duration>,
        /// The beginning of the body of an answer that is not 2xx.
        body: String,
    },
    /// No connection: refused, no route, no name, TLS.
    Unreachable(String),
    Timeout,
    /// The connection broke before the answer.
    Broken(String),
}

/// What an answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// A change worth a line in the log.
    pub turn: Option<Turn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Down,
    /// After so long.
    Up(Duration),
}

/// Given to each request when it starts, handed back with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    probe: bool,
}

#[derive(Clone, Copy, Debug)]
enum Circuit {
    Up {
        doubts: u32,
    },
    Down {
        since: Instant,
        failures: u32,
        until: Instant,
        probing: bool,
    },
}

/// One platform.
#[derive(Debug)]
pub struct State {
    limits: Limits,
    circuit: Circuit,
    in_flight: usize,
}

impl State {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            circuit: Circuit::Up { doubts: 0 },
            in_flight: 0,
        }
    }

    /// Requests that may start now.
    pub fn room(&self, now: Instant) -> usize {
        match self.circuit {
            Circuit::Up { .. } => self.limits.concurrency.saturating_sub(self.in_flight),
            Circuit::Down { until, probing, .. } => usize::from(!probing && until <= now),
        }
    }

    /// When there will be room by itself; None: only an answer makes some.
    pub fn poll_at(&self) -> Option<Instant> {
        match self.circuit {
            Circuit::Down {
                until,
                probing: false,
                ..
            } => Some(until),
            _ => None,
        }
    }

    /// A request starts.
    pub fn start(&mut self) -> Ticket {
        self.in_flight += 1;
        match &mut self.circuit {
            Circuit::Up { .. } => Ticket { probe: false },
            Circuit::Down { probing, .. } => {
                *probing = true;
                Ticket { probe: true }
            }
        }
    }

    /// A request ended. `attempts`: those of the event before this one. `dice`: 0..1.
    pub fn handle_answer(
        &mut self,
        ticket: Ticket,
        answer: &Answer,
        attempts: u32,
        now: Now,
        dice: f64,
    ) -> Verdict {
        self.in_flight = self.in_flight.saturating_sub(1);
        match class(answer) {
            Class::Delivered => Verdict {
                outcome: Outcome::Delivered,
                turn: self.settled(now),
            },
            Class::Refused => Verdict {
                outcome: Outcome::Parked {
                    error: words(answer),
                },
                turn: self.settled(now),
            },
            Class::Unavailable => {
                let turn = self.unavailable(ticket, answer, now, dice);
                let wait = match self.circuit {
                    Circuit::Down { until, .. } => until.saturating_duration_since(now.mono),
                    Circuit::Up { .. } => Duration::ZERO,
                };
                retry(answer, now, wait, turn)
            }
            Class::Doubtful => {
                let turn = match &mut self.circuit {
                    Circuit::Up { doubts } if *doubts + 1 < DOUBTS_MAX => {
                        *doubts += 1;
                        None
                    }
                    _ => self.unavailable(ticket, answer, now, dice),
                };
                let wait = self.backoff(attempts, dice).max(asked(answer));
                retry(answer, now, wait, turn)
            }
        }
    }

    fn settled(&mut self, now: Now) -> Option<Turn> {
        let turn = match self.circuit {
            Circuit::Up { .. } => None,
            Circuit::Down { since, .. } => {
                Some(Turn::Up(now.mono.saturating_duration_since(since)))
            }
        };
        self.circuit = Circuit::Up { doubts: 0 };
        turn
    }

    /// Goes down, or stays down for longer. Requests that were under way when it went down change nothing.
    fn unavailable(
        &mut self,
        ticket: Ticket,
        answer: &Answer,
        now: Now,
        dice: f64,
    ) -> Option<Turn> {
        let (since, failures, turn) = match self.circuit {
            Circuit::Up { .. } => (now.mono, 0, Some(Turn::Down)),
            Circuit::Down {
                since, failures, ..
            } if ticket.probe => (since, failures, None),
            Circuit::Down { .. } => return None,
        };
        let wait = self.backoff(failures, dice).max(asked(answer));
        self.circuit = Circuit::Down {
            since,
            failures: failures.saturating_add(1),
            until: now.mono + wait,
            probing: false,
        };
        turn
    }

    /// Exponential with full jitter: somewhere between `retry_min` and `retry_min` · 2ⁿ⁺¹, at most `retry_max`.
    fn backoff(&self, failures: u32, dice: f64) -> Duration {
        let min = self.limits.retry_min;
        let doubled = min.saturating_mul(2_u32.saturating_pow(failures.saturating_add(1)));
        let span = doubled.min(self.limits.retry_max).saturating_sub(min);
        min + span.mul_f64(dice.clamp(0.0, 1.0))
    }
}

fn retry(answer: &Answer, now: Now, wait: Duration, turn: Option<Turn>) -> Verdict {
    Verdict {
        outcome: Outcome::RetryAt {
            ms: now.plus(wait).unix_ms,
            error: words(answer),
        },
        turn,
    }
}

enum Class {
    Delivered,
    Refused,
    Unavailable,
    Doubtful,
}

fn class(answer: &Answer) -> Class {
    match answer {
        Answer::Status { code, .. } => match code {
            200..=299 => Class::Delivered,
            429 | 502..=504 => Class::Unavailable,
            408 | 500..=599 => Class::Doubtful,
            _ => Class::Refused,
        },
        Answer::Unreachable(_) => Class::Unavailable,
        Answer::Timeout | Answer::Broken(_) => Class::Doubtful,
    }
}

fn asked(answer: &Answer) -> Duration {
    match answer {
        Answer::Status {
            retry_after: Some(wait),
            ..
        } => (*wait).min(RETRY_AFTER_MAX),
        _ => Duration::ZERO,
    }
}

/// The answer in words for operators.
pub fn words(answer: &Answer) -> String {
    match answer {
        Answer::Status { code, body, .. } => {
            let hint = match code {
                300..=399 => " (redirects are not followed: set the final url)",
                401 | 403 => " (is the platform's token right?)",
                404 | 405 | 410 => " (is the platform's url right?)",
                413 => " (the platform takes no event of this size)",
                _ => "",
            };
            let body: String = body
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(BODY_CHARS)
                .collect();
            let body = body.trim();
            let colon = if body.is_empty() { "" } else { ": " };
            format!("HTTP {code}{hint}{colon}{body}")
        }
        Answer::Unreachable(why) => format!("no connection: {why}"),
        Answer::Timeout => "no answer within the time limit".to_owned(),
        Answer::Broken(why) => format!("connection lost before the answer: {why}"),
    }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds or a date; None when it is neither.
pub fn retry_after(value: &str, now_unix_ms: i64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_unix_ms).ok()?);
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests;

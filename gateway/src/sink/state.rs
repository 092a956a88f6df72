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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        retry_min: Duration::from_secs(1),
        retry_max: Duration::from_secs(60),
        concurrency: 4,
    };

    fn status(code: u16) -> Answer {
        Answer::Status {
            code,
            retry_after: None,
            body: String::new(),
        }
    }

    fn wait_ms(v: &Verdict, now: Now) -> i64 {
        match &v.outcome {
            Outcome::RetryAt { ms, .. } => ms - now.unix_ms,
            other => panic!("not a retry: {other:?}"),
        }
    }

    fn one(state: &mut State, answer: &Answer, now: Now) -> Verdict {
        let ticket = state.start();
        state.handle_answer(ticket, answer, 0, now, 1.0)
    }

    #[test]
    fn what_answers_mean() {
        let now = Now::read();
        for code in [200, 201, 202, 204, 299] {
            let mut s = State::new(LIMITS);
            assert_eq!(one(&mut s, &status(code), now).outcome, Outcome::Delivered);
        }
        for code in [
            301, 302, 304, 400, 401, 403, 404, 409, 410, 413, 415, 422, 451,
        ] {
            let mut s = State::new(LIMITS);
            let v = one(&mut s, &status(code), now);
            assert!(matches!(v.outcome, Outcome::Parked { .. }), "{code}");
            assert_eq!(s.room(now.mono), 4, "{code} parks one event only");
        }
        for code in [408, 429, 500, 501, 502, 503, 504, 507, 599] {
            let mut s = State::new(LIMITS);
            let v = one(&mut s, &status(code), now);
            assert_eq!(wait_ms(&v, now), 2000, "{code}");
        }
        for answer in [
            Answer::Timeout,
            Answer::Unreachable("refused".to_owned()),
            Answer::Broken("reset".to_owned()),
        ] {
            let mut s = State::new(LIMITS);
            assert_eq!(wait_ms(&one(&mut s, &answer, now), now), 2000);
        }
    }

    #[test]
    fn down_means_one_try_at_a_time_and_any_settled_event_means_up() {
        let mut now = Now::read();
        let mut s = State::new(LIMITS);
        let others: Vec<_> = (0..3).map(|_| s.start()).collect();
        assert_eq!(one(&mut s, &status(503), now).turn, Some(Turn::Down));
        // Those that were under way do not push the next try away.
        let until = s.poll_at();
        for ticket in others {
            let v = s.handle_answer(ticket, &status(503), 0, now, 1.0);
            assert_eq!((v.turn, wait_ms(&v, now)), (None, 2000));
        }
        assert_eq!(s.poll_at(), until);
        assert_eq!(s.room(now.mono), 0);

        now = now.plus(Duration::from_secs(2));
        assert_eq!(s.room(now.mono), 1);
        let probe = s.start();
        assert_eq!((s.room(now.mono), s.poll_at()), (0, None));
        let v = s.handle_answer(probe, &status(503), 1, now, 1.0);
        assert_eq!((v.turn, wait_ms(&v, now)), (None, 4000));

        now = now.plus(Duration::from_secs(4));
        let v = one(&mut s, &status(400), now);
        assert_eq!(v.turn, Some(Turn::Up(Duration::from_secs(6))));
        assert_eq!(s.room(now.mono), 4);
    }

    #[test]
    fn one_bad_event_does_not_bring_the_platform_down() {
        let now = Now::read();
        let mut s = State::new(LIMITS);
        for attempts in 0..10 {
            let ticket = s.start();
            let v = s.handle_answer(ticket, &status(500), attempts, now, 1.0);
            let expected = (2000_i64 << attempts).min(60_000);
            assert_eq!((v.turn, wait_ms(&v, now)), (None, expected));
            one(&mut s, &status(200), now);
        }
        let turns: Vec<_> = (0..3)
            .map(|_| one(&mut s, &Answer::Timeout, now).turn)
            .collect();
        assert_eq!(turns, [None, None, Some(Turn::Down)]);
    }

    #[test]
    fn retry_after_is_kept_within_an_hour() {
        let now = Now::read();
        let asks = |wait| Answer::Status {
            code: 429,
            retry_after: Some(wait),
            body: String::new(),
        };
        let mut s = State::new(LIMITS);
        let v = one(&mut s, &asks(Duration::from_secs(90)), now);
        assert_eq!(wait_ms(&v, now), 90_000);
        assert_eq!(s.room(now.plus(Duration::from_secs(89)).mono), 0);
        assert_eq!(s.room(now.plus(Duration::from_secs(90)).mono), 1);
        let mut s = State::new(LIMITS);
        let v = one(&mut s, &asks(Duration::from_secs(1_000_000)), now);
        assert_eq!(wait_ms(&v, now), 3_600_000);

        assert_eq!(retry_after(" 120 ", 0), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after("99999999999999999999", 0),
            Some(RETRY_AFTER_MAX)
        );
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let ms = 784_111_777_000;
        assert_eq!(retry_after(date, ms - 5_000), Some(Duration::from_secs(5)));
        assert_eq!(retry_after(date, ms + 5_000), Some(Duration::ZERO));
        for bad in ["", "soon", "-1", "1.5", "12 s"] {
            assert_eq!(retry_after(bad, 0), None, "{bad}");
        }
    }

    #[test]
    fn words_are_short_and_one_line() {
        let answer = Answer::Status {
            code: 400,
            retry_after: None,
            body: format!("no\nway {}", "街".repeat(500)),
        };
        let text = words(&answer);
        assert!(text.starts_with("HTTP 400: no way 街"), "{text}");
        assert_eq!(text.chars().count(), "HTTP 400: ".len() + BODY_CHARS);
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_limits(failures in 0_u32..200, dice in 0.0_f64..1.0) {
            let wait = State::new(LIMITS).backoff(failures, dice);
            prop_assert!(wait >= LIMITS.retry_min && wait <= LIMITS.retry_max);
        }

        #[test]
        fn retry_after_never_panics(value in ".*", now in any::<i64>()) {
            retry_after(&value, now);
        }

        /// Whatever comes back: never more under way than allowed, and it always goes on by an answer or a time.
        #[test]
        fn never_stuck(answers in prop::collection::vec(0_usize..5, 1..100)) {
            let kinds = [status(200), status(400), status(500), status(503), Answer::Timeout];
            let mut now = Now::read();
            let mut s = State::new(LIMITS);
            for a in answers {
                if s.room(now.mono) == 0 {
                    let at = s.poll_at().expect("no room, nothing under way: a time");
                    now = now.plus(at.saturating_duration_since(now.mono));
                    prop_assert_eq!(s.room(now.mono), 1);
                }
                let tickets: Vec<_> = (0..s.room(now.mono)).map(|_| s.start()).collect();
                prop_assert!(s.room(now.mono) == 0);
                for t in tickets {
                    s.handle_answer(t, &kinds[a], 0, now, 0.5);
                }
                prop_assert_eq!(s.in_flight, 0);
            }
        }
    }
}

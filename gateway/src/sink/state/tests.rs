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

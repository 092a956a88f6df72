//! When a camera's session has to be kept alive, and by what: time in, methods out.
//!
//! The camera's own timeout rules, not a period of ours. GET_PARAMETER where it is offered, OPTIONS otherwise and from
//! the first one on that stayed unanswered. A camera that answers neither is left alone as long as it sends media.

use std::time::{Duration, Instant};

/// Address translators forget quiet connections.
const EVERY_MAX: Duration = Duration::from_secs(30);
const EVERY_MIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct KeepAlive {
    every: Duration,
    get_parameter: bool,
    due: Option<Instant>,
    /// `CSeq` of what was not answered yet.
    pending: Option<u32>,
    /// The one before was refused for its login.
    refused: bool,
}

impl KeepAlive {
    pub fn new() -> Self {
        Self {
            every: EVERY_MAX,
            get_parameter: false,
            due: None,
            pending: None,
            refused: false,
        }
    }

    /// `Public` of the answer to OPTIONS.
    pub fn methods(&mut self, public: Option<&str>) {
        self.get_parameter = public.is_some_and(|p| {
            p.split(',')
                .any(|m| m.trim().eq_ignore_ascii_case("GET_PARAMETER"))
        });
    }

    /// What `Session` says.
    pub fn timeout(&mut self, timeout: Duration) {
        self.every = (timeout / 2).clamp(EVERY_MIN, EVERY_MAX);
    }

    /// The session plays from now on.
    pub fn begin(&mut self, now: Instant) {
        self.due = Some(now + self.every);
    }

    /// The method to send now as request `cseq`, if it is time.
    pub fn due(&mut self, now: Instant, cseq: u32) -> Option<&'static str> {
        if now < self.due? {
            return None;
        }
        if self.pending.replace(cseq).is_some() {
            self.get_parameter = false;
        }
        self.due = Some(now + self.every);
        Some(if self.get_parameter {
            "GET_PARAMETER"
        } else {
            "OPTIONS"
        })
    }

    /// The last one was refused for its login: due at once, but only once: a camera that refuses them all is not asked
    /// as fast as it can refuse.
    pub fn again(&mut self) {
        self.pending = None;
        if !std::mem::replace(&mut self.refused, true) {
            self.due = self.due.and_then(|d| d.checked_sub(self.every));
        }
    }

    /// A reply that is no login matter. `cseq`: as far as the camera says.
    pub fn answered(&mut self, cseq: Option<u32>, status: u16) {
        if cseq.is_none() || cseq == self.pending {
            self.pending = None;
        }
        self.refused = false;
        if matches!(status, 400 | 405 | 451 | 500 | 501 | 551) {
            self.get_parameter = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cameras_timeout_rules() {
        let t = Instant::now();
        for (says, every) in [(20, 10), (60, 30), (600, 30), (1, 1)] {
            let mut k = KeepAlive::new();
            k.timeout(Duration::from_secs(says));
            k.begin(t);
            let every = Duration::from_secs(every);
            assert_eq!(k.due(t + every / 2, 1), None);
            assert_eq!(k.due(t + every, 1), Some("OPTIONS"));
            assert_eq!(k.due(t + every, 2), None);
        }
        assert_eq!(KeepAlive::new().due(t, 1), None, "not playing");
    }

    #[test]
    fn get_parameter_that_is_not_answered_becomes_options() {
        let t = Instant::now();
        let mut k = KeepAlive::new();
        k.methods(Some("OPTIONS, get_parameter,PLAY"));
        k.timeout(Duration::from_secs(20));
        k.begin(t);
        let at = |n: u32| t + Duration::from_secs(10) * n;
        assert_eq!(k.due(at(1), 5), Some("GET_PARAMETER"));
        k.answered(Some(5), 200);
        assert_eq!(k.due(at(2), 6), Some("GET_PARAMETER"));
        assert_eq!(k.due(at(3), 7), Some("OPTIONS"));
        k.answered(Some(7), 200);
        assert_eq!(k.due(at(4), 8), Some("OPTIONS"));
        k.again();
        assert_eq!(k.due(at(4), 9), Some("OPTIONS"), "after a stale nonce");
        k.again();
        assert_eq!(k.due(at(4), 10), None, "a camera that refuses them all");
        assert_eq!(k.due(at(5), 10), Some("OPTIONS"));
        k.answered(Some(10), 200);
        k.again();
        assert_eq!(k.due(at(5), 11), Some("OPTIONS"));
        // One that is refused is not sent again.
        let mut k = KeepAlive::new();
        k.methods(Some("GET_PARAMETER"));
        k.timeout(Duration::from_secs(20));
        k.begin(t);
        assert_eq!(k.due(at(1), 1), Some("GET_PARAMETER"));
        k.answered(None, 501);
        assert_eq!(k.due(at(2), 2), Some("OPTIONS"));
    }
}

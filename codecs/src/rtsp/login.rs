//! Digest (RFC 7616, RFC 2617, RFC 2069) and Basic (RFC 7617) from the client's side: a camera's challenge to our answer.
//!
//! SHA-256 is preferred to MD5, and Basic is the last resort: it shows the password, so it must be allowed.

use base64::Engine;

use super::digest::{Algorithm, parameters};
use super::reply::Reply;

/// The strongest of a camera's challenges.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Digest {
        realm: String,
        nonce: String,
        opaque: Option<String>,
        algorithm: Algorithm,
        /// The algorithm as written; not repeated when the camera did not name it.
        named: Option<String>,
        qop: bool,
        stale: bool,
    },
    Basic,
}

/// Why there is no use in asking again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginFault {
    #[error("the camera asks for a login; set username and a password")]
    NoCredentials,
    #[error("the camera refuses this username or password")]
    Refused,
    #[error(
        "the camera offers Basic only, which shows the password on the line; use rtsps:// or set basic_auth = true"
    )]
    BasicNotAllowed,
    #[error("the camera asks for a login in a way that is not known: {0}")]
    Unknown(String),
}

/// A camera's account and the state of its login.
#[derive(Clone, Debug)]
pub struct Login {
    account: Option<(String, String)>,
    basic_allowed: bool,
    challenge: Option<Challenge>,
    /// Requests answered with this nonce.
    count: u32,
    /// The last answer was taken.
    accepted: bool,
}

impl Login {
    /// `account`: username and password. `basic_allowed`: the line is encrypted, or the operator said so.
    pub fn new(account: Option<(String, String)>, basic_allowed: bool) -> Self {
        Self {
            account,
            basic_allowed,
            challenge: None,
            count: 0,
            accepted: false,
        }
    }

    /// A request was answered with something other than 401.
    pub fn accepted(&mut self) {
        self.accepted = true;
    }

    /// Takes a 401: the request is to be repeated with [`Self::authorization`].
    ///
    /// A wrong password is tried once: cameras lock accounts. A new nonce is followed when the camera says `stale`, or
    /// when the former one was good before.
    ///
    /// # Errors
    /// [`LoginFault`].
    pub fn challenged(&mut self, reply: &Reply) -> Result<(), LoginFault> {
        if self.account.is_none() {
            return Err(LoginFault::NoCredentials);
        }
        let offered: Vec<_> = reply.all("WWW-Authenticate").collect();
        let all: Vec<Challenge> = offered.iter().flat_map(|h| challenges(h)).collect();
        let strength = |c: &Challenge| match c {
            Challenge::Digest {
                algorithm: Algorithm::Sha256,
                ..
            } => 2,
            Challenge::Digest { .. } => 1,
            Challenge::Basic => 0,
        };
        let best = all
            .into_iter()
            .max_by_key(strength)
            .ok_or_else(|| LoginFault::Unknown(offered.join(", ").chars().take(80).collect()))?;
        if best == Challenge::Basic && !self.basic_allowed {
            return Err(LoginFault::BasicNotAllowed);
        }
        let stale = matches!(best, Challenge::Digest { stale: true, .. });
        if self.challenge.is_some() && !self.accepted && !stale {
            return Err(LoginFault::Refused);
        }
        self.challenge = Some(best);
        self.count = 0;
        self.accepted = false;
        Ok(())
    }

    /// `Authorization` for a request; None as long as nothing was asked for. `cnonce`: random, of hexadecimal digits.
    pub fn authorization(&mut self, method: &str, uri: &str, cnonce: &str) -> Option<String> {
        let (username, password) = self.account.as_ref()?;
        match self.challenge.as_ref()? {
            Challenge::Basic => {
                let both = format!("{username}:{password}");
                let both = base64::engine::general_purpose::STANDARD.encode(both);
                Some(format!("Basic {both}"))
            }
            Challenge::Digest {
                realm,
                nonce,
                opaque,
                algorithm: a,
                named,
                qop,
                ..
            } => {
                self.count += 1;
                let ha1 = a.hex(&format!("{username}:{realm}:{password}"));
                let ha2 = a.hex(&format!("{method}:{uri}"));
                let nc = format!("{:08x}", self.count);
                let response = if *qop {
                    a.hex(&format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}"))
                } else {
                    a.hex(&format!("{ha1}:{nonce}:{ha2}"))
                };
                let mut out = format!(
                    "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
                    quoted(username),
                    quoted(realm),
                    quoted(nonce),
                    quoted(uri)
                );
                if let Some(name) = named {
                    out.push_str(&format!(", algorithm={name}"));
                }
                if *qop {
                    out.push_str(&format!(", qop=auth, nc={nc}, cnonce=\"{cnonce}\""));
                }
                if let Some(o) = opaque {
                    out.push_str(&format!(", opaque={}", quoted(o)));
                }
                Some(out)
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The challenges of one header line that can be answered; a line may hold several.
fn challenges(header: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for (name, value) in parameters(header) {
        // "Digest realm": a scheme and its first parameter.
        let mut words = name.split([' ', '\t', ',']).rev().filter(|w| !w.is_empty());
        let Some(parameter) = words.next() else {
            continue;
        };
        if let Some(scheme) = words.next() {
            schemes.push((scheme.to_owned(), Vec::new()));
        }
        if let Some((_, fields)) = schemes.last_mut() {
            fields.push((parameter.to_owned(), value));
        }
    }
    schemes
        .into_iter()
        .filter_map(|(scheme, fields)| challenge(&scheme, &fields))
        .collect()
}

fn challenge(scheme: &str, fields: &[(String, String)]) -> Option<Challenge> {
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("digest") {
        return None;
    }
    let get = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.clone())
    };
    let named = get("algorithm");
    let algorithm = match named.as_deref().map(str::trim) {
        None | Some("") => Algorithm::Md5,
        Some(a) if a.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
        Some(a) if a.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
        Some(_) => return None,
    };
    let qop = match get("qop") {
        None => false,
        Some(q) if q.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth")) => true,
        Some(q) if q.trim().is_empty() => false,
        Some(_) => return None,
    };
    Some(Challenge::Digest {
        realm: get("realm")?,
        nonce: get("nonce")?,
        opaque: get("opaque"),
        algorithm,
        named: named.filter(|n| !n.trim().is_empty()),
        qop,
        stale: get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::digest::Credentials;
    use super::super::reply::{Heard, ReplyFramer};
    use super::*;
    use proptest::prelude::*;

    fn refusal(lines: &[&str]) -> Reply {
        let mut text = "RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n".to_owned();
        for line in lines {
            text.push_str(&format!("WWW-Authenticate: {line}\r\n"));
        }
        text.push_str("\r\n");
        let mut f = ReplyFramer::default();
        f.buffer().extend_from_slice(text.as_bytes());
        match f.next() {
            Ok(Some(Heard::Reply(r))) => r,
            other => panic!("{other:?}"),
        }
    }

    fn login(basic: bool) -> Login {
        Login::new(Some(("Mufasa".into(), "Circle of Life".into())), basic)
    }

    /// RFC 7616 §3.9.1.
    #[test]
    fn vectors_of_the_standard() {
        let common = "realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
            nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        for (a, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let mut l = login(false);
            l.challenged(&refusal(&[&format!("Digest {common}, algorithm={a}")]))
                .unwrap();
            let said = l
                .authorization(
                    "GET",
                    "/dir/index.html",
                    "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                )
                .unwrap();
            assert!(said.contains(&format!("response=\"{response}\"")), "{said}");
            assert!(said.contains("nc=00000001") && said.contains("opaque=\"FQhe"));
        }
    }

    #[test]
    fn the_strongest_is_answered() {
        let mut l = login(true);
        l.challenged(&refusal(&[
            "Basic realm=\"a\", Digest realm=\"a\", nonce=\"1\", algorithm=MD5",
            "Digest realm=\"a\", nonce=\"2\", algorithm=SHA-256, qop=\"auth\"",
            "Negotiate",
        ]))
        .unwrap();
        let said = l.authorization("PLAY", "rtsp://h/a", "c").unwrap();
        assert!(
            said.contains("SHA-256") && said.contains("nonce=\"2\""),
            "{said}"
        );
        let mut l = login(true);
        l.challenged(&refusal(&[
            "Digest realm=\"a\", nonce=\"1\", algorithm=SHA-512-256, Basic realm=\"a\"",
        ]))
        .unwrap();
        assert_eq!(
            l.authorization("PLAY", "rtsp://h/a", "c").as_deref(),
            Some("Basic TXVmYXNhOkNpcmNsZSBvZiBMaWZl")
        );
        assert_eq!(
            login(false).challenged(&refusal(&["Basic realm=\"a\""])),
            Err(LoginFault::BasicNotAllowed)
        );
        assert_eq!(
            login(false).challenged(&refusal(&["Negotiate"])),
            Err(LoginFault::Unknown("Negotiate".into()))
        );
        assert_eq!(
            Login::new(None, true).challenged(&refusal(&["Basic realm=\"a\""])),
            Err(LoginFault::NoCredentials)
        );
    }

    /// The server's side of this house takes what the client's side writes.
    #[test]
    fn a_realm_with_quotes_is_answered_as_our_server_reads_it() {
        let mut l = login(false);
        l.challenged(&refusal(&["Digest realm=\"the \\\"gate\\\"\",nonce=\"n\""]))
            .unwrap();
        let said = l.authorization("PLAY", "rtsp://h/a/b", "").unwrap();
        let Some(Credentials::Digest(d)) = Credentials::parse(&said) else {
            panic!("{said}");
        };
        assert_eq!(d.realm, "the \"gate\"");
        let ha1 = Algorithm::Md5.hex("Mufasa:the \"gate\":Circle of Life");
        assert!(d.verify(&ha1, "PLAY"), "{said}");
    }

    #[test]
    fn a_wrong_password_is_tried_once_and_a_stale_nonce_is_followed() {
        let ask = |n: &str| refusal(&[&format!("Digest realm=\"a\", nonce=\"{n}\"")]);
        let mut l = login(false);
        l.challenged(&ask("1")).unwrap();
        assert_eq!(l.challenged(&ask("2")), Err(LoginFault::Refused));
        let mut l = login(false);
        l.challenged(&ask("1")).unwrap();
        l.challenged(&refusal(&["Digest realm=\"a\", nonce=\"2\", stale=TRUE"]))
            .unwrap();
        l.accepted();
        l.challenged(&ask("3")).unwrap();
        assert!(
            l.authorization("PLAY", "u", "c")
                .unwrap()
                .contains("nonce=\"3\"")
        );
    }

    proptest! {
        #[test]
        fn any_header(text in "(Digest|Basic|X) [a-z]{0,8}=?[\"\\\\a-zA-Z,= ]{0,80}", any: String) {
            let _ = challenges(&text);
            let _ = challenges(&any);
        }
    }
}

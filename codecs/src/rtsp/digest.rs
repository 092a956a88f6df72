//! Digest (RFC 7616, RFC 2617, RFC 2069) and Basic (RFC 7617) from the server's side, given the stored HA1.

use base64::Engine;
use md5::Md5;
use sha2::{Digest as _, Sha256};

/// A nonce is answered as stale when it is older.
pub const NONCE_SECONDS_MAX: u64 = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    pub(super) fn hex(self, text: &str) -> String {
        match self {
            Self::Md5 => hex(&Md5::digest(text)),
            Self::Sha256 => hex(&Sha256::digest(text)),
        }
    }
}

/// `Authorization`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Digest(Digest),
    Basic { username: String, password: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    pub username: String,
    pub realm: String,
    pub nonce: String,
    /// As the client wrote it; compare its path with the request's.
    pub uri: String,
    response: String,
    pub algorithm: Algorithm,
    /// `nc` and `cnonce` when the client uses `qop=auth`.
    qop: Option<(String, String)>,
}

impl Credentials {
    /// None when it is a scheme, an algorithm or a form we do not take.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        if scheme.eq_ignore_ascii_case("basic") {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(rest.trim())
                .ok()?;
            let colon = bytes.iter().position(|b| *b == b':')?;
            return Some(Self::Basic {
                username: String::from_utf8(bytes[..colon].to_vec()).ok()?,
                password: bytes[colon + 1..].to_vec(),
            });
        }
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let mut fields = parameters(rest);
        let mut take = |name: &str| {
            let at = fields
                .iter()
                .position(|(n, _)| n.eq_ignore_ascii_case(name))?;
            Some(fields.swap_remove(at).1)
        };
        let algorithm = match take("algorithm") {
            None => Algorithm::Md5,
            Some(a) if a.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(a) if a.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        let qop = match take("qop") {
            None => None,
            Some(q) if q.eq_ignore_ascii_case("auth") => Some((take("nc")?, take("cnonce")?)),
            Some(_) => return None,
        };
        Some(Self::Digest(Digest {
            username: take("username")?,
            realm: take("realm")?,
            nonce: take("nonce")?,
            uri: take("uri")?,
            response: take("response")?,
            algorithm,
            qop,
        }))
    }

    pub fn username(&self) -> &str {
        match self {
            Self::Digest(d) => &d.username,
            Self::Basic { username, .. } => username,
        }
    }
}

impl Digest {
    /// Is the response right for this HA1 (hex, of the same algorithm)? Compares without telling where it differs.
    pub fn verify(&self, ha1: &str, method: &str) -> bool {
        let a = self.algorithm;
        let ha2 = a.hex(&format!("{method}:{}", self.uri));
        let expected = match &self.qop {
            None => a.hex(&format!("{ha1}:{}:{ha2}", self.nonce)),
            Some((nc, cnonce)) => a.hex(&format!("{ha1}:{}:{nc}:{cnonce}:auth:{ha2}", self.nonce)),
        };
        let given = self.response.to_ascii_lowercase();
        given.len() == expected.len()
            && given
                .bytes()
                .zip(expected.bytes())
                .fold(0, |d, (x, y)| d | (x ^ y))
                == 0
    }
}

/// `name=value, name="quoted \" value"`.
pub(super) fn parameters(text: &str) -> Vec<(String, String)> {
    const FIELDS_MAX: usize = 32;
    let mut rest = text;
    let mut out = Vec::new();
    while out.len() < FIELDS_MAX {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = rest.split_once('=') else {
            break;
        };
        let name = name.trim().to_owned();
        let after = after.trim_start();
        let mut value = String::new();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut escaped = false;
            let mut end = quoted.len();
            for (i, c) in quoted.char_indices() {
                match c {
                    _ if escaped => {
                        value.push(c);
                        escaped = false;
                    }
                    '\\' => escaped = true,
                    '"' => {
                        end = i + 1;
                        break;
                    }
                    _ => value.push(c),
                }
            }
            rest = &quoted[end..];
        } else {
            let end = after.find(',').unwrap_or(after.len());
            after[..end].trim().clone_into(&mut value);
            rest = &after[end..];
        }
        out.push((name, value));
    }
    out
}

/// Is a nonce ours and fresh?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceState {
    Fresh,
    /// Ours, but too old: the client tries again with a new one, without asking its user.
    Stale,
    Foreign,
}

/// Makes and recognises nonces without remembering them: time and its HMAC (RFC 2104).
#[derive(Clone)]
pub struct Nonces {
    key: [u8; 32],
}

impl Nonces {
    /// `key`: random, of this run.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// `now`: seconds of any clock that does not go back.
    pub fn issue(&self, now: u64) -> String {
        let mac = self.mac(now);
        format!("{now:016x}{}", hex(&mac[..16]))
    }

    pub fn check(&self, nonce: &str, now: u64) -> NonceState {
        let Some(at) = nonce
            .get(..16)
            .and_then(|t| u64::from_str_radix(t, 16).ok())
        else {
            return NonceState::Foreign;
        };
        if self.issue(at) != nonce {
            NonceState::Foreign
        } else if now.saturating_sub(at) > NONCE_SECONDS_MAX {
            NonceState::Stale
        } else {
            NonceState::Fresh
        }
    }

    fn mac(&self, now: u64) -> [u8; 32] {
        let pad = |with: u8| {
            let mut block = [with; 64];
            block.iter_mut().zip(self.key).for_each(|(b, k)| *b ^= k);
            block
        };
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(now.to_be_bytes())
            .finalize();
        Sha256::new()
            .chain_update(pad(0x5c))
            .chain_update(inner)
            .finalize()
            .into()
    }
}

/// The challenges of a 401, one header line each. SHA-256 comes before MD5: clients that know one algorithm only
/// (ffmpeg 5.1, GStreamer 1.22) keep the last Digest they read.
pub fn challenges(realm: &str, nonce: &str, stale: bool, basic: bool) -> Vec<String> {
    let stale = if stale { ", stale=true" } else { "" };
    let mut lines = vec![
        format!(
            "Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm=SHA-256, qop=\"auth\"{stale}"
        ),
        format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm=MD5{stale}"),
    ];
    if basic {
        lines.push(format!("Basic realm=\"{realm}\""));
    }
    lines
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(header: &str) -> Digest {
        match Credentials::parse(header) {
            Some(Credentials::Digest(d)) => d,
            other => panic!("{other:?}"),
        }
    }

    /// RFC 7616 §3.9.1.
    #[test]
    fn vectors_of_the_standard() {
        let common = "username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
            nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
            cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
            opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let secret = "Mufasa:http-auth@example.org:Circle of Life";
        for (a, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let d = digest(&format!(
                "Digest {common}, response=\"{response}\", algorithm={a}"
            ));
            assert!(d.verify(&d.algorithm.hex(secret), "GET"), "{a}");
            assert!(!d.verify(&d.algorithm.hex(secret), "POST"));
            assert!(!d.verify("", "GET"));
        }
    }

    /// RFC 2617 §3.5 without qop, as RTSP clients do it.
    #[test]
    fn the_old_form_without_qop() {
        let ha1 = Algorithm::Md5.hex("anna:a \"b\":x");
        let response = Algorithm::Md5.hex(&format!(
            "{ha1}:n:{}",
            Algorithm::Md5.hex("PLAY:rtsp://h/a/b")
        ));
        let d = digest(&format!(
            "digest username=\"anna\",realm=\"a \\\"b\\\"\" , nonce=\"n\", uri=\"rtsp://h/a/b\",response=\"{}\"",
            response.to_uppercase()
        ));
        assert_eq!(d.realm, "a \"b\"");
        assert!(d.verify(&ha1, "PLAY"));
    }

    #[test]
    fn basic_keeps_colons_of_the_password() {
        let header = format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode("bc-01:a:b")
        );
        assert_eq!(
            Credentials::parse(&header),
            Some(Credentials::Basic {
                username: "bc-01".into(),
                password: b"a:b".into()
            })
        );
    }

    #[test]
    fn nonces_age_and_cannot_be_made_elsewhere() {
        let n = Nonces::new([7; 32]);
        let nonce = n.issue(1000);
        assert_eq!(n.check(&nonce, 1000 + NONCE_SECONDS_MAX), NonceState::Fresh);
        assert_eq!(n.check(&nonce, 1001 + NONCE_SECONDS_MAX), NonceState::Stale);
        assert_eq!(
            Nonces::new([8; 32]).check(&nonce, 1000),
            NonceState::Foreign
        );
        let younger = format!("{:016x}{}", 2000, &nonce[16..]);
        assert_eq!(n.check(&younger, 2000), NonceState::Foreign);
    }

    #[test]
    fn the_mac_is_hmac_sha256() {
        // HMAC-SHA-256 of eight zero bytes under a key of 32 zero bytes, by an independent implementation.
        let nonce = Nonces::new([0; 32]).issue(0);
        assert_eq!(&nonce[16..], &HMAC_OF_ZEROS[..32]);
    }
    const HMAC_OF_ZEROS: &str = "f375180aba92888401f1919be4a8715a62763b65c1c10e1d0858e81d4d6f9fd2";

    proptest! {
        #[test]
        fn any_text(text: String, fields in "(Digest|Basic) [a-z]{0,8}=?[\"\\\\a-z,= ]{0,60}") {
            let _ = Credentials::parse(&text);
            let _ = Credentials::parse(&fields);
            prop_assert_eq!(Nonces::new([1; 32]).check(&text, 0), NonceState::Foreign);
        }
    }
}

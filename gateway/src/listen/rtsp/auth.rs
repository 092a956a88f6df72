//! Who a client is (Digest or Basic against the registry), and what that one may do.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use kerbside_codecs::rtsp::digest::{Algorithm, Credentials, NonceState, challenges};
use kerbside_codecs::rtsp::{Request, Response, Status, Target};
use rtsp_types::headers;

use super::Shared;
use crate::registry::{Principal, REALM, Verdict};

/// Why a client is not let in.
pub enum Refusal {
    /// The challenge (also to one that sent nothing yet).
    Challenge(Response),
    /// Wrong credentials, and not for the first time: answer after a while, then close.
    SlowDown(Duration, Response),
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Play,
    Publish,
}

/// Checks the credentials of a request.
pub fn identify(
    shared: &Shared,
    request: &Request,
    peer: IpAddr,
    secure: bool,
) -> Result<Principal, Refusal> {
    let now = shared.began.elapsed().as_secs();
    let challenge = |stale| {
        let nonce = shared.nonces.issue(now);
        challenges(REALM, &nonce, stale, secure)
            .into_iter()
            .fold(Response::new(Status::Unauthorized), |r, line| {
                r.with("WWW-Authenticate", line)
            })
    };
    let Some(header) = request.header(&headers::AUTHORIZATION) else {
        return Err(Refusal::Challenge(challenge(false)));
    };
    let credentials = Credentials::parse(header.as_str());
    match credentials.as_ref().and_then(|c| check(shared, request, c)) {
        Some((principal, NonceState::Fresh)) => return Ok(principal),
        // The right password with an old nonce, or one of before our restart: try again, it is no failure.
        Some(_) => return Err(Refusal::Challenge(challenge(true))),
        None => {}
    }
    let name = credentials.as_ref().map_or("", Credentials::username);
    match shared.guard.failed("rtsp", peer, name, Instant::now()) {
        Verdict::Refuse => Err(Refusal::Challenge(challenge(false))),
        Verdict::SlowDown(wait) => Err(Refusal::SlowDown(wait, challenge(false))),
    }
}

fn check(
    shared: &Shared,
    request: &Request,
    credentials: &Credentials,
) -> Option<(Principal, NonceState)> {
    match credentials {
        Credentials::Basic { username, password } => {
            let device = shared
                .registry
                .check_device(username, password)
                .map(Principal::Device);
            let user = || {
                shared
                    .registry
                    .check_user(username, password)
                    .map(Principal::User)
            };
            Some((device.or_else(|_| user()).ok()?, NonceState::Fresh))
        }
        Credentials::Digest(digest) => {
            // The answer must be for this stream: clients differ in the control they write behind it.
            let asked = request
                .request_uri()
                .and_then(|u| Target::parse(u.as_str()));
            let signed = Target::parse(&digest.uri);
            if asked.map(|t| t.stream) != signed.map(|t| t.stream) || digest.realm != REALM {
                return None;
            }
            let (principal, ha1) = shared.registry.principal(&digest.username)?;
            let ha1 = match digest.algorithm {
                Algorithm::Md5 => &ha1.md5,
                Algorithm::Sha256 => &ha1.sha256,
            };
            let method: &str = request.method().into();
            if !digest.verify(ha1, method) {
                return None;
            }
            Some((
                principal,
                shared
                    .nonces
                    .check(&digest.nonce, shared.began.elapsed().as_secs()),
            ))
        }
    }
}

/// May this one do it? Devices publish under their own id, users play.
pub fn permit(principal: &Principal, purpose: Purpose, target: &Target) -> Result<(), Response> {
    let allowed = match (principal, purpose) {
        (Principal::Device(d), Purpose::Publish) => {
            target.stream.split('/').next() == Some(d.id.as_str())
        }
        (Principal::User(_), Purpose::Play) => true,
        _ => false,
    };
    if allowed {
        Ok(())
    } else {
        Err(Response::new(Status::Forbidden))
    }
}

//! `devices.toml`, `rules.toml` and `platforms.toml`: lists of cameras, sources (`sources.rs`), rules and platforms.

use std::collections::BTreeSet;
use std::time::Duration;

use super::secret::{self, Credentials};
use super::table::{At, Found, Source, Table, Unique};
use super::{Camera, CameraTransport, CameraTrust, Checks, Platform, Rule, sources};
use crate::event::{Priority, Severity};
use crate::ids::StreamId;

/// Cameras and sources of datagrams. `has_port`: there is a `listen.datagram`.
pub(super) fn devices(
    source: &Source,
    has_port: bool,
    credentials: &Credentials,
) -> (Vec<Camera>, Vec<super::Source>) {
    let Some(mut top) = source.parse() else {
        return Default::default();
    };
    let mut streams = Unique::default();
    let (cameras, sources) = (top.tables("camera"), top.tables("source"));
    top.finish();
    let cameras = cameras
        .into_iter()
        .flat_map(|t| camera(t, &mut streams, credentials))
        .collect();
    (cameras, sources::read(sources, has_port, credentials))
}

/// A camera, and its sub-stream as a camera of its own.
fn camera(mut t: Table<'_>, streams: &mut Unique, credentials: &Credentials) -> Vec<Camera> {
    let stream = t
        .required("stream", "\"device/camera\", e.g. \"gate-1/main\"")
        .and_then(|f| stream_name(f, streams));
    let url = t
        .required("url", "rtsp://HOST[:PORT]/PATH")
        .and_then(|f| url(f, &["rtsp", "rtsps"]));
    let username = t.optional("username").and_then(Found::text);
    let password = secret::read(&mut t, "password_credential", "password_file", credentials);
    if username.is_some() && !password.named {
        t.at.fault("has a username, but no password: add password_credential or password_file");
    }
    if username.is_none() && password.named {
        t.at.fault("has a password, but no username: add username");
    }
    let basic_auth = t.optional("basic_auth").map_or(Some(false), Found::boolean);
    let on_demand = t.optional("on_demand").map_or(Some(true), Found::boolean);
    let linger = seconds(&mut t, "linger_s", 0..=3600, 10);
    let sub_url = t
        .optional("sub_url")
        .map(|f| self::url(f, &["rtsp", "rtsps"]));
    let sub_stream = t.optional("sub_stream");
    if sub_url.is_none() && sub_stream.is_some() {
        t.at.fault("has a sub_stream, but no sub_url: add sub_url");
    }
    let secure = [url.as_ref(), sub_url.as_ref().and_then(Option::as_ref)]
        .into_iter()
        .flatten()
        .any(|u| u.scheme() == "rtsps");
    let transport = t
        .optional("transport")
        .map_or(Some(CameraTransport::Tcp), |f| {
            f.read(|s| match s {
                "tcp" => Ok(CameraTransport::Tcp),
                "auto" if secure => Ok(CameraTransport::Tcp),
                "auto" => Ok(CameraTransport::Auto),
                "udp" if secure => {
                    Err("is \"udp\", but media of rtsps:// are encrypted over \"tcp\" only".into())
                }
                "udp" => Ok(CameraTransport::Udp),
                _ => Err(format!(
                    "is {s:?}, but must be \"tcp\", \"udp\" or \"auto\""
                )),
            })
        });
    let trust = trust(&mut t, secure);
    let unit = t.optional("unit").and_then(Found::text);
    let position = t.optional_table("position").map(|mut p| {
        let mut degrees = |key, max: f64| {
            p.required(key, "degrees, WGS-84")
                .and_then(|f| f.number(-max..=max))
        };
        let at = (degrees("lat", 90.0), degrees("lon", 180.0));
        p.finish();
        at
    });
    let sub_at = t.at.clone();
    t.finish();
    let (Some(stream), Some(url), Some(basic_auth), Some(on_demand), Some(transport)) =
        (stream, url, basic_auth, on_demand, transport)
    else {
        return Vec::new();
    };
    let main = Camera {
        stream,
        url,
        username,
        password: password.value,
        basic_auth,
        trust,
        on_demand,
        linger,
        transport,
        unit,
        position: position.and_then(|(lat, lon)| lat.zip(lon)),
    };
    let sub = sub_url.flatten().and_then(|url| {
        let stream = match sub_stream {
            Some(f) => stream_name(f, streams),
            None => sub_name(&main.stream, &sub_at, streams),
        };
        Some(Camera {
            stream: stream?,
            url,
            // The device is on the map once.
            position: None,
            ..main.clone()
        })
    });
    [Some(main), sub].into_iter().flatten().collect()
}

fn stream_name(f: Found<'_>, streams: &mut Unique) -> Option<StreamId> {
    let at = f.at.clone();
    let id = f.read(|s| StreamId::parse(s).map_err(|e| format!("not device/camera: {e}")))?;
    streams.note(&at, &id.to_string());
    Some(id)
}

/// Beside `gate-1/main` people expect `gate-1/sub`; beside `gate-1/left` it is `gate-1/left-sub`.
fn sub_name(main: &StreamId, at: &At<'_>, streams: &mut Unique) -> Option<StreamId> {
    let camera = &*main.camera;
    let name = if camera == "main" {
        "sub".to_owned()
    } else {
        format!("{camera}-sub")
    };
    match StreamId::new(main.device.as_str(), &name) {
        Ok(id) => {
            streams.note(at, &id.to_string());
            Some(id)
        }
        Err(e) => {
            at.fault(format!("{e}: name it with sub_stream"));
            None
        }
    }
}

fn trust(t: &mut Table<'_>, secure: bool) -> Option<CameraTrust> {
    let fingerprint = t.optional("fingerprint").map(|f| f.read(sha256));
    let ca_file = t.optional("ca_file").map(|f| f.path(false));
    match (fingerprint, ca_file) {
        (Some(_), Some(_)) => t.at.fault("has fingerprint and ca_file: keep one of the two"),
        (None, None) if secure => t.at.fault(
            "is rtsps://, but nothing says which certificate is right: add fingerprint (openssl x509 -fingerprint -sha256) or ca_file",
        ),
        (Some(_), _) | (_, Some(_)) if !secure => {
            t.at.fault("has fingerprint or ca_file, which are for rtsps:// only: remove it, or change the URL");
        }
        (Some(f), None) => return f.map(CameraTrust::Fingerprint),
        (None, Some(p)) => return p.map(CameraTrust::Authority),
        (None, None) => {}
    }
    None
}

/// 32 bytes in hexadecimal, with colons or without.
fn sha256(text: &str) -> Result<[u8; 32], String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let mut out = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(
            "is no SHA-256 fingerprint: 64 hexadecimal digits, with colons or without".into(),
        );
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[i * 2..i * 2 + 2], 16)
            .map_err(|_| "holds something else than hexadecimal digits and colons".to_owned())?;
    }
    Ok(out)
}

/// The rules of a box without `rules.toml`: a call for help is never lost for want of a file.
pub(super) fn default_rules() -> Vec<Rule> {
    vec![Rule {
        name: "sos".into(),
        kind: "sos".into(),
        when: "report.sos".into(),
        severity: Severity::Critical,
        priority: Priority::P0,
        note: None,
    }]
}

pub(super) fn rules(source: &Source, checks: &Checks) -> Vec<Rule> {
    let Some(mut top) = source.parse() else {
        return Vec::new();
    };
    let mut names = Unique::default();
    let list = top.tables("rule");
    top.finish();
    list.into_iter()
        .filter_map(|t| rule(t, &mut names, checks))
        .collect()
}

fn rule(mut t: Table<'_>, names: &mut Unique, checks: &Checks) -> Option<Rule> {
    let name = t.required("name", "a name").and_then(|f| {
        let at = f.at.clone();
        let name = f.read(super::id)?;
        names.note(&at, &name);
        Some(name)
    });
    let kind = match t.optional("kind") {
        Some(f) => f.read(kind),
        None => name.clone(),
    };
    let condition = t.required("when", "a CEL condition, e.g. when = \"report.sos\"");
    let severity = t
        .required("severity", "critical, major, minor or notice")
        .and_then(|f| f.read(severity));
    let priority = t.optional("priority").map_or(Some(Priority::P1), |f| {
        f.read(|s| match s {
            "P0" => Ok(Priority::P0),
            "P1" => Ok(Priority::P1),
            _ => Err(format!(
                "is {s:?}, but must be \"P0\" (safety, goes first) or \"P1\""
            )),
        })
    });
    let note = t.optional("note").and_then(Found::text);
    t.finish();
    let condition = condition?;
    let at = condition.at.clone();
    // A rule with a fault elsewhere still has its condition checked: all faults come at once.
    let rule = Rule {
        name: name.clone().unwrap_or_default(),
        kind: kind.clone().unwrap_or_default(),
        when: condition.text()?,
        severity: severity.unwrap_or(Severity::Notice),
        priority: priority.unwrap_or(Priority::P1),
        note,
    };
    if let Err(reason) = (checks.rule)(&rule) {
        at.fault(reason.replace('\n', "; "));
    }
    (name.is_some() && kind.is_some() && severity.is_some() && priority.is_some()).then_some(rule)
}

fn kind(s: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if (1..=64).contains(&s.len()) && s.chars().all(fits) {
        Ok(s.to_owned())
    } else {
        Err(format!("{s:?} is not a kind: a-z, 0-9 and _, at most 64"))
    }
}

fn severity(s: &str) -> Result<Severity, String> {
    match s {
        "critical" => Ok(Severity::Critical),
        "major" => Ok(Severity::Major),
        "minor" => Ok(Severity::Minor),
        "notice" => Ok(Severity::Notice),
        _ => Err(format!(
            "is {s:?}, but must be critical, major, minor or notice"
        )),
    }
}

/// `raised`: the kinds that some rule raises; None when the rules have faults themselves.
pub(super) fn platforms(
    source: &Source,
    raised: Option<&BTreeSet<String>>,
    credentials: &Credentials,
) -> Vec<Platform> {
    let Some(mut top) = source.parse() else {
        return Vec::new();
    };
    let mut names = Unique::default();
    let list = top.tables("platform");
    top.finish();
    list.into_iter()
        .filter_map(|t| platform(t, &mut names, raised, credentials))
        .collect()
}

fn platform(
    mut t: Table<'_>,
    names: &mut Unique,
    raised: Option<&BTreeSet<String>>,
    credentials: &Credentials,
) -> Option<Platform> {
    let name = t.required("name", "a name").and_then(|f| {
        let at = f.at.clone();
        let name = f.read(super::id)?;
        names.note(&at, &name);
        Some(name)
    });
    let url = t
        .required("url", "the address that takes CloudEvents, https://…")
        .and_then(|f| url(f, &["http", "https"]));
    let token = secret::read(&mut t, "token_credential", "token_file", credentials);
    let ca_file = t.optional("ca_file").and_then(|f| f.path(false));
    let kinds = t.optional("kinds").and_then(Found::list);
    let kinds = kinds
        .into_iter()
        .flatten()
        .filter_map(|f| f.read(|s| known_kind(s, raised)))
        .collect();
    let timeout = seconds(&mut t, "timeout_s", 1..=120, 10);
    let retry_min = seconds(&mut t, "retry_s_min", 1..=3600, 1);
    let retry_max = seconds(&mut t, "retry_s_max", 1..=86_400, 300);
    if retry_max < retry_min {
        t.at.fault("retry_s_max is less than retry_s_min: make it larger");
    }
    let concurrency = t
        .optional("concurrency")
        .map_or(Some(4), |f| f.integer(1..=64));
    t.finish();
    Some(Platform {
        name: name?,
        url: url?,
        token: token.value,
        ca_file,
        kinds,
        timeout,
        retry_min,
        retry_max,
        concurrency: usize::try_from(concurrency?).ok()?,
    })
}

fn seconds(
    t: &mut Table<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    default: u64,
) -> Duration {
    t.optional(key)
        .and_then(|f| f.seconds(range))
        .unwrap_or(Duration::from_secs(default))
}

fn known_kind(s: &str, raised: Option<&BTreeSet<String>>) -> Result<String, String> {
    match raised {
        Some(raised) if !raised.contains(s) => {
            let kinds: Vec<_> = raised.iter().map(String::as_str).collect();
            let hint = super::table::nearest(s, &kinds).map_or_else(
                || format!("raised are: {}", kinds.join(", ")),
                |k| format!("did you mean {k:?}?"),
            );
            Err(format!("no rule raises {s:?}; {hint}"))
        }
        _ => Ok(s.to_owned()),
    }
}

fn url(f: Found<'_>, schemes: &[&str]) -> Option<url::Url> {
    f.read(|s| {
        // The text itself is not repeated: it may hold a password.
        let url = url::Url::parse(s).map_err(|e| format!("is not a URL: {e}"))?;
        if !schemes.contains(&url.scheme()) {
            Err(format!(
                "starts with {}://, but must start with {}://",
                url.scheme(),
                schemes.join(":// or ")
            ))
        } else if !url.has_host() {
            Err("has no host".to_owned())
        } else if !url.username().is_empty() || url.password().is_some() {
            Err("must not hold credentials: use the keys for them".to_owned())
        } else if url.fragment().is_some() {
            Err("must not have a #fragment".to_owned())
        } else {
            Ok(url)
        }
    })
}

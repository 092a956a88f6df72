//! `[[source]]` of `devices.toml`: devices that send telemetry in datagrams, and by what each is known.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kerbside_codecs::telemetry::datagram::Key;

use super::Source;
use super::secret::{self, Credentials};
use super::table::Table;
use crate::ids::DeviceId;

pub(super) fn read(
    tables: Vec<Table<'_>>,
    has_port: bool,
    credentials: &Credentials,
) -> Vec<Source> {
    let mut all: Vec<(usize, Source)> = Vec::new();
    for t in tables {
        let at = t.at.clone();
        let Some(source) = source(t, has_port, credentials) else {
            continue;
        };
        if let Some((line, _)) = all.iter().find(|(_, other)| is_same(other, &source)) {
            at.fault(format!(
                "cannot be told from the source at line {line}: give the two different addresses, ports or sysids"
            ));
        }
        all.push((at.line, source));
    }
    all.into_iter().map(|(_, source)| source).collect()
}

fn is_same(a: &Source, b: &Source) -> bool {
    fn meet<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
        a.zip(b).is_none_or(|(a, b)| a == b)
    }
    a.listen == b.listen
        && a.sysid == b.sysid
        && meet(a.address, b.address)
        && meet(a.from_port, b.from_port)
}

fn source(mut t: Table<'_>, has_port: bool, credentials: &Credentials) -> Option<Source> {
    let device = t
        .required("device", "the id of a registered device")
        .and_then(|f| f.read(|s| DeviceId::parse(s).map_err(|e| e.to_string())));
    let from = t.optional("address").map(|f| f.read(address));
    let listen = t.optional("listen").map(|f| f.read(listen));
    let sysid = t.optional("sysid").map_or(Some(1), |f| f.integer(1..=255));
    let secret = secret::read(&mut t, "key_credential", "key_file", credentials);
    let silence = t
        .optional("silence_s")
        .map_or(Some(Duration::from_secs(10)), |f| f.seconds(1..=3600));
    if from.is_none() && !secret.named {
        t.at.fault("says nothing by which it is known: add the address its datagrams come from, or a MAVLink signing key");
    }
    if listen.is_none() && !has_port {
        t.at.fault("is heard nowhere: set listen.datagram in gateway.toml, or give it an address of its own with listen");
    }
    let key = secret
        .value
        .map(|text| key(&text).map_err(|reason| t.at.fault(reason)).ok());
    t.finish();
    let (address, from_port) = from.unwrap_or(Some((None, None)))?;
    Some(Source {
        device: device?,
        address,
        from_port,
        listen: match listen {
            Some(listen) => Some(listen?),
            None => None,
        },
        sysid: u8::try_from(sysid?).ok()?,
        key: match key {
            Some(key) => Some(key?),
            None => None,
        },
        silence: silence?,
    })
}

/// `IP` or `IP:PORT`.
fn address(text: &str) -> Result<(Option<IpAddr>, Option<u16>), String> {
    let read = match text.parse::<IpAddr>() {
        Ok(ip) => Some((ip, None)),
        Err(_) => text
            .parse::<SocketAddr>()
            .ok()
            .map(|a| (a.ip(), Some(a.port()))),
    };
    match read {
        Some((ip, port)) if !ip.is_unspecified() && !ip.is_multicast() && port != Some(0) => {
            Ok((Some(ip.to_canonical()), port))
        }
        _ => Err(format!(
            "{text:?} is not where a device sends from: write IP or IP:PORT, e.g. \"192.0.2.20\""
        )),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(a) if a.port() != 0 => Ok(a),
        _ => Err(format!(
            "{text:?} is not an address to listen at: write IP:PORT, e.g. \"0.0.0.0:14551\""
        )),
    }
}

/// 64 hexadecimal digits. The text itself is not repeated: it is a secret.
fn key(text: &str) -> Result<Key, String> {
    let bad = || "has a key that is not 64 hexadecimal digits (32 bytes)".to_owned();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let mut key = [0; 32];
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).map_err(|_| bad())?;
    }
    Ok(Key(key))
}

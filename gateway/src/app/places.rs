//! Where devices reach this box: the addresses that orders name when the user gives none.

use std::net::{IpAddr, SocketAddr};

use crate::config::Config;
use crate::device::orders::Places;

/// Plain ports that are open to the network first (somebody opened them on purpose), then TLS, then this machine.
pub fn places(config: &Config) -> Places {
    let l = &config.listen;
    let outward = outward(config);
    let place = |scheme: &str, plain: Option<SocketAddr>, tls: Option<SocketAddr>| {
        let open = plain.filter(|a| !a.ip().is_loopback());
        let (secure, at) = match (open, tls, plain) {
            (Some(at), _, _) | (None, None, Some(at)) => ("", at),
            (None, Some(at), _) => ("s", at),
            (None, None, None) => return None,
        };
        let host = match (&config.orders_host, at.ip()) {
            (Some(host), _) => host.clone(),
            (None, ip) if ip.is_unspecified() => written(outward?),
            (None, ip) => written(ip),
        };
        Some(format!("{scheme}{secure}://{host}:{}", at.port()))
    };
    Places {
        rtsp: place("rtsp", l.rtsp, l.rtsps),
        http: place("http", l.http, l.https),
    }
}

/// The first address of this box that others can reach.
fn outward(config: &Config) -> Option<IpAddr> {
    if let Some(ip) = config.webrtc.announce.first() {
        return Some(*ip);
    }
    let interfaces = rtc::shared::ifaces::ifaces().ok()?;
    let mut all: Vec<IpAddr> = interfaces
        .into_iter()
        .filter_map(|i| Some(i.addr?.ip()))
        .collect();
    all.retain(|ip| match ip {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    });
    all.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    all.first().copied()
}

fn written(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

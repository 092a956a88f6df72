//! The reader of the gateway's `listen/mqtt`, whose first packet strangers send.

use bytes::BytesMut;

use super::connect;
use super::packet::{self, Packet, Version, next_frame};

#[allow(
    dead_code,
    reason = "the tests run all of them, cargo-fuzz one by name"
)]
/// What is fuzzed; it panics for a fault.
pub type Target = fn(&[u8]);

/// Each by its name.
pub const TARGETS: [(&str, Target); 1] = [("mqtt", mqtt)];

/// Larger packets are refused.
const PACKET_BYTES_MAX: u32 = 4096;

/// What one client sends: CONNECT, or packets at once, which are then of v3.1.1 and of v5.
pub fn mqtt(data: &[u8]) {
    let mut buf = BytesMut::from(data);
    let mut versions = vec![Version::V311, Version::V5];
    let mut left = buf.len();
    while let Ok(Some(frame)) = next_frame(&mut buf, PACKET_BYTES_MAX) {
        let size = left - buf.len();
        assert!(
            (2..=PACKET_BYTES_MAX as usize).contains(&size),
            "{size} bytes"
        );
        left = buf.len();
        if frame.first >> 4 == 1 {
            if let Ok(c) = connect::connect(&frame) {
                let will = c.will.map_or(0, |w| w.topic.len() + w.payload.len());
                let login = c.user.map_or(0, |u| u.len()) + c.password.map_or(0, |p| p.len());
                assert!(c.client_id.len() + will + login <= size);
                assert!(c.receive_max > 0 && c.packet_bytes_max > 0);
                versions = vec![c.version];
            }
            continue;
        }
        for &version in &versions {
            if let Ok(packet) = packet::packet(version, &frame) {
                check(&packet, size);
            }
        }
    }
}

/// What a packet of so many bytes may hold.
fn check(packet: &Packet, size: usize) {
    match packet {
        Packet::Publish(p) => {
            assert!(p.topic.len() + p.payload.len() <= size);
            assert!(!p.topic.contains(['+', '#', '\0']));
            assert!(p.qos <= 2 && (p.qos == 0) == (p.id == 0));
            assert!(!p.topic.is_empty() || p.alias.is_some());
        }
        Packet::Subscribe { id, wanted, .. } => {
            assert!(*id > 0 && !wanted.is_empty() && wanted.len() <= size / 4);
            assert!(wanted.iter().all(|w| !w.filter.is_empty() && w.qos <= 2));
        }
        Packet::Unsubscribe { id, filters } => {
            assert!(*id > 0 && !filters.is_empty() && filters.len() <= size / 3);
        }
        Packet::Puback { id }
        | Packet::Pubrec { id, .. }
        | Packet::Pubrel { id }
        | Packet::Pubcomp { id } => assert!(*id > 0),
        Packet::Pingreq | Packet::Disconnect { .. } => {}
    }
}

//! End-to-end scenarios: the real gateway on free ports, judged by programs that we did not write where there are any.
//!
//! Build the gateway first (`cargo build -p kerbside`; `make test` does), or name it in `KERBSIDE_BIN`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod answers;
mod bad_input;
mod broker;
mod browser;
mod codecs;
mod crash;
mod datagram;
mod delivery;
mod device_json;
mod feed;
mod flood;
mod grid;
mod health;
mod history;
mod isolation;
mod mqtt;
mod mqtt_bad;
mod mqtt_certs;
mod mqtt_interop;
mod netem;
mod ops;
mod orders;
mod picture;
mod raw_rtsp;
mod rtsp;
mod snapshot;
mod tls;
mod tracks;
mod uplink;
mod webrtc;

use std::time::Duration;

/// Long enough for a busy machine, short enough to tell a hang.
const LIMIT: Duration = Duration::from_secs(20);

/// A report with a position, as our devices send it.
fn report(lat: f64, battery: u32) -> String {
    format!(
        r#"{{"position":{{"lat":{lat},"lon":112.75,"accuracy_m":5}},"battery_pct":{battery},"kind":"bodycam"}}"#
    )
}

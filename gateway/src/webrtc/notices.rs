//! What a reader is told beside the picture: on a data channel that it opened (RFC 8831, RFC 8832), as JSON text.
//!
//! Here: SCTP over the session's DTLS, as far as one side that only speaks needs it. What the reader says is not
//! read. Not here: DTLS (`secure`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rtc::sctp::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ServerConfig, StreamEvent, StreamId, TransportConfig,
};
use rtc::shared::TransportProtocol;
use serde::Serialize;

/// The reader has little to say.
const RECEIVE_BUFFER: u32 = 16 << 10;
const MESSAGE_MAX: u32 = 1024;
const STREAMS_MAX: u16 = 16;
/// Told and not yet taken; a reader that is so far behind is told no more.
const WAITING_BYTES_MAX: usize = 8 << 10;
/// Data channel establishment protocol (RFC 8832 §8.2): OPEN is answered with ACK.
const OPEN: u8 = 3;
const ACK: u8 = 2;

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);

/// A notice, as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Frames lost just now because this reader was too slow.
    pub skipped: u64,
    /// All so far.
    pub lost: u64,
}

/// The data channels of one reader.
pub struct Notices {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    /// The channel that was opened last.
    channel: Option<StreamId>,
}

impl Notices {
    pub fn new() -> Self {
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(RECEIVE_BUFFER)
            .with_max_message_size(MESSAGE_MAX)
            .with_max_num_inbound_streams(STREAMS_MAX)
            .with_max_num_outbound_streams(STREAMS_MAX);
        Self {
            endpoint: Endpoint::new(
                PEER,
                TransportProtocol::UDP,
                Arc::new(EndpointConfig::default()),
                Some(Arc::new(ServerConfig::new(transport))),
            ),
            association: None,
            channel: None,
        }
    }

    /// Takes an SCTP packet.
    pub fn handle(&mut self, now: Instant, packet: Bytes) {
        match self.endpoint.handle(now, PEER, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(a))) if self.association.is_none() => {
                self.association = Some((handle, a));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((known, a)) = &mut self.association
                    && *known == handle
                {
                    a.handle_event(event);
                }
            }
            _ => {}
        }
        self.settle(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, a)) = &mut self.association {
            a.handle_timeout(now);
        }
        self.settle(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.association.as_ref()?.1.poll_timeout()
    }

    /// The next SCTP packets to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Vec<Bytes> {
        let Some((_, a)) = &mut self.association else {
            return Vec::new();
        };
        match a.poll_transmit(now).map(|t| t.message) {
            Some(Payload::RawEncode(packets)) => packets,
            _ => Vec::new(),
        }
    }

    /// Tells the reader; false when it opened no channel or does not take what it is told.
    pub fn tell(&mut self, now: Instant, notice: Notice) -> bool {
        let Some((_, a)) = &mut self.association else {
            return false;
        };
        let (Some(channel), Ok(text)) = (self.channel, serde_json::to_vec(&notice)) else {
            return false;
        };
        let Ok(mut stream) = a.stream(channel) else {
            return false;
        };
        if stream.buffered_amount().unwrap_or(usize::MAX) > WAITING_BYTES_MAX {
            return false;
        }
        stream
            .write_with_ppi(now, &text, PayloadProtocolIdentifier::String)
            .is_ok()
    }

    /// Reads what came; opens channels that were asked for.
    fn settle(&mut self, now: Instant) {
        let Some((handle, a)) = &mut self.association else {
            return;
        };
        while let Some(event) = a.poll() {
            if let Event::Stream(StreamEvent::Readable { id }) = event {
                read(a, id, now, &mut self.channel);
            }
        }
        let mut gone = None;
        while let Some(event) = a.poll_endpoint_event() {
            gone = Some((*handle, event));
        }
        if let Some((handle, event)) = gone {
            self.endpoint.handle_event(handle, event);
            self.association = None;
            self.channel = None;
        }
    }
}

fn read(a: &mut Association, id: StreamId, now: Instant, channel: &mut Option<StreamId>) {
    let Ok(mut stream) = a.stream(id) else {
        return;
    };
    while let Ok(Some(chunks)) = stream.read_sctp() {
        if chunks.ppi != PayloadProtocolIdentifier::Dcep {
            continue;
        }
        let is_open = chunks
            .to_payload(MESSAGE_MAX as usize)
            .is_ok_and(|m| m.first() == Some(&OPEN));
        if is_open
            && stream
                .write_with_ppi(now, &[ACK], PayloadProtocolIdentifier::Dcep)
                .is_ok()
        {
            *channel = Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtc::sctp::ClientConfig;
    use std::time::Duration;

    #[test]
    fn a_reader_that_opened_a_channel_is_told() {
        let mut now = Instant::now();
        let mut n = Notices::new();
        let notice = Notice {
            skipped: 25,
            lost: 50,
        };
        assert!(!n.tell(now, notice), "no channel yet");
        let mut client = Endpoint::new(
            PEER,
            TransportProtocol::UDP,
            Arc::new(EndpointConfig::default()),
            None,
        );
        let (_, mut a) = client
            .connect(now, ClientConfig::new(TransportConfig::default()), PEER)
            .unwrap();
        let mut opened = false;
        let mut heard = Vec::new();
        for _ in 0..50 {
            now += Duration::from_millis(10);
            while let Some(t) = a.poll_transmit(now) {
                if let Payload::RawEncode(packets) = t.message {
                    packets.into_iter().for_each(|p| n.handle(now, p));
                }
            }
            n.handle_timeout(now);
            for p in n.poll_transmit(now) {
                if let Some((_, DatagramEvent::AssociationEvent(e))) =
                    client.handle(now, PEER, None, p)
                {
                    a.handle_event(e);
                }
            }
            a.handle_timeout(now);
            while let Some(event) = a.poll() {
                match event {
                    Event::Connected => {
                        let mut s = a.open_stream(1, PayloadProtocolIdentifier::Dcep).unwrap();
                        let open = [OPEN, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                        s.write_with_ppi(now, &open, PayloadProtocolIdentifier::Dcep)
                            .unwrap();
                    }
                    Event::Stream(StreamEvent::Readable { id }) => {
                        let mut s = a.stream(id).unwrap();
                        while let Ok(Some(c)) = s.read_sctp() {
                            heard.push(c.to_payload(1000).unwrap().to_vec());
                        }
                    }
                    _ => {}
                }
            }
            if !opened && n.channel.is_some() {
                opened = true;
                assert!(n.tell(now, notice));
            }
        }
        assert_eq!(heard, [vec![ACK], br#"{"skipped":25,"lost":50}"#.to_vec()]);
    }

    proptest! {
        #[test]
        fn any_bytes(packets: Vec<Vec<u8>>) {
            let mut n = Notices::new();
            for p in packets {
                n.handle(Instant::now(), p.into());
            }
        }
    }
}

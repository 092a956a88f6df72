//! Why a connection ends, and what follows from it.

use kerbside_codecs::telemetry::Fault;

use super::packet::Bad;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client said DISCONNECT.
    Left,
    /// … and asked for its will to be published.
    LeftWithWill,
    /// The connection broke, or was closed without DISCONNECT.
    Broken,
    TakenOver,
    KeepAlive,
    Bad(Bad),
    /// More unacknowledged messages than the Receive Maximum.
    ReceiveMaximum,
    /// v3.1.1 has no other way to refuse a message.
    NotAuthorized,
    /// v3.1.1 has no other way to say that a message was not taken.
    NotOwned,
    /// The client does not read what it is sent.
    NotReading,
    /// The device was revoked.
    Revoked,
    ShuttingDown,
    /// No CONNECT in time.
    ConnectTimeout,
    Credentials,
    ClientId,
    /// The certificate names no device, another one than the user name, or one that is not registered.
    Certificate,
    /// It connects more often than allowed.
    TooOften,
    /// The TLS handshake failed.
    Tls,
    /// Too many connections, or too many of this device.
    Busy,
}

impl End {
    /// The metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Left | Self::LeftWithWill => "disconnect",
            Self::Broken => "broken",
            Self::TakenOver => "taken_over",
            Self::KeepAlive => "keep_alive",
            Self::Bad(Bad::TooLarge) => "too_large",
            Self::Bad(Bad::Version) => "version",
            Self::Bad(Bad::Protocol) => "protocol",
            Self::Bad(Bad::Alias) => "topic_alias",
            Self::Bad(Bad::Malformed) => "malformed",
            Self::Bad(Bad::TopicName) => "topic_name",
            Self::ReceiveMaximum => "receive_maximum",
            Self::NotAuthorized => "not_authorized",
            Self::NotOwned => "not_owned",
            Self::NotReading => "not_reading",
            Self::Revoked => "revoked",
            Self::ShuttingDown => "shutting_down",
            Self::ConnectTimeout => "connect_timeout",
            Self::Credentials => "credentials",
            Self::ClientId => "client_id",
            Self::Certificate => "certificate",
            Self::TooOften => "too_often",
            Self::Tls => "tls",
            Self::Busy => "busy",
        }
    }

    /// Reason code of the DISCONNECT a v5 client gets (§3.14.2.1); None: nobody is there to read it.
    pub fn disconnect_v5(self) -> Option<u8> {
        Some(match self {
            Self::Left | Self::LeftWithWill | Self::Broken | Self::Tls => return None,
            Self::TakenOver => 0x8e,
            Self::KeepAlive => 0x8d,
            Self::Bad(Bad::TooLarge) => 0x95,
            Self::Bad(Bad::Alias) => 0x94,
            Self::Bad(Bad::Protocol | Bad::Version) => 0x82,
            Self::Bad(Bad::Malformed) => 0x81,
            Self::Bad(Bad::TopicName) => 0x90,
            Self::ReceiveMaximum => 0x93,
            Self::NotAuthorized => 0x87,
            Self::NotOwned | Self::NotReading => 0x97,
            Self::Revoked | Self::Credentials | Self::ClientId | Self::Certificate => 0x98,
            Self::TooOften => 0x9f,
            Self::ShuttingDown => 0x8b,
            Self::ConnectTimeout | Self::Busy => 0x89,
        })
    }

    /// What the client is told to do, beside the reason code; empty: it knows.
    pub fn advice(self) -> &'static str {
        match self {
            Self::TakenOver => "another connection has the same client id: give each its own",
            Self::KeepAlive => {
                "nothing was heard for 1.5 times the keep-alive: send PINGREQ in time"
            }
            Self::Bad(Bad::TooLarge) => {
                "the packet is larger than the Maximum Packet Size of CONNACK"
            }
            Self::Bad(Bad::Alias) => {
                "set a topic alias before using it, from 1 to the maximum of CONNACK"
            }
            Self::Bad(Bad::TopicName) => "a topic with an alias has at most 512 bytes",
            Self::Bad(Bad::Protocol) => "this packet or property is not allowed here",
            Self::Bad(Bad::Malformed) => "the packet is not well-formed",
            Self::ReceiveMaximum => {
                "more unacknowledged messages than the Receive Maximum of CONNACK"
            }
            Self::NotReading => "nothing was read for 30 s",
            Self::Revoked => "the device was revoked or changed; ask the operator",
            Self::ShuttingDown => "the gateway stops; connect again in a few seconds",
            Self::TooOften => "connected too often: wait 30 s",
            _ => "",
        }
    }

    /// What the device did wrong, if it did, to be shown in its state.
    pub fn fault(self) -> Option<Fault> {
        Some(match self {
            Self::Bad(Bad::TooLarge) => Fault::MqttTooLarge,
            Self::Bad(Bad::Alias | Bad::TopicName) => Fault::MqttTopicAlias,
            Self::Bad(Bad::Protocol | Bad::Version) => Fault::MqttProtocol,
            Self::Bad(Bad::Malformed) => Fault::MqttMalformed,
            Self::ReceiveMaximum => Fault::MqttReceiveMaximum,
            Self::KeepAlive => Fault::MqttKeepAlive,
            Self::NotReading => Fault::MqttNotReading,
            Self::TooOften => Fault::MqttTooOften,
            // Counted with the message, or not its fault.
            _ => return None,
        })
    }

    /// Is the will published (v5 §3.1.2.5)? Not when the gateway stops: the device did not fail.
    pub fn publishes_will(self) -> bool {
        !matches!(self, Self::Left | Self::Revoked | Self::ShuttingDown)
    }

    /// Worth a line in the log: the other side did something wrong.
    pub fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::Left
                | Self::LeftWithWill
                | Self::Broken
                | Self::TakenOver
                | Self::KeepAlive
                | Self::ShuttingDown
                | Self::Credentials
        )
    }
}

impl From<Bad> for End {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

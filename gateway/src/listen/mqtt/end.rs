//! Why a connection ends, and what follows from it.

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
    /// Subscription identifiers are announced as not available.
    SubscriptionIdentifier,
    /// The client does not read what it is sent.
    NotReading,
    /// The device was revoked.
    Revoked,
    ShuttingDown,
    /// No CONNECT in time.
    ConnectTimeout,
    Credentials,
    ClientId,
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
            Self::ReceiveMaximum => "receive_maximum",
            Self::NotAuthorized => "not_authorized",
            Self::NotOwned => "not_owned",
            Self::SubscriptionIdentifier => "subscription_identifier",
            Self::NotReading => "not_reading",
            Self::Revoked => "revoked",
            Self::ShuttingDown => "shutting_down",
            Self::ConnectTimeout => "connect_timeout",
            Self::Credentials => "credentials",
            Self::ClientId => "client_id",
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
            Self::ReceiveMaximum => 0x93,
            Self::NotAuthorized => 0x87,
            Self::NotOwned | Self::NotReading => 0x97,
            Self::SubscriptionIdentifier => 0xa1,
            Self::Revoked | Self::Credentials | Self::ClientId => 0x98,
            Self::ShuttingDown => 0x8b,
            Self::ConnectTimeout | Self::Busy => 0x89,
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

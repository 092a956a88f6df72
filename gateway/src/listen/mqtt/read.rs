//! The bytes of a packet, read front to back: numbers, texts and v5 properties, for both versions in one place.
//!
//! Here: what is well-formed (v5 §1.5, §2.2.2). Not here: which packet may carry what (`packet`, `connect`).

use super::packet::Bad;

/// What is left of a packet.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn left(&self) -> usize {
        self.0.len()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Bad> {
        let (front, rest) = self.0.split_at_checked(n).ok_or(Bad::Malformed)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Bad::Malformed)?;
        self.0 = rest;
        Ok(*front)
    }

    pub fn byte(&mut self) -> Result<u8, Bad> {
        self.array().map(|[b]| b)
    }

    pub fn two(&mut self) -> Result<u16, Bad> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn four(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_be_bytes)
    }

    /// Variable byte integer (v5 §1.5.5).
    pub fn variable(&mut self) -> Result<u32, Bad> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let b = self.byte()?;
            value |= u32::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Bad::Malformed)
    }

    /// Two bytes of length and so many bytes.
    pub fn block(&mut self) -> Result<&'a [u8], Bad> {
        let len = self.two()?;
        self.take(len.into())
    }

    /// UTF-8 without U+0000 (v5 §1.5.4).
    pub fn text(&mut self) -> Result<&'a str, Bad> {
        let text = std::str::from_utf8(self.block()?).map_err(|_| Bad::Malformed)?;
        if text.contains('\0') {
            return Err(Bad::Malformed);
        }
        Ok(text)
    }

    /// A packet identifier, which is never 0 (v5 §2.2.1).
    pub fn packet_id(&mut self) -> Result<u16, Bad> {
        match self.two()? {
            0 => Err(Bad::Malformed),
            id => Ok(id),
        }
    }

    /// The properties of a v5 packet, of which only `allowed` may be there, each once but user properties (§2.2.2).
    ///
    /// # Errors
    /// [`Bad::Malformed`]: an unknown property or one cut short. [`Bad::Protocol`]: one that may not be here, a second
    /// time, or with a value it must not have.
    pub fn properties(&mut self, allowed: &[u8]) -> Result<Properties, Bad> {
        let mut found = Properties::default();
        let len = self.variable()?;
        if len == 0 {
            return Ok(found);
        }
        let mut r = Reader(self.take(len as usize)?);
        let mut seen = 0u64;
        while !r.is_empty() {
            let id = r.byte()?;
            found.read(&mut r, id)?;
            let bit = 1u64 << id;
            if !allowed.contains(&id) || (id != property::USER && seen & bit != 0) {
                return Err(Bad::Protocol);
            }
            seen |= bit;
        }
        Ok(found)
    }
}

/// Identifiers of properties that a client may send (v5 §2.2.2.2).
pub(super) mod property {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const PROBLEM_INFO: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const RESPONSE_INFO: u8 = 0x19;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAX: u8 = 0x21;
    pub const ALIAS_MAX: u8 = 0x22;
    pub const ALIAS: u8 = 0x23;
    pub const USER: u8 = 0x26;
    pub const PACKET_BYTES_MAX: u8 = 0x27;
}

/// The properties that change what we do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Properties {
    pub session_expiry_s: Option<u32>,
    pub receive_max: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub problem_info: Option<bool>,
    pub has_auth_method: bool,
    pub has_auth_data: bool,
    pub will_delay_s: Option<u32>,
    pub alias: Option<u16>,
    pub subscription_id: Option<u32>,
}

impl Properties {
    /// Reads the value of one property; all are of known shape, or nothing behind an unknown one could be read.
    fn read(&mut self, r: &mut Reader, id: u8) -> Result<(), Bad> {
        fn flag(r: &mut Reader) -> Result<bool, Bad> {
            match r.byte()? {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(Bad::Protocol),
            }
        }
        fn counted<T: Default + PartialEq>(n: T) -> Result<Option<T>, Bad> {
            (n != T::default()).then_some(Some(n)).ok_or(Bad::Protocol)
        }
        match id {
            property::PAYLOAD_FORMAT | property::RESPONSE_INFO => {
                flag(r)?;
            }
            property::PROBLEM_INFO => self.problem_info = Some(flag(r)?),
            property::MESSAGE_EXPIRY => {
                r.four()?;
            }
            property::CONTENT_TYPE | property::REASON_STRING => {
                r.text()?;
            }
            property::RESPONSE_TOPIC => {
                if r.text()?.contains(['+', '#']) {
                    return Err(Bad::Protocol);
                }
            }
            property::CORRELATION_DATA => {
                r.block()?;
            }
            property::SUBSCRIPTION_ID => self.subscription_id = counted(r.variable()?)?,
            property::SESSION_EXPIRY => self.session_expiry_s = Some(r.four()?),
            property::AUTH_METHOD => {
                r.text()?;
                self.has_auth_method = true;
            }
            property::AUTH_DATA => {
                r.block()?;
                self.has_auth_data = true;
            }
            property::WILL_DELAY => self.will_delay_s = Some(r.four()?),
            property::RECEIVE_MAX => self.receive_max = counted(r.two()?)?,
            property::ALIAS_MAX => {
                r.two()?;
            }
            property::ALIAS => self.alias = Some(r.two()?),
            property::USER => {
                r.text()?;
                r.text()?;
            }
            property::PACKET_BYTES_MAX => self.packet_bytes_max = counted(r.four()?)?,
            // What only a server says.
            0x12 | 0x1a | 0x1c => {
                r.text()?;
                return Err(Bad::Protocol);
            }
            0x13 | 0x24 | 0x25 | 0x28..=0x2a => return Err(Bad::Protocol),
            _ => return Err(Bad::Malformed),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(bytes: &[u8], allowed: &[u8]) -> Result<Properties, Bad> {
        let whole = [&[u8::try_from(bytes.len()).unwrap()], bytes].concat();
        Reader::new(&whole).properties(allowed)
    }

    #[test]
    fn properties_are_told_apart_and_checked() {
        use property::*;
        let found = properties(
            &[0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 0, 0, 0, 0x21, 0, 7],
            &[USER, RECEIVE_MAX],
        );
        assert_eq!(found.unwrap().receive_max, Some(7));
        for (bytes, allowed, bad) in [
            (&[0x21, 0, 0][..], RECEIVE_MAX, Bad::Protocol), // zero
            (&[0x21, 0, 1, 0x21, 0, 1], RECEIVE_MAX, Bad::Protocol), // twice
            (&[0x21, 0, 1], USER, Bad::Protocol),            // not in this packet
            (&[0x17, 2], PROBLEM_INFO, Bad::Protocol),       // neither 0 nor 1
            (&[0x27, 0, 0, 0, 0], PACKET_BYTES_MAX, Bad::Protocol),
            (&[0x0b, 0], SUBSCRIPTION_ID, Bad::Protocol),
            (&[0x08, 0, 1, b'#'], RESPONSE_TOPIC, Bad::Protocol),
            (&[0x24, 1], USER, Bad::Protocol), // only a server says that
            (&[0x7f], USER, Bad::Malformed),
            (&[0x21, 0], RECEIVE_MAX, Bad::Malformed), // cut short
            (&[0x26, 0, 1, 0, 0, 0], USER, Bad::Malformed), // U+0000
            (&[0x26, 0, 2, 0xc3, 0x28, 0, 0], USER, Bad::Malformed), // no UTF-8
            (&[0x26, 0, 3, 0xed, 0xa0, 0x80, 0, 0], USER, Bad::Malformed), // a surrogate
        ] {
            assert_eq!(properties(bytes, &[allowed]), Err(bad), "{bytes:x?}");
        }
        assert_eq!(
            Reader::new(&[5, 0x21]).properties(&[RECEIVE_MAX]),
            Err(Bad::Malformed)
        );
    }

    #[test]
    fn variable_integers_have_at_most_four_bytes() {
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0x7f]).variable(),
            Ok(268_435_455)
        );
        assert_eq!(
            Reader::new(&[0x80, 0x80, 0x80, 0x80, 1]).variable(),
            Err(Bad::Malformed)
        );
        assert_eq!(Reader::new(&[0x80]).variable(), Err(Bad::Malformed));
    }
}

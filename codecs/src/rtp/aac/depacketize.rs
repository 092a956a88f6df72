//! RTP payloads to AAC access units (RFC 3640 §3.2): several in a packet, or one in several packets.

use bytes::{Bytes, BytesMut};

use super::super::bits::Bits;
use super::super::units::Fault;
use super::config::{AudioConfig, Packing};

/// An access unit larger than this is not one: 8 channels of 6,144 bits (ISO/IEC 14496-3), and the size field's limit.
pub const AU_BYTES_MAX: usize = 8191;
/// More access units than this in one packet are refused.
const AUS_MAX: usize = 64;

/// Index (counted from the packet's first) and size of access units.
type Announced = Vec<(u64, usize)>;

/// Puts packets together. Feed it in order.
#[derive(Debug)]
pub struct AacDepacketizer {
    packing: Packing,
    /// Ticks from one access unit to the next.
    step: u64,
    /// An access unit that is not whole yet: its time, its size, what came of it.
    fragment: Option<(u64, usize, BytesMut)>,
}

impl AacDepacketizer {
    /// `clock_rate`: of the medium.
    pub fn new(config: &[u8], packing: Packing, clock_rate: u32) -> Self {
        let step = AudioConfig::parse(config).map_or(1024, |c| c.frame_ticks(clock_rate));
        Self {
            packing,
            step,
            fragment: None,
        }
    }

    /// Forgets what is not whole.
    pub fn restart(&mut self) {
        self.fragment = None;
    }

    /// Gives whole access units and their times to `out`. `lost`: packets are missing right before this one.
    ///
    /// # Errors
    /// [`Fault`]; what was given before it stands.
    pub fn push(
        &mut self,
        payload: &Bytes,
        time: u64,
        lost: bool,
        mut out: impl FnMut(u64, Bytes),
    ) -> Result<(), Fault> {
        if lost {
            self.fragment = None;
        }
        let (sizes, data) = self.headers(payload)?;
        if let [(_, size)] = sizes[..]
            && size > 0
            && (size > data.len() || self.fragment.is_some())
        {
            return self.part(size, data, time, out);
        }
        let broken = self.fragment.take().is_some();
        let mut at = 0;
        for (index, size) in sizes {
            let au = data.get(at..at + size).ok_or(Fault::Malformed)?;
            at += size;
            if !au.is_empty() {
                out(time + self.step * index, Bytes::copy_from_slice(au));
            }
        }
        if broken {
            Err(Fault::Malformed)
        } else {
            Ok(())
        }
    }

    /// What the AU headers announce, and the bytes behind them.
    fn headers<'a>(&self, payload: &'a [u8]) -> Result<(Announced, &'a [u8]), Fault> {
        let (bits, rest) = payload.split_first_chunk::<2>().ok_or(Fault::Malformed)?;
        let bits = u32::from(u16::from_be_bytes(*bits));
        let bytes = bits.div_ceil(8) as usize;
        let (headers, data) = rest.split_at_checked(bytes).ok_or(Fault::Malformed)?;
        let mut read = Bits::plain(headers);
        let mut left = bits;
        let mut sizes = Vec::new();
        let mut index = 0;
        loop {
            let width = if sizes.is_empty() {
                self.packing.index
            } else {
                self.packing.index_delta
            };
            let header = u32::from(self.packing.size) + u32::from(width);
            if header == 0 || left < header {
                break;
            }
            left -= header;
            let size = read
                .bits(self.packing.size.into())
                .ok_or(Fault::Malformed)? as usize;
            let field = read.bits(width.into()).ok_or(Fault::Malformed)?;
            if size > AU_BYTES_MAX || sizes.len() >= AUS_MAX {
                return Err(Fault::TooLarge);
            }
            if !sizes.is_empty() {
                // AU-Index-delta (§3.2.1.1): 0 is the next one, more is interleaving.
                index += u64::from(field) + 1;
            }
            sizes.push((index, size));
        }
        if sizes.is_empty() {
            return Err(Fault::Malformed);
        }
        Ok((sizes, data))
    }

    /// Part of an access unit that is in several packets: each says the size of the whole (§3.2.3).
    fn part(
        &mut self,
        size: usize,
        data: &[u8],
        time: u64,
        mut out: impl FnMut(u64, Bytes),
    ) -> Result<(), Fault> {
        let (former, mut au) = match self.fragment.take() {
            Some(f) if f.0 == time && f.1 == size => (Ok(()), f.2),
            // The rest of the former one never came.
            Some(_) => (Err(Fault::Malformed), BytesMut::with_capacity(size)),
            None => (Ok(()), BytesMut::with_capacity(size)),
        };
        if au.len() + data.len() > size {
            return Err(Fault::Malformed);
        }
        au.extend_from_slice(data);
        if au.len() == size {
            out(time, au.freeze());
        } else {
            self.fragment = Some((time, size, au));
        }
        former
    }
}

//! Bits, most significant first: of an RBSP (H.264 §7.3.1) with its emulation prevention bytes skipped, or of plain
//! bytes; Exp-Golomb numbers.

pub struct Bits<'a> {
    data: &'a [u8],
    byte: usize,
    bit: u8,
    zeros: u8,
    emulation: bool,
}

impl<'a> Bits<'a> {
    /// `data` is a NAL unit behind its header byte.
    pub fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            byte: 0,
            bit: 0,
            zeros: 0,
            emulation: true,
        }
    }

    /// Without emulation prevention.
    pub fn plain(data: &'a [u8]) -> Self {
        Self {
            emulation: false,
            ..Self::new(data)
        }
    }

    pub fn bit(&mut self) -> Option<u32> {
        if self.emulation
            && self.bit == 0
            && self.zeros >= 2
            && self.data.get(self.byte) == Some(&3)
        {
            self.byte += 1;
            self.zeros = 0;
        }
        let b = *self.data.get(self.byte)?;
        let value = u32::from(b >> (7 - self.bit) & 1);
        self.bit += 1;
        if self.bit == 8 {
            self.bit = 0;
            self.byte += 1;
            self.zeros = if b == 0 {
                self.zeros.saturating_add(1)
            } else {
                0
            };
        }
        Some(value)
    }

    /// `n` ≤ 32 bits.
    pub fn bits(&mut self, n: u32) -> Option<u32> {
        (0..n).try_fold(0, |v: u32, _| Some(v << 1 | self.bit()?))
    }

    /// ue(v), H.264 §9.1.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// se(v), H.264 §9.1.1.
    pub fn se(&mut self) -> Option<i64> {
        let k = i64::from(self.ue()?);
        Some(if k % 2 == 0 { -(k / 2) } else { k / 2 + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golomb_and_emulation_prevention() {
        // 1 | 010 | 011 | 00100 | …
        let mut b = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!(
            [b.ue(), b.ue(), b.ue(), b.ue()],
            [Some(0), Some(1), Some(2), Some(3)]
        );
        let mut b = Bits::new(&[0, 0, 3, 1]);
        assert_eq!(b.bits(24), Some(1));
        assert_eq!(b.bit(), None);
        assert_eq!(Bits::plain(&[0, 0, 3, 1]).bits(32), Some(0x301));
        let mut b = Bits::new(&[0b0100_1100]);
        assert_eq!((b.se(), b.se()), (Some(1), Some(-1)));
    }
}

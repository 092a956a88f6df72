//! A look into the DTLS ClientHello before the library reads it: which SRTP profiles does the client know?
//!
//! Browsers send it in two datagrams (post-quantum key shares are long), with extensions in random order. Here: the
//! datagrams of a hello until it is whole. Not here: the handshake (`secure`).

use bytes::Bytes;

/// A hello in more datagrams or longer than this is handed on unread.
const DATAGRAMS_MAX: usize = 4;
const BYTES_MAX: usize = 8192;

const RECORD: usize = 13;
const HANDSHAKE_HEADER: usize = 12;

/// The datagrams of a ClientHello so far.
#[derive(Debug, Default)]
pub struct Hello {
    datagrams: Vec<Bytes>,
}

impl Hello {
    /// Takes a datagram; true when the hello is whole or waiting for more of it is of no use.
    pub fn push(&mut self, datagram: &[u8]) -> bool {
        self.datagrams.push(Bytes::copy_from_slice(datagram));
        let is_part = fragments(datagram).next().is_some();
        !is_part || self.whole().is_some() || self.datagrams.len() >= DATAGRAMS_MAX
    }

    pub fn into_datagrams(self) -> impl Iterator<Item = Bytes> {
        self.datagrams.into_iter()
    }

    /// False also when the hello cannot be read.
    pub fn knows_aes_128_gcm(&self) -> bool {
        const AEAD_AES_128_GCM: [u8; 2] = [0x00, 0x07];
        self.whole().is_some_and(|hello| {
            srtp_profiles(&hello).is_some_and(|p| p.chunks_exact(2).any(|p| p == AEAD_AES_128_GCM))
        })
    }

    /// The body of the ClientHello, if all of it is here.
    fn whole(&self) -> Option<Vec<u8>> {
        let mut parts: Vec<_> = self.datagrams.iter().flat_map(|d| fragments(d)).collect();
        parts.sort_by_key(|f| f.offset);
        let length = parts.first()?.length;
        let mut body = Vec::with_capacity(length.min(BYTES_MAX));
        for f in parts.iter().filter(|f| f.length == length) {
            // Repetitions and overlaps are allowed, gaps are not.
            let known = body.len().checked_sub(f.offset)?;
            body.extend_from_slice(f.content.get(known..).unwrap_or_default());
        }
        (body.len() == length && length <= BYTES_MAX).then_some(body)
    }
}

struct Fragment<'a> {
    length: usize,
    offset: usize,
    content: &'a [u8],
}

/// The parts of a ClientHello in a datagram (RFC 6347 §4.1, §4.2.2).
fn fragments(mut datagram: &[u8]) -> impl Iterator<Item = Fragment<'_>> {
    std::iter::from_fn(move || {
        const HANDSHAKE: u8 = 22;
        const CLIENT_HELLO: u8 = 1;
        let (record, rest) = datagram.split_at_checked(RECORD)?;
        let size = usize::from(u16::from_be_bytes([record[11], record[12]]));
        let (body, rest) = rest.split_at_checked(size)?;
        datagram = rest;
        let (header, content) = body.split_at_checked(HANDSHAKE_HEADER)?;
        if record[0] != HANDSHAKE || header[0] != CLIENT_HELLO {
            return None;
        }
        let fragment = Fragment {
            length: number(&header[1..4]),
            offset: number(&header[6..9]),
            content: content.get(..number(&header[9..12]))?,
        };
        Some(fragment)
    })
}

/// The profiles in the use_srtp extension (RFC 5764 §4.1.1).
fn srtp_profiles(hello: &[u8]) -> Option<&[u8]> {
    const USE_SRTP: usize = 14;
    let mut rest = hello.get(2 + 32..)?;
    // Session id, cookie, cipher suites, compression methods.
    for width in [1, 1, 2, 1] {
        rest = vector(rest, width)?.1;
    }
    let mut extensions = vector(rest, 2)?.0;
    while let Some((kind, after)) = extensions.split_at_checked(2) {
        let (content, after) = vector(after, 2)?;
        if number(kind) == USE_SRTP {
            return Some(vector(content, 2)?.0);
        }
        extensions = after;
    }
    None
}

/// A vector with its length before it, and what follows.
fn vector(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_at_checked(width)?;
    rest.split_at_checked(number(len))
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(profiles: &[u8]) -> Vec<u8> {
        let mut h = vec![0xfe, 0xfd];
        h.extend([9; 32]);
        h.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
        let srtp_len = u8::try_from(profiles.len()).unwrap();
        let mut extensions = vec![0, 23, 0, 0];
        extensions.extend([0, 14, 0, srtp_len + 3, 0, srtp_len]);
        extensions.extend(profiles);
        extensions.push(0);
        h.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        h.extend(extensions);
        h
    }

    fn datagram(hello: &[u8], from: usize, to: usize) -> Vec<u8> {
        let three = |n: usize| u32::try_from(n).unwrap().to_be_bytes()[1..].to_vec();
        let mut body = vec![1];
        body.extend(three(hello.len()));
        body.extend([0, 0]);
        body.extend(three(from));
        body.extend(three(to - from));
        body.extend(&hello[from..to]);
        let mut d = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        d.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        d.extend(body);
        d
    }

    #[test]
    fn a_hello_in_two_parts_in_any_order() {
        let h = hello(&[0, 1, 0, 8, 0, 7]);
        let (a, b) = (datagram(&h, 0, 50), datagram(&h, 50, h.len()));
        for order in [[&a, &b], [&b, &a]] {
            let mut hello = Hello::default();
            assert!(!hello.push(order[0]));
            assert!(hello.push(order[1]));
            assert!(hello.knows_aes_128_gcm());
            assert_eq!(hello.into_datagrams().count(), 2);
        }
    }

    #[test]
    fn nothing_is_waited_for_without_end() {
        let h = hello(&[0, 1]);
        let part = datagram(&h, 0, 50);
        let mut hello = Hello::default();
        let pushes = (1..).find(|_| hello.push(&part)).unwrap();
        assert_eq!(pushes, DATAGRAMS_MAX);
        assert!(!hello.knows_aes_128_gcm());
        assert!(Hello::default().push(b"something else"));
        let mut whole = Hello::default();
        assert!(whole.push(&datagram(&h, 0, h.len())));
        assert!(!whole.knows_aes_128_gcm());
    }

    proptest! {
        #[test]
        fn any_bytes(datagrams: Vec<Vec<u8>>) {
            let mut hello = Hello::default();
            for d in &datagrams {
                hello.push(d);
            }
            hello.knows_aes_128_gcm();
        }

        #[test]
        fn any_damage(at in 0usize..80, with: u8) {
            let h = hello(&[0, 7]);
            let mut d = datagram(&h, 0, h.len());
            if let Some(b) = d.get_mut(at) {
                *b = with;
            }
            let mut hello = Hello::default();
            hello.push(&d);
            hello.knows_aes_128_gcm();
        }
    }
}

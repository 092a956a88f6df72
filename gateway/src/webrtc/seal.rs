//! RTP to SRTP for many packets: AES-128-GCM (RFC 7714) in place, in the buffer they are sent from.
//!
//! The library encrypts as well, with a copy and an allocation per packet; it still does for the other profiles, and
//! for RTCP.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rtc::crypto::{BlockCipherAlgorithm, RTCCrypto};
use rtc::shared::error::Error;
use rtc::srtp::context::Context;

use crate::udp::Burst;

/// Key derivation labels (RFC 3711 §4.3.1).
const ENCRYPTION: u8 = 0;
const SALT: u8 = 2;

/// Encrypts the media of one session.
pub enum Sealer {
    Gcm {
        key: Box<LessSafeKey>,
        salt: [u8; 12],
    },
    Library(Box<Context>),
}

impl Sealer {
    /// `key` of 16 and `salt` of 12 bytes, out of the handshake.
    ///
    /// # Errors
    /// When they have other lengths.
    pub fn gcm(key: &[u8], salt: &[u8], crypto: &dyn RTCCrypto) -> Result<Self, Error> {
        let session_key = derive(ENCRYPTION, key, salt, crypto)?;
        let session_salt = derive(SALT, key, salt, crypto)?;
        let key = UnboundKey::new(&AES_128_GCM, &session_key).map_err(|_| failed())?;
        let mut salt = [0; 12];
        salt.copy_from_slice(&session_salt[..12]);
        Ok(Self::Gcm {
            key: Box::new(LessSafeKey::new(key)),
            salt,
        })
    }

    /// Adds an encrypted packet to `out`. `index`: its extended sequence number (rollover counter and sequence
    /// number). The same index may be used again for the very same packet only.
    ///
    /// # Errors
    /// Faults of the cipher; nothing is added then.
    pub fn seal(
        &mut self,
        header: &[u8],
        payload: &[u8],
        index: u64,
        out: &mut Burst,
    ) -> Result<(), Error> {
        match self {
            Self::Gcm { key, salt } => {
                let ssrc = header.get(8..12).ok_or(Error::ErrTooShortRtp)?;
                let mut iv = *salt;
                iv[2..6].iter_mut().zip(ssrc).for_each(|(a, b)| *a ^= b);
                // 32 bits of rollover counter, 16 of sequence number.
                let position = &index.to_be_bytes()[2..];
                iv[6..].iter_mut().zip(position).for_each(|(a, b)| *a ^= b);
                out.build(|data| {
                    data.extend_from_slice(header);
                    let start = data.len();
                    data.extend_from_slice(payload);
                    let tag = key
                        .seal_in_place_separate_tag(
                            Nonce::assume_unique_for_key(iv),
                            Aad::from(header),
                            &mut data[start..],
                        )
                        .map_err(|_| failed())?;
                    data.extend_from_slice(tag.as_ref());
                    Ok(())
                })
            }
            Self::Library(context) => {
                let mut packet = Vec::with_capacity(header.len() + payload.len());
                packet.extend_from_slice(header);
                packet.extend_from_slice(payload);
                let sealed = context.encrypt_rtp(&packet)?;
                out.push(&[&sealed]);
                Ok(())
            }
        }
    }
}

fn failed() -> Error {
    Error::Crypto("AES-GCM".to_owned())
}

/// One block of AES in counter mode over the salt and the label: key and salt of the session are no longer than that.
fn derive(label: u8, key: &[u8], salt: &[u8], crypto: &dyn RTCCrypto) -> Result<[u8; 16], Error> {
    if key.len() != 16 || salt.len() != 12 {
        return Err(Error::InvalidMasterKeyLength);
    }
    let mut block = [0; 16];
    block[..12].copy_from_slice(salt);
    block[7] ^= label;
    crypto
        .block_encrypt(BlockCipherAlgorithm::Aes128, key, &mut block)
        .map_err(|e| Error::Crypto(e.to_string()))?;
    Ok(block)
}

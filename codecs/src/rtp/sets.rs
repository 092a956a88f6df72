//! Parameter sets by their ids, bounded: what `h264` and `h265` have in common.

use bytes::Bytes;

/// More of one kind than cameras use; the standards allow up to 256.
const SETS_MAX: usize = 8;

/// Adds or replaces a set; true when it is new or differs from the one known.
pub(super) fn put(sets: &mut Vec<(u32, Bytes)>, id: u32, nal: &Bytes) -> bool {
    // A copy: a slice would keep the whole receive buffer alive.
    let own = || Bytes::copy_from_slice(nal);
    if let Some((_, old)) = sets.iter_mut().find(|(i, _)| *i == id) {
        let changed = old != nal;
        if changed {
            *old = own();
        }
        return changed;
    }
    if sets.len() >= SETS_MAX {
        return false;
    }
    sets.push((id, own()));
    true
}

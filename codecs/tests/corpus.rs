//! The corpora of the fuzz targets (`codecs/fuzz`), as plain tests.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../fuzz/src/devices.rs"]
mod devices;
#[path = "../fuzz/src/packets.rs"]
mod packets;

#[test]
fn every_input_is_bounded() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    corpus::run(&corpora, &packets::TARGETS);
    corpus::run(&corpora, &devices::TARGETS);
}

//! The corpora of the fuzz targets of this room (`codecs/fuzz`), as plain tests.

use super::fuzzed;
use crate::corpus;

#[test]
fn every_input_is_bounded() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../codecs/fuzz/corpus");
    corpus::run(&corpora, &fuzzed::TARGETS);
}

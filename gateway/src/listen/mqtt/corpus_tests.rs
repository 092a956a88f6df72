//! The corpora of the fuzz targets of this room (`codecs/fuzz`), as plain tests.

#[path = "../../../../codecs/fuzz/src/corpus.rs"]
mod corpus;

use super::fuzzed;

#[test]
fn every_input_is_bounded() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../codecs/fuzz/corpus");
    corpus::run(&corpora, &fuzzed::TARGETS);
}

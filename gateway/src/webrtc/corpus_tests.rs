//! The corpora of the fuzz targets of this room (`codecs/fuzz`), as plain tests.

use super::fuzzed;

#[test]
fn every_input_is_bounded() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../codecs/fuzz/corpus");
    for (name, target) in fuzzed::TARGETS {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no inputs for {name}");
    }
}

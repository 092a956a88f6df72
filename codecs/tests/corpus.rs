//! The corpora of the fuzz targets (`codecs/fuzz`), as plain tests: every input through the same function, which bounds
//! what comes out of it.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../fuzz/src/packets.rs"]
mod packets;

#[test]
fn every_input_is_bounded() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in packets::TARGETS {
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

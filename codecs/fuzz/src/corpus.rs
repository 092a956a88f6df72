//! The corpora of the fuzz targets as plain tests: each input through the same function, which bounds what comes out.

use std::path::Path;

type Target = fn(&[u8]);

/// Runs all inputs below `corpora` through their targets, by name.
pub fn run(corpora: &Path, targets: &[(&str, Target)]) {
    for (name, target) in targets {
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

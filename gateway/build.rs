//! Embeds the built console (console/dist) into the program. Without it the program builds too and says how to get it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let dist = root.join("console/dist");
    // A path that does not exist would make every build start anew: the nearest one that does is watched instead.
    let watched = [dist.as_path(), &root.join("console"), &root]
        .into_iter()
        .find(|p| p.is_dir())
        .unwrap_or(&root)
        .to_owned();
    println!("cargo::rerun-if-changed={}", watched.display());
    println!("cargo::rerun-if-changed=build.rs");

    let mut files = Vec::new();
    if dist.is_dir() {
        walk(&dist, &mut files)?;
        files.sort();
    }
    let mut table = String::from("pub(super) static FILES: &[File] = &[\n");
    for file in &files {
        let name = file
            .strip_prefix(&dist)
            .map_err(io::Error::other)?
            .to_string_lossy();
        let mut hash = DefaultHasher::new();
        hash.write(&fs::read(file)?);
        writeln!(
            table,
            "    File {{ path: {name:?}, etag: {:?}, bytes: include_bytes!({:?}) }},",
            format!("\"{:016x}\"", hash.finish()),
            file.display().to_string(),
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    fs::write(out.join("console.rs"), table)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

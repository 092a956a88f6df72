//! Style that matters is a test: sizes, the top level, what may import what, and words that must not be there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

/// Lines of a file without the tests at its end, and of a file that holds tests only.
const LINES_MAX: usize = 500;
const TEST_LINES_MAX: usize = 800;
const TOP: [&str; 14] = [
    "Cargo.toml",
    "Cargo.lock",
    "Makefile",
    "README.md",
    "README.zh.md",
    ".ci",
    ".cargo",
    ".gitignore",
    "codecs",
    "gateway",
    "configs",
    "systemd",
    "tests",
    "bench",
];
/// Rooms of gateway/src from the top down (gateway/ARCHITECTURE.md); a room imports only from rooms further down.
const ROOMS: [&[&str]; 14] = [
    &["main", "cli"],
    &["app"],
    &["listen"],
    &["screen"],
    &["sink"],
    &["device"],
    &["webrtc"],
    &["picture"],
    &["stream"],
    &["outbox"],
    &["history"],
    &["media"],
    &["registry"],
    &["config"],
];
/// Imports against the order, each with its reason.
const UPWARDS: [(&str, &str, &str); 2] = [
    (
        "config",
        "stream",
        "the limits of a room are values of that room",
    ),
    (
        "config",
        "picture",
        "rules and grid are checked by the room that understands them",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Files that git knows or would add, relative to the root.
fn files() -> Vec<PathBuf> {
    let output = std::process::Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8(output.stdout).unwrap();
    listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect()
}

fn rust() -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

/// A file in its program part and the tests at its end.
fn parts<'a>(path: &Path, text: &'a str) -> (&'a str, &'a str) {
    let name = path.to_string_lossy();
    let dedicated =
        name.starts_with("tests/tests/") || name.contains("/tests/") || name.ends_with("tests.rs");
    if dedicated && !name.starts_with("tests/src/") {
        return ("", text);
    }
    text.split_at(text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len()))
}

/// Code lines with their numbers, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[track_caller]
fn none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

/// Lines of `path` whose code contains one of `words`.
fn found(path: &Path, text: &str, words: &[&str]) -> Vec<String> {
    code(text)
        .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
        .map(|(at, line)| format!("{}:{at}: {}", path.display(), line.trim()))
        .collect()
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    let mut faults: Vec<String> = files()
        .iter()
        .map(|path| path.iter().next().unwrap().to_string_lossy().into_owned())
        .filter(|top| !TOP.contains(&top.as_str()))
        .collect();
    faults.dedup();
    none("not allowed at the top level", &faults);
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut faults = Vec::new();
    for (path, text) in rust() {
        let (program, tests) = parts(&path, &text);
        let (lines, limit) = match program.lines().count() {
            0 => (tests.lines().count(), TEST_LINES_MAX),
            lines => (lines, LINES_MAX),
        };
        if lines > limit {
            faults.push(format!(
                "{}: {lines} lines, at most {limit}",
                path.display()
            ));
        }
    }
    for path in files() {
        if path
            .extension()
            .is_some_and(|ending| ["ts", "mjs", "sh"].iter().any(|known| ending == *known))
        {
            let lines = std::fs::read_to_string(root().join(&path))
                .unwrap()
                .lines()
                .count();
            if lines > LINES_MAX {
                faults.push(format!(
                    "{}: {lines} lines, at most {LINES_MAX}",
                    path.display()
                ));
            }
        }
    }
    none("too long", &faults);
}

#[test]
fn codecs_are_pure() {
    let words = [
        "tokio",
        "actix",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::thread",
    ];
    let sources = rust();
    let faults: Vec<String> = sources
        .iter()
        .filter(|(path, _)| path.starts_with("codecs/src"))
        .flat_map(|(path, text)| found(path, parts(path, text).0, &words))
        .collect();
    none("codecs know bytes and values only", &faults);
}

#[test]
fn rooms_import_downwards_only() {
    let rank = |room: &str| ROOMS.iter().position(|rooms| rooms.contains(&room));
    let mut faults = Vec::new();
    for (path, text) in rust() {
        let Ok(inner) = path.strip_prefix("gateway/src") else {
            continue;
        };
        let room = inner
            .iter()
            .next()
            .unwrap()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        let own = rank(&room).unwrap_or(ROOMS.len());
        if room == "lib" {
            continue;
        }
        for (at, line) in code(&text) {
            for part in line.split("crate::").skip(1) {
                let target: String = part
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let Some(other) = rank(&target) else { continue };
                let excused = UPWARDS
                    .iter()
                    .any(|(from, to, _)| *from == room && *to == target);
                if other < own && !excused {
                    faults.push(format!("{}:{at}: {room} imports {target}", path.display()));
                }
            }
        }
    }
    none(
        "imports against the order of gateway/ARCHITECTURE.md",
        &faults,
    );
}

#[test]
fn only_actors_and_the_app_say_actix() {
    let allowed = [
        "gateway/src/app",
        "gateway/src/main.rs",
        "gateway/src/device",
        "gateway/src/picture",
    ];
    let mut faults = Vec::new();
    for (path, text) in rust() {
        let actor = path.file_name().is_some_and(|name| name == "actor.rs");
        if path.starts_with("gateway/src")
            && !actor
            && !allowed.iter().any(|room| path.starts_with(room))
        {
            faults.extend(found(&path, parts(&path, &text).0, &["actix"]));
        }
    }
    none("actix outside actors and the app", &faults);
}

#[test]
fn nothing_is_left_undone() {
    // Put together, so that this file does not find itself.
    let words = [
        ["todo", "!("].concat(),
        ["dbg", "!("].concat(),
        ["unimplemented", "!("].concat(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let faults: Vec<String> = rust()
        .iter()
        .flat_map(|(path, text)| found(path, text, &words))
        .collect();
    none("unfinished", &faults);
}

#[test]
fn no_test_sleeps() {
    let words = [
        ["thread::", "sleep"].concat(),
        ["time::", "sleep("].concat(),
        [" sleep", "("].concat(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut faults = Vec::new();
    for (path, text) in rust() {
        faults.extend(found(&path, parts(&path, &text).1, &words));
    }
    none("a test waits for a condition, never for a time", &faults);
}

#[test]
fn unsafe_stays_in_its_module() {
    let words = [
        ["unsafe", " {"].concat(),
        ["unsafe", " fn"].concat(),
        ["unsafe", " impl"].concat(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut faults = Vec::new();
    for (path, text) in rust() {
        if path != Path::new("gateway/src/udp.rs") {
            faults.extend(found(&path, &text, &words));
        }
    }
    none("unsafe outside gateway/src/udp.rs", &faults);
}

/// Licences that a box may be shipped with; all permissive.
const LICENCES: [&str; 12] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "LLVM-exception",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_crate_has_a_licence_that_may_be_shipped() {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let said = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .arg(format!("--filter-platform={host}"))
        .current_dir(root())
        .output()
        .unwrap();
    let all: serde_json::Value = serde_json::from_slice(&said.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&said.stderr)));
    let mut faults = Vec::new();
    for package in all["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none");
        let known = licence
            .split(|c: char| c.is_whitespace() || "/()".contains(c))
            .filter(|w| !matches!(*w, "" | "OR" | "AND" | "WITH"))
            .all(|w| LICENCES.contains(&w));
        if !known {
            faults.push(format!("{}: {licence}", package["name"]));
        }
    }
    none("licences that are not on the list", &faults);
}

//! The command line, through the built program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn kerbside(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kerbside"))
        .args(args)
        .env_remove("KERBSIDE_CONFIG")
        .env_remove("KERBSIDE_STATE")
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .unwrap()
}

fn code(o: &Output) -> i32 {
    o.status.code().unwrap()
}

fn out(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).unwrap()
}

fn err(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).unwrap()
}

fn json(o: &Output) -> Value {
    assert_eq!(code(o), 0, "{}", err(o));
    serde_json::from_slice(&o.stdout).unwrap()
}

#[test]
fn version_and_usage() {
    let version = kerbside(&["--version"]);
    assert_eq!(
        out(&version),
        concat!("kerbside ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert_eq!(code(&kerbside(&["fly"])), 2);
    assert_eq!(code(&kerbside(&["device", "add", "bc-01"])), 2);
    let wrong = kerbside(&["device", "add", "bc-01", "--kind", "dron"]);
    assert_eq!(code(&wrong), 2);
    assert!(err(&wrong).contains("drone"), "{}", err(&wrong));
}

#[test]
fn check_accepts_the_shipped_configurations() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    for dir in [configs.clone(), configs.join("demo")] {
        let dir = dir.to_str().unwrap();
        let o = kerbside(&["check", "--config", dir]);
        assert_eq!((code(&o), out(&o).as_str()), (0, "ok\n"), "{}", err(&o));
        assert_eq!(
            code(&kerbside(&["--config", dir, "check"])),
            0,
            "before the sub-command"
        );
    }
}

#[test]
fn check_tells_every_fault_and_run_refuses_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name| dir.path().join(name);
    std::fs::write(
        path("gateway.toml"),
        "box_id = \"b\"\n\n[listen]\nmqt = \"off\"\nhttp = 1\n",
    )
    .unwrap();
    std::fs::write(
        path("rules.toml"),
        "[[rule]]\nname = \"sos\"\nwhen = \"report.\"\nseverity = \"critical\"\n",
    )
    .unwrap();
    std::fs::write(path("grid.geojson"), "{\n\"type\":\n}").unwrap();
    let at = dir.path().to_str().unwrap();
    let o = kerbside(&["check", "--config", at]);
    assert_eq!(code(&o), 1);
    assert_eq!(out(&o), "");
    let shown = err(&o);
    let lines: Vec<&str> = shown.lines().collect();
    let starts = [
        "gateway.toml:4: listen.mqt: unknown key; did you mean \"mqtt\"?",
        "gateway.toml:5: listen.http: is a whole number, but must be a text in quotes",
        "rules.toml:3: rule[0].when: ",
        "grid.geojson:3: grid: ",
    ];
    assert_eq!(lines.len(), starts.len(), "{shown}");
    for (line, start) in lines.iter().zip(starts) {
        let start = format!("{at}/{start}");
        assert!(
            line.starts_with(&start),
            "{line}\nshould start with\n{start}"
        );
    }
    let state = dir.path().join("state");
    let o = kerbside(&["run", "--config", at, "--state", state.to_str().unwrap()]);
    assert_eq!((code(&o), err(&o)), (1, shown));
    assert!(!state.exists(), "a faulty configuration touches nothing");
}

#[test]
fn check_tells_the_fingerprint_of_the_own_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let configure = |more: &str| {
        let text = format!("box_id = \"b\"\n{more}");
        std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
    };
    let check = || {
        let o = kerbside(&["check", "--config", at, "--state", at]);
        assert_eq!(code(&o), 0, "{}", err(&o));
        out(&o)
    };
    configure("");
    assert_eq!(check(), "ok\n", "nothing was made yet");
    let made = rcgen::generate_simple_self_signed(["b".to_owned()]).unwrap();
    let pem = made.signing_key.serialize_pem() + &made.cert.pem();
    std::fs::write(dir.path().join("self-signed.pem"), pem).unwrap();
    let told = check();
    let fingerprint = told
        .strip_prefix("ok\nself-signed certificate: SHA-256 ")
        .and_then(|rest| rest.split(',').next())
        .unwrap();
    let digest: Vec<u8> = fingerprint
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    use sha2::Digest;
    assert_eq!(digest, sha2::Sha256::digest(made.cert.der()).to_vec());
    configure("[tls]\nself_signed = false\n");
    assert_eq!(check(), "ok\n");
}

#[test]
fn devices_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let state = state.to_str().unwrap();
    let added = json(&kerbside(&[
        "device", "add", "bc-01", "--kind", "bodycam", "--unit", "patrol-1", "--json", "--state",
        state,
    ]));
    assert_eq!(added["id"], "bc-01");
    assert!(
        added["password"].as_str().unwrap().len() >= 22,
        "128 bits or more"
    );
    assert_eq!(added.as_object().unwrap().len(), 2);
    let again = kerbside(&[
        "--state", state, "device", "add", "bc-01", "--kind", "radio",
    ]);
    assert_eq!(code(&again), 1);
    assert!(
        err(&again).contains("already registered"),
        "{}",
        err(&again)
    );
    assert_eq!(
        code(&kerbside(&[
            "--state", state, "device", "add", "a/b", "--kind", "radio"
        ])),
        1
    );

    let plain = kerbside(&["device", "--state", state, "add", "r-1", "--kind", "radio"]);
    assert!(
        out(&plain).starts_with("id        r-1\npassword  "),
        "{}",
        out(&plain)
    );
    let list = json(&kerbside(&["device", "list", "--json", "--state", state]));
    assert_eq!(
        list,
        serde_json::json!([
            {"id": "bc-01", "kind": "bodycam", "unit": "patrol-1", "agency": null, "person": null, "datum": "wgs84", "restricted": false},
            {"id": "r-1", "kind": "radio", "unit": null, "agency": null, "person": null, "datum": "wgs84", "restricted": false}
        ])
    );
    assert_eq!(
        out(&kerbside(&["device", "list", "--state", state])),
        "bc-01\tbodycam\tpatrol-1\nr-1\tradio\t-\n"
    );
    assert_eq!(
        code(&kerbside(&["device", "revoke", "bc-01", "--state", state])),
        0
    );
    let gone = kerbside(&["device", "revoke", "bc-01", "--state", state]);
    assert_eq!(
        (code(&gone), err(&gone).as_str()),
        (1, "kerbside: bc-01 is not registered\n")
    );
}

#[test]
fn users_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    let added = json(&kerbside(&[
        "user", "add", "anna", "--role", "operator", "--json", "--state", state,
    ]));
    assert_eq!(added["name"], "anna");
    let token = added["token"].as_str().unwrap();
    let list = kerbside(&["user", "list", "--json", "--state", state]);
    assert_eq!(
        json(&list),
        serde_json::json!([{"name": "anna", "role": "operator", "restricted": false}])
    );
    assert!(!out(&list).contains(token));
    assert_eq!(
        code(&kerbside(&[
            "user", "add", "anna", "--role", "admin", "--state", state
        ])),
        1
    );
    let env = Command::new(env!("CARGO_BIN_EXE_kerbside"))
        .args(["user", "revoke", "anna", "--json"])
        .env("KERBSIDE_STATE", state)
        .output()
        .unwrap();
    assert_eq!(
        json(&env),
        serde_json::json!({"name": "anna", "revoked": true})
    );
    assert_eq!(
        json(&kerbside(&["user", "list", "--json", "--state", state])),
        serde_json::json!([])
    );
}

#[test]
fn a_state_directory_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let o = kerbside(&["user", "list", "--state", file.to_str().unwrap()]);
    assert_eq!(code(&o), 1);
    assert!(err(&o).contains("cannot be used"), "{}", err(&o));
}

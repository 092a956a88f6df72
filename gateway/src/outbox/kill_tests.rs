//! kill -9 at any moment loses no acknowledged event: this test runs itself as a child that appends, and kills it.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::tests::event;
use super::*;
use crate::event::Priority;

const DIR: &str = "KERBSIDE_TEST_APPEND_IN";
const ROUNDS: usize = 6;

/// The child; as a test of its own it has nothing to do.
#[tokio::test]
async fn append_until_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let outbox = Outbox::open(Path::new(&dir), &[("joint".to_owned(), vec![])]).unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let outbox = outbox.clone();
        workers.spawn(async move {
            loop {
                let e = event("sos", Priority::P0);
                let id = e.id;
                outbox.append(e).await.unwrap();
                // One write call: a line is there whole or not at all.
                std::io::stdout()
                    .write_all(format!("ACK {id}\n").as_bytes())
                    .unwrap();
            }
        });
    }
    workers.join_next().await;
}

#[tokio::test]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "outbox::kill_tests::append_until_killed",
                "--exact",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = acknowledged.len() + 50 + round * 37;
        for line in lines.by_ref() {
            note(&line.unwrap(), &mut acknowledged);
            if acknowledged.len() >= enough {
                break;
            }
        }
        assert!(acknowledged.len() >= enough, "the child ended by itself");
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            note(&line, &mut acknowledged);
        }

        let outbox = Outbox::open(dir.path(), &[("joint".to_owned(), vec![])]).unwrap();
        let stored: HashSet<EventId> = outbox
            .due("joint", 1, 1_000_000)
            .await
            .unwrap()
            .now
            .iter()
            .map(|p| p.event.id)
            .collect();
        let lost = acknowledged.difference(&stored).count();
        assert_eq!(lost, 0, "round {round}: of {}", acknowledged.len());
    }
}

fn note(line: &str, acknowledged: &mut HashSet<EventId>) {
    // The test harness writes to the same pipe: an acknowledgement may follow its words on one line.
    if let Some((_, id)) = line.split_once("ACK ")
        && let Ok(id) = id.parse()
    {
        acknowledged.insert(id);
    }
}

//! Actors that die while many connections send: each message is acknowledged as it is owned, and the connections stay.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::registry::Device;

const DEVICES: usize = 120;
/// Each device sends so many bursts of so many messages.
const BURSTS: u8 = 20;
const BURST: u8 = 3;

#[actix::test]
async fn a_dying_actor_costs_no_other_connection_an_acknowledgement() {
    let (y, mut desk) = yard_with(|limits| limits.connections_max = 2 * DEVICES).await;
    let names = (0..DEVICES).map(|n| format!("d-{n}"));
    let devices: Vec<_> = names
        .map(|id| Device::new(&id, DeviceKind::Bodycam))
        .collect();
    let passwords = y.registry.enrol_all(devices.clone()).unwrap();
    let owned = Rc::<RefCell<HashMap<String, usize>>>::default();
    let takes = Rc::clone(&owned);
    drop(actix_rt::spawn(async move {
        loop {
            let (report, answer) = desk.report().await;
            *takes.borrow_mut().entry(report.device).or_default() += 1;
            answer.send(true).unwrap();
        }
    }));

    let mut rng = StdRng::seed_from_u64(444);
    let mut load = Vec::new();
    for (device, password) in devices.iter().zip(passwords) {
        let is_victim = rng.random_ratio(1, 8);
        let deadly = is_victim.then(|| rng.random_range(1..=BURSTS * BURST));
        let mut c = Client::raw(&y, 5).await;
        c.send(&connect(V5, &device.id, &password)).await;
        assert_eq!(c.next().await.expect("CONNACK")[0], 0x20);
        load.push(send_all(c, &device.id, deadly));
    }
    let acknowledged = timeout(6 * LIMIT, join_all(load)).await.expect("all of it");
    let victims = acknowledged.iter().filter(|(_, n)| *n < ALL).count();
    assert!((2..DEVICES / 2).contains(&victims), "{victims} victims");
    let acknowledged: HashMap<String, usize> = acknowledged.into_iter().collect();
    assert_eq!(*owned.borrow(), acknowledged);
}

const ALL: usize = BURSTS as usize * BURST as usize;

/// Sends as much as one device has to say, of which one message may be deadly; gives how many were owned.
async fn send_all(mut c: Client, id: &str, deadly: Option<u8>) -> (String, usize) {
    let topic = format!("kerbside/v1/{id}/report");
    let mut owned = 0;
    for burst in 0..BURSTS {
        let numbers = burst * BURST + 1..=(burst + 1) * BURST;
        for n in numbers.clone() {
            let payload = if deadly == Some(n) { "poison" } else { FIX };
            c.send(&publish(5, 1, n.into(), &topic, payload)).await;
        }
        for n in numbers {
            let ack = c.next().await.expect("the connection stays");
            if deadly == Some(n) {
                assert_eq!(ack, [0x40, 3, 0, n, 0x80], "{id} is told not to try again");
            } else {
                assert_eq!(ack, [0x40, 2, 0, n], "of {id}");
                owned += 1;
            }
        }
    }
    (id.to_owned(), owned)
}

//! Actors that die during a load: nobody but their own devices notices.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all, poll_immediate};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Duration, timeout};

use super::testing::{Desk, fleet};
use super::{Downlink, Downlinks, Fleet, NotOwned, Sent, Uplink};
use crate::clock::Now;
use crate::ids::{DeviceId, SessionId};
use crate::registry::{Device, DeviceKind, Registry};

const DEVICES: usize = 300;
/// Against a test that hangs; nothing is measured by it.
const LIMIT: Duration = Duration::from_secs(120);
/// After so many deaths a successor waits longest.
const MANY_DEATHS: u32 = 10;

/// The device time of a device's first message; each further one is a millisecond later, by which it is known.
const FIRST: i64 = 1_795_219_200_000;

/// What the picture owns of each device, in order.
type Owned = Rc<RefCell<HashMap<String, Vec<i64>>>>;

struct Unit {
    id: DeviceId,
    session: SessionId,
    fleet: Fleet,
    next: Cell<i64>,
    acknowledged: RefCell<Vec<i64>>,
}

impl Unit {
    fn uplink(&self, payload: &str) -> Uplink {
        let topic = format!("kerbside/v1/{}/report", self.id);
        Uplink::new(topic.into(), payload.to_owned().into(), Now::read())
    }

    /// Says its next number, and remembers it if that was acknowledged.
    async fn say(&self) -> Result<(), NotOwned> {
        let number = self.next.replace(self.next.get() + 1);
        let payload = format!(r#"{{"time_ms":{number},"position":{{"lat":37.69,"lon":112.75}}}}"#);
        let up = self.uplink(&payload);
        self.fleet.message(&self.id, self.session, up).await?;
        self.acknowledged.borrow_mut().push(number);
        Ok(())
    }

    fn poison(&self) -> LocalBoxFuture<'_, Result<(), NotOwned>> {
        let up = self.uplink("poison");
        self.fleet.message(&self.id, self.session, up).boxed_local()
    }
}

struct Town {
    units: Vec<Rc<Unit>>,
    owned: Owned,
    fleet: Fleet,
    _dir: tempfile::TempDir,
}

async fn town() -> Town {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let names = (0..DEVICES).map(|n| Device::new(&format!("d-{n}"), DeviceKind::Bodycam));
    registry.enrol_all(names.collect()).unwrap();
    let (fleet, desk) = fleet(registry.clone());
    let owned = Owned::default();
    drop(actix_rt::spawn(own(desk, Rc::clone(&owned))));
    let mut units = Vec::new();
    for device in registry.devices() {
        let (id, session) = (DeviceId::parse(&device.id).unwrap(), SessionId::next());
        let down = Arc::<Downlinks>::default();
        let opened = fleet.open(device, session, None, "mqtt", down).await;
        assert!(opened.is_ok());
        units.push(Rc::new(Unit {
            id,
            session,
            fleet: fleet.clone(),
            next: Cell::new(FIRST),
            acknowledged: RefCell::default(),
        }));
    }
    Town {
        units,
        owned,
        fleet,
        _dir: dir,
    }
}

/// Owns everything, and writes down what it was.
async fn own(mut desk: Desk, owned: Owned) {
    loop {
        let (report, answer) = desk.report().await;
        let number = report.device_time_ms.unwrap();
        let mut owned = owned.borrow_mut();
        owned.entry(report.device).or_default().push(number);
        answer.send(true).unwrap();
    }
}

impl Town {
    /// Some of the units, and all others.
    fn draw(&self, rng: &mut StdRng, victims: usize) -> (Vec<Rc<Unit>>, Vec<Rc<Unit>>) {
        let mut all = self.units.clone();
        all.shuffle(rng);
        let others = all.split_off(victims);
        (all, others)
    }

    /// Every message that was acknowledged is owned, once and in order, and so many were.
    fn check(&self, unit: &Unit, messages: i64) {
        let owned = self.owned.borrow();
        let owned = owned.get(unit.id.as_str()).map_or(&[][..], Vec::as_slice);
        assert_eq!(owned, *unit.acknowledged.borrow(), "of {}", unit.id);
        let all: Vec<i64> = (FIRST..FIRST + messages).collect();
        assert_eq!(owned, all, "of {}", unit.id);
    }
}

#[actix::test]
async fn actors_that_die_at_random_cost_no_message_of_anybody() {
    const MESSAGES: i64 = 40;
    let town = town().await;
    let mut rng = StdRng::seed_from_u64(4);
    let (victims, others) = town.draw(&mut rng, DEVICES / 10);
    let mut load: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
    for unit in &victims {
        let deadly = [(); 2].map(|()| rng.random_range(0..MESSAGES));
        load.push(Box::pin(async move {
            for n in 0..MESSAGES {
                if deadly.contains(&n) {
                    assert_eq!(unit.poison().await, Err(NotOwned::Poison));
                }
                assert_eq!(unit.say().await, Ok(()), "of a victim: {}", unit.id);
            }
        }));
    }
    for unit in &others {
        load.push(Box::pin(async move {
            for _ in 0..MESSAGES {
                assert_eq!(unit.say().await, Ok(()), "of {}", unit.id);
            }
        }));
    }
    timeout(LIMIT, join_all(load)).await.expect("all is owned");
    for unit in &town.units {
        town.check(unit, MESSAGES);
    }
}

#[actix::test]
async fn nobody_waits_for_the_successor_of_another_ones_actor() {
    const ROUNDS: i64 = 5;
    let town = town().await;
    let mut rng = StdRng::seed_from_u64(44);
    let (victims, others) = town.draw(&mut rng, DEVICES / 3);
    for unit in &victims {
        town.fleet.set_deaths(&unit.id, MANY_DEATHS);
    }
    // Each has killed its actor and holds the same message for the successor, with another one behind it.
    let mut deadly: Vec<_> = victims.iter().map(|u| u.poison()).collect();
    let mut behind: Vec<_> = victims.iter().map(|u| u.say().boxed_local()).collect();
    let all_wait = async {
        while !victims.iter().all(|u| town.fleet.is_waiting(&u.id)) {
            for waiting in deadly.iter_mut().chain(&mut behind) {
                assert_eq!(poll_immediate(waiting).await, None);
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, all_wait).await.expect("the victims died");

    for round in 1..=ROUNDS {
        let told = join_all(others.iter().map(|u| u.say()));
        let told = timeout(LIMIT, told).await.expect("a whole round");
        assert!(told.iter().all(Result::is_ok));
        let order = Downlink::new("kerbside/v1/x/down/x", "{}", 1);
        for unit in &others {
            town.check(unit, round);
            let sent = town.fleet.send(&unit.id, order.clone()).await;
            assert_eq!(sent, Ok(Sent::Live(1)));
        }
    }
    // All of that while the victims' successors were still to come.
    for (unit, waiting) in victims.iter().zip(deadly.iter_mut().zip(&mut behind)) {
        assert!(town.fleet.is_waiting(&unit.id));
        assert_eq!(poll_immediate(waiting.0).await, None);
        assert_eq!(poll_immediate(waiting.1).await, None);
        town.check(unit, 0);
    }
}

#[actix::test]
async fn who_cannot_wait_for_a_successor_is_answered_at_once() {
    let town = town().await;
    let unit = &town.units[0];
    let say = |payload| {
        let up = unit.uplink(payload);
        let within = Duration::from_millis(250);
        unit.fleet
            .message_within(within, &unit.id, unit.session, up)
    };
    // Its first death costs less than that.
    assert_eq!(say("poison").await, Err(NotOwned::Poison));
    town.fleet.set_deaths(&unit.id, MANY_DEATHS);
    for payload in ["poison", "{}", "{}"] {
        assert_eq!(say(payload).await, Err(NotOwned::Poison));
    }
    assert!(town.fleet.is_waiting(&unit.id));
}

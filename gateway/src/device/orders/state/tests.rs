//! The ladder: forward only, bounded, and deaf to whoever was not asked.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const T0: i64 = 1_795_219_200_000;

fn device(id: &str) -> DeviceId {
    DeviceId::parse(id).unwrap()
}

fn order(of: &str, body: &Value, at_ms: i64) -> Order {
    let giver = Giver {
        by: "eve".into(),
        role: "operator".into(),
        peer: "10.0.0.7".into(),
    };
    let wanted = Wanted::read(body).unwrap();
    Order::new(Uuid::now_v7(), device(of), &wanted, giver, at_ms)
}

fn message(of: &str) -> Order {
    order(
        of,
        &json!({"kind": "message", "text": "x", "expires_s": 60}),
        T0,
    )
}

fn given(book: &mut Book) -> OrderId {
    let o = message("bc-01");
    let id = o.id;
    book.give(o, T0).unwrap();
    id
}

fn states(book: &Book, id: OrderId) -> Vec<(Stage, bool)> {
    let steps = &book.get(id).unwrap().steps;
    steps.iter().map(|s| (s.state, s.late)).collect()
}

#[test]
fn an_order_climbs_the_ladder_once() {
    let mut b = Book::default();
    let id = given(&mut b);
    assert!(
        b.take(&device("bc-01"), T0).is_empty(),
        "it is being written to disk"
    );
    b.returned(id, None, T0);
    assert_eq!(b.take(&device("bc-01"), T0).len(), 1);
    assert!(
        b.take(&device("bc-01"), T0).is_empty(),
        "it is in somebody's hands"
    );
    for (state, moves) in [
        (Stage::Sent, true),
        (Stage::Waiting, false),
        (Stage::Delivered, true),
        (Stage::Sent, false),
        (Stage::Delivered, false),
    ] {
        assert_eq!(b.step(id, state, None, T0).is_some(), moves, "{state:?}");
    }
    assert!(
        b.step(id, Stage::Read, Some("seen".into()), T0)
            .unwrap()
            .ended
    );
    assert!(b.step(id, Stage::Expired, None, T0).is_none());
    use Stage::{Accepted, Delivered, Read, Sent, Waiting};
    assert_eq!(
        states(&b, id),
        [Accepted, Waiting, Sent, Delivered, Read].map(|s| (s, false))
    );
}

#[test]
fn what_did_not_arrive_in_time_expires_and_late_answers_are_on_record() {
    let mut b = Book::default();
    let id = given(&mut b);
    b.step(id, Stage::Sent, None, T0);
    assert!(b.tick(T0 + 59_999).0.is_empty());
    let ended = b.tick(T0 + 60_000).0;
    assert_eq!((ended.len(), ended[0].ended), (1, true));
    assert!(b.tick(T0 + 60_001).0.is_empty(), "once");
    let me = device("bc-01");
    let (heard, changed) = b.answer(&me, id, Said::Delivered, None, T0 + 70_000);
    assert!(heard == Heard::Late && !changed.unwrap().ended);
    assert_eq!(
        b.answer(&me, id, Said::Delivered, None, T0 + 70_001).0,
        Heard::Again
    );
    assert_eq!(b.get(id).unwrap().state, Stage::Expired);
    assert_eq!(states(&b, id).last(), Some(&(Stage::Delivered, true)));
}

#[test]
fn what_the_device_has_does_not_expire_and_may_still_be_read() {
    let mut b = Book::default();
    let id = given(&mut b);
    b.step(id, Stage::Delivered, None, T0);
    let ended = b.tick(T0 + 60_000).0;
    assert_eq!(ended[0].order.state, Stage::Delivered);
    let (heard, changed) = b.answer(&device("bc-01"), id, Said::Read, None, T0 + 61_000);
    assert!(
        heard == Heard::Taken && !changed.unwrap().ended,
        "its end was told before"
    );
    assert_eq!(b.get(id).unwrap().state, Stage::Read);
}

#[test]
fn only_who_was_asked_may_answer() {
    let mut b = Book::default();
    let id = given(&mut b);
    let refuse = |b: &mut Book, who: &str, id| {
        b.answer(&device(who), id, Said::Refused, Some("513002".into()), T0)
            .0
    };
    assert_eq!(refuse(&mut b, "bc-02", id), Heard::Foreign);
    assert_eq!(refuse(&mut b, "bc-01", Uuid::now_v7()), Heard::Unknown);
    b.set_via(id, &device("dock-1"));
    assert_eq!(refuse(&mut b, "dock-1", id), Heard::Taken);
    let o = b.get(id).unwrap();
    assert_eq!(o.state, Stage::Refused);
    assert_eq!(o.steps.last().unwrap().note.as_deref(), Some("513002"));
}

#[test]
fn an_order_that_comes_back_waits_and_is_sent_again() {
    let mut b = Book::default();
    let (id, me) = (given(&mut b), device("bc-01"));
    b.returned(id, Some("away".into()), T0);
    assert_eq!(b.unsent(T0), vec![me.clone()]);
    assert_eq!(b.take(&me, T0).len(), 1);
    b.step(id, Stage::Sent, None, T0);
    assert!(b.returned(id, None, T0).is_none(), "never back from sent");
    assert!(
        b.unsent(T0).is_empty(),
        "it was sent: only when the device listens anew"
    );
    assert!(b.has_open(&me, T0));
    assert_eq!(b.take(&me, T0 + 60_000).len(), 0, "too late");
}

#[test]
fn the_book_is_bounded_and_the_oldest_finished_go_first() {
    let mut b = Book::default();
    let first = given(&mut b);
    for _ in 1..PER_DEVICE_MAX {
        given(&mut b);
    }
    assert_eq!(b.give(message("bc-01"), T0), Err(Full), "all are under way");
    b.step(first, Stage::Read, None, T0);
    assert_eq!(b.give(message("bc-01"), T0), Ok(vec![first]));
    let of_one = b.of_device(&device("bc-01"), 500);
    assert_eq!(of_one.len(), PER_DEVICE_MAX);
    assert!(of_one.is_sorted_by(|a, b| a.id >= b.id), "newest first");
    for n in 0..ORDERS_MAX - PER_DEVICE_MAX {
        b.give(message(&format!("d{n}")), T0).unwrap();
    }
    assert_eq!(b.give(message("more"), T0), Err(Full));
    assert_eq!(b.give(message("more"), T0 + 60_000).map(|g| g.len()), Ok(1));
    b.tick(T0 + KEEP_MS - 1);
    assert!(!b.orders.is_empty());
    let (_, forgotten) = b.tick(T0 + KEEP_MS);
    assert_eq!(forgotten.len(), ORDERS_MAX);
    assert!(b.orders.is_empty() && b.by_device.is_empty());
}

#[test]
fn an_order_of_the_journal_is_the_order_that_was_given() {
    let body = json!({"kind": "dispatch", "text": "去", "position": {"lat": 37.69, "lon": 112.75}});
    let o = order("bc-01", &body, T0);
    let text = serde_json::to_string(&o).unwrap();
    let back: Order = serde_json::from_str(&text).unwrap();
    assert_eq!(back, o);
    assert_eq!(back.task(), Wanted::read(&body).ok().map(|w| w.task));
    let mut b = Book::default();
    b.restore(back, T0 + 1);
    assert_eq!(
        b.take(&device("bc-01"), T0 + 1).len(),
        1,
        "sent after a restart"
    );
}

proptest! {
    /// Whatever is said in whatever order: the state never goes back and the record is bounded.
    #[test]
    fn states_only_move_forward(said in proptest::collection::vec((0u8..8, 0i64..120), 0..60)) {
        let mut b = Book::default();
        let id = given(&mut b);
        let me = device("bc-01");
        let mut ends = 0;
        let mut now = T0;
        for (what, later_s) in said {
            now += later_s * 100;
            let before = b.get(id).unwrap().state;
            let changed = match what {
                0 => b.returned(id, None, now),
                1 => b.step(id, Stage::Sent, None, now),
                2 => b.answer(&me, id, Said::Delivered, None, now).1,
                3 => b.answer(&me, id, Said::Read, None, now).1,
                4 => b.answer(&me, id, Said::Refused, None, now).1,
                5 => { b.take(&me, now); None }
                _ => b.tick(now).0.pop(),
            };
            ends += usize::from(changed.is_some_and(|c| c.ended));
            let o = b.get(id).unwrap();
            prop_assert!(o.state >= before);
            prop_assert!(!before.is_final() || o.state == before);
            prop_assert!(o.steps.len() <= STEPS_MAX && ends <= 1);
        }
    }
}

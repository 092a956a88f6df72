//! What a session reports of a message with an order: written, taken by the device, or lost on the way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::OrderBook;
use super::state::{OrderId, Stage};

/// Goes with the message. When the last copy is dropped, the order is in nobody's hands any more.
#[derive(Clone)]
pub struct Receipt(Arc<Slip>);

struct Slip {
    book: OrderBook,
    order: OrderId,
    /// Nothing more is expected of this message.
    done: AtomicBool,
    note: Mutex<Option<&'static str>>,
}

impl Receipt {
    pub(super) fn new(book: OrderBook, order: OrderId) -> Self {
        Self(Arc::new(Slip {
            book,
            order,
            done: AtomicBool::new(false),
            note: Mutex::new(None),
        }))
    }

    /// Written to a live session.
    pub fn written(&self) {
        self.0.book.step(self.0.order, Stage::Sent, None);
    }

    /// The device has it: PUBACK, or PUBREC.
    pub fn acknowledged(&self) {
        self.0.done.store(true, Ordering::Relaxed);
        self.0.book.step(self.0.order, Stage::Delivered, None);
    }

    /// It will never be taken.
    pub fn refused(&self, why: &str) {
        self.0.done.store(true, Ordering::Relaxed);
        self.0
            .book
            .step(self.0.order, Stage::Refused, Some(why.to_owned()));
    }

    /// Why it goes back, if it does.
    pub fn note(&self, why: &'static str) {
        *self.0.note.lock() = Some(why);
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        if !self.done.load(Ordering::Relaxed) {
            let note = self.note.lock().map(str::to_owned);
            self.book.returned(self.order, note);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({})", self.0.order)
    }
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        self.0.order == other.0.order
    }
}

impl Eq for Receipt {}

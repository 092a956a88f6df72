//! Which session a datagram belongs to, and who may end a session.
//!
//! A session is found by our ICE user fragment (in STUN) or by an address that passed its check (all else). The lock
//! is held for one look-up. Not here: sockets, what a session does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::ice;
use super::inbox::Inbox;
use super::metrics::SESSIONS;
use crate::registry::Principal;
use crate::stream::Kick;

/// Addresses one session may be heard from; the oldest is forgotten.
const ADDRESSES_MAX: usize = 8;
/// User fragments of ICE restarts one session is found by.
const RENEWED_MAX: usize = 2;
/// Sessions one device may publish by at once: its cameras, and those about to be superseded. One device that asks
/// again and again must not take the places of all the others.
const PUBLISHED_MAX: usize = 16;
/// One part of so many of all places is out of reach for one user: there is always room for another one.
const OTHERS_PART: usize = 4;

/// How a datagram came and how an answer goes back.
#[derive(Clone, Debug)]
pub enum Via {
    /// By the socket of this fan-out thread.
    Udp(usize),
    /// ICE-TCP.
    Tcp(TcpPath),
}

/// Where framed packets for an ICE-TCP connection go.
#[derive(Clone, Debug)]
pub struct TcpPath {
    pub queue: mpsc::Sender<Bytes>,
    /// Kicked when something of the queue was written.
    pub room: Arc<OnceLock<Kick>>,
}

#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub via: Via,
    pub data: Bytes,
}

/// What a session does; the label of its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Play,
    Publish,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Publish => "publish",
        }
    }
}

/// A session as others see it.
pub struct Entry {
    /// The name in its URL: 128 random bits.
    pub id: Arc<str>,
    pub owner: Principal,
    pub role: Role,
    /// The other side's user fragment: a PATCH with another one is an ICE restart.
    pub remote_ufrag: String,
    pub inbox: Arc<Inbox>,
    /// Where the session looks for the credentials of an ICE restart.
    pub restart: ice::Restart,
}

#[derive(Default)]
struct Table {
    by_ufrag: HashMap<Arc<str>, Entry>,
    /// User fragments of ICE restarts: the first one of their session.
    renewed: HashMap<Arc<str>, Arc<str>>,
    /// The other way round, oldest first.
    renewals: HashMap<Arc<str>, Vec<Arc<str>>>,
    by_id: HashMap<Arc<str>, Arc<str>>,
    by_address: HashMap<SocketAddr, (Arc<str>, Arc<Inbox>)>,
}

/// All sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
    max: usize,
    /// How many there are, for who waits until all have left.
    count: Arc<watch::Sender<usize>>,
}

impl Sessions {
    pub fn new(max: usize) -> Self {
        Self {
            table: Arc::default(),
            max,
            count: Arc::new(watch::channel(0).0),
        }
    }

    /// Waits until there is no session.
    pub async fn all_left(&self) {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`.
        let _closed = count.wait_for(|n| *n == 0).await.is_err();
    }

    /// Takes a session in.
    ///
    /// # Errors
    /// How many are allowed, when there are as many.
    pub fn open(&self, ufrag: &str, entry: Entry) -> Result<Seat, usize> {
        let ufrag: Arc<str> = ufrag.into();
        let role = entry.role;
        let mut table = self.table.lock();
        if table.by_ufrag.len() >= self.max {
            return Err(self.max);
        }
        let most = match role {
            Role::Play => self.max - self.max / OTHERS_PART,
            Role::Publish => PUBLISHED_MAX,
        };
        let theirs = |e: &&Entry| e.role == role && e.owner == entry.owner;
        if table.by_ufrag.values().filter(theirs).count() >= most {
            return Err(most);
        }
        table.by_id.insert(entry.id.clone(), ufrag.clone());
        table.by_ufrag.insert(ufrag.clone(), entry);
        self.count.send_replace(table.by_ufrag.len());
        SESSIONS.with_label_values(&[role.name()]).inc();
        Ok(Seat {
            sessions: self.clone(),
            ufrag,
            role,
            addresses: Vec::new(),
        })
    }

    pub fn by_ufrag(&self, ufrag: &str) -> Option<Arc<Inbox>> {
        let table = self.table.lock();
        let ufrag = table.renewed.get(ufrag).map_or(ufrag, |first| first);
        Some(table.by_ufrag.get(ufrag)?.inbox.clone())
    }

    pub fn by_address(&self, from: &SocketAddr) -> Option<Arc<Inbox>> {
        Some(self.table.lock().by_address.get(from)?.1.clone())
    }

    /// Asks a session to end. False when there is none of this id that belongs to `who`.
    pub fn close(&self, id: &str, who: &Principal) -> bool {
        self.with(id, who, |_, e| e.inbox.end("client")).is_some()
    }

    /// Ends all sessions whose owner this is true of.
    pub fn end_where(&self, reason: &'static str, owner: impl Fn(&Principal) -> bool) {
        for e in self.table.lock().by_ufrag.values() {
            if owner(&e.owner) {
                e.inbox.end(reason);
            }
        }
    }

    /// The session's entity tag and the other side's user fragment.
    pub fn find(&self, id: &str, who: &Principal) -> Option<(String, String)> {
        let table = self.table.lock();
        let first = table.by_id.get(id)?;
        let entry = table.by_ufrag.get(first).filter(|e| e.owner == *who)?;
        let newest = table.renewals.get(first).and_then(|names| names.last());
        let ufrag = newest.unwrap_or(first);
        Some((etag(ufrag), entry.remote_ufrag.clone()))
    }

    /// An ICE restart: `new` are our credentials from now on, beside the former ones until the first check with them;
    /// the other side's are `remote_ufrag`. Gives the new entity tag; None as [`Self::find`].
    pub fn restart(
        &self,
        id: &str,
        who: &Principal,
        remote_ufrag: &str,
        new: &ice::Credentials,
    ) -> Option<String> {
        let mut table = self.table.lock();
        let first = table.by_id.get(id)?.clone();
        let entry = table.by_ufrag.get_mut(&first).filter(|e| e.owner == *who)?;
        remote_ufrag.clone_into(&mut entry.remote_ufrag);
        *entry.restart.lock() = Some(new.clone());
        let ufrag: Arc<str> = new.ufrag.as_str().into();
        table.renewed.insert(ufrag.clone(), first.clone());
        let names = table.renewals.entry(first).or_default();
        names.push(ufrag);
        // The one in force and the one before it.
        let oldest = (names.len() > RENEWED_MAX).then(|| names.remove(0));
        if let Some(oldest) = oldest {
            table.renewed.remove(&oldest);
        }
        Some(etag(&new.ufrag))
    }

    fn with<T>(&self, id: &str, who: &Principal, f: impl FnOnce(&str, &Entry) -> T) -> Option<T> {
        let table = self.table.lock();
        let ufrag = table.by_id.get(id)?;
        let entry = table.by_ufrag.get(ufrag)?;
        (entry.owner == *who).then(|| f(ufrag, entry))
    }
}

/// Entity tag of an ICE session (RFC 9725 §4.3.1): it has one as long as it lives.
pub fn etag(ufrag: &str) -> String {
    format!("\"{ufrag}\"")
}

/// A session's place; leaving it ends all routes to it.
pub struct Seat {
    sessions: Sessions,
    ufrag: Arc<str>,
    role: Role,
    addresses: Vec<SocketAddr>,
}

impl Seat {
    /// Datagrams from this address are for this session: it passed a connectivity check.
    pub fn route(&mut self, from: SocketAddr) {
        if self.addresses.contains(&from) {
            return;
        }
        let mut table = self.sessions.table.lock();
        let Some(inbox) = table.by_ufrag.get(&self.ufrag).map(|e| e.inbox.clone()) else {
            return;
        };
        if self.addresses.len() >= ADDRESSES_MAX {
            let oldest = self.addresses.remove(0);
            forget(&mut table, oldest, &self.ufrag);
        }
        table.by_address.insert(from, (self.ufrag.clone(), inbox));
        self.addresses.push(from);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.sessions.table.lock();
        if let Some(entry) = table.by_ufrag.remove(&self.ufrag) {
            table.by_id.remove(&entry.id);
            entry.inbox.close();
        }
        for name in table.renewals.remove(&self.ufrag).into_iter().flatten() {
            table.renewed.remove(&name);
        }
        for a in &self.addresses {
            forget(&mut table, *a, &self.ufrag);
        }
        self.sessions.count.send_replace(table.by_ufrag.len());
        SESSIONS.with_label_values(&[self.role.name()]).dec();
    }
}

/// An address may have become another session's since.
fn forget(table: &mut Table, address: SocketAddr, ufrag: &Arc<str>) {
    if table
        .by_address
        .get(&address)
        .is_some_and(|(u, _)| u == ufrag)
    {
        table.by_address.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::super::inbox::Refused;
    use super::*;
    use crate::registry;

    fn user(name: &str) -> Principal {
        Principal::User(registry::User::new(name, registry::Role::Operator))
    }

    fn entry(id: &str, owner: &str) -> Entry {
        Entry {
            id: id.into(),
            owner: user(owner),
            role: Role::Play,
            remote_ufrag: "them".to_owned(),
            inbox: Arc::default(),
            restart: ice::Restart::default(),
        }
    }

    #[test]
    fn routes_end_with_the_seat() {
        let s = Sessions::new(2);
        let e = entry("id", "anna");
        let inbox = e.inbox.clone();
        let mut seat = s.open("frag", e).unwrap();
        let at: SocketAddr = ([192, 0, 2, 1], 5).into();
        seat.route(at);
        assert!(s.by_address(&at).is_some() && s.by_ufrag("frag").is_some());
        // The address moves to another session: the first one's end does not cut it.
        let e = entry("id2", "bob");
        let mut other = s.open("frag2", e).unwrap();
        other.route(at);
        drop(seat);
        let late = Datagram {
            from: at,
            via: Via::Udp(0),
            data: Bytes::new(),
        };
        assert_eq!(inbox.put(late).unwrap_err().0, Refused::Closed);
        assert!(s.by_address(&at).is_some() && s.by_ufrag("frag").is_none());
        drop(other);
        assert!(s.by_address(&at).is_none());
        assert!(s.table.lock().by_id.is_empty());
    }

    #[test]
    fn full_is_full_and_only_the_owner_closes() {
        let s = Sessions::new(1);
        let e = entry("id", "anna");
        let inbox = e.inbox.clone();
        let _seat = s.open("frag", e).unwrap();
        assert_eq!(s.open("frag2", entry("id2", "bob")).err(), Some(1));
        assert!(!s.close("id", &user("bob")));
        assert!(!s.close("nothing", &user("anna")));
        assert_eq!(s.find("id", &user("anna")).unwrap().0, "\"frag\"");
        assert!(s.close("id", &user("anna")));
        assert_eq!(inbox.over(), Some("client"));
        s.end_where("revoked", |_| true);
        assert_eq!(inbox.over(), Some("client"), "the first reason holds");
    }

    #[test]
    fn a_restarted_session_is_found_by_both_names() {
        let s = Sessions::new(1);
        let e = entry("id", "anna");
        let slot = e.restart.clone();
        let seat = s.open("frag", e).unwrap();
        let new = |n: usize| ice::Credentials {
            ufrag: format!("new{n}"),
            password: "p".into(),
        };
        assert_eq!(s.restart("id", &user("bob"), "r", &new(0)), None);
        assert_eq!(slot.lock().as_ref(), None);
        for n in 0..5 {
            let tag = s.restart("id", &user("anna"), "r", &new(n)).unwrap();
            assert_eq!(tag, format!("\"new{n}\""));
            assert_eq!(slot.lock().as_ref(), Some(&new(n)));
        }
        let found = s.find("id", &user("anna")).unwrap();
        assert_eq!(found, ("\"new4\"".to_owned(), "r".to_owned()));
        for (name, is) in [
            ("frag", true),
            ("new2", false),
            ("new3", true),
            ("new4", true),
        ] {
            assert_eq!(s.by_ufrag(name).is_some(), is, "{name}");
        }
        drop(seat);
        assert!(s.by_ufrag("new4").is_none() && s.table.lock().renewed.is_empty());
        assert!(s.table.lock().renewals.is_empty());
    }

    #[test]
    fn one_publisher_does_not_take_every_place() {
        let s = Sessions::new(PUBLISHED_MAX + 2);
        let publish = |n: usize, owner: &str| {
            let mut e = entry(&format!("id{n}"), owner);
            e.role = Role::Publish;
            s.open(&format!("frag{n}"), e)
        };
        let mut seats: Vec<_> = (0..PUBLISHED_MAX)
            .map(|n| publish(n, "bc-01").unwrap())
            .collect();
        assert_eq!(publish(100, "bc-01").err(), Some(PUBLISHED_MAX));
        let _other = publish(101, "bc-02").unwrap();
        seats.pop();
        let _again = publish(102, "bc-01").unwrap();
    }

    #[test]
    fn one_user_does_not_take_every_place() {
        let s = Sessions::new(8);
        let play =
            |n: usize, owner: &str| s.open(&format!("frag{n}"), entry(&format!("id{n}"), owner));
        let _seats: Vec<_> = (0..6).map(|n| play(n, "anna").unwrap()).collect();
        assert_eq!(play(500, "anna").err(), Some(6));
        let _other = play(501, "bob").unwrap();
    }

    #[test]
    fn a_session_is_heard_from_few_addresses() {
        let s = Sessions::new(1);
        let mut seat = s.open("frag", entry("id", "anna")).unwrap();
        for port in 0..100 {
            seat.route(([192, 0, 2, 1], port).into());
        }
        assert_eq!(s.table.lock().by_address.len(), ADDRESSES_MAX);
    }
}

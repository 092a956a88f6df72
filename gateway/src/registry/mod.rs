//! Who may connect: devices with passwords, users with tokens. SQLite in the state directory, shared by the running
//! gateway and the command line; a change made by one is seen by the other at its next look.
//!
//! Secrets are generated (160 random bits), shown once and stored only as hashes that suit the protocol: SHA-256 for
//! MQTT and Bearer, HA1 for RTSP Digest (RFC 7616 §3.4.2). No slow hash: it protects passwords that people choose,
//! and would let a fleet that reconnects at once exhaust the processor.
//!
//! Here: accounts, checking, revocation. Not here: what a principal may do (the rooms know), protocol challenges.

mod account;
mod guard;
mod store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

pub use account::{Device, DeviceKind, Ha1, Issue, Principal, Role, User};
pub use guard::{Guard, Verdict};

use account::{Hashes, new_secret};
use store::Store;

/// Realm of Digest and Basic challenges; part of the stored HA1, so it never changes.
pub const REALM: &str = "kerbside";

/// First parts of HTTP addresses that are not streams.
const RESERVED: [&str; 2] = ["api", "map"];

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    BadId(#[from] crate::ids::BadId),
    #[error("{0} is already registered; revoke it first, then add it again for a new secret")]
    Exists(String),
    #[error("{0} is an address of the gateway itself; choose another id")]
    Reserved(String),
    #[error("{0} is not registered")]
    Unknown(String),
    #[error("registry database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("state directory {0}: {1}")]
    StateDir(String, std::io::Error),
}

/// Credentials are wrong, or of somebody revoked. Deliberately without a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong or missing credentials")]
pub struct Denied;

#[derive(Default)]
struct Accounts {
    devices: HashMap<String, (Device, Hashes)>,
    users: HashMap<String, (User, Hashes)>,
    /// SHA-256 of the token → user name, for Bearer without a name.
    tokens: HashMap<[u8; 32], String>,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: Arc<Mutex<Store>>,
    accounts: Arc<RwLock<Accounts>>,
    /// Grows when an account is gone or has a new secret: live sessions check themselves then.
    revocations: Arc<watch::Sender<u64>>,
    /// Grows with every reload.
    generation: Arc<AtomicU64>,
}

impl Registry {
    /// Opens (or creates) `registry.db` in the state directory.
    ///
    /// # Errors
    /// When the directory or the database cannot be used.
    pub fn open(state_dir: &Path) -> Result<Self, RegistryError> {
        std::fs::create_dir_all(state_dir)
            .map_err(|e| RegistryError::StateDir(state_dir.display().to_string(), e))?;
        let store = Store::open(&state_dir.join("registry.db"))?;
        let me = Self {
            store: Arc::new(Mutex::new(store)),
            accounts: Arc::default(),
            revocations: Arc::new(watch::channel(0).0),
            generation: Arc::default(),
        };
        me.reload()?;
        Ok(me)
    }

    /// Registers a device and gives its password.
    ///
    /// # Errors
    /// [`RegistryError::BadId`], [`RegistryError::Exists`] (also when a user has the name), database faults.
    pub fn add_device(
        &self,
        id: &str,
        kind: DeviceKind,
        unit: Option<&str>,
    ) -> Result<String, RegistryError> {
        self.enrol(Device {
            unit: unit.map(str::to_owned),
            ..Device::new(id, kind)
        })
    }

    /// Registers a device with all that is known of it; `issue` is set here.
    ///
    /// # Errors
    /// As [`Self::add_device`].
    pub fn enrol(&self, device: Device) -> Result<String, RegistryError> {
        let secret = self.enrol_all(vec![device])?.pop();
        Ok(secret.unwrap_or_default())
    }

    /// Registers many devices, or none of them when one cannot be; gives their passwords in the same order.
    ///
    /// # Errors
    /// As [`Self::add_device`].
    pub fn enrol_all(&self, devices: Vec<Device>) -> Result<Vec<String>, RegistryError> {
        let mut secrets = Vec::with_capacity(devices.len());
        let mut all = Vec::with_capacity(devices.len());
        for mut device in devices {
            crate::ids::DeviceId::parse(&device.id)?;
            if RESERVED.contains(&device.id.as_str()) {
                return Err(RegistryError::Reserved(device.id));
            }
            let secret = new_secret();
            let hashes = Hashes::of(&device.id, &secret);
            device.issue = hashes.issue();
            all.push((device, hashes));
            secrets.push(secret);
        }
        self.store.lock().add_devices(&all)?;
        self.reload()?;
        Ok(secrets)
    }

    /// Registers a user and gives the token.
    ///
    /// # Errors
    /// As [`Self::add_device`].
    pub fn add_user(&self, name: &str, role: Role) -> Result<String, RegistryError> {
        self.admit(User::new(name, role))
    }

    /// Registers a user with grants; `issue` is set here.
    ///
    /// # Errors
    /// As [`Self::add_device`].
    pub fn admit(&self, mut user: User) -> Result<String, RegistryError> {
        if !crate::ids::is_id(&user.name) {
            return Err(crate::ids::BadId(user.name.chars().take(80).collect()).into());
        }
        let secret = new_secret();
        let hashes = Hashes::of(&user.name, &secret);
        user.issue = hashes.issue();
        self.store.lock().add_user(&user, &hashes)?;
        self.reload()?;
        Ok(secret)
    }

    /// Takes a device's access away; its live sessions end within a second.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn revoke_device(&self, id: &str) -> Result<(), RegistryError> {
        self.store.lock().revoke_device(id)?;
        self.reload()
    }

    /// Takes a user's access away; the live sessions end within a second.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn revoke_user(&self, name: &str) -> Result<(), RegistryError> {
        self.store.lock().revoke_user(name)?;
        self.reload()
    }

    pub fn devices(&self) -> Vec<Device> {
        let mut all: Vec<_> = self
            .accounts
            .read()
            .devices
            .values()
            .map(|(d, _)| d.clone())
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    pub fn users(&self) -> Vec<User> {
        let mut all: Vec<_> = self
            .accounts
            .read()
            .users
            .values()
            .map(|(u, _)| u.clone())
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn device(&self, id: &str) -> Option<Device> {
        self.fresh();
        self.accounts.read().devices.get(id).map(|(d, _)| d.clone())
    }

    /// # Errors
    /// [`Denied`].
    pub fn check_device(&self, id: &str, password: &[u8]) -> Result<Device, Denied> {
        self.fresh();
        match self.accounts.read().devices.get(id) {
            Some((d, h)) if h.matches(password) => Ok(d.clone()),
            _ => Err(Denied),
        }
    }

    /// # Errors
    /// [`Denied`].
    pub fn check_user(&self, name: &str, token: &[u8]) -> Result<User, Denied> {
        self.fresh();
        match self.accounts.read().users.get(name) {
            Some((u, h)) if h.matches(token) => Ok(u.clone()),
            _ => Err(Denied),
        }
    }

    /// A user by token alone (`Authorization: Bearer`).
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check_token(&self, token: &[u8]) -> Result<User, Denied> {
        self.fresh();
        let hash: [u8; 32] = Sha256::digest(token).into();
        let accounts = self.accounts.read();
        let name = accounts.tokens.get(&hash).ok_or(Denied)?;
        accounts
            .users
            .get(name)
            .map(|(u, _)| u.clone())
            .ok_or(Denied)
    }

    /// Who has this name, with the HA1 for a Digest answer. Names are unique over devices and users.
    pub fn principal(&self, name: &str) -> Option<(Principal, Ha1)> {
        self.fresh();
        let accounts = self.accounts.read();
        let device = accounts
            .devices
            .get(name)
            .map(|(d, h)| (Principal::Device(d.clone()), h));
        let (p, h) = device.or_else(|| {
            accounts
                .users
                .get(name)
                .map(|(u, h)| (Principal::User(u.clone()), h))
        })?;
        Some((
            p,
            Ha1 {
                md5: h.ha1_md5.clone(),
                sha256: h.ha1_sha256.clone(),
            },
        ))
    }

    /// Wakes when accounts were revoked: every live session then asks [`Self::is_valid`] and ends if it is not.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    /// Does this account still exist, unchanged?
    pub fn is_valid(&self, principal: &Principal) -> bool {
        let accounts = self.accounts.read();
        match principal {
            Principal::Device(d) => accounts.devices.get(&d.id).is_some_and(|(x, _)| x == d),
            Principal::User(u) => accounts.users.get(&u.name).is_some_and(|(x, _)| x == u),
        }
    }

    /// May this user know of that device: is it not restricted, or has the user the grant?
    pub fn may_see(&self, user: &User, device: &str) -> bool {
        let restricted = |(d, _): &(Device, Hashes)| d.restricted;
        user.sees_restricted
            || !self
                .accounts
                .read()
                .devices
                .get(device)
                .is_some_and(restricted)
    }

    /// Changes whenever accounts changed; compare it before asking for all of them.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Looks whether another process changed the database; cheap when not. Also called by a timer in `app`.
    pub fn fresh(&self) {
        let changed = self.store.lock().changed_elsewhere();
        if changed && let Err(e) = self.reload() {
            tracing::error!(error = %e, "the registry could not be read again; the former accounts stay in force");
        }
    }

    fn reload(&self) -> Result<(), RegistryError> {
        let (devices, users) = self.store.lock().load()?;
        let next = Accounts {
            tokens: users
                .iter()
                .map(|(u, h)| (h.sha256, u.name.clone()))
                .collect(),
            devices: devices
                .into_iter()
                .map(|(d, h)| (d.id.clone(), (d, h)))
                .collect(),
            users: users
                .into_iter()
                .map(|(u, h)| (u.name.clone(), (u, h)))
                .collect(),
        };
        let mut accounts = self.accounts.write();
        let gone = accounts
            .devices
            .iter()
            .any(|(k, v)| next.devices.get(k) != Some(v))
            || accounts
                .users
                .iter()
                .any(|(k, v)| next.users.get(k) != Some(v));
        *accounts = next;
        drop(accounts);
        self.generation.fetch_add(1, Ordering::Relaxed);
        if gone {
            self.revocations.send_modify(|n| *n += 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kerbside_codecs::telemetry::Datum;

    use super::*;

    #[test]
    fn a_registry_of_before_gets_the_new_columns() {
        let dir = tempfile::tempdir().unwrap();
        let old = rusqlite::Connection::open(dir.path().join("registry.db")).unwrap();
        old.execute_batch(
            "CREATE TABLE account (name TEXT PRIMARY KEY, is_user INTEGER NOT NULL, kind TEXT NOT NULL, unit TEXT,
             sha256 BLOB NOT NULL, ha1_md5 TEXT NOT NULL, ha1_sha256 TEXT NOT NULL) STRICT;
             INSERT INTO account VALUES ('bc-01', 0, 'bodycam', 'patrol-1', zeroblob(32), '', '');",
        )
        .unwrap();
        drop(old);
        let r = Registry::open(dir.path()).unwrap();
        let known = r.device("bc-01").unwrap();
        assert_eq!((known.datum, known.restricted), (Datum::Wgs84, false));
        let new = Device {
            agency: Some("traffic".into()),
            person: Some("p-7".into()),
            datum: Datum::Gcj02,
            restricted: true,
            ..Device::new("bc-02", DeviceKind::Bodycam)
        };
        r.enrol(new.clone()).unwrap();
        let issue = r.device("bc-02").unwrap().issue;
        assert_eq!(
            Registry::open(dir.path()).unwrap().device("bc-02"),
            Some(Device { issue, ..new })
        );
    }

    #[test]
    fn many_are_registered_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let r = Registry::open(dir.path()).unwrap();
        let device = |id: &str| Device::new(id, DeviceKind::Vehicle);
        let secrets = r.enrol_all(vec![device("a"), device("b")]).unwrap();
        assert!(r.check_device("b", secrets[1].as_bytes()).is_ok());
        assert!(matches!(
            r.enrol_all(vec![device("c"), device("a")]),
            Err(RegistryError::Exists(_))
        ));
        assert_eq!(r.device("c"), None);
    }

    #[test]
    fn a_secret_opens_until_it_is_revoked_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let gateway = Registry::open(dir.path()).unwrap();
        let cli = Registry::open(dir.path()).unwrap();
        let password = cli
            .add_device("bc-01", DeviceKind::Bodycam, Some("patrol-1"))
            .unwrap();
        let device = gateway.check_device("bc-01", password.as_bytes()).unwrap();
        assert_eq!(device.unit.as_deref(), Some("patrol-1"));
        assert_eq!(gateway.check_device("bc-01", b"wrong"), Err(Denied));
        assert_eq!(
            gateway.check_device("bc-02", password.as_bytes()),
            Err(Denied)
        );

        let mut revoked = gateway.revocations();
        revoked.mark_unchanged();
        let principal = Principal::Device(device);
        assert!(gateway.is_valid(&principal));
        cli.revoke_device("bc-01").unwrap();
        gateway.fresh();
        assert!(revoked.has_changed().unwrap());
        assert!(!gateway.is_valid(&principal));
        let again = cli
            .add_device("bc-01", DeviceKind::Bodycam, Some("patrol-1"))
            .unwrap();
        assert!(gateway.check_device("bc-01", again.as_bytes()).is_ok());
        assert!(
            !gateway.is_valid(&principal),
            "sessions of the former secret stay cut"
        );
        assert_eq!(
            gateway.check_device("bc-01", password.as_bytes()),
            Err(Denied)
        );
    }

    #[test]
    fn no_secret_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let r = Registry::open(dir.path()).unwrap();
        let token = r.add_user("anna", Role::Operator).unwrap();
        assert_eq!(r.check_token(token.as_bytes()).unwrap().name, "anna");
        drop(r);
        for f in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(f.unwrap().path()).unwrap();
            assert!(!bytes.windows(token.len()).any(|w| w == token.as_bytes()));
        }
    }

    #[test]
    fn one_name_is_one_principal() {
        let dir = tempfile::tempdir().unwrap();
        let r = Registry::open(dir.path()).unwrap();
        r.add_device("x", DeviceKind::Radio, None).unwrap();
        assert!(matches!(
            r.add_user("x", Role::Admin),
            Err(RegistryError::Exists(_))
        ));
        assert!(matches!(
            r.add_device("x", DeviceKind::Radio, None),
            Err(RegistryError::Exists(_))
        ));
        assert!(matches!(
            r.add_device("api", DeviceKind::Radio, None),
            Err(RegistryError::Reserved(_))
        ));
        assert!(matches!(
            r.add_device("a/b", DeviceKind::Radio, None),
            Err(RegistryError::BadId(_))
        ));
        assert!(matches!(
            r.revoke_user("nobody"),
            Err(RegistryError::Unknown(_))
        ));
    }
}

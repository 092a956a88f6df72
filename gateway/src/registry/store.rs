//! The registry's tables.

use std::path::Path;
use std::time::Duration;

use kerbside_codecs::telemetry::Datum;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Device, DeviceKind, Hashes, RegistryError, Role, User};

pub(super) struct Store {
    db: Connection,
    version: i64,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY,
    is_user INTEGER NOT NULL,
    kind TEXT NOT NULL,
    unit TEXT,
    sha256 BLOB NOT NULL,
    ha1_md5 TEXT NOT NULL,
    ha1_sha256 TEXT NOT NULL
) STRICT;";

/// Columns that came later; a registry of before gets them with their defaults.
const LATER: [(&str, &str); 4] = [
    ("agency", "TEXT"),
    ("person", "TEXT"),
    ("datum", "TEXT NOT NULL DEFAULT 'wgs84'"),
    // Of a device: seen with the grant only. Of a user: the grant.
    ("restricted", "INTEGER NOT NULL DEFAULT 0"),
];

impl Store {
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let db = Connection::open(path)?;
        restrict(path);
        hand_over(path);
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch(SCHEMA)?;
        complete(&db)?;
        let mut me = Self { db, version: 0 };
        me.version = me.data_version();
        Ok(me)
    }

    fn data_version(&self) -> i64 {
        self.db
            .pragma_query_value(None, "data_version", |r| r.get(0))
            .unwrap_or(-1)
    }

    /// Has another connection written since the last call?
    pub fn changed_elsewhere(&mut self) -> bool {
        let version = self.data_version();
        std::mem::replace(&mut self.version, version) != version
    }

    /// All of them, or none.
    pub fn add_devices(&mut self, all: &[(Device, Hashes)]) -> Result<(), RegistryError> {
        let tx = self.db.transaction()?;
        for (d, hashes) in all {
            device_row(d).insert(&tx, hashes)?;
        }
        tx.commit()?;
        Ok(())
    }

    pub fn add_user(&mut self, u: &User, hashes: &Hashes) -> Result<(), RegistryError> {
        let row = Row {
            name: &u.name,
            is_user: true,
            kind: u.role.name(),
            unit: None,
            agency: None,
            person: None,
            datum: Datum::Wgs84,
            restricted: u.sees_restricted,
        };
        let tx = self.db.transaction()?;
        row.insert(&tx, hashes)?;
        tx.commit()?;
        Ok(())
    }

    fn delete(&mut self, name: &str, is_user: bool) -> Result<(), RegistryError> {
        let n = self.db.execute(
            "DELETE FROM account WHERE name = ?1 AND is_user = ?2",
            params![name, is_user],
        )?;
        if n == 0 {
            Err(RegistryError::Unknown(name.to_owned()))
        } else {
            Ok(())
        }
    }

    pub fn revoke_device(&mut self, id: &str) -> Result<(), RegistryError> {
        self.delete(id, false)
    }

    pub fn revoke_user(&mut self, name: &str) -> Result<(), RegistryError> {
        self.delete(name, true)
    }

    #[allow(
        clippy::type_complexity,
        reason = "two lists of the same shape, read in one place"
    )]
    pub fn load(&self) -> Result<(Vec<(Device, Hashes)>, Vec<(User, Hashes)>), RegistryError> {
        let mut devices = Vec::new();
        let mut users = Vec::new();
        let mut rows = self.db.prepare_cached(
            "SELECT name, is_user, kind, unit, sha256, ha1_md5, ha1_sha256, agency, person, datum, restricted
             FROM account",
        )?;
        let mut rows = rows.query([])?;
        while let Some(r) = rows.next()? {
            let name: String = r.get(0)?;
            let kind: String = r.get(2)?;
            let hashes = Hashes {
                sha256: r.get(4)?,
                ha1_md5: r.get(5)?,
                ha1_sha256: r.get(6)?,
            };
            if r.get(1)? {
                match Role::parse(&kind) {
                    Some(role) => {
                        let issue = hashes.issue();
                        let user = User {
                            name,
                            role,
                            sees_restricted: r.get(10)?,
                            issue,
                        };
                        users.push((user, hashes));
                    }
                    None => tracing::warn!(
                        user = name,
                        role = kind,
                        "unknown role in the registry; user ignored"
                    ),
                }
            } else {
                match DeviceKind::parse(&kind) {
                    Some(kind) => devices.push((
                        Device {
                            id: name,
                            kind,
                            unit: r.get(3)?,
                            agency: r.get(7)?,
                            person: r.get(8)?,
                            datum: datum(&r.get::<_, String>(9)?),
                            restricted: r.get(10)?,
                            issue: hashes.issue(),
                        },
                        hashes,
                    )),
                    None => tracing::warn!(
                        device = name,
                        kind,
                        "unknown kind in the registry; device ignored"
                    ),
                }
            }
        }
        Ok((devices, users))
    }
}

/// One account as the table has it.
struct Row<'a> {
    name: &'a str,
    is_user: bool,
    kind: &'a str,
    unit: Option<&'a str>,
    agency: Option<&'a str>,
    person: Option<&'a str>,
    datum: Datum,
    restricted: bool,
}

fn device_row(d: &Device) -> Row<'_> {
    Row {
        name: &d.id,
        is_user: false,
        kind: d.kind.name(),
        unit: d.unit.as_deref(),
        agency: d.agency.as_deref(),
        person: d.person.as_deref(),
        datum: d.datum,
        restricted: d.restricted,
    }
}

impl Row<'_> {
    fn insert(&self, tx: &Transaction<'_>, hashes: &Hashes) -> Result<(), RegistryError> {
        let taken: Option<i64> = tx
            .prepare_cached("SELECT 1 FROM account WHERE name = ?1")?
            .query_row([self.name], |r| r.get(0))
            .optional()?;
        if taken.is_some() {
            return Err(RegistryError::Exists(self.name.to_owned()));
        }
        tx.prepare_cached(
            "INSERT INTO account (name, is_user, kind, unit, sha256, ha1_md5, ha1_sha256, agency, person, datum, restricted)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
        )?
        .execute(params![
            self.name,
            self.is_user,
            self.kind,
            self.unit,
            hashes.sha256,
            hashes.ha1_md5,
            hashes.ha1_sha256,
            self.agency,
            self.person,
            self.datum.name(),
            self.restricted
        ])?;
        Ok(())
    }
}

/// Only this program writes it, so anything else is WGS-84 of a newer version's making.
fn datum(name: &str) -> Datum {
    Datum::parse(name).unwrap_or_default()
}

/// Adds the columns of [`LATER`] that the table lacks; two processes may do it at once.
fn complete(db: &Connection) -> Result<(), RegistryError> {
    let lock = db.unchecked_transaction()?;
    for (column, definition) in LATER {
        let known: i64 = db.query_row(
            "SELECT count(*) FROM pragma_table_info('account') WHERE name = ?1",
            [column],
            |r| r.get(0),
        )?;
        if known == 0 {
            db.execute_batch(&format!(
                "ALTER TABLE account ADD COLUMN {column} {definition}"
            ))?;
        }
    }
    lock.commit()?;
    Ok(())
}

/// Made by root on the command line, read by the service: the file goes to whoever owns the state directory. SQLite
/// gives its side files to the owner of the database by itself.
fn hand_over(path: &Path) {
    use std::os::unix::fs::{MetadataExt, chown};
    let given = path.parent().map_or(Ok(()), |dir| {
        let (dir, file) = (std::fs::metadata(dir)?, std::fs::metadata(path)?);
        if rustix::process::geteuid().is_root() && dir.uid() != file.uid() {
            chown(path, Some(dir.uid()), Some(dir.gid()))?;
        }
        Ok::<(), std::io::Error>(())
    });
    if let Err(e) = given {
        tracing::warn!(path = %path.display(), error = %e, "the registry could not be given to the owner of its directory");
    }
}

/// Hashes are for the gateway alone.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(e) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), error = %e, "the registry's file mode could not be set");
    }
}

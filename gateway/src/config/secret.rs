//! Secrets named by the configuration: a systemd credential or a file of their own, never a value in these files.

use std::path::PathBuf;

use super::table::{Found, Table};

const BYTES_MAX: u64 = 4096;

/// Where credentials are: `$CREDENTIALS_DIRECTORY`, set by systemd for the service.
pub(super) struct Credentials {
    pub dir: Option<PathBuf>,
    /// Outside the service (`kerbside check`) credentials cannot be seen; naming them is no fault then.
    pub may_be_unseen: bool,
}

/// A secret as the configuration names it.
pub(super) struct Secret {
    /// One of the keys is there, whether or not it could be read.
    pub named: bool,
    pub value: Option<String>,
}

pub(super) fn read(
    t: &mut Table<'_>,
    credential_key: &'static str,
    file_key: &'static str,
    credentials: &Credentials,
) -> Secret {
    match (t.optional(credential_key), t.optional(file_key)) {
        (None, None) => Secret {
            named: false,
            value: None,
        },
        (Some(_), Some(file)) => {
            file.at.fault(format!(
                "stands beside {credential_key}: keep one of the two"
            ));
            Secret {
                named: true,
                value: None,
            }
        }
        (Some(name), None) => Secret {
            named: true,
            value: from_credential(name, credentials),
        },
        (None, Some(file)) => Secret {
            named: true,
            value: from_file(file),
        },
    }
}

fn from_credential(name: Found<'_>, credentials: &Credentials) -> Option<String> {
    let at = name.at.clone();
    let name = name.read(super::id)?;
    match &credentials.dir {
        Some(dir) => content(&dir.join(&name))
            .map_err(|e| {
                at.fault(format!(
                    "credential {name:?} {e}; add LoadCredential={name}:FILE to the unit"
                ));
            })
            .ok(),
        None if credentials.may_be_unseen => None,
        None => {
            at.fault(format!(
                "credential {name:?} needs $CREDENTIALS_DIRECTORY, which systemd sets; outside systemd use a file instead"
            ));
            None
        }
    }
}

fn from_file(file: Found<'_>) -> Option<String> {
    let at = file.at.clone();
    let path = file.path(false)?;
    content(&path)
        .map_err(|e| at.fault(format!("{} {e}", path.display())))
        .ok()
}

/// The secret in a file, without the white space around it.
fn content(path: &std::path::Path) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    if std::fs::metadata(path).map_err(cannot)?.len() > BYTES_MAX {
        return Err(format!("is larger than {BYTES_MAX} bytes: not a secret"));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    let secret = text.trim();
    if secret.is_empty() || secret.chars().any(char::is_control) {
        return Err("must hold one line with the secret".to_owned());
    }
    Ok(secret.to_owned())
}

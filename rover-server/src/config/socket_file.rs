//! The keys of the file that a Unix socket has. Comes in: a value. Goes out: who may connect. Must not know: where it lies.

use super::key::{ConfigKey, Group};
use super::kind::{Kind, custom};

/// Who may connect to a Unix socket: whoever may write to its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketFile {
    /// Permission bits; what the umask leaves where it is not set.
    pub(crate) mode: Option<u32>,
    /// The name or the number of a group; the process's own where it is not set.
    pub(crate) group: Option<String>,
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.socket_file)
        .needs_restart()
        .key("socket_mode", "permissions of the file of a Unix socket; who may write to it may connect")
        .takes(permissions(), |file| &mut file.mode)
        .key("socket_group", "group of the file of a Unix socket")
        .takes(group().or("own"), |file| &mut file.group)
        .keys()
}

fn permissions() -> Kind<Option<u32>> {
    let takes = "octal digits as text, such as \"0660\", or \"umask\"";
    custom(takes, "umask", |value| match value.text().ok_or("; write it in quotes")? {
        "umask" => Ok(None),
        digits if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777).map(Some).ok_or("")
        }
        _ => Err(""),
    })
}

fn group() -> Kind<String> {
    custom("the name or the number of a group", "own", |value| match value.whole(0, u32::MAX.into()) {
        Some(number) => Ok(number.to_string()),
        None => {
            let name = value.text().filter(|name| !name.is_empty() && !name.contains([':', '\n']));
            name.map(str::to_owned).ok_or("")
        }
    })
}

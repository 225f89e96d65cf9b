//! The keys of the file that a Unix socket has. Comes in: a value. Goes out: who may connect. Must not know: where it lies.

use super::key::ConfigKey;

/// Who may connect to a Unix socket: whoever may write to its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketFile {
    /// Permission bits; what the umask leaves where it is not set.
    pub(crate) mode: Option<u32>,
    /// The name or the number of a group; the process's own where it is not set.
    pub(crate) group: Option<String>,
}

pub(super) static SOCKET_FILE_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "socket_mode",
        what: "permissions of the file of a Unix socket; who may write to it may connect",
        takes: "octal digits as text, such as \"0660\", or \"umask\"",
        default: "umask",
        example: "\"0660\"",
        store: |config, value| {
            let text = value.text().ok_or("; write it in quotes")?;
            config.socket_file.mode = match text {
                "umask" => None,
                digits if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                    Some(u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777).ok_or("")?)
                }
                _ => return Err(""),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "socket_group",
        what: "group of the file of a Unix socket",
        takes: "the name or the number of a group, or \"own\"",
        default: "own",
        example: "\"www-data\"",
        store: |config, value| {
            let group = match value.whole(0, u32::MAX.into()) {
                Some(number) => number.to_string(),
                None => {
                    value.text().filter(|name| !name.is_empty() && !name.contains([':', '\n'])).ok_or("")?.to_owned()
                }
            };
            config.socket_file.group = Some(group).filter(|group| group != "own");
            Ok(())
        },
    },
];

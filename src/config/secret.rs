//! Files that hold secrets.

use super::source::Source;

/// The contents of a file that holds a secret.
pub(super) fn secret_file(
    s: &mut Source,
    key: &'static str,
    readable_by_all: &mut Vec<String>,
) -> Option<String> {
    let text = s.file(key)?;
    let path = s.said(key).unwrap_or_default();
    note_readable(&path, readable_by_all);
    Some(text)
}

pub(super) fn note_readable(path: &str, readable_by_all: &mut Vec<String>) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|data| data.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        readable_by_all.push(path.to_owned());
    }
}

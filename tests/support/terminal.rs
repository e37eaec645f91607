//! A terminal of a test's own.

use super::process::Lines;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use std::fs::File;
use std::path::PathBuf;

/// Both sides of it: what stands in `theirs` is a terminal for whoever has it.
#[derive(Debug)]
pub struct Terminal {
    /// The person's side: what is shown is read here, what is typed is written.
    pub ours: File,
    /// The program's side.
    pub theirs: File,
    /// Where that can be opened, too.
    pub path: PathBuf,
}

impl Terminal {
    /// A terminal of so many columns, which shows what is written to it as it is.
    pub fn of(columns: u16) -> Self {
        // Children of other tests must not have it: it would never hang up.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).expect("a terminal of our own");
        unlockpt(&ours).expect("a terminal without a lock");
        let path = ptsname(&ours, Vec::new()).expect("a name");
        let path = PathBuf::from(path.into_string().expect("a name in UTF-8"));
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(&path, flags, Mode::empty()).expect("the other side");
        let mut modes = tcgetattr(&theirs).expect("its modes");
        modes.make_raw();
        tcsetattr(&theirs, OptionalActions::Now, &modes).expect("other modes");
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&theirs, size).expect("a size");
        Self {
            ours: ours.into(),
            theirs: theirs.into(),
            path,
        }
    }

    /// The program's side, once more.
    pub fn side(&self) -> std::process::Stdio {
        self.theirs.try_clone().expect("the same file").into()
    }

    /// What is shown from now on, line by line.
    pub fn shown(&self) -> Lines {
        Lines::collect(self.ours.try_clone().expect("the same file"))
    }
}

//! Two builds of the gateway, and which of them the next replica is started from.

use crate::cluster::root;
use crate::scenario::Build;
use std::path::{Path, PathBuf};
use std::{env, fs, io, process};

/// Begins what the functions that replicas call say of their arguments: a comment in the sources that are part of the
/// program.
const COMMENT: &[u8] = b"\n-- p ";
/// The same for a reader, and other sources for whoever compares them.
const CHANGED: &[u8] = b"\n-- P ";

/// Two builds. They go with the cluster.
#[derive(Debug)]
pub(crate) struct Builds {
    old: PathBuf,
    new: PathBuf,
    /// The old one is made from the new one.
    is_stand_in: bool,
    /// Where the one in place lies.
    directory: PathBuf,
}

impl Builds {
    /// Puts the old build in place: `old`, or a stand-in, which behaves like the new one and has other functions in
    /// Redis by name or by hash.
    ///
    /// # Errors
    /// They are the same, or cannot be had.
    pub(crate) fn new(old: Option<&Path>) -> Result<Self, String> {
        let new = env::var_os("TIDEGATE_BIN")
            .map_or_else(|| root().join("target/release/tidegate"), PathBuf::from);
        let name = format!("builds-{}-{:08x}", process::id(), rand::random::<u32>());
        let directory = root().join(".local").join(name);
        let builds = Self {
            old: old.map_or_else(|| directory.join("stand-in"), Path::to_owned),
            new,
            is_stand_in: old.is_none(),
            directory,
        };
        builds.make().map_err(|why| format!("two builds: {why}"))?;
        Ok(builds)
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let new = fs::read(&self.new)?;
        if self.is_stand_in {
            let changed = stand_in(new).ok_or_else(|| {
                io::Error::other(
                    "no stand-in can be made of this build: name an older one by --old-binary",
                )
            })?;
            // The copy is a program, too.
            fs::copy(&self.new, &self.old)?;
            fs::write(&self.old, changed)?;
        } else if fs::read(&self.old)? == new {
            return Err(io::Error::other("they are the same"));
        }
        self.put(Build::Old)
    }

    /// What the builds are called.
    pub(crate) fn name(&self, build: Build) -> String {
        match build {
            Build::New => "the build under test".to_owned(),
            Build::Old if self.is_stand_in => "a stand-in for another build".to_owned(),
            Build::Old => self.old.display().to_string(),
        }
    }

    /// What replicas are started from.
    pub(crate) fn program(&self) -> PathBuf {
        self.directory.join("tidegate")
    }

    /// The file is another one from then on; who runs the one before goes on with it.
    pub(crate) fn put(&self, build: Build) -> io::Result<()> {
        let draft = self.directory.join("draft");
        let source = match build {
            Build::Old => &self.old,
            Build::New => &self.new,
        };
        fs::copy(source, &draft)?;
        fs::rename(draft, self.program())
    }
}

impl Drop for Builds {
    fn drop(&mut self) {
        // A folder that is left over harms nobody.
        let _left = fs::remove_dir_all(&self.directory);
    }
}

/// The program with another comment in the first of those functions; none if it has no such comment.
fn stand_in(mut program: Vec<u8>) -> Option<Vec<u8>> {
    let at = memchr::memmem::find(&program, COMMENT)?;
    let place = program.get_mut(at..at + CHANGED.len())?;
    place.copy_from_slice(CHANGED);
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_differs_in_one_letter_of_a_comment() {
        let changed = stand_in(b"x\n-- p a\n-- p b".to_vec());
        assert_eq!(changed.as_deref(), Some(b"x\n-- P a\n-- p b".as_slice()));
        assert_eq!(stand_in(b"-- p a".to_vec()), None);
    }
}

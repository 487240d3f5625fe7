//! A folder that lives no longer than the process that made it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A new folder that only its owner can enter (mode 0700), removed when dropped.
///
/// Its owner holds a lock on it, which the kernel takes back however the owner ends. So a folder that nobody holds is a leftover,
/// and whoever makes the next one removes it; a process id in its name would not tell that, since ids are used again and mean
/// something else in another container.
pub(super) struct Scratch {
    path: PathBuf,
    is_made_by_root: bool,
    _lock: File,
}

impl Scratch {
    /// Makes `parent/prefix<pid>-<random>`, and removes the folders with this prefix that nobody holds any more.
    pub(super) fn create(parent: &Path, prefix: &str) -> Result<Self> {
        sweep(parent, prefix);
        for _ in 0..TRIES {
            if let Some(scratch) = try_create(parent, prefix).map_err(|error| {
                Error::Io(format!("making a folder in {}", parent.display()), error)
            })? {
                return Ok(scratch);
            }
        }
        let text = format!("making a folder in {}", parent.display());
        Err(Error::Io(text, io::Error::other("it cannot be locked")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether we are root, told by the owner of what we made: std has no call for it.
    pub(super) fn is_made_by_root(&self) -> bool {
        self.is_made_by_root
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// `None` where another process had the name, or swept the folder before we held it.
fn try_create(parent: &Path, prefix: &str) -> io::Result<Option<Scratch>> {
    let name = format!(
        "{prefix}{}-{:06x}",
        std::process::id(),
        fastrand::u32(..1 << 24)
    );
    let path = parent.join(name);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        made => made?,
    }
    let Some(lock) = hold(&path) else {
        return Ok(None);
    };
    let is_made_by_root = lock.metadata()?.uid() == 0;
    Ok(Some(Scratch {
        path,
        is_made_by_root,
        _lock: lock,
    }))
}

fn sweep(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_bytes());
        if is_ours && let Some(_lock) = hold(&entry.path()) {
            // Where it is another user's, this fails, as it should.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The lock on a folder, unless somebody else has it or the folder went away meanwhile.
fn hold(path: &Path) -> Option<File> {
    // The temporary folder is everyone's: whatever lies there under our name must not make us follow a link or wait for a pipe.
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    folder.try_lock().ok()?;
    let (held, named) = (folder.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    (held.ino() == named.ino() && held.dev() == named.dev()).then_some(folder)
}

/// How often a name may be taken, or a new folder be swept from under us, before we give up.
const TRIES: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_removed_with_its_owner() {
        let parent = Scratch::create(&std::env::temp_dir(), "posthaste-test-a-").unwrap();
        let path = Scratch::create(parent.path(), "x-")
            .unwrap()
            .path()
            .to_owned();
        assert!(!path.exists());
    }

    #[test]
    fn leftovers_are_swept_and_what_somebody_holds_stays() {
        let parent = Scratch::create(&std::env::temp_dir(), "posthaste-test-b-").unwrap();
        let [leftover, other] = ["x-1-abcdef", "y-1-abcdef"].map(|name| parent.path().join(name));
        fs::create_dir_all(leftover.join("data")).unwrap();
        fs::create_dir(&other).unwrap();
        let held = Scratch::create(parent.path(), "x-").unwrap();
        let _next = Scratch::create(parent.path(), "x-").unwrap();
        assert!(!leftover.exists());
        assert!(held.path().exists() && other.exists());
    }

    #[test]
    fn a_link_or_a_pipe_under_our_name_neither_misleads_nor_stops_us() {
        let parent = Scratch::create(&std::env::temp_dir(), "posthaste-test-c-").unwrap();
        let [target, link, pipe] =
            ["target", "x-1-abcdef", "x-2-abcdef"].map(|name| parent.path().join(name));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, link).unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(pipe)
                .status()
                .unwrap()
                .success()
        );
        let _next = Scratch::create(parent.path(), "x-").unwrap();
        assert!(target.exists());
    }
}

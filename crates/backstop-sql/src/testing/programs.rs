//! Where Postgres' programs are, and as whom they run: Postgres refuses root.

use super::{Error, USER};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Debian and its kin keep them, one folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The folder of the programs, and the words that make another user run them.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
    /// Empty unless we are root.
    as_user: Vec<String>,
}

impl Programs {
    pub(super) fn find() -> Result<Self, Error> {
        let folder = in_path().or_else(newest_of_debian).ok_or(Error::NotFound)?;
        Ok(Self { folder, as_user: as_user()? })
    }

    /// A program of Postgres'.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// A command that runs as the user who may.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match self.as_user.split_first() {
            None => Command::new(program.as_ref()),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program.as_ref());
                command
            }
        };
        // The user may not be allowed to be where we are.
        command.current_dir("/");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command
    }

    /// Runs a program of the system and answers what it prints.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        run(self.command(program).args(arguments), program)
    }

    /// Runs a program of Postgres'.
    pub(super) fn run_own(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        run(self.command(self.path(program)).args(arguments), program)
    }
}

fn run(command: &mut Command, program: &str) -> Result<String, Error> {
    let failed = |output: String| Error::Failed { program: program.to_owned(), output };
    let start = |source| Error::Start { program: program.to_owned(), source };
    // Into a file, not a pipe: the server that pg_ctl leaves behind would hold a pipe open for ever.
    let output = tempfile_for_output().map_err(start)?;
    let (out, err) = (output.try_clone().map_err(start)?, output.try_clone().map_err(start)?);
    let status = command.stdin(Stdio::null()).stdout(out).stderr(err).status().map_err(start)?;
    let text = read_back(output).map_err(start)?;
    if status.success() { Ok(text) } else { Err(failed(text.trim().to_owned())) }
}

fn tempfile_for_output() -> std::io::Result<std::fs::File> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("backstop-output-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
    // It lives on, without a name, until the last handle is closed.
    std::fs::remove_file(path)?;
    Ok(file)
}

fn read_back(mut file: std::fs::File) -> std::io::Result<String> {
    use std::io::{Read, Seek};
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn is_complete(folder: &Path) -> bool {
    ["initdb", "pg_ctl", "createdb", "postgres"].iter().all(|program| folder.join(program).exists())
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|folder| {
        // A link to initdb leads to where the other programs are.
        let program = folder.join("initdb").canonicalize().ok()?;
        program.parent().filter(|folder| is_complete(folder)).map(Path::to_owned)
    })
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin"))).filter(|(_, folder)| is_complete(folder))
    });
    versions.max().map(|(_, folder)| folder)
}

fn as_user() -> Result<Vec<String>, Error> {
    let ask = |flag: &str, rest: &[&str]| -> Option<String> {
        let output = Command::new("id").arg(flag).args(rest).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if ask("-u", &[]).as_deref() != Some("0") {
        return Ok(Vec::new());
    }
    if ask("-u", &[USER]).is_none() {
        return Err(Error::NoUser);
    }
    let ways: [&[&str]; 2] = [
        &["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--"],
        &["runuser", "-u", USER, "--"],
    ];
    for way in ways {
        if let Some((program, rest)) = way.split_first() {
            let works = Command::new(program).args(rest).arg("true").stderr(Stdio::null()).status();
            if works.is_ok_and(|status| status.success()) {
                return Ok(way.iter().map(|&word| word.to_owned()).collect());
            }
        }
    }
    // su takes one line of shell; "$@" hands the words on as they are.
    let su = ["su", USER, "-s", "/bin/sh", "-c", "exec \"$@\"", "--", "sh"];
    let works = Command::new(su[0]).args(&su[1..]).arg("true").stderr(Stdio::null()).status();
    if works.is_ok_and(|status| status.success()) {
        return Ok(su.iter().map(|&word| word.to_owned()).collect());
    }
    Err(Error::NoUser)
}

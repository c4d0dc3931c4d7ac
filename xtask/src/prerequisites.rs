//! What the tests need besides Rust: found, else installed, else one line that says how to get it.
//!
//! Nothing is installed outside `target/xtask`, except Postgres and libfaketime from the system's packages, and
//! those only as root (a container). A test never skips for want of one of these: it fails.

use crate::process::{cargo, command, on_path, root, run, tools};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The grpcurl that is installed if there is none.
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3";
/// Asks Python for everything that `requirements.txt` names.
const PYTHON_CHECK: &str = "import grpc, grpc_reflection, grpc_status, grpc_tools";

/// Paths for the tests, handed over by environment.
#[derive(Debug)]
pub(crate) struct Prerequisites {
    /// Directory with `initdb` and `postgres`: `BACKSTOP_TEST_PG_BIN`.
    pub(crate) postgres_bin: PathBuf,
    /// `BACKSTOP_TEST_GRPCURL`.
    pub(crate) grpcurl: PathBuf,
    /// A Python with grpcio: `BACKSTOP_TEST_PYTHON`.
    pub(crate) python: PathBuf,
    /// The library that sets a process's wall clock: `BACKSTOP_TEST_FAKETIME`.
    pub(crate) faketime: PathBuf,
    /// The program of the version before this one, for the story of an upgrade: `BACKSTOP_TEST_PREVIOUS`.
    pub(crate) previous: PathBuf,
}

/// Makes sure of all of them.
///
/// # Errors
/// One line for each that is missing and could not be installed.
pub(crate) fn ensure() -> Result<Prerequisites> {
    let (postgres_bin, grpcurl, python, faketime) = (postgres(), grpcurl(), python(), faketime());
    let previous = previous();
    let missing: Vec<String> = [
        postgres_bin.as_ref().err().map(|e| format!("Postgres server: {e:#}")),
        grpcurl.as_ref().err().map(|e| format!("grpcurl: {e:#}")),
        python.as_ref().err().map(|e| format!("Python with grpcio: {e:#}")),
        faketime.as_ref().err().map(|e| format!("libfaketime: {e:#}")),
        previous.as_ref().err().map(|e| format!("the version before this one: {e:#}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    match (postgres_bin, grpcurl, python, faketime, previous) {
        (Ok(postgres_bin), Ok(grpcurl), Ok(python), Ok(faketime), Ok(previous)) => {
            println!("postgres  {}", postgres_bin.display());
            println!("grpcurl   {}", grpcurl.display());
            println!("python    {}", python.display());
            println!("faketime  {}", faketime.display());
            println!("previous  {}", previous.display());
            Ok(Prerequisites { postgres_bin, grpcurl, python, faketime, previous })
        }
        _ => bail!("the tests need more than is here\n  {}", missing.join("\n  ")),
    }
}

pub(crate) fn postgres() -> Result<PathBuf> {
    if let Some(found) = find_postgres() {
        return Ok(found);
    }
    install_from_the_system("postgresql")?;
    find_postgres().context(
        "not found in PATH or /usr/lib/postgresql; install it (Debian: apt-get install postgresql, \
         macOS: brew install postgresql@15)",
    )
}

/// Installs a package of Debian's or its kin's, where that is ours to do.
pub(crate) fn install_from_the_system(package: &str) -> Result<()> {
    if on_path("apt-get").is_none() || !is_root() {
        return Ok(());
    }
    println!("installing {package} from the system's packages");
    let apt = || {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().args(["update", "-q"]))?;
    run(apt().args(["install", "-q", "-y", "--no-install-recommends", package]))
}

fn faketime() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("BACKSTOP_TEST_FAKETIME").map(PathBuf::from) {
        return if file.is_file() { Ok(file) } else { bail!("{} is not there", file.display()) };
    }
    let find = || {
        let folders =
            ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/local/lib"];
        folders.map(|f| Path::new(f).join("faketime/libfaketime.so.1")).into_iter().find(|f| f.is_file())
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    install_from_the_system("libfaketime")?;
    find().context("not found; install it (Debian: apt-get install libfaketime)")
}

/// Builds the version that a rolling upgrade starts from, out of this repository's own history: the commit named in
/// `xtask/previous-version`, the newest one before the newest migration.
fn previous() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("BACKSTOP_TEST_PREVIOUS").map(PathBuf::from) {
        return if file.is_file() { Ok(file) } else { bail!("{} is not there", file.display()) };
    }
    let commit = std::fs::read_to_string(root().join("xtask/previous-version"))?.trim().to_owned();
    let (tree, target) = (tools().join("previous").join(&commit), tools().join("previous/target"));
    let binary = tools().join("previous").join(format!("backstop-{commit}"));
    if binary.is_file() {
        return Ok(binary);
    }
    println!("building the version before this one ({commit})");
    if !tree.join("Cargo.toml").is_file() {
        std::fs::create_dir_all(&tree)?;
        let archive = tools().join("previous/tree.tar");
        let git = on_path("git").context("no git; install it")?;
        let is_there = || {
            let mut look = command(&git);
            look.args(["cat-file", "-e"]).arg(&commit).output().is_ok_and(|output| output.status.success())
        };
        if !is_there() {
            println!("{commit} is not in this clone: fetching the whole history");
            run(command(&git).args(["fetch", "--quiet", "--unshallow", "origin"]))
                .context("it is not in this clone's history, and the whole history cannot be fetched")?;
        }
        let mut pack = command(&git);
        pack.current_dir(root()).args(["archive", "--format=tar", "-o"]).arg(&archive).arg(&commit);
        run(&mut pack)?;
        run(command("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
    }
    let mut build = cargo();
    build
        .current_dir(&tree)
        .args(["build", "--locked", "--package", "backstop", "--target-dir"])
        .arg(&target);
    run(&mut build)?;
    std::fs::copy(target.join("debug/backstop"), &binary)?;
    Ok(binary)
}

fn find_postgres() -> Option<PathBuf> {
    let is_complete = |dir: &Path| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    if let Some(dir) = std::env::var_os("BACKSTOP_TEST_PG_BIN").map(PathBuf::from) {
        return is_complete(&dir).then_some(dir);
    }
    // A link may stand alone; its siblings are where it leads.
    let on_path = on_path("initdb").and_then(|file| file.canonicalize().ok());
    let on_path = on_path.and_then(|file| file.parent().map(Path::to_path_buf));
    if let Some(dir) = on_path.filter(|dir| is_complete(dir)) {
        return Some(dir);
    }
    // Debian keeps each major version in a directory of its own; the newest wins.
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, dir): &(u32, PathBuf)| is_complete(dir))
        .collect();
    versions.sort();
    versions.pop().map(|(_, dir)| dir)
}

fn is_root() -> bool {
    command("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn grpcurl() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("BACKSTOP_TEST_GRPCURL").map(PathBuf::from) {
        return if file.is_file() { Ok(file) } else { bail!("{} is not there", file.display()) };
    }
    let go = go();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let go_bin = go.as_ref().and_then(|go| {
        let output = command(go).args(["env", "GOPATH"]).output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?;
        Some(PathBuf::from(path.trim()).join("bin"))
    });
    let own_bin = tools().join("bin");
    let places = [go_bin, home.map(|home| home.join("go/bin")), Some(own_bin.clone())];
    let found = on_path("grpcurl")
        .or_else(|| places.into_iter().flatten().map(|d| d.join("grpcurl")).find(|f| f.is_file()));
    if let Some(file) = found {
        return Ok(file);
    }
    let Some(go) = go else {
        bail!("not found, and no go to build it with; get it from github.com/fullstorydev/grpcurl/releases");
    };
    println!("installing {GRPCURL}");
    std::fs::create_dir_all(&own_bin)?;
    run(command(go).args(["install", GRPCURL]).env("GOBIN", &own_bin))?;
    Ok(own_bin.join("grpcurl"))
}

/// Go, in `PATH` or where its own installer puts it.
pub(crate) fn go() -> Option<PathBuf> {
    on_path("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()))
}

pub(crate) fn python() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("BACKSTOP_TEST_PYTHON").map(PathBuf::from) {
        return if has_grpcio(&file) { Ok(file) } else { bail!("{} has no grpcio", file.display()) };
    }
    let venv = tools().join("venv");
    let python = venv.join("bin/python");
    let requirements = std::fs::read_to_string(root().join("xtask/requirements.txt"))?;
    let stamp = venv.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == requirements) && has_grpcio(&python)
    {
        return Ok(python);
    }
    let system =
        on_path("python3").context("no python3; install it (Debian: apt-get install python3-venv)")?;
    println!("installing grpcio into {}", venv.display());
    std::fs::create_dir_all(tools())?;
    run(command(system).args(["-m", "venv"]).arg(&venv))
        .context("install python3's venv module (Debian: apt-get install python3-venv)")?;
    run(command(&python)
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"])
        .arg(root().join("xtask/requirements.txt")))?;
    std::fs::write(&stamp, &requirements)?;
    if has_grpcio(&python) { Ok(python) } else { bail!("{} has no grpcio even now", python.display()) }
}

fn has_grpcio(python: &Path) -> bool {
    command(python).args(["-c", PYTHON_CHECK]).output().is_ok_and(|output| output.status.success())
}

//! The ledgers of the range: processes of their own, each with books of its own on disk, that faults hit like
//! everything else.
//!
//! # Not here
//! The participants that no fault touches: `bank`. What must be true of the books: `oracle`.

mod books;
mod lines;
mod mood;
mod serve;

pub use lines::Calls;
pub use serve::{Serve, serve};

use crate::call::Call;
use crate::moment::now;
use crate::process::{Plan, Process};
use crate::proxy::{Proxy, Wire};
use crate::wire::ledger_client::LedgerClient;
use crate::wire::{Books, SnapshotRequest};
use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A ledger, running or not, and the wire to it from all coordinators.
#[derive(Debug)]
pub struct Ledger {
    process: Process,
    proxy: Proxy,
    calls: Calls,
    data: PathBuf,
    opening: i64,
}

/// What all ledgers of a run have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// `backstop-range`.
    pub program: PathBuf,
    /// Where their files are.
    pub folder: PathBuf,
    /// Accounts of each.
    pub accounts: u32,
    /// What each account holds at first.
    pub opening_balance: i64,
    /// What their moods follow from.
    pub moods: Option<u64>,
}

/// What every process can.
impl Deref for Ledger {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Ledger {
    /// Starts a ledger with new books.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_new(name: &str, common: &Common) -> Result<Self> {
        let data = common.folder.join(format!("{name}.db"));
        let mut arguments: Vec<String> = ["ledger", "--name", name].map(str::to_owned).to_vec();
        for (flag, value) in [
            ("--data", Some(data.display().to_string())),
            ("--accounts", Some(common.accounts.to_string())),
            ("--opening-balance", Some(common.opening_balance.to_string())),
            ("--moods", common.moods.map(|seed| seed.to_string())),
        ] {
            arguments.extend(value.map(|value| [flag.to_owned(), value]).into_iter().flatten());
        }
        let calls = Calls::default();
        let heard = calls.clone();
        let plan = Plan {
            program: common.program.clone(),
            arguments,
            settings: Vec::new(),
            listener: Arc::new(move |line| heard.hear(line)),
        };
        let process = Process::new(name, plan);
        process.start().await?;
        let proxy = Proxy::start(process.address()?).await?;
        let opening = common.opening_balance * i64::from(common.accounts);
        Ok(Self { process, proxy, calls, data, opening })
    }

    /// Where coordinators call it.
    #[must_use]
    pub fn endpoint(&self) -> (String, String) {
        (self.name().to_owned(), format!("http://{}", self.proxy.address()))
    }

    /// The wire to it.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The sum over its accounts at first.
    #[must_use]
    pub fn opening(&self) -> i64 {
        self.opening
    }

    /// Its calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls.all()
    }

    /// Lines about calls that could not be read.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.calls.unread()
    }

    /// `kill -9`; from then on nobody listens there.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await?;
        self.proxy.set(Wire::Gone);
        self.calls.died(now());
        Ok(())
    }

    /// Starts it again after a kill, with the books that it had.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(&self) -> Result<()> {
        self.process.start().await?;
        self.proxy.set(Wire::Sound);
        Ok(())
    }

    /// From now on (or no longer) the kernel refuses whatever it writes into a file (`RLIMIT_FSIZE` 0).
    ///
    /// # Errors
    /// If it does not run.
    pub async fn fill_disk(&self, is_full: bool) -> Result<()> {
        let pid = self.process.pid().await?;
        let own = getrlimit(Resource::Fsize);
        let current = if is_full { Some(0) } else { own.current };
        prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: own.maximum })?;
        Ok(())
    }

    /// Its books as it tells them, past the wire.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn snapshot(&self) -> Result<Books> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address()?))?;
        let mut client =
            LedgerClient::new(channel.connect().await?).max_decoding_message_size(serve::BOOKS_BYTES_MAX);
        Ok(client.snapshot(SnapshotRequest {}).await?.into_inner())
    }

    /// Its books as they are on disk. The files stay as they are: a copy is read.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn read_file(&self) -> Result<Books> {
        read_copy(&self.data).await.with_context(|| format!("{}", self.data.display()))
    }
}

async fn read_copy(data: &Path) -> Result<Books> {
    let copies = tempfile::tempdir()?;
    let copy = copies.path().join("copy.db");
    std::fs::copy(data, &copy)?;
    // What is committed and not yet in the file is in its log. Its index is made anew from that.
    let wal = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    if wal(data).exists() {
        std::fs::copy(wal(data), wal(&copy))?;
    }
    let mut db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&copy)).await?;
    let books = books::read(&mut db).await?;
    db.close().await?;
    Ok(books)
}

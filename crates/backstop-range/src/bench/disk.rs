//! What the disk's own flush does meanwhile: 4 KiB written in place and flushed, every so often, on the file system
//! that the database is on. What a system's slowest sagas took is read beside this.

use super::load::{histogram, micros};
use super::result::Quantiles;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Between two flushes.
const EVERY: Duration = Duration::from_millis(100);
/// What is written: in place, in a file that has its blocks already, as a recycled log has.
const PAGE: usize = 4_096;
/// Pages of the file.
const PAGES: u64 = 256;

/// A thread that flushes until it is asked what it found.
#[derive(Debug)]
pub(super) struct Probe {
    ends: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Quantiles>>,
}

impl Probe {
    /// Starts it in a folder.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let file = File::create(folder.join("flushed")).context("a file to flush")?;
        for page in 0..PAGES {
            file.write_all_at(&[1; PAGE], page * PAGE as u64)?;
        }
        file.sync_all()?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        // A thread of its own: the flush blocks it.
        let thread =
            std::thread::Builder::new().name("flush".to_owned()).spawn(move || flush(&file, &told))?;
        Ok(Self { ends, thread })
    }

    /// Ends it; how long the flushes took.
    pub(super) fn end(self) -> Result<Quantiles> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that flushes panicked"))?
    }
}

fn flush(file: &File, ends: &AtomicBool) -> Result<Quantiles> {
    let mut times = histogram()?;
    let mut page = 0;
    while !ends.load(Ordering::Relaxed) {
        let began = Instant::now();
        file.write_all_at(&[2; PAGE], page % PAGES * PAGE as u64)?;
        file.sync_data()?;
        times.saturating_record(micros(began.elapsed()));
        page += 1;
        std::thread::sleep(EVERY);
    }
    Ok(Quantiles::of(&times))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_flushes_until_it_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let probe = super::Probe::start(folder.path()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(probe.end().unwrap().count >= 1);
    }
}

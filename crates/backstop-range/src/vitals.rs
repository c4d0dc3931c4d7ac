//! What a process uses, and what its `/metrics` says.

use anyhow::{Context, Result, bail};
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A tick of processor time: 10 ms wherever Linux shows it to user space.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Vitals {
    /// Resident memory.
    pub rss_kb: u64,
    /// Processor time since its start.
    pub cpu_ms: u64,
}

/// What a process uses now.
///
/// # Errors
/// If it is gone.
pub fn of_process(pid: impl Display) -> Result<Vitals> {
    let cpu_ms = u64::try_from(times(&pid)?.own.as_millis())?;
    Ok(Vitals { rss_kb: field(pid, "status", "VmRSS:")?, cpu_ms })
}

/// A number that a file of a process has under a name.
pub(crate) fn field(pid: impl Display, file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(value.split_whitespace().next().context("no number")?.parse()?)
}

/// Where a process comes from, and its processor time.
pub(crate) struct Times {
    pub(crate) parent: u32,
    /// Of all its threads, those included that have ended: the sum over the threads that are there would shrink with
    /// each that ends.
    pub(crate) own: Duration,
    /// Of the children that it has waited for.
    pub(crate) waited: Duration,
}

pub(crate) fn times(pid: impl Display) -> Result<Times> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and parentheses; what follows the last one is plain.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |place: usize| -> Result<u32> { Ok(fields.get(place).context("stat is short")?.parse()?) };
    let (own, waited) = (TICK * (field(11)? + field(12)?), TICK * (field(13)? + field(14)?));
    Ok(Times { parent: field(1)?, own, waited })
}

/// The text of `/metrics`.
///
/// # Errors
/// If nobody answers there with 200.
pub async fn metrics(address: SocketAddr) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no body: {answer}") };
    if !head.starts_with("HTTP/1.1 200") {
        bail!("/metrics answers {head}");
    }
    Ok(body.to_owned())
}

/// The sum over all series of a name; 0 if there is none.
#[must_use]
pub fn sum_of(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).flatten()
    });
    // Not `sum`: that of nothing is -0.
    values.fold(0.0, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn series_of_one_name_are_added_up_and_others_left_out() {
        let text = "# TYPE lost counter\nlost{a=\"b c\"} 2\nlost{a=\"d\"} 3\nlost_more 7\n";
        assert!((super::sum_of(text, "lost") - 5.0).abs() < f64::EPSILON);
        assert!(super::sum_of(text, "absent").abs() < f64::EPSILON);
    }

    #[test]
    fn the_time_of_a_thread_stays_when_it_has_ended() {
        let own = || super::times(std::process::id()).unwrap().own;
        let until = own() + 5 * super::TICK;
        let works = move || {
            while own() < until {
                std::hint::black_box(0);
            }
        };
        std::thread::spawn(works).join().unwrap();
        assert!(own() >= until);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(super::of_process(std::process::id()).unwrap().rss_kb > 0);
    }
}

//! What a process uses, and what its `/metrics` says.

use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Ticks of processor time in a second: what Linux shows in /proc on every machine of ours.
const TICKS_PER_SECOND: u64 = 100;

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
pub fn of_process(pid: i32) -> Result<Vitals> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let rss_kb = rss.trim().trim_end_matches(" kB").parse()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and parentheses; what follows the last one is plain.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |place: usize| -> Result<u64> { Ok(fields.get(place).context("stat is short")?.parse()?) };
    Ok(Vitals { rss_kb, cpu_ms: (ticks(11)? + ticks(12)?) * 1_000 / TICKS_PER_SECOND })
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
    fn this_process_has_memory() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(super::of_process(pid).unwrap().rss_kb > 0);
    }
}

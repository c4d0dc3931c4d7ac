//! Processor time of processes, those included that they have started and that are there or were waited for.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::time::Duration;

/// Processor time of a process and of all that descend from it, since they began.
///
/// # Errors
/// If it is gone.
pub(super) fn of_tree(root: u32) -> Result<Duration> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut times: HashMap<u32, Duration> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that ends while we look has been waited for by its parent, or will be seen there the next time.
        let Ok((parent, time)) = of_process(pid) else { continue };
        children.entry(parent).or_default().push(pid);
        times.insert(pid, time);
    }
    let mut total = *times.get(&root).with_context(|| format!("no process {root}"))?;
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            total += times.get(&child).copied().unwrap_or_default();
            open.push(child);
        }
    }
    Ok(total)
}

/// Its parent, and its own time with that of the children that it has waited for.
fn of_process(pid: u32) -> Result<(u32, Duration)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and parentheses; what follows the last one is plain.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |place: usize| -> Result<u64> { Ok(fields.get(place).context("stat is short")?.parse()?) };
    let ticks = field(11)? + field(12)? + field(13)? + field(14)?;
    let parent = u32::try_from(field(1)?)?;
    // A tick is 10 ms wherever Linux shows it to user space. Threads' own times are to the nanosecond.
    let waited = (field(13)? + field(14)?) * 10;
    let own = own_time(pid).unwrap_or(Duration::from_millis(ticks * 10 - waited));
    Ok((parent, own + Duration::from_millis(waited)))
}

/// To the nanosecond, over its threads, as the scheduler counts it.
pub(super) fn own_time(pid: u32) -> Option<Duration> {
    let mut nanos = 0_u64;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_done_by_this_process_is_seen() {
        let id = std::process::id();
        let before = super::of_tree(id).unwrap();
        let mut sum = 0_u64;
        while super::of_tree(id).unwrap() < before + std::time::Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(super::of_tree(u32::MAX).is_err());
    }
}

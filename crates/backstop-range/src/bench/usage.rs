//! What processes use: processor time, memory, bytes written; with those that they have started.

use super::result::Usage;
use super::system::Group;
use crate::vitals::{self, TICK, field};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What groups of processes had used at some time.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    groups: Vec<(String, Used)>,
    busy: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    processor: Duration,
    disk_bytes: u64,
    memory_peak_kb: u64,
}

impl Look {
    /// Looks; the most memory counts anew from here.
    pub(super) fn begin(groups: &[Group]) -> Result<Self> {
        for pid in groups.iter().map(pids).collect::<Result<Vec<_>>>()?.concat() {
            // Without the right to it the most memory is that of the process's whole life.
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Self::now(groups)
    }

    fn now(groups: &[Group]) -> Result<Self> {
        let of = |group: &Group| Ok((group.name.clone(), used(group)?));
        let groups = groups.iter().map(of).collect::<Result<_>>()?;
        Ok(Self { at: Instant::now(), groups, busy: busy()? })
    }

    /// What was used since, for each saga.
    pub(super) fn end(self, groups: &[Group], sagas: u64) -> Result<Usage> {
        let after = Self::now(groups)?;
        let sagas = super::number(sagas.max(1));
        let mut usage = Usage::default();
        let mut ours = Duration::ZERO;
        for ((name, after), (_, before)) in after.groups.iter().zip(&self.groups) {
            let processor = after.processor.saturating_sub(before.processor);
            ours += processor;
            usage.processor_us.push((name.clone(), processor.as_secs_f64() * 1e6 / sagas));
            usage.memory_peak_kb.push((name.clone(), after.memory_peak_kb));
            let bytes = after.disk_bytes.saturating_sub(before.disk_bytes);
            usage.disk_bytes.push((name.clone(), super::number(bytes) / sagas));
        }
        let others = after.busy.saturating_sub(self.busy).saturating_sub(ours);
        usage.others = others.as_secs_f64() / after.at.duration_since(self.at).as_secs_f64();
        Ok(usage)
    }
}

fn used(group: &Group) -> Result<Used> {
    let mut used = Used::default();
    for pid in pids(group)? {
        used.memory_peak_kb += field(pid, "status", "VmHWM:").unwrap_or_default();
        used.disk_bytes += field(pid, "io", "write_bytes:").unwrap_or_default();
    }
    for root in &group.roots {
        used.processor += match group.with_children {
            true => of_tree(*root)?,
            false => vitals::times(*root)?.own,
        };
    }
    Ok(used)
}

fn pids(group: &Group) -> Result<Vec<u32>> {
    if !group.with_children {
        return Ok(group.roots.clone());
    }
    let mut all = Vec::new();
    for root in &group.roots {
        all.extend(tree(*root)?.into_iter().map(|(pid, _)| pid));
    }
    Ok(all)
}

/// Processor time of the whole machine: of programs and of the kernel for them.
fn busy() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice and system; then idle and waiting for the disk, which are not work; then interrupts and, on a
    // virtual machine, what its host took.
    let busy: u64 =
        ticks.iter().enumerate().filter(|(place, _)| matches!(place, 0..=2 | 5..=7)).map(|(_, t)| t).sum();
    Ok(TICK * u32::try_from(busy).unwrap_or(u32::MAX))
}

/// A process and all that descend from it, each with its own time and that of the children that it has waited for.
fn tree(root: u32) -> Result<Vec<(u32, Duration)>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut times: HashMap<u32, Duration> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that ends while we look has been waited for by its parent, or will be seen there the next time.
        let Ok(found) = vitals::times(pid) else { continue };
        children.entry(found.parent).or_default().push(pid);
        times.insert(pid, found.own + found.waited);
    }
    let mut all = vec![(root, *times.get(&root).with_context(|| format!("no process {root}"))?)];
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            all.push((child, times.get(&child).copied().unwrap_or_default()));
            open.push(child);
        }
    }
    Ok(all)
}

/// Processor time of a process and of all that descend from it, since they began.
///
/// # Errors
/// If it is gone.
pub(super) fn of_tree(root: u32) -> Result<Duration> {
    Ok(tree(root)?.into_iter().map(|(_, time)| time).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_by_this_process_is_seen() {
        let id = std::process::id();
        let group = Group { name: "me".to_owned(), roots: vec![id], with_children: true };
        let look = Look::begin(std::slice::from_ref(&group)).unwrap();
        let before = of_tree(id).unwrap();
        let mut sum = 0_u64;
        while of_tree(id).unwrap() < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = look.end(&[group], 1).unwrap();
        assert!(usage.processor_total_us() >= 5_000.0);
        assert!(usage.memory_peak_kb.iter().all(|(_, kb)| *kb > 0));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(of_tree(u32::MAX).is_err());
        let group = Group { name: "gone".to_owned(), roots: vec![u32::MAX], with_children: false };
        assert!(Look::begin(&[group]).is_err());
    }
}

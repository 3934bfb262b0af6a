//! What the kernel says of a process.

/// What a process holds; all of it is given back, or it leaks.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Bytes of memory that are really there.
    pub memory: u64,
}

impl Holdings {
    /// Those of this process now.
    pub fn of(pid: u32) -> Holdings {
        Holdings {
            descriptors: descriptors(pid),
            threads: entries(pid, "task"),
            memory: memory(pid),
        }
    }
}

/// How many descriptors it has open.
pub fn descriptors(pid: u32) -> usize {
    entries(pid, "fd")
}

/// Bytes of memory that are really there.
pub fn memory(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The most there ever were.
pub fn memory_peak(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn entries(pid: u32, folder: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{folder}"))
        .expect("a folder of the process")
        .count()
}

fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the state of the process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("the field");
    let kilobytes = line
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .expect("a figure");
    kilobytes << 10
}

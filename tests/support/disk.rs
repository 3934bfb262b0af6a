//! A small disk of a test's own, that can be full or read-only when the test wants it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::Finished;

/// A mount namespace with a disk in memory, kept by a process that does nothing else.
#[derive(Debug)]
pub struct Disk {
    keeper: Child,
    as_root: bool,
    folder: TempDir,
}

impl Disk {
    /// Makes one of so many bytes, or says why this machine does not allow it.
    pub fn new(bytes: u64) -> Result<Disk, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let uid = Command::new("id")
            .arg("-u")
            .output()
            .map_err(|error| error.to_string())?;
        let as_root = uid.stdout == b"0\n";
        let flags: &[&str] = if as_root { &["-m"] } else { &["-m", "-r"] };
        let at = folder.path().display();
        let script = format!("mount -t tmpfs -o size={bytes} none {at} && echo ready && exec cat");
        let keeper = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut disk = Disk {
            keeper,
            as_root,
            folder,
        };
        let mut line = String::new();
        let stdout = disk.keeper.stdout.take().ok_or("no output")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.is_ok() && line == "ready\n" {
            return Ok(disk);
        }
        let stderr = disk.keeper.stderr.take().ok_or("no output")?;
        Err(std::io::read_to_string(stderr).unwrap_or_else(|error| error.to_string()))
    }

    /// Where it is, for those who run on it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where this process finds it.
    pub fn seen_from_outside(&self) -> PathBuf {
        let inside = self.path().strip_prefix("/").unwrap_or(self.path());
        Path::new("/proc")
            .join(self.keeper.id().to_string())
            .join("root")
            .join(inside)
    }

    /// What to put before a command line so that it sees the disk.
    pub fn launcher(&self) -> Vec<String> {
        let pid = self.keeper.id().to_string();
        let mut words = vec!["nsenter", "-t", &pid, "-m"];
        if !self.as_root {
            words.extend(["-U", "--preserve-credentials"]);
        }
        words.push("--");
        words.into_iter().map(str::to_owned).collect()
    }

    /// Runs a shell's line in the disk's folder.
    pub fn shell(&self, line: &str) -> Finished {
        let launcher = self.launcher();
        let output = Command::new(&launcher[0])
            .args(&launcher[1..])
            .args(["sh", "-c", &format!("cd {} && {line}", self.path().display())])
            .output()
            .expect("nsenter starts");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

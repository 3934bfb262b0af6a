//! What scripts do on Windows.

use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

async fn run_for(shell: Shell, command: &str, time_limit: Option<Duration>) -> Outcome {
    let script = Script {
        command,
        shell,
        variables: vec![("SERF_EVENT".to_string(), "user".to_string())],
        input: b"in\n".to_vec(),
        time_limit,
        keep: Keep::Last(8 * 1024),
        complaints_apart: false,
    };
    run(&script, std::future::pending()).await
}

#[tokio::test(flavor = "current_thread")]
async fn outcomes() {
    let directory = tempfile::Builder::new().prefix("a b ").tempdir().unwrap();
    let batch = directory.path().join("x y.cmd");
    std::fs::write(&batch, "@echo off\r\necho [%~1] [%~2]\r\nexit /b 3\r\n").unwrap();
    let reader = directory.path().join("read.cmd");
    std::fs::write(&reader, "@echo off\r\nset /p line=\r\necho read %line%\r\n").unwrap();
    let reads = format!("\"{}\"", reader.display());
    let quoted = format!("\"{}\" \"one two\" a=b", batch.display());
    let slashes = format!(
        "\"{}\" \"one two\" x",
        batch.display().to_string().replace('\\', "/")
    );
    let table = [
        (Shell::System, "echo a& echo b 1>&2& echo c", "a\nb \nc\n", Ok(())),
        (Shell::System, "echo %SERF_EVENT%", "user\n", Ok(())),
        (Shell::System, &reads, "read in\n", Ok(())),
        (Shell::System, "echo \"a b\" \"c d\"", "\"a b\" \"c d\"\n", Ok(())),
        (Shell::System, "exit 5", "", Err(Failure::Status(5))),
        (Shell::System, &quoted, "[one two] [a]\n", Err(Failure::Status(3))),
        (
            Shell::None,
            "cmd /C \"echo %SERF_EVENT%&exit 4\"",
            "user\n",
            Err(Failure::Status(4)),
        ),
        (Shell::None, &slashes, "[one two] [x]\n", Err(Failure::Status(3))),
    ];
    for (shell, command, output, result) in table {
        let outcome = run_for(shell, command, Some(Duration::from_secs(60))).await;
        assert_eq!(String::from_utf8_lossy(&outcome.output), output, "{command}");
        assert_eq!(outcome.result, result, "{command}");
    }
    for command in ["nosuchprogram x", "\"", ""] {
        let outcome = run_for(Shell::None, command, None).await;
        assert!(
            matches!(outcome.result, Err(Failure::NotStarted(_))),
            "{command}: {outcome:?}"
        );
    }
}

/// Whether a process has this file open.
fn is_held(file: &Path) -> bool {
    let opened = std::fs::OpenOptions::new().write(true).share_mode(0).open(file);
    opened.is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound)
}

#[tokio::test(flavor = "current_thread")]
async fn the_time_limit_ends_the_whole_tree() {
    let limit = Duration::from_secs(2);
    // One that the shell waits for, one below a further shell.
    for command in ["ping -n 60 127.0.0.1", "cmd /C ping -n 60 127.0.0.1"] {
        let directory = tempfile::tempdir().unwrap();
        let held = directory.path().join("held");
        let command = format!("{command} >\"{}\"", held.display());
        let start = Instant::now();
        let script = run_for(Shell::System, &command, Some(limit));
        tokio::pin!(script);
        let mut seen = false;
        let outcome = loop {
            tokio::select! {
                outcome = &mut script => break outcome,
                () = tokio::time::sleep(Duration::from_millis(50)) => seen |= is_held(&held),
            }
        };
        assert_eq!(
            outcome.result,
            Err(Failure::TimeLimit(limit)),
            "{command}: {outcome:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(30), "{command}");
        assert!(seen, "{command}: it never ran");
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_held(&held) {
            assert!(Instant::now() < deadline, "{command}: it still runs");
            std::thread::yield_now();
        }
    }
}

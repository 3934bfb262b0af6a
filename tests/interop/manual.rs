//! The operator's manual, run: the shell blocks of its documents on hosts of the test's own, three at one switch, and
//! what they print beside what the text shows.
//!
//! A comment before a block, which readers do not see, says what becomes of it. HOSTS is 1, 2, 3 or all.
//!
//! | comment | meaning |
//! | --- | --- |
//! | `<!-- cluster -->` | everything of docs/first-cluster.md is done first, up to the start of all three agents |
//! | `<!-- on HOSTS -->` | the block runs there and has to succeed |
//! | `<!-- fails HOSTS -->` | it runs there and has to fail |
//! | `<!-- until HOSTS -->` | as `on`, again and again, until it succeeds and prints what the next block shows |
//! | `<!-- file HOSTS PATH -->` | the block is put there as a file |
//! | `<!-- shows -->` | the block is what the one before printed; `...` stands for anything |
//! | `<!-- do HOSTS COMMANDS -->` | commands that readers do not see, where the text tells of something that happens |
//! | `<!-- wait HOSTS COMMANDS -->` | the same, again and again, until they succeed |
//! | `<!-- not run: WHY -->` | for readers alone |
//!
//! The hosts 10.0.0.1 to 10.0.0.3 of the text are those of the test. Folders below /etc, /var/lib and /srv are folders of
//! the test's. There is no service manager, so `systemctl` is a program of the test's that does what the unit says; it
//! starts nothing again by itself. tests/house looks for blocks without a comment.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
use tempfile::TempDir;

use crate::support;
use crate::support::network::Switched;

/// The names of the hosts.
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// What a script has before its own lines.
const PRELUDE: &str = r#"
unit_of() { [ -e "$ROOT/$1.service" ] && echo "$ROOT/$1.service"; }
says() { sed -n "s|^$1=||p" "$(unit_of "$2")"; }
# A process that has ended stays for as long as nobody has asked how.
runs() { [ -e "$ROOT/$1.pid" ] && grep -sq '^State:.[^ZX]' "/proc/$(cat "$ROOT/$1.pid")/status"; }
gone() { for _ in $(seq 200); do runs "$1" || { rm -f "$ROOT/$1.pid"; return 0; }; sleep 0.1; done; return 1; }
signal() { local wanted; wanted=$(says "$1" "$2"); kill -s "${wanted:-$3}" "$(cat "$ROOT/$2.pid")"; }
start() {
    # What is said to systemd is not for the agent.
    $(says ExecStart "$1") >>"$ROOT/$1.log" 2>&1 </dev/null &
    echo $! >"$ROOT/$1.pid"
    for _ in $(seq 200); do
        case $1 in
            serf | fyrd) if fyrd info >"$ROOT/info" 2>&1; then return 0; fi ;;
            *) return 0 ;;
        esac
        runs "$1" || break
        sleep 0.1
    done
    tail "$ROOT/$1.log"
    return 1
}
systemctl() {
    local unit=${!#}
    case "$*" in
        'enable '[!-]*) unit_of "$unit" >/dev/null ;;
        'enable --now '* | 'start '*) start "$unit" ;;
        'stop '* | 'disable --now '*) signal KillSignal "$unit" TERM && gone "$unit" ;;
        'kill -s '*) kill -s "$3" "$(cat "$ROOT/$unit.pid")" ;;
        'restart '*) systemctl stop "$unit" && start "$unit" ;;
        'reload '*) signal ReloadSignal "$unit" HUP ;;
        'is-active '*) if runs "$unit"; then echo active; else echo inactive; return 3; fi ;;
        *) echo "no systemctl $*" >&2; return 1 ;;
    esac
}
journalctl() { cat "$ROOT/${!#}.log"; }
install() {
    local words=()
    while [ $# -gt 0 ]; do
        case $1 in -o | -g) shift ;; *) words+=("$1") ;; esac
        shift
    done
    command install "${words[@]}"
}
chown() { :; }
"#;

/// What the event handlers and templates of an agent call, which are no scripts of ours.
const SYSTEMCTL: &str = "#!/bin/bash\n. \"$ROOT/prelude\"\nsystemctl \"$@\"\n";

/// What Debian's packages install, as far as it matters here. `ReloadSignal` stands for what a unit does to reload.
const UNITS: [(&str, &str); 3] = [
    (
        "serf",
        "ExecStart=/usr/bin/serf agent -config-dir=/etc/serf/\nKillSignal=INT\n",
    ),
    (
        "nginx",
        "ExecStart=nginx -c /etc/nginx/nginx.conf\nKillSignal=TERM\n",
    ),
    (
        "haproxy",
        "ExecStart=haproxy -W -f /etc/haproxy/haproxy.cfg -f /var/lib/fyrd/haproxy.cfg\nReloadSignal=USR2\n",
    ),
];

/// Folders of the test's that are the system's in the text.
const FOLDERS: &str =
    "/etc/(?:fyrd|serf|nginx|haproxy|prometheus|hosts)|/var/lib/(?:fyrd|serf)|/run/fyrd|/srv";

/// What a document has for the test.
#[derive(Debug)]
enum Step {
    /// Commands, on these hosts; whether they are tried again, whether they have to fail, and what they have to print.
    Run {
        hosts: Vec<usize>,
        script: String,
        again: bool,
        fails: bool,
        shown: Option<String>,
    },
    /// A file for these hosts.
    Write {
        hosts: Vec<usize>,
        path: String,
        text: String,
    },
}

/// What is there at the start, of the folders and beside them.
const FOLDERS_MADE: [&str; 10] = [
    "bin",
    "etc/fyrd",
    "etc/serf",
    "etc/nginx/conf.d",
    "etc/haproxy",
    "etc/prometheus",
    "var/lib/fyrd",
    "var/lib/serf",
    "run/fyrd",
    "srv",
];

/// Three hosts, with a folder each.
struct Hosts {
    network: Switched,
    folder: TempDir,
}

impl Hosts {
    fn new() -> Hosts {
        let network = Switched::new(NAMES.len())
            .unwrap_or_else(|error| panic!("network namespaces are needed: {error}"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in NAMES {
            let root = folder.path().join(name);
            for below in FOLDERS_MADE {
                fs::create_dir_all(root.join(below)).expect("a folder");
            }
            symlink(env!("CARGO_BIN_EXE_fyrd"), root.join("bin/fyrd")).expect("the program");
            fs::write(root.join("prelude"), PRELUDE).expect("a script");
            let systemctl = root.join("bin/systemctl");
            fs::write(&systemctl, SYSTEMCTL).expect("a script");
            fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("its mode");
            let unit = fs::read_to_string(top.join("dist/systemd/fyrd.service")).expect("the unit");
            fs::copy(top.join("dist/agent.json"), root.join("etc/fyrd/agent.json"))
                .expect("the configuration");
            for (name, text) in UNITS.into_iter().chain([("fyrd", unit.as_str())]) {
                let text = text
                    .replace("/usr/bin/fyrd", "fyrd")
                    .replace("KillSignal=SIG", "KillSignal=");
                fs::write(root.join(format!("{name}.service")), at_home(&text, &root)).expect("a unit");
            }
            let configuration = root.join("etc/fyrd/agent.json");
            let text = fs::read_to_string(&configuration).expect("the configuration");
            fs::write(configuration, at_home(&text, &root)).expect("the configuration");
        }
        Hosts { network, folder }
    }

    fn root(&self, host: usize) -> std::path::PathBuf {
        self.folder.path().join(NAMES[host])
    }

    /// Runs a script on a host: whether it succeeded, and what it printed, in the words of the manual.
    fn run(&self, host: usize, script: &str) -> (bool, String) {
        let root = self.root(host);
        let script = script.replace("10.0.0.", "10.79.0.");
        let script = format!("{PRELUDE}\n{}", at_home(&script, &root));
        let launcher = self.network.launcher(host);
        let named = r#"hostname "$0" && exec timeout 60 bash --norc -euo pipefail -c "$1" 2>&1"#;
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new(&launcher[0])
            .args(&launcher[1..])
            .args([
                "unshare",
                "-u",
                "bash",
                "--norc",
                "-c",
                named,
                NAMES[host],
                &script,
            ])
            .current_dir(&root)
            .env("PATH", format!("{}/bin:{path}:/usr/sbin:/sbin", root.display()))
            .env("ROOT", &root)
            .env("HOME", &root)
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        let printed = String::from_utf8_lossy(&output.stdout)
            .replace("10.79.0.", "10.0.0.")
            .replace(&*root.to_string_lossy(), "");
        (output.status.success(), printed)
    }

    fn step(&self, step: &Step) {
        match step {
            Step::Write { hosts, path, text } => {
                for &host in hosts {
                    let root = self.root(host);
                    let text = text.replace("10.0.0.", "10.79.0.") + "\n";
                    fs::write(at_home(path, &root), at_home(&text, &root))
                        .unwrap_or_else(|error| panic!("{path}: {error}"));
                }
            }
            Step::Run {
                hosts,
                script,
                again,
                fails,
                shown,
            } => {
                for &host in hosts {
                    let start = Instant::now();
                    let deadline = start + if *again { support::PATIENCE } else { Duration::ZERO };
                    loop {
                        let (succeeded, printed) = self.run(host, script);
                        let as_shown = shown.as_ref().is_none_or(|shown| matches(shown, &printed));
                        if succeeded != *fails && as_shown {
                            // Shown when the test fails.
                            println!("{:.1?} on {}: {script}", start.elapsed(), NAMES[host]);
                            break;
                        }
                        if Instant::now() >= deadline {
                            self.complain(host, script, &printed, shown.as_deref(), *fails);
                        }
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        }
    }

    fn complain(&self, host: usize, script: &str, printed: &str, shown: Option<&str>, fails: bool) -> ! {
        let log = fs::read_to_string(self.root(host).join("fyrd.log")).unwrap_or_default();
        let is_news = |line: &&str| !line.contains("Accepted client");
        let log: Vec<&str> = log.lines().filter(is_news).collect();
        let log = log.join("\n");
        let what = if fails { "fail" } else { "succeed" };
        panic!(
            "on {}:\n{script}\nprinted:\n{printed}\nand should {what}, and print:\n{}\nits agent's log:\n{log}",
            NAMES[host],
            shown.unwrap_or("anything"),
        );
    }
}

impl Drop for Hosts {
    /// Whatever was started here works in a folder of the test's, and so do its children.
    fn drop(&mut self) {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let place = fs::read_link(entry.path().join("cwd"));
            if place.is_ok_and(|place| place.starts_with(self.folder.path()))
                && let Ok(pid) = entry.file_name().to_string_lossy().parse()
            {
                support::signal(pid, "KILL");
            }
        }
    }
}

/// The text with its folders below one of the test's.
fn at_home(text: &str, root: &Path) -> String {
    let folders = Regex::new(&format!(r#"(?m)(^|[\s"'=:(<>\[])({FOLDERS})\b"#)).expect("a pattern");
    folders
        .replace_all(text, format!("${{1}}{}${{2}}", root.display()))
        .into_owned()
}

/// Whether this was printed, as far as the text shows it.
fn matches(shown: &str, printed: &str) -> bool {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed: Vec<String> = printed.lines().map(words).collect();
    let lines = shown.trim_end().lines().map(|line| match line.trim() {
        "..." => r"(?s:.*?)".to_owned(),
        line => regex::escape(&words(line)).replace(r"\.\.\.", ".*") + "\n",
    });
    let pattern = format!("^{}$", lines.collect::<String>());
    let all = printed.join("\n") + "\n";
    Regex::new(&pattern).is_ok_and(|pattern| pattern.is_match(&all))
}

/// The steps of a document.
fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("<!-- ") {
        let (comment, after) = after.split_once("-->").expect("the end of a comment");
        rest = after;
        let (verb, comment) = comment.trim().split_once(' ').unwrap_or((comment.trim(), ""));
        let (hosts, commands) = comment.split_once(char::is_whitespace).unwrap_or((comment, ""));
        let hosts = || match hosts {
            "all" => (0..NAMES.len()).collect(),
            host => vec![host.parse::<usize>().expect("the number of a host") - 1],
        };
        let script = match verb {
            "on" | "until" | "fails" => block(after),
            "do" | "wait" => commands.to_owned(),
            "cluster" => {
                steps.extend(self::steps(start_of_a_cluster(&read("first-cluster.md"))));
                continue;
            }
            "file" => {
                steps.push(Step::Write {
                    hosts: hosts(),
                    path: commands.trim().to_owned(),
                    text: block(after),
                });
                continue;
            }
            "shows" => {
                let Some(Step::Run { shown, .. }) = steps.last_mut() else {
                    panic!("nothing ran before what is shown");
                };
                *shown = Some(block(after));
                continue;
            }
            _ => continue,
        };
        steps.push(Step::Run {
            hosts: hosts(),
            script,
            again: verb == "until" || verb == "wait",
            fails: verb == "fails",
            shown: None,
        });
    }
    steps
}

/// The block of code that follows.
fn block(text: &str) -> String {
    let text = text.trim_start();
    let text = text.strip_prefix("```").expect("a block after the comment");
    let (_, text) = text.split_once('\n').expect("a block");
    let (block, _) = text.split_once("\n```").expect("the end of a block");
    block.to_owned()
}

/// The part of the first cluster's document that ends with its start.
fn start_of_a_cluster(text: &str) -> &str {
    let (start, rest) = text
        .split_once("\n## 6. Check")
        .expect("the heading after the start");
    assert!(rest.contains("fyrd members"));
    start
}

fn read(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    fs::read_to_string(path).expect("the document")
}

fn run(document: &str) {
    let steps = steps(&read(document));
    assert!(steps.len() > 2, "{steps:?}");
    let hosts = Hosts::new();
    for step in &steps {
        hosts.step(step);
    }
}

#[test]
#[ignore = "needs network namespaces (tests/run)"]
fn the_first_cluster() {
    run("first-cluster.md");
}

#[test]
#[ignore = "needs network namespaces (tests/run)"]
fn operations() {
    run("operations.md");
}

#[test]
#[ignore = "needs network namespaces (tests/run)"]
fn security() {
    run("security.md");
}

#[test]
#[ignore = "needs serf and network namespaces (tests/run)"]
fn moving_from_serf() {
    run("moving-from-serf.md");
}

#[test]
#[ignore = "needs curl and network namespaces (tests/run)"]
fn monitoring() {
    run("monitoring.md");
}

#[test]
#[ignore = "needs curl and network namespaces (tests/run)"]
fn interfaces() {
    run("interfaces.md");
}

#[test]
#[ignore = "needs nginx, haproxy, prometheus, curl and network namespaces (tests/run)"]
fn cookbook() {
    run("cookbook.md");
}

#[test]
#[ignore = "needs network namespaces (tests/run)"]
fn tuning() {
    run("tuning.md");
}

#[test]
fn what_is_not_shown_is_noticed() {
    assert!(matches("a  b\n...\nz", "a b\n1\n2\nz \n"));
    assert!(matches("a ... z\n", "a b z\n"));
    assert!(!matches("a\n...\nz", "a\n1\n"));
    assert!(!matches("a", "a\nb\n"));
    assert!(!matches("a.b", "axb\n"));
    let steps =
        steps("<!-- on all -->\n```sh\nx\ny\n```\n<!-- shows -->\n```text\nz\n```\n<!-- do 2 rm a\nrm b -->");
    assert_eq!(
        format!("{steps:?}"),
        "[Run { hosts: [0, 1, 2], script: \"x\\ny\", again: false, fails: false, shown: Some(\"z\") }, \
         Run { hosts: [1], script: \"rm a\\nrm b\", again: false, fails: false, shown: None }]"
    );
    let home = at_home("\"/etc/fyrd\" >/var/lib/fyrd/x /usr/etc/fyrd", Path::new("/h"));
    assert_eq!(home, "\"/h/etc/fyrd\" >/h/var/lib/fyrd/x /usr/etc/fyrd");
}

//! The real Prometheus scrapes agents that it finds through one of them, and its promtool tries the alerts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::port::Port;
use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually};
use tempfile::TempDir;

/// A running Prometheus in a folder of its own.
struct Prometheus {
    port: Port,
    process: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes the web hosts that the agent at this port knows, each second.
    fn start(agent: u16) -> Prometheus {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = Port::reserve();
        let config = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n\
             \x20 - job_name: web\n\
             \x20   http_sd_configs:\n\
             \x20     - url: http://127.0.0.1:{agent}/v1/sd/prometheus?role=web&port_tag=metrics\n\
             \x20       refresh_interval: 1s\n\
             \x20   relabel_configs:\n\
             \x20     - {{source_labels: [__meta_fyrd_name], target_label: name}}\n"
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("its configuration");
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "prometheus"])
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is needed for this test; tests/run installs it");
        Prometheus {
            port,
            process,
            _folder: folder,
        }
    }

    /// The names under which a query has a value now.
    fn names(&self, query: &str) -> Result<Vec<String>, String> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port.number())).map_err(|error| error.to_string())?;
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let mut answer = String::new();
        stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_to_string(&mut answer))
            .map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| answer.clone())?;
        let value: serde_json::Value = serde_json::from_str(body).map_err(|_| answer.clone())?;
        let results = value["data"]["result"].as_array().ok_or(answer)?;
        let mut names: Vec<String> = results
            .iter()
            .filter_map(|result| result["metric"]["name"].as_str())
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    #[track_caller]
    fn has(&self, query: &str, names: &[&str]) {
        eventually(query, PATIENCE, || match self.names(query)? {
            found if found == names => Ok(()),
            found => Err(format!("{found:?}")),
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn agent(name: &str, role: &str, seed: Option<&Agent>) -> (Agent, Port) {
    let port = Port::reserve();
    let number = port.number();
    let plan = Plan::new(Kind::Fyrd, name)
        .arg(format!("-http-addr=127.0.0.1:{number}"))
        .arg(format!("-tag=role={role}"))
        .arg(format!("-tag=metrics={number}"));
    let plan = match seed {
        Some(seed) => plan.join(seed),
        None => plan,
    };
    (plan.start(), port)
}

#[test]
#[ignore = "needs prometheus"]
fn prometheus_finds_the_hosts_of_a_role_and_scrapes_them() {
    let (balancer, http) = agent("lb", "lb", None);
    let (first, _first_port) = agent("w1", "web", Some(&balancer));
    let (mut second, _second_port) = agent("w2", "web", Some(&balancer));
    all_alive(&[&balancer, &first, &second]);
    let prometheus = Prometheus::start(http.number());
    prometheus.has("up == 1", &["w1", "w2"]);
    prometheus.has("fyrd_members{status=\"alive\"} == 3", &["w1", "w2"]);
    prometheus.has("fyrd_probe_rtt_seconds_count > 0", &["w1", "w2"]);
    second.cli(&["leave"]).success();
    second.ended();
    // Who has left is no target any more, and what is left is still watched.
    prometheus.has("up", &["w1"]);
    prometheus.has("fyrd_members{status=\"left\"} == 1", &["w1"]);
}

#[test]
#[ignore = "needs prometheus"]
fn the_alerts_fire_when_they_should_and_only_then() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/prometheus");
    let checked = Command::new("promtool")
        .args(["test", "rules", "alerts_test.yml"])
        .current_dir(folder)
        .output()
        .expect("promtool is needed for this test; tests/run installs it with prometheus");
    assert!(checked.status.success(), "{checked:?}");
}

//! The real Prometheus scrapes agents that it finds through one of them, and its promtool tries the alerts and what the
//! dashboard asks. The manual lists the metrics that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::port::Port;
use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, eventually};
use regex::Regex;
use serde_json::Value;
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
        let answer = http(self.port.number(), &format!("/api/v1/query?query={query}"))?;
        let value: Value = serde_json::from_str(&answer).map_err(|_| answer.clone())?;
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

/// What is known of a metric: labels, kind, unit.
#[derive(Debug, PartialEq)]
struct Metric {
    labels: BTreeSet<String>,
    kind: String,
    unit: String,
}

fn labels(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r#"([a-z_]+)="[^"]*""#).expect("a pattern");
    let names = name.captures_iter(text).map(|found| found[1].to_owned());
    names.filter(|name| name != "le").collect()
}

/// The metrics of an agent that uses all it can, under the names that a query has.
fn shown() -> BTreeMap<String, Metric> {
    let port = Port::reserve();
    let agent = Plan::new(Kind::Fyrd, "all")
        .key(Some(KEY_32))
        .with_file("names.j2", "{% for m in alive %}{{ m.name }}\n{% endfor %}")
        .arg(format!("-http-addr=127.0.0.1:{}", port.number()))
        .args([
            "-snapshot=snapshot",
            "-event-handler=user=true",
            "-template=names.j2:names",
        ])
        .start();
    all_alive(&[&agent]);
    let text = http(port.number(), "/metrics").expect("the metrics");
    let mut metrics = BTreeMap::new();
    let mut units = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let end = if kind == "counter" { "_total" } else { "" };
                let metric = Metric {
                    labels: BTreeSet::new(),
                    kind: kind.to_owned(),
                    unit: String::new(),
                };
                metrics.insert(format!("{name}{end}"), metric);
            }
            (Some("#"), Some("UNIT"), Some(name), Some(unit)) => {
                units.insert(name.to_owned(), unit.to_owned());
            }
            (Some("#"), ..) | (None, ..) => {}
            (Some(sample), ..) => {
                let name = sample.split('{').next().unwrap_or(sample);
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end).filter(|base| metrics.contains_key(*base)));
                let metric = metrics.get_mut(base.unwrap_or(name));
                let metric = metric.unwrap_or_else(|| panic!("no type before {line}"));
                metric.labels.extend(labels(line));
            }
        }
    }
    for (name, unit) in units {
        metrics.get_mut(&name).expect("its type").unit = unit;
    }
    metrics
}

fn http(port: u16, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|error| error.to_string())?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or(answer)
}

/// The rows of the manual: | `NAME{LABEL, ...}` | kind | unit | meaning |
fn documented() -> BTreeMap<String, Metric> {
    let text = read("docs/monitoring.md");
    let row = Regex::new(r"^\| `((?:fyrd|process)_[a-z0-9_]+)(?:\{([a-z_, ]*)\})?` \| (\w+) \| ([^|]*) \|")
        .expect("a pattern");
    let rows = text.lines().filter_map(|line| row.captures(line));
    rows.map(|row| {
        let labels = row.get(2).map_or("", |labels| labels.as_str());
        let metric = Metric {
            labels: labels
                .split(", ")
                .filter(|label| !label.is_empty())
                .map(str::to_owned)
                .collect(),
            kind: row[3].to_owned(),
            unit: row[4].to_owned(),
        };
        (row[1].to_owned(), metric)
    })
    .collect()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
#[ignore = "beside those who use its metrics"]
fn the_manual_the_alerts_and_the_dashboard_name_the_metrics_that_there_are() {
    let (shown, mut documented) = (shown(), documented());
    for (name, metric) in &mut documented {
        // A unit is in the text where it follows from the name; the manual names it for all.
        let shown = shown
            .get(name)
            .unwrap_or_else(|| panic!("the manual has {name}, and the agent has not"));
        assert!(!metric.unit.is_empty(), "{name} has no unit");
        if shown.unit.is_empty() {
            metric.unit.clear();
        }
    }
    assert_eq!(documented, shown);
    let mut samples: BTreeSet<String> = BTreeSet::new();
    for (name, metric) in &shown {
        match metric.kind.as_str() {
            "histogram" => samples.extend(["bucket", "sum", "count"].map(|end| format!("{name}_{end}"))),
            _ => {
                samples.insert(name.clone());
            }
        }
    }
    let manual = read("docs/monitoring.md");
    let alerts = read("dist/prometheus/alerts.yml");
    for alert in alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(
            manual.contains(&format!("| `{alert}` |")),
            "the manual does not name {alert}"
        );
    }
    let names = Regex::new(r"\b(fyrd|process)_[a-z0-9_]+").expect("a pattern");
    for (place, text) in [
        ("the dashboard", expressions().join("\n")),
        ("the alerts", alerts),
    ] {
        let used: Vec<&str> = names.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(used.len() > 7, "{place}: {used:?}");
        for name in used {
            assert!(samples.contains(name), "{place}: there is no {name}");
        }
    }
}

/// What the panels of the dashboard ask.
fn expressions() -> Vec<String> {
    let board: Value = serde_json::from_str(&read("dist/grafana/fyrd.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    targets
        .map(|target| target["expr"].as_str().expect("an expression").to_owned())
        .collect()
}

#[test]
#[ignore = "needs prometheus"]
fn the_dashboard_is_one_and_prometheus_reads_what_it_asks() {
    let board: Value = serde_json::from_str(&read("dist/grafana/fyrd.json")).expect("JSON");
    for key in ["uid", "title"] {
        assert!(board[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
    }
    assert!(
        board["schemaVersion"]
            .as_u64()
            .is_some_and(|version| version >= 36)
    );
    let variables: BTreeSet<&str> = board["templating"]["list"]
        .as_array()
        .expect("variables")
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in board["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{title}: its id is taken"
        );
        let side = |key: &str| {
            panel["gridPos"][key]
                .as_u64()
                .unwrap_or_else(|| panic!("{title}: no {key}"))
        };
        assert!(side("x") + side("w") <= 24, "{title} is too wide");
        for cell in (side("x")..side("x") + side("w"))
            .flat_map(|x| (side("y")..side("y") + side("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert(cell), "{title} covers another panel at {cell:?}");
        }
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert!(
                letters.insert(target["refId"].as_str().expect("a letter")),
                "{title}"
            );
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
        assert!(
            panel["type"] == "row" || !letters.is_empty(),
            "{title} asks nothing"
        );
    }
    // As rules, with a value for each variable, promtool reads them.
    let variable = Regex::new(r"\$\{?(\w+)\}?").expect("a pattern");
    let rules: Vec<Value> = expressions()
        .iter()
        .enumerate()
        .map(|(number, expression)| {
            for used in variable.captures_iter(expression) {
                assert!(
                    &used[1] == "__rate_interval" || variables.contains(&used[1]),
                    "{expression}"
                );
            }
            let expression = expression.replace("$__rate_interval", "5m");
            let expression = variable.replace_all(&expression, "some").into_owned();
            serde_json::json!({"record": format!("asked:{number}"), "expr": expression})
        })
        .collect();
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let folder = tempfile::tempdir().expect("a temporary folder");
    // JSON is YAML, too.
    std::fs::write(folder.path().join("rules.yml"), rules.to_string()).expect("the rules");
    let checked = Command::new("promtool")
        .args(["check", "rules", "rules.yml"])
        .current_dir(folder.path())
        .output()
        .expect("promtool is needed for this test; tests/run installs it with prometheus");
    assert!(checked.status.success(), "{checked:?}");
}

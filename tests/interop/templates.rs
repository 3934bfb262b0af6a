//! The templates of `examples/templates`, read by the programs that they are for.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Kind;
use tempfile::TempDir;

const MEMBERS: &str = r#"{"members": [
    {"name": "w1", "addr": "10.0.0.1:7946", "status": "alive", "tags": {"role": "web", "http": "8081", "metrics": "9101"}},
    {"name": "w2", "addr": "[fd00::2]:7946", "status": "alive", "tags": {"role": "web", "http": "8082", "metrics": "9102"}},
    {"name": "w3", "addr": "10.0.0.3:7946", "status": "failed", "tags": {"role": "web", "http": "8083"}},
    {"name": "w4", "addr": "10.0.0.4:7946", "status": "alive", "tags": {"role": "web"}},
    {"name": "db", "addr": "10.0.0.9:7946", "status": "alive", "tags": {}}]}"#;

/// A folder with what a template gives.
struct Rendered {
    folder: TempDir,
    text: String,
}

impl Rendered {
    fn new(name: &str, members: &str) -> Rendered {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("members.json"), members).expect("the members");
        let template = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples/templates")
            .join(name);
        let members = format!("-members={}", folder.path().join("members.json").display());
        let rendered = Kind::Fyrd.run(&["render", &members, template.to_str().expect("a path")]);
        let text = rendered.success();
        std::fs::write(folder.path().join("out"), &text).expect("the result");
        Rendered { folder, text }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn path(&self) -> String {
        self.folder.path().join("out").display().to_string()
    }
}

#[track_caller]
fn accepts(program: &str, args: &[&str]) {
    let mut path = std::env::var("PATH").unwrap_or_default();
    path.push_str(":/usr/sbin:/sbin");
    let done = Command::new(program)
        .args(args)
        .env("PATH", path)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test, tests/run installs it: {error}"));
    assert!(done.status.success(), "{program} {args:?}: {done:?}");
}

#[test]
#[ignore = "needs nginx"]
fn nginx_takes_the_upstream() {
    let upstream = Rendered::new("nginx.conf.j2", MEMBERS);
    assert_eq!(upstream.text.matches("server ").count(), 2, "{}", upstream.text);
    let folder = upstream.folder.path().display();
    let main = format!(
        "pid {folder}/pid; error_log {folder}/log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n\
         fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         include {}; server {{ listen 127.0.0.1:1; location / {{ proxy_pass http://web; }} }} }}\n",
        upstream.path()
    );
    let main = upstream.write("nginx.conf", &main);
    accepts(
        "nginx",
        &[
            "-t",
            "-q",
            "-e",
            &format!("{folder}/log"),
            "-c",
            main.to_str().expect("a path"),
        ],
    );
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_takes_the_backend() {
    let backend = Rendered::new("haproxy.cfg.j2", MEMBERS);
    let main = "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n\
                frontend here\n    bind 127.0.0.1:1\n    default_backend web\n";
    let main = backend.write("haproxy.cfg", main);
    accepts(
        "haproxy",
        &["-c", "-f", main.to_str().expect("a path"), "-f", &backend.path()],
    );
    assert!(
        backend.text.contains("server w2 [fd00::2]:8082 check"),
        "{}",
        backend.text
    );
}

#[test]
#[ignore = "needs prometheus"]
fn prometheus_takes_the_targets() {
    for (members, targets) in [(MEMBERS, 2), (r#"{"members": null}"#, 0)] {
        let list = Rendered::new("prometheus.json.j2", members);
        let json: serde_json::Value = serde_json::from_str(&list.text).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(targets), "{}", list.text);
        let targets = list.write("targets.json", &list.text);
        let config = format!(
            "scrape_configs: [{{job_name: a, file_sd_configs: [{{files: [{}]}}]}}]\n",
            targets.display()
        );
        let config = list.write("prometheus.yml", &config);
        accepts("promtool", &["check", "config", config.to_str().expect("a path")]);
    }
}

/// The system's own look-up, in a mount namespace of its own.
#[test]
#[ignore = "needs unshare"]
fn the_system_resolves_by_the_hosts_file() {
    let hosts = Rendered::new("hosts.j2", MEMBERS);
    let script = format!(
        "mount --bind {} /etc/hosts && getent ahosts w1 | grep -q '^10.0.0.1 ' && getent ahosts w2 | grep -q '^fd00::2 ' \
         && ! grep -q w3 /etc/hosts",
        hosts.path()
    );
    accepts("unshare", &["--mount", "sh", "-c", &script]);
}

#[test]
fn the_others_have_their_form() {
    let envoy = Rendered::new("envoy-eds.json.j2", MEMBERS).text;
    let envoy: serde_json::Value = serde_json::from_str(&envoy).expect("JSON");
    let endpoints = &envoy["resources"][0]["endpoints"][0]["lb_endpoints"];
    assert_eq!(endpoints.as_array().map(Vec::len), Some(2));
    let address = &endpoints[1]["endpoint"]["address"]["socket_address"];
    assert_eq!(
        (&address["address"], &address["port_value"]),
        (&"fd00::2".into(), &8082.into())
    );
    for (name, expected) in [
        (
            "traefik.yml.j2",
            "        servers:\n          - url: \"http://10.0.0.1:8081/\"\n          - url: \"http://[fd00::2]:8082/\"\n",
        ),
        (
            "Caddyfile.j2",
            ":80 {\n\treverse_proxy 10.0.0.1:8081 [fd00::2]:8082 \n}\n",
        ),
        (
            "dnsmasq.hosts.j2",
            "10.0.0.9 db.node.cluster\n10.0.0.1 w1.node.cluster web.role.cluster\n",
        ),
    ] {
        let text = Rendered::new(name, MEMBERS).text;
        assert!(text.contains(expected), "{name}: {text}");
    }
}

/// A member that says a port which is none shall not write into somebody's configuration.
#[test]
fn a_port_that_is_none_is_refused() {
    let odd = MEMBERS.replace("\"8081\"", "\"80; include /etc/passwd\"");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let members = folder.path().join("members.json");
    std::fs::write(&members, odd).expect("the members");
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/templates/nginx.conf.j2");
    let members = format!("-members={}", members.display());
    let refused = Kind::Fyrd.run(&["render", &members, template.to_str().expect("a path")]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("nginx.conf.j2:4"), "{refused:?}");
}

//! Files that follow a cluster.

use std::path::Path;

use crate::support::{Agent, Kind, PATIENCE, Plan, all_alive, eventually};

const SERVERS: &str = "{% for m in alive | role('web') %}\nserver {{ m.name }};\n{% endfor %}\n";

fn balancer(config: &str) -> Plan {
    Plan::new(Kind::Fyrd, "lb")
        .with_file("servers.j2", SERVERS)
        .with_file("config.json", config)
        .arg("-config-file=config.json")
}

fn web(name: &str, seed: &Agent) -> Agent {
    Plan::new(Kind::Fyrd, name)
        .arg("-tag=role=web")
        .join(seed)
        .start()
}

#[track_caller]
fn holds(agent: &Agent, file: &str, text: &str) {
    eventually(&format!("{file} is {text:?}"), PATIENCE, || {
        match agent.read(file) {
            found if found == text => Ok(()),
            found => Err(format!("{found:?}\n{:?}", agent.info().get("templates"))),
        }
    });
}

#[test]
fn a_file_follows_the_members_and_the_command_runs_once_a_change() {
    let template = r#"{"templates": [{"src": "servers.j2", "dst": "servers", "command": "cat servers >>seen; echo - >>seen"}]}"#;
    let agent = balancer(template).start();
    assert!(
        !agent.file("servers").exists(),
        "an empty list is not written by mistake"
    );
    eventually("it says why", PATIENCE, || {
        let report = agent.info().remove("templates").unwrap_or_default();
        match report.get("servers") {
            Some(text) if text.contains("held") && text.contains("0 living members, less than 1") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let first = web("w1", &agent);
    holds(&agent, "servers", "server w1;\n");
    let mut second = web("w2", &agent);
    holds(&agent, "servers", "server w1;\nserver w2;\n");
    second.cli(&["leave"]).success();
    second.ended();
    holds(&agent, "servers", "server w1;\n");
    // Members without the role change nothing, and so does an event.
    let _other = Plan::new(Kind::Fyrd, "other").join(&agent).start();
    agent.cli(&["event", "deploy"]).success();
    eventually("the other is seen", PATIENCE, || {
        match agent.statuses()?.get("other") {
            Some(status) if status == "alive" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // The last one dies: the balancer keeps what it has.
    drop(first);
    eventually("the failure is seen", PATIENCE, || {
        match agent.statuses()?.get("w1") {
            Some(status) if status == "failed" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    agent.says("Template servers is left as it is: it would be written from 0 living members");
    assert_eq!(agent.read("servers"), "server w1;\n");
    assert_eq!(
        agent.read("seen"),
        "server w1;\n-\nserver w1;\nserver w2;\n-\nserver w1;\n-\n"
    );
    assert!(
        agent.info()["templates"]["servers"].contains("written=3 failures=0"),
        "{:?}",
        agent.info()
    );
}

#[test]
fn what_a_check_does_not_like_never_goes_live() {
    let template = r#"{"templates": [{"src": "servers.j2", "dst": "servers", "wait": "50ms",
        "check": "echo looking at it; ! grep bad {}", "command": "touch ran"}]}"#;
    let agent = balancer(template).start();
    let bad = web("bad", &agent);
    agent.says("Template servers: check 'echo looking at it; ! grep bad ");
    agent.says("exit status 1, saying: server bad;");
    assert!(!agent.file("servers").exists() && !agent.file("ran").exists());
    let leftovers = std::fs::read_dir(agent.file("servers").parent().unwrap()).unwrap();
    let leftovers = leftovers.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".servers")
    });
    assert_eq!(leftovers.count(), 0);
    bad.cli(&["tags", "-delete", "role"]).success();
    let good = web("good", &agent);
    holds(&agent, "servers", "server good;\n");
    agent.says("Template servers: written from 1 members");
    eventually("the command has run", PATIENCE, || {
        match agent.file("ran").exists() {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    });
    drop(good);
}

#[test]
fn nothing_is_written_before_the_first_exchange_nor_while_nobody_is_heard() {
    let all = "{% for m in members %}{{ m.name }}={{ m.status }} {% endfor %}";
    // There is somebody to join, and he is not there yet.
    let seed_port = crate::support::port::Port::reserve();
    let plan = Plan::new(Kind::Fyrd, "lb")
        .with_file("all.j2", all)
        .args(["-template=all.j2:all", "-retry-interval=1s"])
        .arg(format!("-retry-join=127.0.0.1:{}", seed_port.number()));
    let agent = plan.start();
    agent.says("Template all is left as it is: nobody of those to join has answered yet");
    let peers: Vec<Agent> = (0..3)
        .map(|i| Plan::new(Kind::Fyrd, &format!("p{i}")).join(&agent).start())
        .collect();
    let alive = "lb=alive p0=alive p1=alive p2=alive ";
    holds(&agent, "all", alive);
    for peer in &peers {
        peer.signal("STOP");
    }
    agent.says("Template all is left as it is: nobody is heard, this host may be cut off");
    assert_eq!(agent.read("all"), alive);
    for peer in &peers {
        peer.signal("CONT");
    }
    agent.says("Template all: as the cluster is again");
    assert_eq!(agent.read("all"), alive);
}

#[test]
fn mistakes_are_named_and_mended_by_a_reload() {
    let agent = balancer(r#"{"templates": [{"src": "servers.j2", "dst": "none/servers"}]}"#).start();
    let first = web("w1", &agent);
    agent.says("Template none/servers: cannot create a file in none: no such file or directory");
    agent.write("servers.j2", "line\n{{ nobody }}\n");
    agent.write(
        "config.json",
        r#"{"templates": [{"src": "servers.j2", "dst": "servers"}]}"#,
    );
    agent.signal("HUP");
    agent.says("Template servers: servers.j2:2: undefined value");
    agent.write("servers.j2", SERVERS);
    agent.signal("HUP");
    holds(&agent, "servers", "server w1;\n");
    agent.write(
        "config.json",
        r#"{"templates": [{"src": "servers.j2", "dst": "a", "cmd": "x"}]}"#,
    );
    agent.signal("HUP");
    agent.says("unknown field `cmd`");
    for (text, said) in [
        ("-template=a", "it must be SRC:DST or SRC:DST:COMMAND"),
        ("-template=a:b", ""),
    ] {
        let plan = Plan::new(Kind::Fyrd, "wrong").args([text, "-template=c:b"]);
        let output = plan.try_start().map(drop).unwrap_err().output;
        let said = if said.is_empty() {
            "another one keeps b already"
        } else {
            said
        };
        assert!(output.contains(said), "{output}");
    }
    drop(first);
}

#[test]
fn a_check_that_hangs_is_ended_and_delays_nobody() {
    let template = r#"{"templates": [{"src": "servers.j2", "dst": "servers", "check": "sleep 600; true {}",
        "timeout": "300ms"}]}"#;
    let agent = balancer(template).start();
    let first = web("w1", &agent);
    agent.says("ended after the time limit of 300ms");
    assert!(!agent.file("servers").exists());
    all_alive(&[&agent, &first]);
}

#[test]
fn render_shows_what_a_template_gives() {
    let agent = balancer("{}").arg("-tag=role=web").start();
    let source = agent.file("servers.j2");
    let source = source.to_str().unwrap();
    let shown = agent.cli(&["render", source]).success();
    assert_eq!(shown, "server lb;\n");
    let listing = agent.cli(&["members", "-format=json"]).success();
    agent.write("members.json", &listing);
    let members = agent.file("members.json");
    let of_file = format!("-members={}", members.display());
    let render = |args: &[&str]| Kind::Fyrd.run(&[&["render", of_file.as_str()], args].concat());
    assert_eq!(render(&[source]).stdout, "server lb;\n");
    agent.write("position.j2", "{{ self.name }} {{ position }}\n");
    let position = agent.file("position.j2");
    assert_eq!(render(&["-node=lb", position.to_str().unwrap()]).stdout, "lb 0\n");
    agent.write("old", "server gone;\n");
    let old = format!("-dry-run={}", agent.file("old").display());
    let diff = render(&[&old, source]).stdout;
    assert!(diff.contains("-server gone;\n+server lb;\n"), "{diff}");
    assert_eq!(agent.read("old"), "server gone;\n");
    agent.write("wrong.j2", "{{ alive | rolle('web') }}");
    let wrong = agent.file("wrong.j2");
    let refused = render(&[wrong.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stdout.contains("wrong.j2:1: unknown filter"),
        "{refused:?}"
    );
    agent.write("members.json", "[]");
    assert!(
        render(&[source])
            .stdout
            .contains("it must be what `members -format=json` prints")
    );
    assert!(Path::new(source).exists());
}

#[test]
fn render_takes_what_an_agent_that_is_gone_has_remembered() {
    let mut agent = balancer("{}").arg("-snapshot=store").start();
    let other = web("w1", &agent);
    all_alive(&[&agent, &other]);
    agent.signal("INT");
    agent.ended();
    let (source, store) = (agent.file("servers.j2"), agent.file("store"));
    let store = format!("-snapshot={}", store.display());
    let source = source.to_str().unwrap();
    let shown = Kind::Fyrd.run(&["render", &store, source]);
    assert_eq!(shown.stdout, "server w1;\n", "{shown:?}");
    agent.write("serfs", "alive: s1 10.0.0.1:7946\n");
    agent.write(
        "names.j2",
        "{% for m in members %}{{ m.name }} {{ m.address }}{% endfor %}",
    );
    let text = format!("-snapshot={}", agent.file("serfs").display());
    let names = agent.file("names.j2");
    let shown = Kind::Fyrd.run(&["render", &text, names.to_str().unwrap()]);
    assert_eq!(shown.stdout, "s1 10.0.0.1\n", "{shown:?}");
    let both = Kind::Fyrd.run(&["render", "-members=-", &store, source]);
    assert!(
        both.stdout.starts_with("Only one of -members and -snapshot"),
        "{both:?}"
    );
}

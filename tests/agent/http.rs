//! What an agent shows over HTTP.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::support::http::{Events, FLAG, ask, connect, get, send};
use crate::support::{Agent, KEY_32, Kind, PATIENCE, Plan, all_alive, eventually};

fn web(name: &str) -> Plan {
    Plan::new(Kind::Fyrd, name).args(["-tag=role=web", "-tag=http=8081"])
}

#[test]
fn members_and_figures_of_a_cluster() {
    let shown = web("shown").key(Some(KEY_32)).arg(FLAG).start();
    let other = Plan::new(Kind::Fyrd, "other")
        .key(Some(KEY_32))
        .join(&shown)
        .start();
    all_alive(&[&shown, &other]);
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(get(&shown, path).status, 200, "{path}");
    }

    // The form is that of the command, so that the same programs read both.
    let listed = get(&shown, "/v1/members").json();
    let command = shown.cli(&["members", "-format=json"]).success();
    let command: serde_json::Value = serde_json::from_str(&command).unwrap();
    assert_eq!(listed["members"], command["members"]);
    let of_role = get(&shown, "/v1/members?role=web&status=alive").json();
    assert_eq!(of_role["members"][0]["name"], "shown");
    assert_eq!(of_role["members"].as_array().map(Vec::len), Some(1));

    let this = get(&shown, "/v1/self").json();
    assert_eq!(
        (&this["member"]["name"], &this["members"]),
        (&"shown".into(), &2.into())
    );
    assert_eq!(this["position"], 0);
    let keys = shown.cli(&["keys", "list"]).success();
    let fingerprint = this["encryption"]["primary"].as_str().unwrap().to_owned();
    assert!(keys.contains(&fingerprint), "{keys}: {fingerprint}");

    let targets = get(&shown, "/v1/sd/prometheus?port_tag=http").json();
    assert_eq!(targets[0]["targets"][0], "127.0.0.1:8081");
    assert_eq!(targets[0]["labels"]["__meta_fyrd_tag_role"], "web");
    assert_eq!(targets.as_array().map(Vec::len), Some(1));

    eventually("both have been probed", PATIENCE, || {
        let text = get(&shown, "/metrics");
        assert!(text.head.contains("application/openmetrics-text"), "{text:?}");
        assert!(text.body.ends_with("# EOF\n"), "{text:?}");
        assert!(
            text.body.contains(&format!("fingerprint=\"{fingerprint}\"")),
            "{text:?}"
        );
        assert!(!text.body.contains(KEY_32), "a key is shown");
        let has = |line: &str| text.body.lines().any(|own| own == line);
        let all = [
            "fyrd_members{status=\"alive\"} 2.0",
            "fyrd_member_events_total{event=\"join\"} 2",
            "fyrd_ready 1.0",
            "fyrd_isolated 0.0",
            "fyrd_accused 0.0",
        ];
        let probed = !has("fyrd_probe_rtt_seconds_count 0");
        if probed && all.iter().all(|line| has(line)) {
            Ok(())
        } else {
            Err(text.body)
        }
    });
}

#[test]
fn counts_grow_and_are_not_taken_away_by_whoever_else_asks() {
    let agent = Plan::new(Kind::Fyrd, "counts")
        .args([FLAG, "-event-handler=user=true"])
        .start();
    for _ in 0..3 {
        agent.cli(&["event", "-coalesce=false", "deploy"]).success();
    }
    let line = |name: &str| {
        let text = get(&agent, "/metrics").body;
        let found = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        found.ok_or(text)
    };
    for expected in [
        "fyrd_user_events_total 3",
        "fyrd_handler_runs_total{handler=\"user=true\",result=\"done\"} 3",
    ] {
        let (name, _) = expected.rsplit_once(' ').unwrap();
        eventually(expected, PATIENCE, || match line(name)? {
            found if found == expected => Ok(()),
            other => Err(other),
        });
    }
}

#[test]
fn who_waits_for_a_change_is_told_at_once_and_otherwise_after_the_time() {
    let agent = Plan::new(Kind::Fyrd, "watched").arg(FLAG).start();
    let index = |answer: serde_json::Value| answer["index"].as_str().unwrap().to_owned();
    let first = index(get(&agent, "/v1/members").json());
    let started = Instant::now();
    let same = index(get(&agent, &format!("/v1/members?index={first}&wait=300ms")).json());
    assert_eq!(same, first);
    assert!(started.elapsed() >= Duration::from_millis(300));
    let mut waiting = connect(&agent);
    let path = format!("/v1/members?index={first}&wait=5m");
    send(&mut waiting, "GET", &path, &["Host: localhost"]);
    let other = Plan::new(Kind::Fyrd, "other").join(&agent).start();
    let mut told = String::new();
    waiting
        .read_to_string(&mut told)
        .expect("an answer, long before the five minutes");
    assert!(told.contains("\"other\""), "{told}");
    // Of another life of the agent, or of one that does not wait.
    let (life, number) = first.split_once('-').unwrap();
    let before = format!("{}-{number}", life.parse::<u64>().unwrap() - 1);
    assert_eq!(
        get(&agent, &format!("/v1/members?index={before}&wait=5m")).status,
        200
    );
    drop(other);
}

#[test]
fn events_come_as_they_happen_and_a_client_goes_on_where_it_stopped() {
    let agent = Plan::new(Kind::Fyrd, "told").arg(FLAG).start();
    let mut events = Events::listen(&agent, "/v1/events?type=user:deploy&type=member-join", &[]);
    let say = |name: &str, payload: &str| {
        agent.cli(&["event", name, payload]).success();
    };
    say("other", "");
    say("deploy", "v1");
    let first = events.next();
    assert_eq!(first.event, "user");
    assert!(first.data.contains("\"payload\":\"v1\""), "{first:?}");
    drop(events);
    say("deploy", "v2");
    let mut events = Events::listen(
        &agent,
        "/v1/events?type=user",
        &[&format!("Last-Event-ID: {}", first.id)],
    );
    assert!(events.next().data.contains("\"payload\":\"v2\""));
    let other = Plan::new(Kind::Fyrd, "joins").join(&agent).start();
    let mut all = Events::listen(&agent, &format!("/v1/events?last-event-id={}", first.id), &[]);
    assert!(all.next().data.contains("\"payload\":\"v2\""));
    let joined = all.next();
    assert_eq!(joined.event, "member-join");
    assert!(joined.data.contains("\"name\":\"joins\""), "{joined:?}");
    // Numbers of another life mean nothing here, which is said.
    let (life, _) = first.id.split_once('-').unwrap();
    let before = format!("{}-7", life.parse::<u64>().unwrap() - 1);
    let mut late = Events::listen(&agent, "/v1/events", &[&format!("Last-Event-ID: {before}")]);
    assert_eq!(late.next().event, "lost");
    drop(other);
}

#[test]
fn it_is_for_reading_by_those_who_may() {
    let agent = Plan::new(Kind::Fyrd, "guarded")
        .with_file("token", "s3cret\n")
        .args([FLAG, "-http-token-file=token"])
        .start();
    let with = |path: &str, header: &str| ask(&agent, "GET", path, &["Host: localhost", header]).status;
    assert_eq!(with("/v1/members", "Authorization: Bearer s3cret"), 200);
    assert_eq!(with("/v1/members", "Authorization: Bearer s3cre"), 401);
    assert_eq!(with("/v1/members", "X: y"), 401);
    assert_eq!(with("/healthz", "X: y"), 200);
    assert!(!agent.log().contains("s3cret"));

    let open = Plan::new(Kind::Fyrd, "open")
        .args([FLAG, "-http-host=web.example.com"])
        .start();
    let named = |host: &str| ask(&open, "GET", "/v1/members", &[&format!("Host: {host}")]).status;
    assert_eq!(
        ["10.0.0.1:80", "web.example.com", "evil.example.com"].map(named),
        [200, 200, 403]
    );
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(
            ask(&open, method, "/v1/members", &["Host: localhost"]).status,
            405,
            "{method}"
        );
    }
    let (whole, head) = (
        get(&open, "/v1/self"),
        ask(&open, "HEAD", "/v1/self", &["Host: localhost"]),
    );
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(!whole.body.is_empty());
    for (path, status, text) in [
        ("/v1/member", 404, "there is nothing at \"/v1/member\""),
        ("/v1/members?stauts=alive", 400, "\"stauts\" is not known here"),
        (
            "/v1/members?index=7",
            400,
            "\"7\" is no place in the run of events",
        ),
        ("/v1/members?wait=soon", 400, "must be a time such as 30s"),
        ("/v1/sd/prometheus", 400, "the port to scrape must be told"),
        ("/metrics?x=1", 400, "there are none"),
    ] {
        let answer = get(&open, path);
        assert_eq!(
            (answer.status, answer.body.contains(text)),
            (status, true),
            "{path}: {answer:?}"
        );
    }
}

#[test]
fn readiness_says_what_is_missing() {
    // Nobody is there, so the agent looks on.
    let alone = Plan::new(Kind::Fyrd, "alone")
        .args([FLAG, "-retry-join=127.0.0.1:1"])
        .start();
    let answer = get(&alone, "/readyz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("nobody of those to join has answered yet"),
        "{answer:?}"
    );
    assert_eq!(get(&alone, "/healthz").status, 200);
    let other = Plan::new(Kind::Fyrd, "other").join(&alone).start();
    eventually("the agent is ready", PATIENCE, || match get(&alone, "/readyz") {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.body),
    });
    drop(other);
}

#[test]
fn mistakes_of_the_options_are_named() {
    let refused = |plan: Plan| plan.try_start().map(drop).unwrap_err().output;
    let with = |args: &[&str]| refused(Plan::new(Kind::Fyrd, "wrong").args(args.iter().copied()));
    for (args, text) in [
        (&["-http-addr=nonsense"][..], "Error starting HTTP listener"),
        (
            &[FLAG, "-http-token-file=none"],
            "Error reading HTTP token file 'none'",
        ),
    ] {
        let said = with(args);
        assert!(said.contains(text), "{said}");
    }
    let empty = Plan::new(Kind::Fyrd, "wrong").with_file("token", "\n");
    let said = refused(empty.args([FLAG, "-http-token-file=token"]));
    assert!(
        said.contains("HTTP token file 'token' is empty, it must hold"),
        "{said}"
    );
}

#[test]
fn an_agent_that_can_be_read_by_all_says_so() {
    let agent = Plan::new(Kind::Fyrd, "public")
        .arg("-http-addr=0.0.0.0:0")
        .start();
    agent.says("Warning: whoever reaches 0.0.0.0:0 can read members, tags and events");
    let quiet: Agent = Plan::new(Kind::Fyrd, "quiet")
        .arg("-http-addr=127.0.0.1:0")
        .start();
    quiet.says("Answering HTTP at 127.0.0.1:0");
    assert_eq!(quiet.times_said("whoever reaches"), 0);
}

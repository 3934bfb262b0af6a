//! Seeds as the configuration gives them: addresses, names, and programs that print either.
//!
//! `exec=COMMAND` is for clouds and orchestrators that tell by a command of their own who is there. It is asked anew at
//! each try. Only the configuration can name one: a client of the RPC port must not start programs.

use std::net::{IpAddr, SocketAddr};

use fyrd_core::bounds::{SEED_PROGRAM_OUTPUT, SEED_PROGRAM_TIME};
use fyrd_core::serf::JoinTarget;
use tokio::net::lookup_host;
use tracing::warn;

use super::address;
use crate::events::script::{self, Keep, Script};
use crate::events::shell::Shell;
use crate::go;

/// What stands before a command that prints seeds.
const PROGRAM: &str = "exec=";

/// The command that prints seeds, if this seed is one.
pub(super) fn program(seed: &str) -> Option<&str> {
    seed.strip_prefix(PROGRAM).map(str::trim)
}

/// All addresses that a seed means. The error says why there is none.
pub(super) async fn resolve_seed(seed: &str, default_port: u16) -> Result<Vec<JoinTarget>, String> {
    let Some(command) = program(seed) else {
        return resolve(seed, default_port).await;
    };
    let mut targets: Vec<JoinTarget> = Vec::new();
    let mut first_error = None;
    let printed = ask(command).await?;
    for word in printed.split_whitespace() {
        match resolve(word, default_port).await {
            Ok(found) => targets.extend(found),
            Err(error) => {
                warn!(target: "agent", "The program '{command}' named the seed '{word}': {error}");
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if targets.is_empty() => Err(error),
        None if targets.is_empty() => Err("it printed no address".to_owned()),
        _ => Ok(targets),
    }
}

/// What a program prints. Its complaints go where those of the agent go.
async fn ask(command: &str) -> Result<String, String> {
    let script = Script {
        command,
        shell: Shell::System,
        variables: Vec::new(),
        input: Vec::new(),
        time_limit: Some(SEED_PROGRAM_TIME),
        keep: Keep::Whole(SEED_PROGRAM_OUTPUT),
        complaints_apart: true,
    };
    let outcome = script::run(&script, std::future::pending()).await;
    outcome.result.map_err(|failure| failure.to_string())?;
    if outcome.written > outcome.output.len() as u64 {
        return Err(format!(
            "it printed {} bytes, more than {SEED_PROGRAM_OUTPUT}",
            outcome.written
        ));
    }
    String::from_utf8(outcome.output).map_err(|_| "it printed what is not UTF-8".to_owned())
}

/// All addresses that a text means.
pub(super) async fn resolve(text: &str, default_port: u16) -> Result<Vec<JoinTarget>, String> {
    let (name, host) = match text.split_once('/') {
        Some(("", _)) => return Err("empty node name provided".to_string()),
        Some((name, host)) => (Some(name.to_string()), host),
        None => (None, text),
    };
    let (host, port) = address::split(host, Some(default_port))?;
    let targets = |addrs: &mut dyn Iterator<Item = SocketAddr>| -> Vec<JoinTarget> {
        addrs
            .map(|addr| JoinTarget {
                name: name.clone(),
                addr,
            })
            .collect()
    };
    if host.is_empty() {
        return Err("a host is missing, as in 10.1.2.3:7946".to_string());
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(targets(&mut std::iter::once(SocketAddr::new(ip, port))));
    }
    if host.contains('%') {
        // An address with a zone is never looked up.
        return Ok(targets(&mut std::iter::once(address::parse(
            &format!("[{host}]:{port}"),
            None,
        )?)));
    }
    let found = lookup_host((host.as_str(), port))
        .await
        .map_err(|e| go::lookup_error(&host, &e))?;
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in found {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    match addrs.is_empty() {
        true => Err(format!("lookup {host}: no such host")),
        false => Ok(targets(&mut addrs.into_iter())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_now(text: &str) -> Result<Vec<String>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let targets = runtime.block_on(resolve_seed(text, 7000))?;
        let show = |t: &JoinTarget| {
            format!(
                "{}{}",
                t.name.as_deref().map_or(String::new(), |n| format!("{n}/")),
                t.addr
            )
        };
        Ok(targets.iter().map(show).collect())
    }

    #[test]
    fn targets_in_every_form() {
        #[rustfmt::skip]
        let table = [
            ("127.0.0.1", Ok("127.0.0.1:7000")), ("127.0.0.1:5", Ok("127.0.0.1:5")), ("::1", Ok("[::1]:7000")),
            ("[::1]", Ok("[::1]:7000")), ("[::1]:5", Ok("[::1]:5")), ("n1/127.0.0.1:5", Ok("n1/127.0.0.1:5")),
            ("n1/::1", Ok("n1/[::1]:7000")), ("fe80::1%3", Ok("[fe80::1%3]:7000")),
            ("/127.0.0.1", Err("empty node name provided")),
            ("n1/", Err("a host is missing, as in 10.1.2.3:7946")),
            ("", Err("a host is missing, as in 10.1.2.3:7946")),
            ("127.0.0.1:x", Err("address tcp/x: unknown port")),
            ("a:b:c", Err("address a:b:c: too many colons in address")),
        ];
        for (text, expected) in table {
            let expected = expected.map(|one| vec![one.to_string()]).map_err(str::to_string);
            assert_eq!(resolve_now(text), expected, "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_program_names_seeds() {
        let text = str::to_string;
        for (seed, expected) in [
            ("127.0.0.1:5", Ok(vec![text("127.0.0.1:5")])),
            (
                "exec=printf '127.0.0.1\\n\\n127.0.0.2:5 [::1]:6\\n'; echo not-an-address! >&2",
                Ok(vec![text("127.0.0.1:7000"), text("127.0.0.2:5"), text("[::1]:6")]),
            ),
            ("exec=echo :x 127.0.0.9", Ok(vec![text("127.0.0.9:7000")])),
            ("exec= true", Err(text("it printed no address"))),
            ("exec=echo 127.0.0.1; exit 3", Err(text("exit status 3"))),
            (
                "exec=head -c 70000 /dev/zero",
                Err(text("it printed 70000 bytes, more than 65536")),
            ),
            ("exec=printf '\\377'", Err(text("it printed what is not UTF-8"))),
        ] {
            assert_eq!(resolve_now(seed), expected, "{seed}");
        }
    }
}

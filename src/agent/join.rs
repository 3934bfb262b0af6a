//! Joins: from what a user writes to addresses, and the errors back (docs/protocol.md#a14-joining).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tracing::{error, info, warn};

use super::{Agent, address};
use crate::driver::Stopped;
use crate::go;
use fyrd_core::serf::{Answer, Command, JoinTarget};

impl Agent {
    /// Joins the cluster through these members: `[NAME/]HOST[:PORT]`, by default at our own bind port. A name is
    /// contacted at all its addresses. The error lists what went wrong with each, when none answered.
    pub async fn join_all(&self, existing: &[String], replay: bool) -> Result<usize, String> {
        info!(target: "agent", "joining: [{}] replay: {replay}", existing.join(" "));
        let result = self.contact(existing, replay).await;
        match &result {
            Ok(0) => {}
            Ok(contacted) => info!(target: "agent", "joined: {contacted} nodes"),
            Err(reason) => warn!(target: "agent", "error joining: {reason}"),
        }
        result
    }

    async fn contact(&self, existing: &[String], replay: bool) -> Result<usize, String> {
        let mut resolved = Vec::new();
        for text in existing {
            let targets = resolve(text, self.0.bind_port).await;
            resolved.push(targets.map_err(|e| format!("Failed to resolve {text}: {e}")));
        }
        let targets: Vec<JoinTarget> = resolved.iter().flatten().flatten().cloned().collect();
        let mut failures = Vec::new();
        if !targets.is_empty() {
            let command = Command::Join {
                targets,
                ignore_old: !replay && !self.0.catching_up.get(),
                announce: true,
            };
            match self.0.driver.command(command).await {
                Err(Stopped) => return Err("Serf can't Join after Leave or Shutdown".to_string()),
                Ok(Answer::Joined { contacted: 0, errors }) => failures = errors,
                Ok(Answer::Joined { contacted, .. }) => {
                    self.0.catching_up.set(false);
                    return Ok(contacted);
                }
                Ok(Answer::Failed(reason)) => return Err(reason),
                Ok(Answer::Done | Answer::Keys(_) | Answer::QueryStarted { .. }) => return Ok(0),
            }
        }
        let errors = in_order(resolved, &failures);
        if errors.is_empty() {
            Ok(0)
        } else {
            Err(list_errors(&errors))
        }
    }

    /// Tries to join until it works. Comes back with an error when there were too many tries.
    pub async fn retry_join(
        &self,
        existing: &[String],
        replay: bool,
        every: Duration,
        max: Option<u64>,
    ) -> Result<(), ()> {
        let mut retries = 0;
        loop {
            info!(target: "agent", "Joining cluster...(replay: {replay})");
            let reason = match self.join_all(existing, replay).await {
                Ok(contacted) => {
                    info!(target: "agent", "Join completed. Synced with {contacted} initial agents");
                    return Ok(());
                }
                Err(reason) => reason,
            };
            retries += 1;
            if max.is_some_and(|max| retries > max) {
                error!(target: "agent", "maximum retry join attempts made, exiting");
                return Err(());
            }
            let nanos = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX);
            warn!(target: "agent", "Join failed: {reason}, retrying in {}", go::Duration { nanos });
            tokio::time::sleep(every).await;
        }
    }
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

/// The errors in the order in which the user named the members.
fn in_order(
    resolved: Vec<Result<Vec<JoinTarget>, String>>,
    failures: &[(SocketAddr, String)],
) -> Vec<String> {
    let mut unclaimed: Vec<&(SocketAddr, String)> = failures.iter().collect();
    let mut errors = Vec::new();
    for outcome in resolved {
        match outcome {
            Err(reason) => errors.push(reason),
            Ok(targets) => {
                for target in targets {
                    let at = unclaimed.iter().position(|(addr, _)| *addr == target.addr);
                    let claimed = at.map(|at| unclaimed.remove(at));
                    errors.extend(
                        claimed.map(|(addr, reason)| format!("Failed to join {}: {reason}", addr.ip())),
                    );
                }
            }
        }
    }
    errors
}

/// Several errors as one text, as Serf lays it out.
pub(super) fn list_errors(errors: &[String]) -> String {
    let noun = if errors.len() == 1 { "error" } else { "errors" };
    let lines: Vec<String> = errors.iter().map(|error| format!("\t* {error}\n")).collect();
    format!("{} {noun} occurred:\n{}\n", errors.len(), lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_now(text: &str) -> Result<Vec<String>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let targets = runtime.block_on(resolve(text, 7000))?;
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

    #[test]
    fn errors_come_in_the_users_order_and_layout() {
        let target = |text: &str| JoinTarget {
            name: None,
            addr: text.parse().unwrap(),
        };
        let resolved = vec![
            Ok(vec![target("127.0.0.1:1"), target("[::1]:1")]),
            Err("Failed to resolve x: lookup x: no such host".to_string()),
            Ok(vec![target("127.0.0.1:1")]),
        ];
        let failures = vec![
            ("[::1]:1".parse().unwrap(), "b".to_string()),
            ("127.0.0.1:1".parse().unwrap(), "a".to_string()),
            ("127.0.0.1:1".parse().unwrap(), "c".to_string()),
        ];
        assert_eq!(
            list_errors(&in_order(resolved, &failures)),
            "4 errors occurred:\n\t* Failed to join 127.0.0.1: a\n\t* Failed to join ::1: b\n\
             \t* Failed to resolve x: lookup x: no such host\n\t* Failed to join 127.0.0.1: c\n\n"
        );
        assert_eq!(list_errors(&["x".to_string()]), "1 error occurred:\n\t* x\n\n");
    }
}

//! Joins: from what a user writes to addresses, for a user or for the node (docs/protocol.md#a14-joining).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Agent, address};
use crate::driver::Stopped;
use crate::go;
use crate::rpc::server::Joined;
use fyrd_core::node::Input;
use fyrd_core::serf::dial::{join_errors, list_errors};
use fyrd_core::serf::{Answer, Command, JoinTarget, LookedUp};

impl Agent {
    /// Joins the cluster through these members: `[NAME/]HOST[:PORT]`, by default at our own bind port. A name is
    /// contacted at all its addresses. The error lists what went wrong with each, when none answered.
    pub async fn join_all(&self, existing: &[String], replay: bool) -> Result<Joined, String> {
        info!(target: "agent", "joining: [{}] replay: {replay}", existing.join(" "));
        let result = self.contact(existing, replay).await;
        match &result {
            Ok(Joined { contacted: 0, .. }) => {}
            Ok(Joined { contacted, failed }) => {
                info!(target: "agent", "joined: {contacted} nodes");
                if !failed.is_empty() {
                    warn!(target: "agent", "error joining others: {}", list_errors(failed));
                }
            }
            Err(reason) => warn!(target: "agent", "error joining: {reason}"),
        }
        result
    }

    async fn contact(&self, existing: &[String], replay: bool) -> Result<Joined, String> {
        let names: Vec<Arc<str>> = existing.iter().map(|name| Arc::from(name.as_str())).collect();
        let looked_up = self.look_up(names).await;
        let found = looked_up.iter().filter_map(|seed| seed.found.as_ref().ok());
        let targets: Vec<JoinTarget> = found.flatten().cloned().collect();
        let mut failures = Vec::new();
        if !targets.is_empty() {
            let command = Command::Join {
                targets,
                ignore_old: !replay,
            };
            match self.0.driver.command(command).await {
                Err(Stopped) => return Err("Serf can't Join after Leave or Shutdown".to_string()),
                Ok(Answer::Joined { contacted: 0, errors }) => failures = errors,
                Ok(Answer::Joined { contacted, errors }) => {
                    let failed = join_errors(&looked_up, &errors);
                    return Ok(Joined { contacted, failed });
                }
                Ok(Answer::Failed(reason)) => return Err(reason),
                Ok(Answer::Done | Answer::Keys(_) | Answer::QueryStarted { .. }) => {
                    return Ok(Joined::default());
                }
            }
        }
        let errors = join_errors(&looked_up, &failures);
        if errors.is_empty() {
            Ok(Joined::default())
        } else {
            Err(list_errors(&errors))
        }
    }

    /// Looks the names of seeds up whenever the node asks for them.
    pub(super) async fn look_up_for_node(self, mut asked: mpsc::Receiver<Vec<Arc<str>>>) {
        while let Some(names) = asked.recv().await {
            let looked_up = self.look_up(names).await;
            if self.0.driver.tell(Input::LookedUp(looked_up)).await.is_err() {
                return;
            }
        }
    }

    async fn look_up(&self, names: Vec<Arc<str>>) -> Vec<LookedUp> {
        let mut looked_up = Vec::new();
        for name in names {
            let mut found = resolve(&name, self.0.bind_port).await;
            for target in found.iter_mut().flatten() {
                target.addr = self.0.home.enter(target.addr);
            }
            looked_up.push(LookedUp { name, found });
        }
        looked_up
    }
}

/// All addresses that a text means.
async fn resolve(text: &str, default_port: u16) -> Result<Vec<JoinTarget>, String> {
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
}

//! What went wrong with a join, as a user reads it.

use std::fmt::Display;
use std::net::SocketAddr;

use crate::serf::types::LookedUp;

/// What went wrong, in the order in which the user named its targets; empty if nothing did.
pub fn join_errors<E: Display>(looked_up: &[LookedUp], failures: &[(SocketAddr, E)]) -> Vec<String> {
    let mut unclaimed: Vec<&(SocketAddr, E)> = failures.iter().collect();
    let mut errors = Vec::new();
    for LookedUp { name, found } in looked_up {
        match found {
            Err(reason) => errors.push(format!("Failed to resolve {name}: {reason}")),
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
pub fn list_errors(errors: &[String]) -> String {
    let noun = if errors.len() == 1 { "error" } else { "errors" };
    let lines: Vec<String> = errors.iter().map(|error| format!("\t* {error}\n")).collect();
    format!("{} {noun} occurred:\n{}\n", errors.len(), lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serf::JoinTarget;

    #[test]
    fn errors_come_in_the_users_order_and_layout() {
        let found = |name: &str, texts: &[&str]| LookedUp {
            name: name.into(),
            found: Ok(texts
                .iter()
                .map(|text| JoinTarget {
                    name: None,
                    addr: text.parse().unwrap(),
                })
                .collect()),
        };
        let looked_up = [
            found("localhost:1", &["127.0.0.1:1", "[::1]:1"]),
            LookedUp {
                name: "x".into(),
                found: Err("lookup x: no such host".to_string()),
            },
            found("127.0.0.1:1", &["127.0.0.1:1"]),
        ];
        let failures = [
            ("[::1]:1".parse().unwrap(), "b".to_string()),
            ("127.0.0.1:1".parse().unwrap(), "a".to_string()),
            ("127.0.0.1:1".parse().unwrap(), "c".to_string()),
        ];
        assert_eq!(
            list_errors(&join_errors(&looked_up, &failures)),
            "4 errors occurred:\n\t* Failed to join 127.0.0.1: a\n\t* Failed to join ::1: b\n\
             \t* Failed to resolve x: lookup x: no such host\n\t* Failed to join 127.0.0.1: c\n\n"
        );
        assert_eq!(list_errors(&["x".to_string()]), "1 error occurred:\n\t* x\n\n");
    }
}

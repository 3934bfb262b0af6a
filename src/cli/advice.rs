//! What people can do about an error whose words are Serf's, and stay so because programs look for them.

use crate::agent::advice::KEY;

/// What helps against the error in this line, if anything is known.
pub(super) fn on(line: &str) -> Option<&'static str> {
    let holds = |texts: &[&str]| texts.iter().all(|text| line.contains(text));
    let advice = |(texts, advice): &(&[&str], &'static str)| holds(texts).then_some(*advice);
    ADVICE.iter().find_map(advice)
}

/// Parts that a line must hold, all of them, and what helps; the first that fits counts.
const ADVICE: &[(&[&str], &str)] = &[
    (&["connecting", "connection refused"], NOBODY),
    (&["connecting", "dial unix", "no such file"], NOBODY),
    (
        &["connecting", "dial unix", "permission denied"],
        "The socket of this agent is for another user: run this as that one, or as root.",
    ),
    (
        &["connecting", "i/o timeout"],
        "Nothing answers there, which may be a firewall or a host that is down; -rpc-addr or SERF_RPC_ADDR names the agent's address.",
    ),
    (&["connecting", "dial tcp", "no such host"], ADDRESS),
    (&["connecting", "dial tcp: address"], ADDRESS),
    (&["connecting", "dial tcp: missing address"], ADDRESS),
    (
        &["Invalid authentication token"],
        "The agent has another token, or none: what its configuration says under rpc_auth is to be given by -rpc-auth or SERF_RPC_AUTH.",
    ),
    (
        &["Authentication required"],
        "This agent wants the token that its configuration says under rpc_auth: give it by -rpc-auth=TOKEN or SERF_RPC_AUTH.",
    ),
    (&["illegal base64 data"], KEY),
    (&["key size must be"], KEY),
    (&["nvalid", "format"], "There are the formats text and json."),
    (
        &["nknown log level"],
        "There are the levels trace, debug, info, warn and err.",
    ),
];

const NOBODY: &str = "No agent listens there. 'fyrd agent' starts one; -rpc-addr=HOST:PORT or SERF_RPC_ADDR names another address.";

const ADDRESS: &str = "An agent's address is HOST:PORT, such as 127.0.0.1:7373 or [::1]:7373, or unix:PATH (-rpc-addr, SERF_RPC_ADDR).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_people_meet_have_advice() {
        let connecting = "Error connecting to Serf agent: ";
        let table = [
            (
                "dial tcp 127.0.0.1:7373: connect: connection refused",
                Some(NOBODY),
            ),
            (
                "dial unix /run/x: connect: no such file or directory",
                Some(NOBODY),
            ),
            ("dial tcp: lookup nosuch: no such host", Some(ADDRESS)),
            (
                "dial tcp: address 127.0.0.1: missing port in address",
                Some(ADDRESS),
            ),
            ("client closed", None),
        ];
        for (reason, expected) in table {
            assert_eq!(on(&format!("{connecting}{reason}")), expected, "{reason}");
        }
        assert_eq!(
            on("Error installing key: illegal base64 data at input byte 0"),
            Some(KEY)
        );
        assert_eq!(
            on("Error joining the cluster: dial tcp: connection refused"),
            None
        );
    }
}

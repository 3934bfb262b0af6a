//! What all commands that talk to an agent share: the two flags, their environment variables, the
//! connection, and small pieces of output.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::Arg;
use serde::Serialize;
use zeroize::Zeroizing;

use super::flags::{self, Flags};
use super::{Failure, Terminal};
use crate::rpc::client::{Client, ClientError};

/// Where an agent listens unless told otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:7373";

/// How long an agent may take to answer what it can answer at once, unless told otherwise.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// `-rpc-addr`, `-rpc-auth` and `-rpc-timeout`.
pub(super) fn arguments() -> [Arg; 3] {
    [
        flags::string(
            "rpc-addr",
            DEFAULT_ADDRESS,
            "Where the agent listens for RPC: HOST:PORT, or unix:PATH for a Unix socket. The environment variable SERF_RPC_ADDR sets it as well.",
        ),
        flags::string(
            "rpc-auth",
            "<token>",
            "The token the agent asks for, if any. The environment variable SERF_RPC_AUTH sets it as well.",
        ),
        flags::duration(
            "rpc-timeout",
            "10s",
            "How long the agent may take to answer what it can answer at once; 0 is no limit. Joining, leaving, and \
             changing tags or keys take as long as they take.",
        ),
    ]
}

/// Connects to the agent that flags and environment name, and runs `action` with the connection.
pub(super) fn with_agent(
    flags: &Flags,
    terminal: &mut Terminal<'_>,
    action: impl AsyncFnOnce(&mut Terminal<'_>, Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Error(format!("Error starting the runtime: {error}")))?;
    let result = runtime.block_on(async {
        let client = connect(flags)
            .await
            .map_err(failed("Error connecting to Serf agent"))?;
        action(terminal, client).await
    });
    // A name lookup that hangs in its own thread shall not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn connect(flags: &Flags) -> Result<Client, ClientError> {
    let address = setting(flags, "rpc-addr", "SERF_RPC_ADDR").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
    let token = setting(flags, "rpc-auth", "SERF_RPC_AUTH")
        .map(Zeroizing::new)
        .unwrap_or_default();
    let patience = match flags
        .duration("rpc-timeout")
        .map(|limit| u64::try_from(limit.nanos))
    {
        None => Some(DEFAULT_PATIENCE),
        Some(Ok(0) | Err(_)) => None,
        Some(Ok(nanos)) => Some(Duration::from_nanos(nanos)),
    };
    let mut client = Client::connect(&address, patience).await?;
    if !token.is_empty() {
        client.auth(token).await?;
    }
    Ok(client)
}

/// A flag beats its variable, even with an empty value; an empty variable counts as unset.
fn setting(flags: &Flags, flag: &str, variable: &str) -> Option<String> {
    let from_environment = || {
        let value = std::env::var_os(variable)?;
        (!value.is_empty()).then(|| value.to_string_lossy().into_owned())
    };
    flags.string(flag).map(str::to_owned).or_else(from_environment)
}

/// Turns a client's error into the command's own: `PREFIX: ERROR`.
pub(super) fn failed(prefix: &'static str) -> impl Fn(ClientError) -> Failure {
    move |error| Failure::Error(format!("{prefix}: {error}"))
}

/// A line of JSON, for who reads line by line.
pub(super) fn json_line(terminal: &mut Terminal<'_>, value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value);
    terminal.raw(line.map_err(|error| Failure::Error(format!("Encoding error: {error}")))?);
    Ok(())
}

/// How many answers a query waits for (`-wait`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until its time is over.
    Time,
    /// Of all living members that it is for.
    All,
    /// Of so many.
    Some(usize),
}

impl Wait {
    pub(super) fn argument(help: &'static str) -> Arg {
        flags::string("wait", "all|<n>", help)
    }

    pub(super) fn of(flags: &Flags) -> Result<Wait, Failure> {
        match flags.string("wait").unwrap_or_default() {
            "" => Ok(Wait::Time),
            "all" => Ok(Wait::All),
            text => match text.parse() {
                Ok(number) if number > 0 => Ok(Wait::Some(number)),
                _ => Err(Failure::Error(format!(
                    "Error: -wait={text}: it must be all, or how many answers to wait for, from 1 on"
                ))),
            },
        }
    }

    /// Whether these answers are enough, where those are `awaited` that live.
    pub(super) fn is_over(self, answered: &BTreeSet<String>, awaited: &BTreeSet<String>) -> bool {
        match self {
            Wait::Time => false,
            Wait::All => awaited.is_subset(answered),
            Wait::Some(number) => answered.len() >= number,
        }
    }
}

/// A word that names something, and so has to be text.
pub(super) fn text_word(word: &OsStr) -> Result<String, Failure> {
    word.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::Error(format!("Error: Not valid UTF-8: {}", word.to_string_lossy())))
}

/// A payload's bytes, exactly as given where the system allows it.
pub(super) fn payload(word: Option<&OsString>) -> Vec<u8> {
    let Some(word) = word else { return Vec::new() };
    #[cfg(unix)]
    return std::os::unix::ffi::OsStrExt::as_bytes(word.as_os_str()).to_vec();
    #[cfg(not(unix))]
    return word.to_string_lossy().into_owned().into_bytes();
}

/// Sorts `KEY=VALUE` words into a map, split at the first `=`. Of a repeated key the last one counts.
pub(super) fn key_values(words: &[String]) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::Error(format!("Error: Invalid tag: '{word}'"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_wait_for() {
        let wait = |word: &str| {
            let command = clap::Command::new("try").arg(Wait::argument(""));
            Wait::of(&flags::parse(command, &[word.into()]).unwrap())
        };
        assert_eq!(wait("-wait="), Ok(Wait::Time));
        assert_eq!(wait("-wait=all"), Ok(Wait::All));
        assert_eq!(wait("-wait=2"), Ok(Wait::Some(2)));
        for wrong in ["-wait=0", "-wait=-1", "-wait=some"] {
            assert!(matches!(wait(wrong), Err(Failure::Error(_))), "{wrong}");
        }
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert!(Wait::All.is_over(&set(&["a", "b", "gone"]), &set(&["a", "b"])));
        assert!(!Wait::All.is_over(&set(&["a", "gone"]), &set(&["a", "b"])));
        assert!(Wait::Some(1).is_over(&set(&["a"]), &set(&["a", "b"])));
        assert!(!Wait::Time.is_over(&set(&["a"]), &set(&["a"])));
    }

    #[test]
    fn tags_split_at_the_first_equals_sign() {
        let tags = key_values(&["a=b=c".into(), "x=".into(), "a=d".into()]).unwrap();
        assert_eq!(
            tags.into_iter().collect::<Vec<_>>(),
            [("a".into(), "d".into()), ("x".into(), String::new())]
        );
        let error = key_values(&["foo".into()]).unwrap_err();
        assert_eq!(error, Failure::Error("Error: Invalid tag: 'foo'".into()));
    }
}

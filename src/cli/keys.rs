//! `keys`: changes or lists the encryption keys of all members.
//!
//! The forms with flags are Serf's, and so is their output. Those with words are ours: they take a key's
//! fingerprint wherever a member holds the key, and show fingerprints.

mod guard;
mod rotate;
mod survey;

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::Command;
use fyrd_keys::Key;
use serde::Serialize;
use zeroize::Zeroizing;

use super::flags::Flags;
use super::info::Format;
use super::{FAILED, Failure, Terminal, WrongWord, flags, rpc, table};
use crate::go::printable::word;
use crate::rpc::client::{Client, ClientError, KeyOperation};
use crate::rpc::types::{KeyResponse, Member};
use survey::Survey;

pub(super) fn define() -> Command {
    Command::new("keys")
        .about("Changes or lists the cluster's encryption keys")
        .long_about(
            "Changes or lists the encryption keys of all members at once. A ring can hold several keys: all \
             of them open what others have sealed, the primary one seals. Each form can be repeated without \
             harm.\n\n\
             With 'rotate', a new key takes the place of the old one: it is installed on all members, made \
             the primary one, and the old one is removed, each step when all known members have confirmed \
             the one before. A key is made if none is given. If a member is missing, it stops and says so, \
             and all members can still talk to each other; run it again to go on.\n\n\
             The words 'install', 'use', 'remove' and 'list' do what the flags of these names do, and show \
             keys by their fingerprints. A fingerprint can stand for a key that is installed.\n\n\
             Succeeds only if every member has answered without an error.",
        )
        .override_usage(
            "keys [options]...\n       keys rotate [options] [key]\n       keys install|use|remove [options] key\n       keys list [options]",
        )
        .args([
            flags::string("install", "<key>", "Add a key to every member's ring."),
            flags::string(
                "use",
                "<key>",
                "Make an installed key the primary one. All members must have it.",
            ),
            flags::string(
                "remove",
                "<key>",
                "Remove a key, which must not be the primary one. Refused while a known member, failed ones \
                 included, is not known to have another key.",
            ),
            flags::boolean("list", "List all keys, and how many members have each."),
            flags::boolean(
                "force",
                "Remove a key even then. With the word 'use', use one even then.",
            ),
            flags::string(
                "cipher",
                "aes256gcm",
                "With 'rotate': what the key to be made is for, aes256gcm or chacha20poly1305. Without, it \
                 stays with ChaCha20-Poly1305 where that is in use, else it is AES-256-GCM.",
            ),
            flags::list(
                "old",
                "<key>",
                "With 'rotate': the key to be removed, where there are several. Can be given several times.",
            ),
            flags::duration(
                "timeout",
                "30s",
                "With 'rotate': how long to wait for members that are missing.",
            ),
            flags::string("format", "text", "With 'list': how to print the result, 'text' or 'json'."),
            flags::boolean("print", "With 'rotate' and 'list': show keys, not only fingerprints."),
        ])
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let (flags, words) = read(words)?;
    if let Some((operation, wording)) = operation(&flags)? {
        return rpc::with_agent(&flags, terminal, async |terminal, mut client| {
            run_flag(terminal, &mut client, operation, &wording, flags.is_set("force")).await
        });
    }
    let (verb, key) = verb(&words)?;
    if verb == Verb::Rotate {
        let wishes = rotate::Wishes::of(&flags, key)?;
        return rpc::with_agent(&flags, terminal, async |terminal, mut client| {
            rotate::rotate(terminal, &mut client, &wishes).await
        });
    }
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        run_word(terminal, &mut client, verb, key, &flags).await
    })
}

/// The flags, wherever they stand, and the words between them.
fn read(words: &[OsString]) -> Result<(Flags, Vec<OsString>), Failure> {
    let flags = flags::parse(define(), words)?;
    // Serf's forms end at the first word.
    if operation(&flags)?.is_some() {
        return Ok((flags, Vec::new()));
    }
    Ok(flags::parse_between(define, words)?)
}

/// What the first word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Install,
    Use,
    Remove,
    List,
    Rotate,
}

/// The verb and its key.
fn verb(words: &[OsString]) -> Result<(Verb, Option<Zeroizing<String>>), Failure> {
    const VERBS: &[&str] = &["install", "use", "remove", "list", "rotate"];
    let first = words.first();
    let mut words = words.iter();
    let verb = match words.next().and_then(|word| word.to_str()) {
        Some("install") => Verb::Install,
        Some("use") => Verb::Use,
        Some("remove") => Verb::Remove,
        Some("list") => Verb::List,
        Some("rotate") => Verb::Rotate,
        _ => return Err(WrongWord::of(first, VERBS)),
    };
    let key = words.next().map(|word| rpc::text_word(word)).transpose()?;
    let has_key = key.as_ref().is_some_and(|key| !key.is_empty());
    match verb {
        Verb::List if key.is_some() => return Err(Failure::Usage(Some("list takes no key."))),
        Verb::Install | Verb::Use | Verb::Remove if !has_key => {
            return Err(Failure::Usage(Some("A key must be specified.")));
        }
        _ if words.next().is_some() => {
            return Err(Failure::Usage(Some("Too many command line arguments.")));
        }
        _ => {}
    }
    Ok((verb, key.filter(|key| !key.is_empty()).map(Zeroizing::new)))
}

/// The texts around an operation.
#[derive(Clone, Copy, Debug)]
struct Wording {
    start: &'static str,
    success: &'static str,
    failure: &'static str,
}

const INSTALL: Wording = Wording {
    start: "Installing key on all members...",
    success: "Successfully installed key!",
    failure: "Error installing key",
};
const USE: Wording = Wording {
    start: "Changing primary key on all members...",
    success: "Successfully changed primary key!",
    failure: "Error changing primary key",
};
const REMOVE: Wording = Wording {
    start: "Removing key on all members...",
    success: "Successfully removed key!",
    failure: "Error removing key",
};
const LIST: Wording = Wording {
    start: "Asking all members for installed keys...",
    success: "Keys gathered, listing cluster keys...",
    failure: "Failed to gather member keys",
};

/// Serf's forms, with Serf's output.
async fn run_flag(
    terminal: &mut Terminal<'_>,
    client: &mut Client,
    operation: KeyOperation,
    wording: &Wording,
    force: bool,
) -> Result<(), Failure> {
    terminal.line(format!("==> {}", wording.start));
    if let KeyOperation::Remove(text) = &operation
        && !force
        && let Ok(key) = Key::parse(text)
    {
        check_removal(terminal, client, &key).await?;
    }
    let response = perform(terminal, client, operation, wording).await?;
    terminal.line(format!("==> {}", wording.success));
    if let Some(keys) = response.keys {
        let nodes = response.num_nodes;
        let rows: Vec<Zeroizing<String>> = keys
            .iter()
            .map(|(key, count)| Zeroizing::new(format!("{} | [{count}/{nodes}]", key.as_str())))
            .collect();
        print_table(terminal, &rows);
    }
    Ok(())
}

/// Asks all members; tells who refused.
async fn perform(
    terminal: &mut Terminal<'_>,
    client: &mut Client,
    operation: KeyOperation,
    wording: &Wording,
) -> Result<KeyResponse, Failure> {
    let (response, error) = match client.keys(operation).await {
        Ok(answer) => answer,
        Err(error) => (KeyResponse::default(), error.to_string()),
    };
    if error.is_empty() {
        return Ok(response);
    }
    let failures: Vec<String> = response
        .messages
        .iter()
        .map(|(node, text)| format!("failed: |{node}|{text}"))
        .collect();
    if !failures.is_empty() {
        terminal.line(table::columns(&failures));
    }
    terminal.line("");
    Err(Failure::Error(format!("{}: {error}", wording.failure)))
}

/// The forms with words.
async fn run_word(
    terminal: &mut Terminal<'_>,
    client: &mut Client,
    verb: Verb,
    word: Option<Zeroizing<String>>,
    flags: &Flags,
) -> Result<(), Failure> {
    let wording = match verb {
        Verb::Install => &INSTALL,
        Verb::Use => &USE,
        Verb::Remove => &REMOVE,
        Verb::List | Verb::Rotate => &LIST,
    };
    let failed = |error: String| Failure::Error(format!("{}: {error}", wording.failure));
    if Format::of(flags)? == Format::Json {
        if verb != Verb::List {
            return Err(Failure::Usage(Some("-format is for 'list'.")));
        }
        return list_as_json(terminal, client, flags.is_set("print")).await;
    }
    terminal.line(format!("==> {}", wording.start));
    let operation = match (verb, word) {
        (Verb::List | Verb::Rotate, _) | (_, None) => KeyOperation::List,
        (Verb::Install, Some(word)) => {
            let key = Key::parse(&word).map_err(|error| failed(error.to_string()))?;
            KeyOperation::Install(key.to_text())
        }
        (_, Some(word)) => {
            let survey = Survey::take(client, KeyOperation::List)
                .await
                .map_err(|error| failed(error.to_string()))?;
            let key = survey.find(&word).map_err(failed)?;
            if !flags.is_set("force") {
                object(terminal, client, verb, &key, &survey).await?;
            }
            match verb {
                Verb::Use => KeyOperation::Use(key.to_text()),
                _ => KeyOperation::Remove(key.to_text()),
            }
        }
    };
    let is_list = verb == Verb::List;
    let response = perform(terminal, client, operation, wording).await?;
    terminal.line(format!("==> {}", wording.success));
    if is_list {
        list(terminal, response, flags.is_set("print"));
    }
    tell_absent(terminal, client)
        .await
        .map_err(|error| failed(error.to_string()))
}

/// The keys, and who may have others, as JSON.
#[derive(Serialize)]
struct JsonKeys<'a> {
    keys: Vec<JsonKey<'a>>,
    /// How many members were asked.
    members: i64,
    /// What members have said that could not answer.
    errors: BTreeMap<&'a str, &'a str>,
    /// Who was not asked, by name, with the status.
    not_asked: BTreeMap<&'a str, &'a str>,
    /// Why the list may not be whole.
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct JsonKey<'a> {
    fingerprint: Option<String>,
    cipher: Option<String>,
    /// How many members have it.
    members: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

async fn list_as_json(terminal: &mut Terminal<'_>, client: &mut Client, print: bool) -> Result<(), Failure> {
    let failed = |error: ClientError| Failure::Error(format!("{}: {error}", LIST.failure));
    let (response, error) = client.keys(KeyOperation::List).await.map_err(failed)?;
    let members = client.members().await.map_err(failed)?;
    let keys = response.keys.iter().flatten().map(|(text, count)| {
        let key = Key::parse(text).ok();
        JsonKey {
            fingerprint: key.as_ref().map(|key| key.fingerprint().to_string()),
            cipher: key.as_ref().map(|key| key.cipher().to_string()),
            members: *count,
            key: print.then_some(text.as_str()),
        }
    });
    let absent = members.iter().filter(|member| is_absent(member));
    let all = JsonKeys {
        keys: keys.collect(),
        members: response.num_nodes,
        errors: response
            .messages
            .iter()
            .map(|(node, text)| (node.as_str(), text.as_str()))
            .collect(),
        not_asked: absent
            .map(|member| (member.name.as_str(), member.status.as_str()))
            .collect(),
        error: &error,
    };
    // Room for all of it, so that keys do not move and leave a copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(JSON_ROOM));
    let written = serde_json::to_writer_pretty(&mut *json, &all);
    written.map_err(|error| Failure::Error(format!("Encoding error: {error}")))?;
    terminal.raw(json.as_slice());
    match error.is_empty() {
        true => Ok(()),
        false => Err(Failure::Exit(FAILED)),
    }
}

/// More than a ring of keys takes.
const JSON_ROOM: usize = 64 * 1024;

/// Who is not alive, but may be back.
fn is_absent(member: &Member) -> bool {
    !["alive", "left"].contains(&member.status.as_str())
}

/// The keys by fingerprint.
fn list(terminal: &mut Terminal<'_>, response: KeyResponse, print: bool) {
    let nodes = response.num_nodes;
    let rows: Vec<Zeroizing<String>> = response
        .keys
        .unwrap_or_default()
        .iter()
        .map(|(text, count)| {
            let mut row = Zeroizing::new(match Key::parse(text) {
                Ok(key) => format!("{}|{}|[{count}/{nodes}]", key.fingerprint(), key.cipher()),
                Err(_) => format!("?|unknown|[{count}/{nodes}]"),
            });
            if print {
                // Room for all of it, so that the text does not move and leave a copy behind.
                row.reserve_exact(text.len() + 1);
                row.push('|');
                row.push_str(text);
            }
            row
        })
        .collect();
    print_table(terminal, &rows);
    for (node, text) in &response.messages {
        terminal.line(format!("{}: {}", word(node), word(text)));
    }
}

fn print_table(terminal: &mut Terminal<'_>, rows: &[Zeroizing<String>]) {
    let rows: Vec<&str> = rows.iter().map(|row| row.as_str()).collect();
    terminal.line("");
    terminal.line(Zeroizing::new(table::columns(&rows)).as_str());
}

/// Who was not asked, for it is not alive, but may be back.
async fn tell_absent(terminal: &mut Terminal<'_>, client: &mut Client) -> Result<(), ClientError> {
    let absent: Vec<String> = client
        .members()
        .await?
        .iter()
        .filter(|member| is_absent(member))
        .map(|member| format!("not asked: |{}|{}", member.name, member.status))
        .collect();
    if !absent.is_empty() {
        terminal.line("");
        terminal.line(table::columns(&absent));
    }
    Ok(())
}

async fn check_removal(terminal: &mut Terminal<'_>, client: &mut Client, key: &Key) -> Result<(), Failure> {
    let survey = match Survey::take(client, KeyOperation::List).await {
        Ok(survey) => survey,
        Err(error) => {
            terminal.line("");
            return Err(Failure::Error(format!("{}: {error}", REMOVE.failure)));
        }
    };
    object(terminal, client, Verb::Remove, key, &survey).await
}

/// Fails if the key had better stay, or not be used.
async fn object(
    terminal: &mut Terminal<'_>,
    client: &mut Client,
    verb: Verb,
    key: &Key,
    survey: &Survey,
) -> Result<(), Failure> {
    let silent = survey.silent(client).await;
    let (objections, advice, failure) = match verb {
        Verb::Use => (
            guard::objections_to_use(key, survey, &silent),
            guard::use_advice(key),
            USE.failure,
        ),
        _ => (
            guard::objections_to_removal(key, survey, &silent),
            guard::removal_advice(key),
            REMOVE.failure,
        ),
    };
    if objections.is_empty() {
        return Ok(());
    }
    terminal.line(table::columns(&objections));
    terminal.line("");
    Err(Failure::Error(format!("{failure}: {advice}")))
}

/// The one of the four that is asked for by flag, if any; empty values count as not given.
fn operation(flags: &Flags) -> Result<Option<(KeyOperation, Wording)>, Failure> {
    let key = |name| {
        flags
            .string(name)
            .filter(|key| !key.is_empty())
            .map(|key| Zeroizing::new(key.to_owned()))
    };
    let mut chosen = Vec::new();
    chosen.extend(key("install").map(|key| (KeyOperation::Install(key), INSTALL)));
    chosen.extend(key("use").map(|key| (KeyOperation::Use(key), USE)));
    chosen.extend(key("remove").map(|key| (KeyOperation::Remove(key), REMOVE)));
    chosen.extend(flags.is_set("list").then_some((KeyOperation::List, LIST)));
    if chosen.len() > 1 {
        return Err(Failure::Error(
            "Only one of -install, -use, -remove, or -list allowed".to_owned(),
        ));
    }
    Ok(chosen.pop())
}

#[cfg(test)]
mod tests {
    use super::super::flags::FlagError;
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn choose(line: &[&str]) -> Result<Option<String>, Failure> {
        let chosen = operation(&flags::parse(define(), &words(line)).unwrap())?;
        Ok(chosen.map(|(operation, _)| format!("{operation:?}")))
    }

    #[test]
    fn one_operation_at_most() {
        assert_eq!(choose(&["-list"]), Ok(Some("List".into())));
        assert_eq!(
            choose(&["-use=abc", "-install="]),
            Ok(Some("Use([hidden])".into()))
        );
        for line in [[].as_slice(), &["-install="], &["-list=false"]] {
            assert_eq!(choose(line), Ok(None));
            let (_, rest) = read(&words(line)).unwrap();
            assert_eq!(verb(&rest).unwrap_err(), Failure::Usage(None));
        }
        let problem = "Only one of -install, -use, -remove, or -list allowed";
        assert_eq!(
            choose(&["-list", "-remove=x"]),
            Err(Failure::Error(problem.into()))
        );
    }

    #[test]
    fn flags_may_stand_among_the_words() {
        for line in [
            ["-timeout=5s", "rotate", "abc"].as_slice(),
            &["rotate", "-timeout=5s", "abc"],
            &["rotate", "abc", "-timeout", "5s"],
            &["-timeout=5s", "--", "rotate", "abc"],
        ] {
            let (flags, rest) = read(&words(line)).unwrap();
            assert!(flags.duration("timeout").is_some(), "{line:?}");
            let (found, key) = verb(&rest).unwrap();
            assert_eq!((found, key.unwrap().as_str()), (Verb::Rotate, "abc"), "{line:?}");
        }
        // As with Serf, what follows the first word after one of its flags is nothing.
        let (flags, rest) = read(&words(&["-list", "junk", "-nosuch"])).unwrap();
        assert!(flags.is_set("list") && rest.is_empty());
        assert!(matches!(
            read(&words(&["rotate", "-nosuch"])),
            Err(Failure::Flags(FlagError::Unknown(_)))
        ));
    }

    #[test]
    fn words_are_checked() {
        for (line, problem) in [
            (["list", "abc"].as_slice(), "list takes no key."),
            (&["install"], "A key must be specified."),
            (&["remove", ""], "A key must be specified."),
            (&["use", "a", "b"], "Too many command line arguments."),
            (&["rotate", "a", "b"], "Too many command line arguments."),
        ] {
            assert_eq!(verb(&words(line)).unwrap_err(), Failure::Usage(Some(problem)));
        }
        assert_eq!(verb(&words(&["rotate"])).unwrap(), (Verb::Rotate, None));
        assert!(matches!(verb(&words(&["junk"])), Err(Failure::Word(_))));
        assert_eq!(verb(&[]).unwrap_err(), Failure::Usage(None));
    }
}

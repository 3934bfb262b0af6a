//! `keygen`: a new random encryption key.

use std::ffi::OsString;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Command;
use rand::TryRng;
use zeroize::Zeroizing;

use super::{Failure, Terminal, flags};

/// Both ciphers take keys of this many bytes.
const KEY_BYTES: usize = 32;
const CHACHA: &str = "chacha20poly1305";

pub(super) fn define() -> Command {
    Command::new("keygen")
        .about("Makes a new encryption key")
        .long_about(
            "Prints a new random key, in the form that the agent's -encrypt flag and the keys command take. \
             Without -cipher it is a key for AES-256-GCM, which Serf's own agents understand as well.",
        )
        .override_usage("keygen [options]")
        .arg(flags::string(
            "cipher",
            CHACHA,
            "Make a key for ChaCha20-Poly1305 instead. Only for clusters without Serf's own agents.",
        ))
}

/// Serf's keygen ignores all words, so only a word that means our own flag is looked at.
pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let ours = |word: &&OsString| {
        word.to_string_lossy()
            .trim_start_matches('-')
            .starts_with("cipher")
    };
    let prefix = if words.first().filter(ours).is_some() {
        match flags::parse(define(), words)?.string("cipher") {
            Some(CHACHA) => "chacha20poly1305:",
            other => {
                let name = other.unwrap_or_default();
                let problem = format!("Error: Unknown cipher '{name}'; leave it out, or use {CHACHA}");
                return Err(Failure::Error(problem));
            }
        }
    } else {
        ""
    };
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::rngs::SysRng
        .try_fill_bytes(&mut *key)
        .map_err(|error| Failure::Error(format!("Error reading random data: {error}")))?;
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + KEY_BYTES.div_ceil(3) * 4));
    text.push_str(prefix);
    STANDARD.encode_string(*key, &mut text);
    terminal.line(text.as_str());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keygen(words: &[&str]) -> (Result<(), Failure>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let result = run(&mut Terminal::new("fyrd".into(), &mut out, &mut err), &words);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn keys_are_new_each_time_and_32_bytes_long() {
        let (_, first) = keygen(&[]);
        let (_, second) = keygen(&["-x", "junk"]);
        assert_ne!(first, second);
        for key in [first, second] {
            assert_eq!(STANDARD.decode(key.trim_end()).unwrap().len(), KEY_BYTES);
        }
    }

    #[test]
    fn a_chacha_key_says_so() {
        for words in [
            ["-cipher=chacha20poly1305"].as_slice(),
            &["--cipher", "chacha20poly1305"],
        ] {
            let (result, key) = keygen(words);
            assert_eq!(result, Ok(()));
            let key = key.trim_end().strip_prefix("chacha20poly1305:").unwrap();
            assert_eq!(STANDARD.decode(key).unwrap().len(), KEY_BYTES);
        }
        let problem = "Error: Unknown cipher 'rot13'; leave it out, or use chacha20poly1305";
        assert_eq!(
            keygen(&["-cipher=rot13"]),
            (Err(Failure::Error(problem.into())), String::new())
        );
        assert!(matches!(keygen(&["-cipher"]).0, Err(Failure::Flags(_))));
    }
}

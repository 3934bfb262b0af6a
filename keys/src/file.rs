//! The keyring file: a JSON list of keys as text, the first the primary, as Serf writes it.
//!
//! Saving never leaves half a file, see [`replace`].
//! Only its owner may read it, and root or, on Windows, the system.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::error::Category;
use zeroize::Zeroizing;

use crate::key::{Key, KeyError, MAX_TEXT_LEN};
use crate::replace::{Access, ReplaceError, leftovers, replace_bytes, sweep};
use crate::ring::{Keyring, RingError};

/// The longest file that is read: several thousand keys, far more than a ring takes.
pub const MAX_FILE_LEN: u64 = 256 * 1024;

/// What some editors put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// How a text of Windows PowerShell begins, which writes UTF-16.
const UTF_16: [u8; 2] = [0xff, 0xfe];

/// Loads a keyring. A key that is there twice counts once.
pub fn load(path: &Path) -> Result<Keyring, KeyringFileError> {
    parse(&read(path)?, path)
}

/// Reads the content of a keyring file; `path` is what errors name.
pub fn parse(text: &[u8], path: &Path) -> Result<Keyring, KeyringFileError> {
    // Windows editors put a mark at the start of a text.
    let json = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if json.starts_with(&UTF_16) {
        return Err(KeyringFileError::Utf16 { path: path.into() });
    }
    let texts: Option<Vec<Option<Zeroizing<String>>>> =
        serde_json::from_slice(json).map_err(|error| KeyringFileError::json(path, &error))?;
    let texts = texts.unwrap_or_default();
    if texts.is_empty() {
        return Err(KeyringFileError::NoKeys { path: path.into() });
    }
    let mut keys = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let text = text.as_ref().map_or("", |text| text.as_str());
        keys.push(Key::parse(text).map_err(|error| KeyringFileError::key(path, index, error))?);
    }
    Keyring::from_keys(keys).map_err(|source| KeyringFileError::Ring {
        path: path.into(),
        source,
    })
}

/// Saves a keyring so that after a crash at any time the file holds either the old ring or the new one.
///
/// Where `path` is a symbolic link, the file that it leads to is replaced; where it is a mount point of its own, it is
/// written in place, see [`replace_bytes`]. On Unix the file has mode 0600,
/// or that of the file before it if that was stricter still. On Windows its access list names the user of
/// this process and the system, and takes nothing over from the directory.
pub fn save(path: &Path, ring: &Keyring) -> Result<(), KeyringFileError> {
    replace_bytes(path, Access::Owner, to_json(ring).as_bytes())?;
    Ok(())
}

/// Tidies up behind a crash: removes the files beside a keyring that were to become it. They have keys in them.
/// Where the keyring itself was being written in place and does not read any more, the one beside it takes its
/// place; then this says so.
pub fn tidy(path: &Path) -> Result<bool, KeyringFileError> {
    let files = leftovers(path);
    if files.is_empty() {
        return Ok(false);
    }
    let is_spoilt = matches!(
        load(path),
        Err(KeyringFileError::Json { .. } | KeyringFileError::NoKeys { .. })
    );
    let whole = files
        .iter()
        .filter(|_| is_spoilt)
        .find_map(|file| load(file).ok());
    if let Some(ring) = &whole {
        save(path, ring)?;
    }
    sweep(path);
    Ok(whole.is_some())
}

/// Why a keyring file is not loaded or saved. Says nothing of what the file contains.
#[derive(Debug, thiserror::Error)]
pub enum KeyringFileError {
    /// The system refused something.
    #[error("{action} {}: {}", path.display(), reason(source))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than any keyring.
    #[error("read {}: longer than the {MAX_FILE_LEN} bytes of the largest keyring file", path.display())]
    TooLong {
        /// The file concerned.
        path: PathBuf,
    },
    /// The file is text in UTF-16.
    #[error("Failed to decode keyring file: {} is UTF-16, it must be UTF-8", path.display())]
    Utf16 {
        /// The file concerned.
        path: PathBuf,
    },
    /// The file is not a JSON list of strings.
    #[error("Failed to decode keyring file: {what} at line {line} column {column} of {}", path.display())]
    Json {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// Where it is wrong, counted from 1.
        line: usize,
        /// Where in that line it is wrong.
        column: usize,
    },
    /// The list is empty.
    #[error("Keyring file contains no keys: {}", path.display())]
    NoKeys {
        /// The file concerned.
        path: PathBuf,
    },
    /// An entry is not the text of a key.
    #[error("Failed to decode key from keyring: {source} (key {number} in {})", path.display())]
    KeyText {
        /// The file concerned.
        path: PathBuf,
        /// Which entry, counted from 1.
        number: usize,
        /// What is wrong with it.
        source: KeyError,
    },
    /// An entry is a key of the wrong size.
    #[error("Failed to restore keyring: {source} (key {number} in {})", path.display())]
    KeySize {
        /// The file concerned.
        path: PathBuf,
        /// Which entry, counted from 1.
        number: usize,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The keys do not make a ring.
    #[error("Failed to restore keyring: {source} (in {})", path.display())]
    Ring {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with them.
        source: RingError,
    },
}

impl KeyringFileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.into(),
            source,
        }
    }

    /// The parser's own words are not shown, because they quote what it found, which may be a key.
    fn json(path: &Path, error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Eof => "unexpected end of JSON",
            Category::Data => "expected a list of strings",
            Category::Syntax | Category::Io => "invalid JSON",
        };
        Self::Json {
            path: path.into(),
            what,
            line: error.line(),
            column: error.column(),
        }
    }

    fn key(path: &Path, index: usize, source: KeyError) -> Self {
        let (path, number) = (path.into(), index.saturating_add(1));
        match source {
            KeyError::IllegalBase64 { .. } | KeyError::UnknownPrefix => {
                Self::KeyText { path, number, source }
            }
            KeyError::AesSize | KeyError::CipherSize { .. } => Self::KeySize { path, number, source },
        }
    }
}

impl From<ReplaceError> for KeyringFileError {
    fn from(error: ReplaceError) -> Self {
        let ReplaceError { action, path, source } = error;
        Self::Io { action, path, source }
    }
}

/// What the system says, in the words of Serf where they are known and the same everywhere.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyringFileError> {
    fs::metadata(path).map_err(KeyringFileError::io("stat", path))?;
    let file = File::open(path).map_err(KeyringFileError::io("open", path))?;
    // Room for the longest file at once, so that the text never moves and leaves a copy behind.
    let limit = MAX_FILE_LEN.saturating_add(1);
    let mut text = Zeroizing::new(Vec::with_capacity(limit as usize));
    file.take(limit)
        .read_to_end(&mut text)
        .map_err(KeyringFileError::io("read", path))?;
    if text.len() as u64 > MAX_FILE_LEN {
        return Err(KeyringFileError::TooLong { path: path.into() });
    }
    Ok(text)
}

/// The content of a keyring file. The list is written by hand, which is easy as no key has a character to
/// escape: so the text never moves.
pub fn to_json(ring: &Keyring) -> Zeroizing<String> {
    const AROUND_KEY: usize = "  \"\",\n".len();
    let mut json = Zeroizing::new(String::with_capacity(
        4 + ring.len() * (MAX_TEXT_LEN + AROUND_KEY),
    ));
    json.push_str("[\n");
    for (index, key) in ring.keys().enumerate() {
        json.push_str(if index == 0 { "  \"" } else { ",\n  \"" });
        json.push_str(&key.to_text());
        json.push('"');
    }
    json.push_str("\n]");
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replace::replace;
    use std::io::Write;

    #[test]
    fn a_file_of_a_windows_editor_is_read() {
        let text = format!("\u{feff}[\r\n  \"{K1}\",\r\n  \"{K2}\"\r\n]\r\n");
        let (_dir, path) = file_with(&text);
        let ring = load(&path).unwrap();
        assert_eq!(
            ring.keys()
                .map(|key| key.to_text().to_string())
                .collect::<Vec<_>>(),
            [K1, K2]
        );
        let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(&path, utf_16).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("keyring.json is UTF-16, it must be UTF-8"),
            "{error}"
        );
    }
    use crate::Cipher;
    use crate::testing::{K1, K2, key};

    /// A directory of its own, and a file in it that holds `content`.
    fn file_with(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.json");
        fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn the_file_is_as_serf_writes_it() {
        let (_dir, path) = file_with("old");
        let ring = Keyring::from_keys(vec![K2.parse().unwrap(), K1.parse().unwrap()]).unwrap();
        save(&path, &ring).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("[\n  \"{K2}\",\n  \"{K1}\"\n]")
        );
        save(&path, &Keyring::new(K1.parse().unwrap())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("[\n  \"{K1}\"\n]"));
    }

    #[test]
    fn a_full_ring_of_the_longest_keys_is_saved_and_loaded() {
        let chacha = |n| key(Cipher::ChaCha20Poly1305, n);
        let ring = Keyring::from_keys((0..=255).map(chacha).collect()).unwrap();
        assert_eq!(ring.len(), crate::MAX_KEYS);
        let json = to_json(&ring);
        assert!(
            json.len() <= 4 + ring.len() * (MAX_TEXT_LEN + 6),
            "the text fits the room it was given"
        );
        let (dir, path) = file_with("");
        save(&path, &ring).unwrap();
        assert!(load(&path).unwrap().keys().eq(ring.keys()));
        assert_eq!(entries(dir.path()), 1, "no temporary file is left");
    }

    #[test]
    fn loading_takes_what_serf_takes() {
        let (_dir, path) = file_with(&format!(
            " [\"{K1}\",\n\"{K2}\", \"{K1}\", \"{}\"]\n",
            K2.replace('/', "\\/")
        ));
        let ring = load(&path).unwrap();
        let expected: Vec<Key> = vec![K1.parse().unwrap(), K2.parse().unwrap()];
        assert!(ring.keys().eq(&expected), "duplicates count once");
    }

    #[test]
    fn errors_speak_like_serf_and_name_the_file() {
        let rows = [
            ("[]", "Keyring file contains no keys: PATH"),
            ("null", "Keyring file contains no keys: PATH"),
            (
                "",
                "Failed to decode keyring file: unexpected end of JSON at line 1 column 0 of PATH",
            ),
            (
                "[\"A",
                "Failed to decode keyring file: unexpected end of JSON at line 1 column 3 of PATH",
            ),
            (
                "[] x",
                "Failed to decode keyring file: invalid JSON at line 1 column 4 of PATH",
            ),
            (
                "[\n1]",
                "Failed to decode keyring file: expected a list of strings at line 2 column 1 of PATH",
            ),
            (
                "{}",
                "Failed to decode keyring file: expected a list of strings at line 1 column 0 of PATH",
            ),
            (
                "[\"8PHy8/T19vf4+fr7/P3+/w==\", \"abc\"]",
                "Failed to decode key from keyring: illegal base64 data at input byte 0 (key 2 in PATH)",
            ),
            (
                "[\"AAAA\"]",
                "Failed to restore keyring: key size must be 16, 24 or 32 bytes (key 1 in PATH)",
            ),
            (
                "[null]",
                "Failed to restore keyring: key size must be 16, 24 or 32 bytes (key 1 in PATH)",
            ),
        ];
        for (content, expected) in rows {
            let (_dir, path) = file_with(content);
            let error = load(&path).unwrap_err().to_string();
            assert_eq!(
                error.replace(path.to_str().unwrap(), "PATH"),
                expected,
                "{content:?}"
            );
        }
    }

    #[test]
    fn a_missing_file_a_directory_and_a_huge_file_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.json");
        let error = load(&missing).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("stat {}: no such file or directory", missing.display())
        );
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
        let (_dir, huge) = file_with(&" ".repeat(MAX_FILE_LEN as usize + 1));
        assert!(matches!(load(&huge), Err(KeyringFileError::TooLong { .. })));
        let (_dir, largest) = file_with(&format!("[]{}", " ".repeat(MAX_FILE_LEN as usize - 2)));
        assert!(matches!(load(&largest), Err(KeyringFileError::NoKeys { .. })));
    }

    #[test]
    fn no_error_quotes_a_key() {
        let spoilt = [
            format!("\"{K1}\""),
            format!("[[\"{K1}\"]]"),
            format!("{{\"{K1}\": 1}}"),
            format!("[\"{K1}\" \"{K2}\"]"),
            format!("[\"{K1}\", \"{K2}!\"]"),
            format!("[\"{K1}\", \"aes:{K1}\"]"),
            format!("[{K1}]"),
            format!("{K1}\n"),
        ];
        for content in spoilt {
            let (_dir, path) = file_with(&content);
            let error = load(&path).unwrap_err();
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains(&K1[..6]) && !shown.contains(&K2[..6]), "{shown}");
            }
        }
    }

    #[test]
    fn what_a_crash_leaves_is_swept_or_takes_the_place_of_half_a_ring() {
        let ring = Keyring::new(K1.parse().unwrap());
        let newer = Keyring::new(K2.parse().unwrap());
        for (there, tidied, expected) in [
            (to_json(&ring).to_string(), false, &ring),
            ("[\"AA".to_owned(), true, &newer),
            (String::new(), true, &newer),
        ] {
            let (dir, path) = file_with(&there);
            let name = path.file_name().unwrap().to_str().unwrap();
            fs::write(dir.path().join(format!(".{name}-half00")), "[\"A").unwrap();
            fs::write(
                dir.path().join(format!(".{name}-whole0")),
                to_json(&newer).as_str(),
            )
            .unwrap();
            assert_eq!(tidy(&path).unwrap(), tidied, "{there:?}");
            assert!(load(&path).unwrap().keys().eq(expected.keys()));
            assert_eq!(entries(dir.path()), 1);
            assert!(!tidy(&path).unwrap());
        }
    }

    #[test]
    fn a_failed_save_leaves_the_old_file_and_no_other() {
        let (dir, path) = file_with("old");
        let error = replace(&path, Access::Owner, |file| {
            file.write_all(b"half a ri")?;
            Err(io::Error::other("disk full"))
        });
        let error = KeyringFileError::from(error.unwrap_err()).to_string();
        assert!(
            error.contains("disk full") && error.contains(dir.path().to_str().unwrap()),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(entries(dir.path()), 1, "no temporary file is left");

        let nowhere = dir.path().join("none/keyring.json");
        let ring = Keyring::new(K1.parse().unwrap());
        let error = save(&nowhere, &ring).unwrap_err().to_string();
        assert!(error.contains("none: no such file or directory"), "{error}");

        let occupied = dir.path().join("occupied");
        fs::create_dir_all(occupied.join("full")).unwrap();
        assert!(save(&occupied, &ring).is_err());
        assert_eq!(entries(dir.path()), 2, "no temporary file is left");
    }

    #[test]
    #[cfg(unix)]
    fn only_the_owner_may_read_a_saved_file() {
        use std::os::unix::fs::PermissionsExt;

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let ring = Keyring::new(K1.parse().unwrap());
        let (dir, path) = file_with("old");
        for (before, after) in [
            (0o644, 0o600),
            (0o660, 0o600),
            (0o700, 0o600),
            (0o600, 0o600),
            (0o400, 0o400),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            save(&path, &ring).unwrap();
            assert_eq!(mode(&path), after, "was {before:o}");
        }
        let fresh = dir.path().join("fresh.json");
        save(&fresh, &ring).unwrap();
        assert_eq!(mode(&fresh), 0o600);
        // Already while it is being written.
        replace(&fresh, Access::Owner, |file| {
            assert_eq!(file.metadata()?.permissions().mode() & 0o7777, 0o600);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn a_symbolic_link_stays_one() {
        let (dir, path) = file_with("old");
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        save(&link, &Keyring::new(K1.parse().unwrap())).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert!(load(&path).is_ok());
    }
}

//! Reads the files that configure an agent: configuration files and directories, profiles, the tags file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

use super::options::Options;
use super::secret::Secret;
use super::text;
use crate::go;
use fyrd_core::serf::Tags;
use fyrd_core::swim::profile::Profile;
use fyrd_keys::replace::{Access, replace_bytes};

/// Where options came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// What is to be said about the files, a line each.
    pub remarks: Vec<String>,
    /// The files that were read.
    files: BTreeSet<String>,
    /// Those of them that hold secrets.
    pub with_secrets: Vec<String>,
    /// Files of a directory with nothing in them.
    empty: Vec<String>,
    /// Directories, and whether there was something in them.
    directories: BTreeMap<String, bool>,
}

impl Sources {
    /// Whether these can take the place of those `before` them. What an editor, a full disk or a copy that has just
    /// begun leaves empty is no wish to run without it. The error is a line for the user.
    pub fn can_follow(&self, before: &Sources) -> Result<(), String> {
        if let Some(path) = self.empty.iter().find(|path| before.files.contains(*path)) {
            return Err(format!(
                "Error decoding '{path}': it is empty, and was not before; remove it if it shall not count any more"
            ));
        }
        let was_filled = |path: &str| before.directories.get(path) == Some(&true);
        match self
            .directories
            .iter()
            .find(|(path, filled)| !**filled && was_filled(path))
        {
            Some((path, _)) => Err(format!(
                "Error reading '{path}': the directory holds no configuration any more; without it, restart the agent"
            )),
            None => Ok(()),
        }
    }

    /// Reads a configuration file, or a directory of them. The errors are those of each file, of which there is one at
    /// least.
    pub fn read(&mut self, path: &str) -> Result<Options, Vec<String>> {
        let unread = |e: io::Error| vec![format!("Error reading '{path}': {}", go::open_error(path, &e))];
        match fs::metadata(path).map_err(unread)?.is_dir() {
            true => self.directory(path),
            false => read(path)
                .and_then(|content| self.decode(path, &content))
                .map_err(|mistake| vec![mistake]),
        }
    }

    fn directory(&mut self, path: &str) -> Result<Options, Vec<String>> {
        let mut options = Options::default();
        let mut mistakes = Vec::new();
        let unread = |e: io::Error| vec![format!("Error reading '{path}': {}", go::open_error(path, &e))];
        let listed = files_in(path).map_err(unread)?;
        let mut filled = false;
        for file in listed {
            match file {
                Listed::Skipped(file, why) => self.remarks.push(format!("Skipping '{file}': {why}")),
                Listed::File(file) => {
                    let content = match read(&file) {
                        Ok(content) => content,
                        Err(mistake) => {
                            mistakes.push(mistake);
                            continue;
                        }
                    };
                    if content.trim_ascii().is_empty() {
                        self.remarks.push(format!("Skipping '{file}': it is empty"));
                        self.empty.push(file);
                        continue;
                    }
                    filled = true;
                    match self.decode(&file, &content) {
                        Ok(said) => options.merge(said),
                        Err(mistake) => mistakes.push(mistake),
                    }
                }
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        self.directories.insert(path.to_owned(), filled);
        Ok(options)
    }

    fn decode(&mut self, path: &str, content: &[u8]) -> Result<Options, String> {
        let options = Options::decode(content).map_err(|e| format!("Error decoding '{path}': {e}"))?;
        if options.has_secrets() {
            warn_if_exposed(path);
            self.with_secrets.push(path.to_owned());
        }
        for key in go::repeated_keys(content) {
            let line = format!("Warning: {key} stands more than once in '{path}'; the last one counts");
            self.remarks.push(line);
        }
        self.files.insert(path.to_owned());
        Ok(options)
    }
}

/// What all sources say together, the later over the earlier: the defaults, the configuration files and directories
/// in this order, the environment, the flags. The error is a line for the user, or several
/// when a file has several mistakes; of several files it is that of the first, as with Serf.
pub fn read_options(paths: &[String], flags: &Options) -> Result<(Options, Sources), String> {
    let (mut options, mut sources) = (Options::defaults()?, Sources::default());
    for path in paths {
        let read = sources.read(path);
        options.merge(read.map_err(|mistakes| mistakes.into_iter().next().unwrap_or_default())?);
    }
    let environment = Options::from_environment(|name| std::env::var(name).ok())?;
    options.merge_last(environment, flags);
    Ok((options, sources))
}

/// An entry of a configuration directory whose name ends in `.json`.
enum Listed {
    File(String),
    /// One that is not read, and why.
    Skipped(String, &'static str),
}

/// What a directory holds of configuration, by name.
fn files_in(path: &str) -> io::Result<Vec<Listed>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".json") {
            continue;
        }
        // What cannot be looked at cannot be read either, which is said then.
        let kind = fs::metadata(entry.path()).map(|metadata| metadata.file_type());
        let skipped = if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            continue;
        } else if name.starts_with('.') {
            Some("editors keep hidden files, and they are no configuration")
        } else if kind.is_ok_and(|kind| !kind.is_file()) {
            Some("it is no file")
        } else {
            None
        };
        names.push((name, skipped));
    }
    names.sort();
    // Without the `.` of a directory given as `./`.
    let parts = |name: String| -> PathBuf {
        let path = Path::new(path).join(name);
        path.components()
            .filter(|part| *part != Component::CurDir)
            .collect()
    };
    let listed = names.into_iter().map(|(name, skipped)| {
        let path = parts(name).to_string_lossy().into_owned();
        match skipped {
            Some(why) => Listed::Skipped(path, why),
            None => Listed::File(path),
        }
    });
    Ok(listed.collect())
}

/// A configuration file's content, which may hold the encryption key.
fn read(path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let content = fs::read(path).map(Zeroizing::new);
    content.map_err(|e| format!("Error reading '{path}': {}", go::open_error(path, &e)))
}

/// The profile of this name, or in this file.
pub fn read_profile(name: &str) -> Result<Profile, String> {
    if let Some(profile) = Profile::builtin(name) {
        return Ok(profile);
    }
    let is_path = name.ends_with(".toml") || name.contains(['/', std::path::MAIN_SEPARATOR]);
    if !is_path {
        return Err(format!(
            "Unknown profile: {name} (there are lan, wan, local, and files that end in .toml)"
        ));
    }
    let unread = |reason: String| format!("profile '{name}' could not be read: {reason}");
    let content = fs::read(name).map_err(|e| unread(go::os_error(&e)))?;
    let text = std::str::from_utf8(text::of_file(&content).map_err(unread)?)
        .map_err(|_| unread("it is not valid UTF-8".to_string()))?;
    Profile::parse(name, text).map_err(|e| e.to_string())
}

/// Reads the encryption key that stands alone in a file, where neither the list of processes nor the
/// configuration shows it.
pub fn read_secret(path: &str) -> Result<Secret, String> {
    read_alone(path, "encryption key", "one key as keygen prints it")
        .map(|text| Secret::new(text.to_string()))
}

/// Reads the token that HTTP clients have to show. It stands alone in a file too.
#[cfg(feature = "http")]
pub fn read_token(path: &str) -> Result<Zeroizing<String>, String> {
    let token = read_alone(path, "HTTP token", "one word of printable ASCII")?;
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(token);
    }
    Err(format!(
        "HTTP token file '{path}' holds more than one word of printable ASCII, as a header can carry it"
    ))
}

/// The only text of a file, which has to be there.
fn read_alone(path: &str, what: &str, right: &str) -> Result<Zeroizing<String>, String> {
    let content = fs::read(path)
        .map(Zeroizing::new)
        .map_err(|e| format!("Error reading {what} file '{path}': {}", go::open_error(path, &e)))?;
    let text = text::of_file(&content).map_err(|e| format!("Error reading {what} file '{path}': {e}"))?;
    let start = what[..1].to_uppercase() + &what[1..];
    match std::str::from_utf8(text).map(str::trim) {
        Ok(text) if !text.is_empty() => {
            warn_if_exposed(path);
            Ok(Zeroizing::new(text.to_string()))
        }
        Ok(_) => Err(format!("{start} file '{path}' is empty, it must hold {right}")),
        Err(_) => Err(format!("{start} file '{path}' is not text, it must hold {right}")),
    }
}

/// Logs that everybody on this host can read a file that holds a key or a token.
pub fn warn_if_exposed(path: &str) {
    if let Some(warning) = exposed(path) {
        tracing::warn!(target: "agent", "{warning}");
    }
}

/// What is to be said when everybody on this host can read a file that holds a key or a token. A group that can is
/// somebody's decision: files of root are often made readable for the service's group.
#[cfg(unix)]
pub fn exposed(path: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_READ: u32 = 0o004;
    let is_exposed = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & OTHERS_READ != 0);
    is_exposed
        .then(|| format!("{path} holds secrets and every user of this host can read it: chmod 600 {path}"))
}

/// Access lists of this system are not looked at.
#[cfg(not(unix))]
pub fn exposed(_path: &str) -> Option<String> {
    None
}

/// Reads a tags file; one that is not there has no tags.
pub fn read_tags(path: &str) -> Result<Option<Tags>, String> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("Failed to read tags file: {}", go::open_error(path, &e))),
    };
    let decoding = |what: String| format!("Failed to decode tags file: {what}");
    let text = text::of_file(&content).map_err(decoding)?;
    let object = match go::parse_whole(text).map_err(decoding)? {
        Value::Null => return Ok(Some(Tags::new())),
        Value::Object(object) => object,
        other => return Err(decoding(mismatch(&other, "map[string]string"))),
    };
    let mut tags = Tags::new();
    for (name, value) in object {
        match value {
            Value::String(text) => drop(tags.insert(name, text)),
            Value::Null => drop(tags.insert(name, String::new())),
            other => return Err(decoding(mismatch(&other, "string"))),
        }
    }
    Ok(Some(tags))
}

/// Writes the tags file anew, so that a crash leaves the old or the new tags.
pub fn write_tags(path: &str, tags: &Tags) -> Result<(), String> {
    let failed = |error: &io::Error| format!("Failed to write tags file: {}", go::open_error(path, error));
    let text = go::json(tags).map_err(|error| failed(&error.into()))?;
    replace_bytes(Path::new(path), Access::Kept, text.as_bytes()).map_err(|error| failed(&error.source))
}

fn mismatch(value: &Value, wanted: &str) -> String {
    format!(
        "json: cannot unmarshal {} into Go value of type {wanted}",
        go::json_kind(value)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(directory: &tempfile::TempDir, name: &str) -> String {
        directory.path().join(name).to_string_lossy().into_owned()
    }

    #[test]
    fn a_key_file_holds_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let name = path.to_str().unwrap();
        assert!(
            read_secret(name)
                .unwrap_err()
                .ends_with("no such file or directory")
        );
        for (content, key) in [
            (&b"AAAA\n"[..], Some("AAAA")),
            (b" \n", None),
            (b"", None),
            (b"\xff", None),
        ] {
            fs::write(&path, content).unwrap();
            let read = read_secret(name);
            assert_eq!(read.as_ref().ok().map(Secret::expose), key, "{content:?}");
            assert!(read.err().is_none_or(|error| error.contains(name)));
        }
    }

    #[test]
    fn files_and_directories_are_merged_in_the_order_given() {
        let directory = tempfile::tempdir().unwrap();
        let sub = directory.path().join("conf");
        fs::create_dir_all(sub.join("not-read.json")).unwrap();
        fs::write(
            sub.join("20.json"),
            r#"{"node_name":"twenty","start_join":["b"]}"#,
        )
        .unwrap();
        fs::write(
            sub.join("10.json"),
            r#"{"node_name":"ten","bind":"ten","start_join":["a"]}"#,
        )
        .unwrap();
        fs::write(sub.join(".hidden.json"), r#"{"advertise":"hidden"}"#).unwrap();
        fs::write(sub.join("30.json"), " \n").unwrap();
        fs::write(sub.join("x.json.bak"), "not read").unwrap();
        let last = path_of(&directory, "last");
        fs::write(&last, r#"{"start_join":["c"],"node_name":"last"}"#).unwrap();
        let paths = [path_of(&directory, "conf"), last];
        let (options, sources) = read_options(&paths, &Options::default()).unwrap();
        assert_eq!(options.start_join, ["a", "b", "c"]);
        assert_eq!(
            (options.node_name.as_str(), options.bind.as_str()),
            ("last", "ten")
        );
        assert_eq!(options.advertise, "");
        let remarks = sources
            .remarks
            .iter()
            .map(|remark| remark.replace(&paths[0], "conf"));
        let expected = [
            "Skipping 'conf/.hidden.json': editors keep hidden files, and they are no configuration",
            "Skipping 'conf/30.json': it is empty",
        ];
        assert_eq!(
            remarks.collect::<Vec<_>>(),
            expected.map(|line| line.replace('/', std::path::MAIN_SEPARATOR_STR))
        );
    }

    #[test]
    fn what_becomes_empty_cannot_follow() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (path_of(&directory, "conf"), path_of(&directory, "conf/a.json"));
        fs::create_dir(&path).unwrap();
        let read = || {
            read_options(std::slice::from_ref(&path), &Options::default())
                .unwrap()
                .1
        };
        let bare = read();
        fs::write(&file, "").unwrap();
        let empty = read();
        fs::write(&file, "{}").unwrap();
        let full = read();
        for (before, now) in [
            (&bare, &full),
            (&bare, &empty),
            (&empty, &bare),
            (&full, &full),
            (&bare, &bare),
        ] {
            assert_eq!(now.can_follow(before), Ok(()));
        }
        let refused = |now: &Sources| now.can_follow(&full).unwrap_err();
        assert!(refused(&empty).contains("a.json': it is empty, and was not before"));
        assert!(refused(&bare).contains("conf': the directory holds no configuration any more"));
    }

    #[test]
    fn unreadable_and_broken_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = path_of(&directory, "missing.json");
        assert_eq!(
            read_options(std::slice::from_ref(&missing), &Options::default()).unwrap_err(),
            format!("Error reading '{missing}': open {missing}: no such file or directory")
        );
        let broken = path_of(&directory, "broken.json");
        fs::write(&broken, "{").unwrap();
        assert_eq!(
            read_options(&[path_of(&directory, "./")], &Options::default()).unwrap_err(),
            format!(
                "Error decoding '{broken}': unexpected EOF: EOF while parsing an object at line 1 column 1"
            )
        );
    }

    #[test]
    fn profiles_come_by_name_or_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let own = path_of(&directory, "own.toml");
        fs::write(&own, "base = 'local'\ngossip_nodes = 5").unwrap();
        assert_eq!(read_profile(&own).unwrap().gossip_nodes, 5);
        assert_eq!(read_profile("wan").unwrap().gossip_nodes, 4);
        assert!(
            read_profile("LAN")
                .unwrap_err()
                .starts_with("Unknown profile: LAN (there are lan, wan, local")
        );
        let missing = path_of(&directory, "missing.toml");
        assert_eq!(
            read_profile(&missing).unwrap_err(),
            format!("profile '{missing}' could not be read: no such file or directory")
        );
    }

    #[test]
    fn the_tags_file_is_written_as_serf_does_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_of(&directory, "tags.json");
        assert_eq!(read_tags(&path), Ok(None));
        let tags = Tags::from([
            ("role".to_string(), "a<b>&".to_string()),
            ("dc".to_string(), String::new()),
        ]);
        write_tags(&path, &tags).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\n  \"dc\": \"\",\n  \"role\": \"a\\u003cb\\u003e\\u0026\"\n}"
        );
        assert_eq!(read_tags(&path), Ok(Some(tags)));
        fs::write(&path, "\u{feff}{\"role\": \"web\"}\r\n").unwrap();
        let edited = Tags::from([("role".to_string(), "web".to_string())]);
        assert_eq!(read_tags(&path), Ok(Some(edited)));
        write_tags(&path, &Tags::new()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // A failure leaves nothing behind.
        let folder = path_of(&directory, "folder");
        fs::create_dir(&folder).unwrap();
        assert!(write_tags(&folder, &Tags::new()).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        let nowhere = path_of(&directory, "none/tags.json");
        assert_eq!(
            write_tags(&nowhere, &Tags::new()).unwrap_err(),
            format!("Failed to write tags file: open {nowhere}: no such file or directory")
        );
    }

    #[test]
    fn bad_tags_files_are_refused_in_serfs_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_of(&directory, "tags.json");
        #[rustfmt::skip]
        let table = [
            ("[]", "json: cannot unmarshal array into Go value of type map[string]string"),
            ("{\"a\":1}", "json: cannot unmarshal number into Go value of type string"),
            ("x", "invalid character 'x' looking for beginning of value: expected value at line 1 column 1"),
            ("", "unexpected end of JSON input"),
            ("{\"a\":\"b\"}x", "invalid character 'x' after top-level value: trailing characters at line 1 column 10"),
        ];
        for (content, expected) in table {
            fs::write(&path, content).unwrap();
            assert_eq!(
                read_tags(&path).unwrap_err(),
                format!("Failed to decode tags file: {expected}")
            );
        }
        let folder = directory.path().to_string_lossy().into_owned();
        assert_eq!(
            read_tags(&folder).unwrap_err(),
            format!("Failed to read tags file: read {folder}: is a directory")
        );
    }
}

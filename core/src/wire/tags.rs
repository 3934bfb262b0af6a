//! Tags in a member's metadata (docs/protocol.md#b2-tags).

use std::borrow::Cow;

use crate::bounds::TAGS_MAX;
use crate::msgpack::{Fault, Reader, Writer};

/// Tags as read from a member's metadata; invalid UTF-8 in values is replaced, never refused.
pub type WireTags<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// First byte of metadata that holds a map of tags.
const TAGS: u8 = 0xff;

/// Appends metadata that holds these tags, in the given order. The caller keeps to
/// [`META_MAX`](crate::bounds::META_MAX) bytes. A member that speaks Serf protocol 2 sends the bare
/// value of its role instead.
pub fn encode_tags<I, K, V>(tags: I, out: &mut Vec<u8>)
where
    I: IntoIterator<Item = (K, V), IntoIter: ExactSizeIterator>,
    K: AsRef<str>,
    V: AsRef<str>,
{
    out.push(TAGS);
    let tags = tags.into_iter();
    let mut writer = Writer::new(out);
    writer.map(tags.len());
    for (key, value) in tags {
        writer.raw(key.as_ref()).raw(value.as_ref());
    }
}

/// Reads tags from metadata. Never fails: metadata without the marker is the value of `role`, as old
/// members send it, and a broken map is no tags at all. Of a tag told twice the last value counts.
pub fn decode_tags(meta: &[u8]) -> WireTags<'_> {
    match meta.split_first() {
        Some((&TAGS, body)) => decode_map(body).unwrap_or_default(),
        _ => vec![(Cow::Borrowed("role"), String::from_utf8_lossy(meta))],
    }
}

fn decode_map(body: &[u8]) -> Result<WireTags<'_>, Fault> {
    let mut tags = WireTags::new();
    Reader::new(body).map(TAGS_MAX, |reader| {
        let key = String::from_utf8_lossy(reader.bytes()?);
        let value = String::from_utf8_lossy(reader.bytes()?);
        match tags.iter_mut().find(|(known, _)| *known == key) {
            Some(tag) => tag.1 = value,
            None => tags.push((key, value)),
        }
        Ok(())
    })?;
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(meta: &[u8]) -> Vec<(String, String)> {
        decode_tags(meta)
            .into_iter()
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect()
    }

    fn pairs(tags: &[(&str, &str)]) -> Vec<(String, String)> {
        tags.iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn tags_are_written_as_serf_writes_them() {
        let mut out = Vec::new();
        encode_tags([("role", "web"), ("dc", "x1")], &mut out);
        assert_eq!(out, b"\xff\x82\xa4role\xa3web\xa2dc\xa2x1");
        out.clear();
        encode_tags(std::iter::empty::<(&str, &str)>(), &mut out);
        assert_eq!(out, b"\xff\x80");
    }

    #[test]
    fn tags_are_read_as_serf_reads_them() {
        for (meta, tags) in [
            (
                &b"\xff\x82\xa4role\xa3web\xa2dc\xa2x1"[..],
                &[("role", "web"), ("dc", "x1")][..],
            ),
            (b"\xff\x80", &[]),
            (b"\xff\xc0", &[]),
            (b"\xff\xde\x00\x01\xd9\x01a\xc4\x01b", &[("a", "b")]),
            (b"\xff\x81\xa1a\xc0", &[("a", "")]),
            (b"\xff\x82\xa1a\xa1b\xa1a\xa1c", &[("a", "c")]),
            (b"", &[("role", "")]),
            (b"web", &[("role", "web")]),
            (b"\xff", &[]),
            (b"\xff\x82\xa1a\xa1b", &[]),
            (b"\xff\x81\x01\x02", &[]),
            (b"\xff\xdf\xff\xff\xff\xff", &[]),
            (b"\xff\x81\xa1a\xa1\xfe", &[("a", "\u{fffd}")]),
            (b"\xfe", &[("role", "\u{fffd}")]),
        ] {
            assert_eq!(decoded(meta), pairs(tags), "{meta:x?}");
        }
    }
}

//! Tags as they stand in a node's metadata (docs/protocol.md#b2-tags).

use crate::bounds::META_MAX;
use crate::serf::types::Tags;
use crate::wire::{decode_tags, encode_tags};

/// The first Serf protocol that carries all tags; before it only the role travelled.
const TAGS_PROTOCOL: u8 = 3;

/// Encodes tags for the given Serf protocol.
///
/// # Errors
/// When they take more than 512 bytes; the text is Serf's.
pub fn write(tags: &Tags, protocol: u8) -> Result<Vec<u8>, String> {
    let mut meta = Vec::with_capacity(64);
    if protocol < TAGS_PROTOCOL {
        meta.extend_from_slice(tags.get("role").map_or("", String::as_str).as_bytes());
    } else {
        encode_tags(
            tags.iter().map(|(key, value)| (key.as_str(), value.as_str())),
            &mut meta,
        );
    }
    if meta.len() > META_MAX {
        return Err(format!(
            "Encoded length of tags exceeds limit of {META_MAX} bytes"
        ));
    }
    Ok(meta)
}

/// Reads tags; what cannot be read counts as none.
pub fn read(meta: &[u8]) -> Tags {
    decode_tags(meta)
        .into_iter()
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn tags_come_back_and_an_old_protocol_carries_the_role_alone() {
        let both = tags(&[("role", "web"), ("dc", "x1")]);
        assert_eq!(read(&write(&both, 5).expect("fits")), both);
        assert_eq!(write(&both, 2).expect("fits"), b"web");
        assert_eq!(read(b"web"), tags(&[("role", "web")]));
        assert_eq!(write(&Tags::new(), 5).expect("fits"), [0xff, 0x80]);
    }

    #[test]
    fn the_limit_counts_encoded_bytes() {
        // ff, a map of one, a key of one byte with its header, a value header of three bytes.
        let fits = 512 - 1 - 1 - 2 - 3;
        assert!(write(&tags(&[("k", &"v".repeat(fits))]), 5).is_ok());
        let error = write(&tags(&[("k", &"v".repeat(fits + 1))]), 5).expect_err("too long");
        assert_eq!(error, "Encoded length of tags exceeds limit of 512 bytes");
    }
}

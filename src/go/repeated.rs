//! Keys that stand twice in one JSON object. Go's decoder takes the last one without a word.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The keys that stand more than once in one object of the first JSON value of a text, each quoted and with what it
/// stands in: `'tags.role'`.
pub fn repeated_keys(bytes: &[u8]) -> Vec<String> {
    let mut found = BTreeSet::new();
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let value = Keys {
        path: "",
        found: &mut found,
    };
    // Whether the text can be read is not the question here.
    let _ = value.deserialize(&mut serde_json::Deserializer::from_str(&text));
    found.into_iter().map(|path| format!("'{path}'")).collect()
}

/// Looks through one value.
struct Keys<'a> {
    /// Where it stands.
    path: &'a str,
    found: &'a mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = match self.path {
                "" => key.clone(),
                outer => format!("{outer}.{key}"),
            };
            let found = &mut *self.found;
            map.next_value_seed(Keys { path: &path, found })?;
            if !seen.insert(key) {
                self.found.insert(path);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (path, found) = (self.path, self.found);
        while list
            .next_element_seed(Keys {
                path,
                found: &mut *found,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_stand_twice_are_found_wherever_they_stand() {
        let table: [(&str, &[&str]); 7] = [
            (r#"{"a":1,"b":"x","c":[null,true,-1,1.5]}"#, &[]),
            (r#"{"a":1,"b":2,"a":{},"a":[]}"#, &["'a'"]),
            (r#"{"tags":{"role":"x","role":"x"},"role":"y"}"#, &["'tags.role'"]),
            (r#"{"l":[{"a":1},{"a":2,"a":3}]}"#, &["'l.a'"]),
            (r#"{"a":1,"\u0061":2} {"b":1,"b":1}"#, &["'a'"]),
            ("\u{feff}{\"a\":1,\"a\":2}", &["'a'"]),
            ("", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(repeated_keys(text.as_bytes()), expected, "{text}");
        }
    }
}

//! Query filters (docs/protocol.md#b9-queries).

use super::error::{DecodeError, Fault};
use crate::msgpack::{self, Plain, Reader, Table, Writer, table};

const NODES: u8 = 0;
const TAG: u8 = 1;

/// Who shall answer a query. All filters of a query must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    /// Type 0: the answering node's name must be listed.
    Nodes(Vec<&'a str>),
    /// Type 1: an RE2 expression, unanchored, on the value of a tag; an absent tag counts as "".
    Tag {
        /// The tag's name.
        tag: &'a str,
        /// The expression.
        expr: &'a str,
    },
}

impl<'a> Filter<'a> {
    /// Reads one entry of [`Query::filters`](super::Query::filters). An unknown type is an error, as is
    /// an empty entry; both mean to the caller that the query does not match.
    pub fn decode(entry: &'a [u8]) -> Result<Filter<'a>, DecodeError> {
        let fail = |fault: Fault| DecodeError::new("filter", 0, fault);
        let (&kind, body) = entry
            .split_first()
            .ok_or_else(|| fail(Fault::Value(msgpack::Fault::Empty)))?;
        let mut reader = Reader::new(body);
        match kind {
            NODES => {
                let mut names = Vec::new();
                reader
                    .array(body.len(), |reader| {
                        names.push(reader.text()?);
                        Ok(())
                    })
                    .map_err(|fault| DecodeError::new("filter", reader.offset(), fault))?;
                Ok(Filter::Nodes(names))
            }
            TAG => {
                let TagFilter { tag, expr } = reader.table()?;
                Ok(Filter::Tag { tag, expr })
            }
            other => Err(fail(Fault::Type(other))),
        }
    }

    /// Appends the entry, its type byte included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Filter::Nodes(names) => {
                out.push(NODES);
                let mut writer = Writer::new(out);
                writer.array(names.len());
                for name in names {
                    writer.raw(name);
                }
            }
            Filter::Tag { tag, expr } => {
                out.push(TAG);
                TagFilter { tag, expr }.write(&mut Writer::new(out));
            }
        }
    }
}

table! {
    struct TagFilter<'a>, "tag filter" {
        1 Expr: Plain => expr: &'a str,
        0 Tag: Plain => tag: &'a str,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Fault::{Empty, TooMany, Truncated, Utf8};

    #[test]
    fn filters_round_trip() {
        for (filter, bytes) in [
            (Filter::Nodes(vec!["alpha", "b"]), &b"\x00\x92\xa5alpha\xa1b"[..]),
            (Filter::Nodes(vec![]), b"\x00\x90"),
            (
                Filter::Tag {
                    tag: "role",
                    expr: "w.*",
                },
                b"\x01\x82\xa4Expr\xa3w.*\xa3Tag\xa4role",
            ),
        ] {
            let mut out = Vec::new();
            filter.encode(&mut out);
            assert_eq!(out, bytes);
            assert_eq!(Filter::decode(bytes), Ok(filter));
        }
    }

    #[test]
    fn a_nil_list_of_names_is_empty() {
        assert_eq!(Filter::decode(b"\x00\xc0"), Ok(Filter::Nodes(vec![])));
    }

    #[test]
    fn broken_filters_are_errors() {
        for (entry, fault) in [
            (&b""[..], Fault::Value(Empty)),
            (b"\x02\x90", Fault::Type(2)),
            (b"\x00", Fault::Value(Truncated)),
            (b"\x00\x92\xa1a", Fault::Value(Truncated)),
            (b"\x01\x81\xa3Tag\xa1\xff", Fault::Value(Utf8)),
            (
                b"\x00\xdd\xff\xff\xff\xff",
                Fault::Value(TooMany {
                    len: 0xffff_ffff,
                    max: 5,
                }),
            ),
        ] {
            assert_eq!(
                Filter::decode(entry).map_err(|error| error.fault),
                Err(fault),
                "{entry:x?}"
            );
        }
    }
}

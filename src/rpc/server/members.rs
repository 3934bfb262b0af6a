//! Members and coordinates as clients see them, and which members a filter lets through.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use regex::Regex;

use crate::rpc::types::{Coordinate, CoordinateResponse, Member, MembersFilteredRequest, MembersResponse};
use fyrd_core::bounds;
use fyrd_core::re2;
use fyrd_core::serf;
use fyrd_core::wire::WireCoordinate;

/// The list of all members in bytes, as clients were last sent it; clients share it.
#[derive(Default)]
pub(super) struct Listing(RefCell<Option<(u64, Rc<[u8]>)>>);

impl Listing {
    /// Which state of the members it shows.
    pub(super) fn version(&self) -> Option<u64> {
        self.0.borrow().as_ref().map(|(version, _)| *version)
    }

    pub(super) fn replace(&self, version: u64, body: Vec<u8>) {
        *self.0.borrow_mut() = Some((version, body.into()));
    }

    pub(super) fn body(&self) -> Rc<[u8]> {
        self.0
            .borrow()
            .as_ref()
            .map_or_else(|| Rc::from([]), |(_, body)| Rc::clone(body))
    }
}

/// A compiled `members-filtered` request.
pub(super) struct MemberFilter {
    name: Option<Regex>,
    status: Option<Regex>,
    tags: Vec<(String, Regex)>,
}

impl MemberFilter {
    pub(super) fn new(request: &MembersFilteredRequest) -> Result<MemberFilter, String> {
        if request.tags.len() > bounds::TAGS_MAX {
            return Err(format!(
                "Too many tag patterns: at most {} are allowed",
                bounds::TAGS_MAX
            ));
        }
        let optional = |pattern: &String| match pattern.as_str() {
            "" => Ok(None),
            pattern => whole(pattern).map(Some),
        };
        let tags = request
            .tags
            .iter()
            .map(|(tag, pattern)| Ok((tag.clone(), whole(pattern)?)));
        Ok(MemberFilter {
            name: optional(&request.name)?,
            status: optional(&request.status)?,
            tags: tags.collect::<Result<_, String>>()?,
        })
    }

    pub(super) fn matches(&self, member: &serf::Member) -> bool {
        let matches = |pattern: &Option<Regex>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
        };
        let tag = |name: &String| member.tags.get(name).map_or("", String::as_str);
        matches(&self.name, &member.name)
            && matches(&self.status, member.status.as_str())
            && self
                .tags
                .iter()
                .all(|(name, pattern)| pattern.is_match(tag(name)))
    }
}

/// Anchored as Serf does it: without a group, so that `a|b` is "starts with a, or ends with b".
fn whole(pattern: &str) -> Result<Regex, String> {
    re2::compile(&format!("^{pattern}$")).map_err(|error| format!("Failed to compile regex: {error}"))
}

pub(super) fn members_response<'a>(members: impl Iterator<Item = &'a Arc<serf::Member>>) -> MembersResponse {
    MembersResponse {
        members: members.map(|member| rpc_member(member)).collect(),
    }
}

pub(super) fn rpc_member(member: &serf::Member) -> Member {
    let [protocol_min, protocol_max, protocol_cur] = member.protocol;
    let [delegate_min, delegate_max, delegate_cur] = member.delegate;
    Member {
        addr: member.addr.as_bytes().to_vec(),
        delegate_cur,
        delegate_max,
        delegate_min,
        name: member.name.to_string(),
        port: member.port,
        protocol_cur,
        protocol_max,
        protocol_min,
        status: member.status.as_str().to_owned(),
        tags: member.tags.clone(),
    }
}

pub(super) fn coordinate_response(coordinate: Option<WireCoordinate>) -> CoordinateResponse {
    let Some(known) = coordinate else {
        return CoordinateResponse::default();
    };
    let WireCoordinate {
        vec,
        error,
        adjustment,
        height,
    } = known;
    CoordinateResponse {
        coord: Coordinate {
            adjustment,
            error,
            height,
            vec: vec.to_vec(),
        },
        ok: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fyrd_core::serf::{MemberStatus, RawAddr};

    fn member(name: &str, addr: RawAddr, status: MemberStatus, tags: &[(&str, &str)]) -> Arc<serf::Member> {
        Arc::new(serf::Member {
            name: name.into(),
            addr,
            port: 17901,
            tags: tags
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            status,
            protocol: [1, 5, 2],
            delegate: [2, 5, 5],
        })
    }

    #[test]
    fn filters_are_anchored_without_a_group() {
        let members = [
            member(
                "n1",
                RawAddr::V4([127, 0, 0, 1]),
                MemberStatus::Alive,
                &[("role", "web")],
            ),
            member("zz9", RawAddr::V4([127, 0, 0, 1]), MemberStatus::Failed, &[]),
        ];
        let matching = |name: &str, status: &str, tags: &[(&str, &str)]| {
            let tags = tags
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect();
            let request = MembersFilteredRequest {
                name: name.to_owned(),
                status: status.to_owned(),
                tags,
            };
            let filter = MemberFilter::new(&request).unwrap();
            members
                .iter()
                .map(|member| u8::from(filter.matches(member)))
                .collect::<Vec<_>>()
        };
        assert_eq!(matching("", "", &[]), [1, 1]);
        assert_eq!(matching("n", "", &[]), [0, 0]);
        assert_eq!(matching("n.", "", &[]), [1, 0]);
        assert_eq!(matching("zz|1", "", &[]), [1, 1]);
        assert_eq!(matching("", "alive", &[]), [1, 0]);
        assert_eq!(matching("", "ALIVE", &[]), [0, 0]);
        assert_eq!(matching("", "", &[("role", "w.b")]), [1, 0]);
        assert_eq!(
            matching("", "", &[("role", "")]),
            [0, 1],
            "an absent tag is empty"
        );
        assert_eq!(matching("", "", &[("none", "")]), [1, 1]);
    }
}

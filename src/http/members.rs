//! Members as JSON, filtered; and as targets for Prometheus.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::params::Params;
use fyrd_core::serf::{Member, MemberStatus, Tags};

/// A member, in the form of `members -format=json`.
#[derive(Debug, Serialize)]
pub(super) struct Json<'a> {
    name: &'a str,
    addr: String,
    port: u16,
    tags: &'a Tags,
    status: &'static str,
    protocol: Protocol,
}

#[derive(Debug, Serialize)]
struct Protocol {
    max: u8,
    min: u8,
    version: u8,
}

/// The form of one member.
pub(super) fn json(member: &Member) -> Json<'_> {
    let [min, max, version] = member.delegate;
    Json {
        name: &member.name,
        addr: member.addr.socket(member.port).to_string(),
        port: member.port,
        tags: &member.tags,
        status: member.status.as_str(),
        protocol: Protocol { max, min, version },
    }
}

/// Which members are wanted. What is not said does not matter.
#[derive(Debug, Default)]
pub(super) struct Filter {
    names: Vec<String>,
    statuses: Vec<MemberStatus>,
    tags: Vec<(String, String)>,
}

/// The names of the parameters that [`Filter::read`] takes.
pub(super) const FILTERS: [&str; 4] = ["name", "status", "role", "tag"];

const STATUSES: [MemberStatus; 4] = [
    MemberStatus::Alive,
    MemberStatus::Leaving,
    MemberStatus::Left,
    MemberStatus::Failed,
];

impl Filter {
    /// Reads `name=NAME`, `status=STATUS`, `role=ROLE` and `tag=KEY=VALUE`. Of names and statuses, one of those given
    /// has to fit; of tags, all have to.
    pub(super) fn read(params: &Params<'_>) -> Result<Filter, String> {
        let status = |text: &str| {
            let found = STATUSES.into_iter().find(|status| status.as_str() == text);
            found.ok_or_else(|| {
                format!("parameter \"status\" is {text:?}, must be alive, leaving, left or failed")
            })
        };
        let tag = |text: &str| {
            let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
            pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| format!("parameter \"tag\" is {text:?}, must be KEY=VALUE"))
        };
        let roles = params
            .all("role")
            .map(|role| Ok(("role".to_owned(), role.to_owned())));
        Ok(Filter {
            names: params.all("name").map(str::to_owned).collect(),
            statuses: params.all("status").map(status).collect::<Result<_, _>>()?,
            tags: params
                .all("tag")
                .map(tag)
                .chain(roles)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Only living members, unless a status was asked for.
    pub(super) fn alive_by_default(mut self) -> Filter {
        if self.statuses.is_empty() {
            self.statuses.push(MemberStatus::Alive);
        }
        self
    }

    /// Those among `all` that are wanted, by name.
    pub(super) fn apply(&self, mut all: Vec<Arc<Member>>) -> Vec<Arc<Member>> {
        all.retain(|member| self.fits(member));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn fits(&self, member: &Member) -> bool {
        let name = self.names.is_empty() || self.names.iter().any(|name| **name == *member.name);
        let status = self.statuses.is_empty() || self.statuses.contains(&member.status);
        let mut tags = self.tags.iter();
        name && status && tags.all(|(key, value)| member.tags.get(key) == Some(value))
    }
}

/// The place of a member among the living ones of its role, by name, from 0 on; none if it is not alive.
pub(super) fn position(all: &[Arc<Member>], name: &str) -> Option<usize> {
    let alive = |member: &&Arc<Member>| member.status == MemberStatus::Alive;
    let me = all.iter().filter(alive).find(|member| *member.name == *name)?;
    let before =
        |member: &&Arc<Member>| member.tags.get("role") == me.tags.get("role") && member.name < me.name;
    Some(all.iter().filter(alive).filter(before).count())
}

/// A group of targets, as Prometheus' http_sd reads it.
#[derive(Debug, Serialize)]
pub(super) struct Targets {
    targets: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// The port at which members are scraped.
#[derive(Debug)]
pub(super) enum ScrapePort {
    /// The same for all.
    Same(u16),
    /// What this tag says; members without it are none of the targets.
    OfTag(String),
}

impl ScrapePort {
    /// Reads `port=NUMBER` or `port_tag=KEY`.
    pub(super) fn read(params: &Params<'_>) -> Result<ScrapePort, String> {
        match (params.one("port")?, params.one("port_tag")?) {
            (Some(text), None) => parse_port(text)
                .map(ScrapePort::Same)
                .ok_or_else(|| format!("parameter \"port\" is {text:?}, must be a number from 1 to 65535")),
            (None, Some(tag)) => Ok(ScrapePort::OfTag(tag.to_owned())),
            _ => Err(
                "the port to scrape must be told, by port=NUMBER or by port_tag=KEY for a tag that holds it"
                    .to_owned(),
            ),
        }
    }

    fn of(&self, member: &Member) -> Option<u16> {
        match self {
            ScrapePort::Same(port) => Some(*port),
            ScrapePort::OfTag(tag) => member.tags.get(tag).and_then(|text| parse_port(text)),
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// The targets that these members are, each a group of its own because its labels are its own.
pub(super) fn targets(members: &[Arc<Member>], port: &ScrapePort) -> Vec<Targets> {
    let target = |member: &Arc<Member>| {
        let port = port.of(member)?;
        let mut labels = BTreeMap::from([
            ("__meta_fyrd_name".to_owned(), member.name.to_string()),
            ("__meta_fyrd_status".to_owned(), member.status.as_str().to_owned()),
        ]);
        for (key, value) in &member.tags {
            labels.insert(format!("__meta_fyrd_tag_{}", label(key)), value.clone());
        }
        Some(Targets {
            targets: vec![member.addr.socket(port).to_string()],
            labels,
        })
    };
    members.iter().filter_map(target).collect()
}

/// A tag's key in the letters that Prometheus allows in names of labels.
fn label(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    key.chars().map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fyrd_core::serf::RawAddr;

    fn member(name: &str, status: MemberStatus, tags: &[(&str, &str)]) -> Arc<Member> {
        Arc::new(Member {
            name: name.into(),
            addr: RawAddr::V4([10, 0, 0, 1]),
            port: 7946,
            tags: tags
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            status,
            protocol: [1, 5, 2],
            delegate: [2, 5, 4],
        })
    }

    fn cluster() -> Vec<Arc<Member>> {
        vec![
            member("w2", MemberStatus::Alive, &[("role", "web"), ("http", "8081")]),
            member("w1", MemberStatus::Failed, &[("role", "web"), ("http", "x")]),
            member("w3", MemberStatus::Alive, &[("role", "web")]),
            member("db", MemberStatus::Alive, &[("role", "db"), ("a.b", "c")]),
        ]
    }

    fn names(query: &str) -> Result<String, String> {
        let filter = Filter::read(&Params::parse(query, &FILTERS)?)?;
        let found = filter.apply(cluster());
        Ok(found.iter().map(|m| &*m.name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn filters_let_through_what_fits() {
        for (query, expected) in [
            ("", "db w1 w2 w3"),
            ("role=web", "w1 w2 w3"),
            ("role=web&status=alive", "w2 w3"),
            ("status=alive&status=failed", "db w1 w2 w3"),
            ("tag=role=web&tag=http=8081", "w2"),
            ("name=w1&name=db", "db w1"),
            ("name=W1", ""),
            ("tag=http=", ""),
        ] {
            assert_eq!(names(query).as_deref(), Ok(expected), "{query}");
        }
        assert_eq!(
            names("status=alice").unwrap_err(),
            "parameter \"status\" is \"alice\", must be alive, leaving, left or failed"
        );
        assert_eq!(
            names("tag=web").unwrap_err(),
            "parameter \"tag\" is \"web\", must be KEY=VALUE"
        );
    }

    #[test]
    fn members_look_as_the_command_shows_them() {
        let text = serde_json::to_string(&json(&cluster()[0])).unwrap();
        assert_eq!(
            text,
            r#"{"name":"w2","addr":"10.0.0.1:7946","port":7946,"tags":{"http":"8081","role":"web"},"status":"alive","protocol":{"max":5,"min":2,"version":4}}"#
        );
    }

    #[test]
    fn positions_count_the_living_of_a_role() {
        let all = cluster();
        let of = |name| position(&all, name);
        assert_eq!(
            [of("w2"), of("w3"), of("db"), of("w1"), of("nobody")],
            [Some(0), Some(1), Some(0), None, None]
        );
    }

    #[test]
    fn targets_have_a_port_and_their_tags_as_labels() {
        let of = |query: &str| {
            let params = Params::parse(query, &["port", "port_tag"]).unwrap();
            let port = ScrapePort::read(&params)?;
            Ok::<_, String>(serde_json::to_string(&targets(&cluster(), &port)).unwrap())
        };
        assert_eq!(
            of("port_tag=http").unwrap(),
            r#"[{"targets":["10.0.0.1:8081"],"labels":{"__meta_fyrd_name":"w2","__meta_fyrd_status":"alive","__meta_fyrd_tag_http":"8081","__meta_fyrd_tag_role":"web"}}]"#
        );
        assert_eq!(of("port_tag=none").unwrap(), "[]");
        let same = of("port=9100").unwrap();
        assert_eq!(same.matches("10.0.0.1:9100").count(), 4);
        assert!(same.contains(r#""__meta_fyrd_tag_a_b":"c""#), "{same}");
        assert!(of("port=0").unwrap_err().contains("from 1 to 65535"));
        assert!(of("").unwrap_err().contains("must be told"));
        assert!(of("port=1&port_tag=x").unwrap_err().contains("must be told"));
    }
}

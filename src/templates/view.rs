//! The cluster as a template sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// All that a template can show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// All known members, by name.
    pub members: Vec<Entry>,
    /// The name of the node that renders, if there is one.
    pub node: Option<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its gossip port.
    pub port: u16,
    /// `alive`, `leaving`, `left` or `failed`.
    pub status: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The estimated time to it and back, if known.
    pub rtt: Option<Duration>,
}

impl Entry {
    /// Its tag `role`, or nothing.
    pub fn role(&self) -> &str {
        self.tags.get("role").map_or("", String::as_str)
    }

    /// Whether it is alive.
    pub fn is_alive(&self) -> bool {
        self.status == "alive"
    }
}

impl View {
    /// A view of these members.
    pub fn new(mut members: Vec<Entry>, node: Option<String>) -> View {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        View { members, node }
    }

    /// The place of a living member among the living ones of its role, by name, from 0 on.
    pub fn position(&self, name: &str) -> Option<usize> {
        let alive = || self.members.iter().filter(|member| member.is_alive());
        let me = alive().find(|member| member.name == name)?;
        let of_role = alive().filter(|member| member.role() == me.role());
        Some(of_role.take_while(|member| member.name != name).count())
    }
}

//! The DNS side of discovery, without I/O: what to ask, what to answer, what an answer says.
//!
//! Packets come from anybody on the network. A short look at the header goes before the library's parser,
//! which allocates what the header announces.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use simple_dns::rdata::{PTR, RData, SRV, TXT};
use simple_dns::{
    CLASS, Label, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE,
};

/// Largest packet that mDNS allows.
pub const PACKET_MAX: usize = 9000;

/// Records or questions of one kind in a packet that is worth reading.
const RECORDS_MAX: u16 = 128;

/// Questions of one packet that are answered.
const QUESTIONS_MAX: usize = 8;

/// Names learned in one round, of each kind.
const LEARNED_MAX: usize = 1024;

/// Seconds for which an answer may be remembered.
const TTL: u32 = 120;

/// The name under which all services can be listed.
const ALL_SERVICES: &str = "_services._dns-sd._udp.local";

/// Longest label of a name, and most bytes of those labels that are ours to choose.
const LABEL_MAX: usize = 63;
const NODE_MAX: usize = 128;

/// What this agent says about itself.
#[derive(Clone, Debug)]
pub struct Service {
    cluster: String,
    service: Name<'static>,
    instance: Name<'static>,
    host: Name<'static>,
    ip: IpAddr,
    port: u16,
}

impl Service {
    /// The service of a node. The error says that the cluster's name does not fit.
    pub fn new(cluster: &str, node: &str, host: &str, ip: IpAddr, port: u16) -> Result<Service, String> {
        let labels = format!("_serf_{cluster}");
        if labels.split('.').any(|label| label.len() > LABEL_MAX) || labels.len() > NODE_MAX - 16 {
            let most = LABEL_MAX - "_serf_".len();
            return Err(format!(
                "the cluster's name '{cluster}' is too long, at most {most} bytes fit"
            ));
        }
        let service = format!("{labels}._tcp.local");
        // Nobody looks at a node's name here, it only has to be a name, and unlike others.
        let node = &node[..node.floor_char_boundary(NODE_MAX.min(node.len()))];
        let host = &host[..host.floor_char_boundary(NODE_MAX.min(host.len()))];
        Ok(Service {
            cluster: cluster.to_string(),
            instance: name(&format!("{node}.{service}")),
            service: name(&service),
            host: name(host),
            ip,
            port,
        })
    }

    /// The packet that asks who else is there.
    pub fn query(&self, id: u16) -> Option<Vec<u8>> {
        question(id, self.service.clone(), TYPE::PTR.into())
    }

    /// The answer to a packet, if it asks for something that is known here.
    pub fn answer(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let asked = parse(packet)?;
        let is_query = !asked.has_flags(PacketFlag::RESPONSE) && asked.opcode() == OPCODE::StandardQuery;
        if !is_query {
            return None;
        }
        let mut answers: Vec<ResourceRecord<'static>> = Vec::new();
        let mut unicast = false;
        for question in asked.questions.iter().take(QUESTIONS_MAX) {
            let class = question.qclass;
            if class != QCLASS::CLASS(CLASS::IN) && class != QCLASS::ANY {
                continue;
            }
            for record in self.records(&question.qname, question.qtype) {
                unicast |= question.unicast_response;
                if !answers.contains(&record) {
                    answers.push(record);
                }
            }
        }
        if answers.is_empty() {
            return None;
        }
        let mut reply = Packet::new_reply(if unicast { asked.id() } else { 0 });
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        reply.answers = answers;
        reply.build_bytes_vec().ok()
    }

    fn records(&self, asked: &Name<'_>, kind: QTYPE) -> Vec<ResourceRecord<'static>> {
        let wants = |types: &[TYPE]| kind == QTYPE::ANY || types.iter().any(|one| kind == QTYPE::TYPE(*one));
        let asked = key(asked);
        let mut records = Vec::new();
        if asked == ALL_SERVICES && wants(&[TYPE::PTR]) {
            records.push(record(&name(ALL_SERVICES), RData::PTR(PTR(self.service.clone()))));
        }
        let all = asked == key(&self.service) && wants(&[TYPE::PTR]);
        if all {
            records.push(record(&self.service, RData::PTR(PTR(self.instance.clone()))));
        }
        let is_instance = asked == key(&self.instance);
        let is_host = asked == key(&self.host);
        if all || (is_instance && wants(&[TYPE::SRV])) {
            let srv = SRV {
                priority: 10,
                weight: 1,
                port: self.port,
                target: self.host.clone(),
            };
            records.push(record(&self.instance, RData::SRV(srv)));
        }
        let (address_type, address) = match self.ip {
            IpAddr::V4(ip) => (TYPE::A, RData::A(ip.into())),
            IpAddr::V6(ip) => (TYPE::AAAA, RData::AAAA(ip.into())),
        };
        if all || (is_instance && wants(&[TYPE::SRV, address_type])) || (is_host && wants(&[address_type])) {
            records.push(record(&self.host, address));
        }
        if all || (is_instance && wants(&[TYPE::TXT])) {
            let text = format!("Serf '{}' cluster", self.cluster);
            if let Ok(txt) = TXT::new().with_string(&text) {
                records.push(record(&self.instance, RData::TXT(txt.into_owned())));
            }
        }
        records
    }

    /// What an answer says about nodes of the same cluster.
    pub fn read_reply(&self, from: SocketAddr, packet: &[u8]) -> Option<Reply> {
        let packet = parse(packet)?;
        if !packet.has_flags(PacketFlag::RESPONSE) {
            return None;
        }
        let mut reply = Reply {
            from: from.ip(),
            instances: Vec::new(),
            services: Vec::new(),
            addresses: Vec::new(),
        };
        for record in packet.answers.iter().chain(&packet.additional_records) {
            let owner = key(&record.name);
            match &record.rdata {
                RData::PTR(PTR(instance)) if owner == key(&self.service) => {
                    reply.instances.push(instance.clone().into_owned());
                }
                RData::SRV(srv) => reply.services.push((owner, srv.port, key(&srv.target))),
                RData::A(a) => reply
                    .addresses
                    .push((owner, SocketAddr::new(IpAddr::V4(a.clone().into()), 0))),
                RData::AAAA(a) => {
                    // A link-local address means the link that the answer came from.
                    let ip: std::net::Ipv6Addr = a.clone().into();
                    let scope = match from {
                        SocketAddr::V6(from) if ip.is_unicast_link_local() => from.scope_id(),
                        _ => 0,
                    };
                    reply
                        .addresses
                        .push((owner, SocketAddrV6::new(ip, 0, 0, scope).into()));
                }
                _ => {}
            }
        }
        Some(reply)
    }
}

/// What one answer says; names in lower case.
#[derive(Debug)]
pub struct Reply {
    from: IpAddr,
    instances: Vec<Name<'static>>,
    services: Vec<(String, u16, String)>,
    addresses: Vec<(String, SocketAddr)>,
}

/// What the answers of one round say together, because a node may spread its records over several.
///
/// Hosts may share a name, as cloned images do: what a name means is asked of the answer that uses it, then of others from
/// the same source, and never of other hosts.
#[derive(Debug, Default)]
pub struct Round {
    instances: BTreeMap<String, Known>,
    services: BTreeMap<String, Place>,
    addresses: BTreeMap<(IpAddr, String), Vec<SocketAddr>>,
}

/// Where an instance is.
#[derive(Debug)]
struct Place {
    port: u16,
    host: String,
    from: IpAddr,
    /// Its address, if that stood in the same answer.
    own: Option<SocketAddr>,
}

/// How much is known about an instance.
#[derive(Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Named,
    Asked,
    Found,
}

impl Round {
    /// Takes an answer; the nodes that are complete by it, and the packets that ask for what is missing.
    pub fn learn(&mut self, reply: Reply) -> (Vec<SocketAddr>, Vec<Vec<u8>>) {
        let mut named = BTreeMap::new();
        for instance in reply.instances {
            let key = key(&instance);
            add(&mut self.instances, key.clone(), Known::Named);
            named.insert(key, instance);
        }
        let from = reply.from;
        for (instance, port, host) in reply.services {
            let its = reply.addresses.iter().filter(|(of, _)| *of == host);
            let own = best(its.map(|(_, addr)| *addr), from);
            let place = Place {
                port,
                host,
                from,
                own,
            };
            add(&mut self.services, instance, place);
        }
        for (host, addr) in reply.addresses {
            let addrs = add(&mut self.addresses, (from, host), Vec::new());
            if let Some(addrs) = addrs.filter(|addrs| addrs.len() < 4 && !addrs.contains(&addr)) {
                addrs.push(addr);
            }
        }
        let (mut found, mut questions) = (Vec::new(), Vec::new());
        for (instance, progress) in &mut self.instances {
            if *progress == Known::Found {
                continue;
            }
            let place = self.services.get(instance).filter(|place| place.port != 0);
            let addr = place.and_then(|place| {
                let others = || self.addresses.get(&(place.from, place.host.clone()));
                let mut addr = place
                    .own
                    .or_else(|| best(others()?.iter().copied(), place.from))?;
                addr.set_port(place.port);
                Some(addr)
            });
            if let Some(addr) = addr {
                found.push(addr);
                *progress = Known::Found;
            } else if *progress == Known::Named
                && let Some(instance) = named.remove(instance)
            {
                questions.extend(question(0, instance, QTYPE::ANY));
                *progress = Known::Asked;
            }
        }
        (found, questions)
    }
}

/// One address is enough: the one that the answer came from, or else IPv4 before IPv6, which is what Serf takes.
fn best(addrs: impl Iterator<Item = SocketAddr>, from: IpAddr) -> Option<SocketAddr> {
    addrs.min_by_key(|addr| (addr.ip() != from, addr.is_ipv6()))
}

/// The value of a key, new or known; none when there are too many.
fn add<K: Ord, T>(all: &mut BTreeMap<K, T>, key: K, new: T) -> Option<&mut T> {
    if all.len() >= LEARNED_MAX && !all.contains_key(&key) {
        return None;
    }
    Some(all.entry(key).or_insert(new))
}

fn parse(packet: &[u8]) -> Option<Packet<'_>> {
    let counts = packet.get(4..12)?.as_chunks::<2>().0;
    if counts
        .iter()
        .any(|count| u16::from_be_bytes(*count) > RECORDS_MAX)
    {
        return None;
    }
    Packet::parse(packet).ok()
}

fn question(id: u16, name: Name<'_>, kind: QTYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    let class = QCLASS::CLASS(CLASS::IN);
    packet.questions.push(Question::new(name, kind, class, false));
    packet.build_bytes_vec().ok()
}

fn record(owner: &Name<'static>, data: RData<'static>) -> ResourceRecord<'static> {
    ResourceRecord::new(owner.clone(), CLASS::IN, TTL, data)
}

/// A name whose labels stand between dots; labels that are too long are cut.
fn name(text: &str) -> Name<'static> {
    let labels: Vec<Label<'static>> = text
        .split('.')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let end = label.floor_char_boundary(LABEL_MAX.min(label.len()));
            Label::new_unchecked(label.as_bytes()[..end].to_vec())
        })
        .collect();
    Name::new_with_labels(&labels)
}

/// What to compare names by: DNS does not know the case of letters.
fn key(name: &Name<'_>) -> String {
    name.to_string().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(node: &str, ip: &str) -> Service {
        Service::new("testc", node, "host1", ip.parse().unwrap(), 7946).unwrap()
    }

    fn ask(text: &str, kind: QTYPE, id: u16, unicast: bool) -> Vec<u8> {
        let mut packet = Packet::new_query(id);
        packet
            .questions
            .push(Question::new(name(text), kind, QCLASS::CLASS(CLASS::IN), unicast));
        packet.build_bytes_vec().unwrap()
    }

    fn from() -> SocketAddr {
        "10.0.0.9:5353".parse().unwrap()
    }

    #[test]
    fn the_query_is_serfs_to_the_byte() {
        let expected = [
            &[0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
            b"\x0b_serf_testc\x04_tcp\x05local\x00",
            &[0, 12, 0, 1],
        ]
        .concat();
        assert_eq!(service("n1", "10.0.0.1").query(0x1234), Some(expected));
    }

    #[test]
    fn questions_get_the_records_that_serf_gives() {
        let answered = |text: &str, kind: QTYPE| {
            let Some(bytes) = service("n1", "10.0.0.1").answer(&ask(text, kind, 7, false)) else {
                return String::new();
            };
            assert_eq!(bytes[..6], [0, 0, 0x84, 0, 0, 0]);
            let packet = Packet::parse(&bytes).unwrap();
            let types = packet.answers.iter().map(|record| {
                assert_eq!(
                    (record.ttl, record.class, record.cache_flush),
                    (120, CLASS::IN, false)
                );
                format!("{:?}", record.rdata.type_code())
            });
            types.collect::<Vec<_>>().join(" ")
        };
        let (instance, service) = ("n1._serf_testc._tcp.local", "_serf_testc._tcp.local");
        #[rustfmt::skip]
        let table = [
            (service, TYPE::PTR.into(), "PTR SRV A TXT"), (service, QTYPE::ANY, "PTR SRV A TXT"), (service, TYPE::A.into(), ""),
            ("_SERF_TestC._tcp.LOCAL", TYPE::PTR.into(), "PTR SRV A TXT"), ("_serf_other._tcp.local", TYPE::PTR.into(), ""),
            (ALL_SERVICES, TYPE::PTR.into(), "PTR"), (ALL_SERVICES, QTYPE::ANY, "PTR"),
            (instance, QTYPE::ANY, "SRV A TXT"), (instance, TYPE::SRV.into(), "SRV A"), (instance, TYPE::TXT.into(), "TXT"),
            (instance, TYPE::A.into(), "A"), (instance, TYPE::AAAA.into(), ""), ("n2._serf_testc._tcp.local", QTYPE::ANY, ""),
            ("host1", TYPE::A.into(), "A"), ("host2", TYPE::A.into(), ""),
        ];
        for (text, kind, expected) in table {
            assert_eq!(answered(text, kind), expected, "{text} {kind:?}");
        }
    }

    #[test]
    fn the_id_is_kept_only_when_the_answer_is_asked_for_alone() {
        let id = |unicast| {
            let packet = ask("_serf_testc._tcp.local", TYPE::PTR.into(), 0x0102, unicast);
            service("n1", "10.0.0.1")
                .answer(&packet)
                .map(|bytes| [bytes[0], bytes[1]])
        };
        assert_eq!((id(false), id(true)), (Some([0, 0]), Some([1, 2])));
    }

    #[test]
    fn what_one_answers_the_other_reads() {
        let me = service("me", "10.0.0.1");
        for (ip, expected) in [("10.0.0.2", "10.0.0.2:7946"), ("fd00::2", "[fd00::2]:7946")] {
            let other = service("other.with dots\\and \u{fc}", ip);
            let answer = other.answer(&me.query(1).unwrap()).unwrap();
            let reply = me.read_reply(from(), &answer).unwrap();
            let (found, questions) = Round::default().learn(reply);
            assert_eq!(found, [expected.parse().unwrap()]);
            assert!(questions.is_empty());
            assert!(other.answer(&answer).is_none(), "an answer is no question");
        }
    }

    #[test]
    fn records_may_come_one_by_one() {
        let (me, other) = (service("me", "10.0.0.1"), service("other", "10.0.0.2"));
        let mut pointer = Packet::new_reply(0);
        pointer.answers = vec![record(&other.service, RData::PTR(PTR(other.instance.clone())))];
        let pointer = pointer.build_bytes_vec().unwrap();
        let mut round = Round::default();
        let (found, questions) = round.learn(me.read_reply(from(), &pointer).unwrap());
        assert_eq!((found.len(), questions.len()), (0, 1));
        // The same again is not asked again.
        assert!(round.learn(me.read_reply(from(), &pointer).unwrap()).1.is_empty());
        let answer = other.answer(&questions[0]).unwrap();
        let (found, _) = round.learn(me.read_reply(from(), &answer).unwrap());
        assert_eq!(found, ["10.0.0.2:7946".parse().unwrap()]);
        assert!(round.learn(me.read_reply(from(), &answer).unwrap()).0.is_empty());
    }

    #[test]
    fn hosts_of_one_name_are_told_apart_by_their_answers() {
        let me = service("me", "10.0.0.1");
        let answer = |of: &Service, from: &str, question: &[u8]| {
            let packet = of.answer(question).unwrap();
            me.read_reply(from.parse().unwrap(), &packet).unwrap()
        };
        let (b, c) = (service("b", "10.0.0.2"), service("c", "10.0.0.3"));
        let mut round = Round::default();
        let query = me.query(1).unwrap();
        let (found, _) = round.learn(answer(&b, "10.0.0.2:5353", &query));
        assert_eq!(found, ["10.0.0.2:7946".parse().unwrap()]);
        // Through something that carries the answers of several hosts, or by another of the host's addresses.
        for from in ["10.0.0.2:5353", "10.9.0.3:5353"] {
            let mut round = Round::default();
            round.learn(answer(&b, from, &query));
            let (found, _) = round.learn(answer(&c, from, &query));
            assert_eq!(found, ["10.0.0.3:7946".parse().unwrap()], "{from}");
        }
        // Address and service apart.
        let mut round = Round::default();
        let packet = |of: &Service, record: ResourceRecord<'static>, from: &str| {
            let mut packet = Packet::new_reply(0);
            let pointer = RData::PTR(PTR(of.instance.clone()));
            packet.answers = vec![self::record(&of.service, pointer), record];
            me.read_reply(from.parse().unwrap(), &packet.build_bytes_vec().unwrap())
                .unwrap()
        };
        let srv = |of: &Service| of.records(&of.instance, TYPE::SRV.into()).remove(0);
        let a = |of: &Service| of.records(&of.host, TYPE::A.into()).remove(0);
        assert!(round.learn(packet(&b, a(&b), "10.0.0.2:5353")).0.is_empty());
        assert!(round.learn(packet(&c, srv(&c), "10.0.0.3:5353")).0.is_empty());
        let (found, _) = round.learn(packet(&c, a(&c), "10.0.0.3:5353"));
        assert_eq!(found, ["10.0.0.3:7946".parse().unwrap()]);
        // Of several addresses, the one that is seen to work.
        let mut packet = Packet::new_reply(0);
        let pointer = record(&c.service, RData::PTR(PTR(c.instance.clone())));
        packet.answers = vec![pointer, srv(&c), a(&b), a(&c)];
        let packet = packet.build_bytes_vec().unwrap();
        let reply = me.read_reply("10.0.0.3:5353".parse().unwrap(), &packet).unwrap();
        assert_eq!(
            Round::default().learn(reply).0,
            ["10.0.0.3:7946".parse().unwrap()]
        );
    }

    #[test]
    fn a_link_local_address_is_one_of_the_link_it_came_from() {
        let (me, other) = (service("me", "10.0.0.1"), service("other", "fe80::2"));
        let answer = other.answer(&me.query(1).unwrap()).unwrap();
        let reply = me
            .read_reply("[fe80::2%3]:5353".parse().unwrap(), &answer)
            .unwrap();
        assert_eq!(
            Round::default().learn(reply).0,
            ["[fe80::2%3]:7946".parse().unwrap()]
        );
    }

    #[test]
    fn counts_of_a_header_are_not_believed() {
        let mut packet = ask("_serf_testc._tcp.local", TYPE::PTR.into(), 1, false);
        packet[6..8].copy_from_slice(&[0xff, 0xff]);
        assert!(parse(&packet).is_none());
        assert!(parse(&packet[..11]).is_none());
    }

    #[test]
    fn names_that_do_not_fit() {
        let ip = "10.0.0.1".parse().unwrap();
        assert!(Service::new(&"c".repeat(57), "n", "h", ip, 1).is_ok());
        assert_eq!(
            Service::new(&"c".repeat(58), "n", "h", ip, 1).unwrap_err(),
            format!(
                "the cluster's name '{}' is too long, at most 57 bytes fit",
                "c".repeat(58)
            )
        );
        let long = Service::new("c", &"\u{fc}".repeat(128), &"h".repeat(300), ip, 1).unwrap();
        let answer = long.answer(&long.query(1).unwrap()).unwrap();
        assert_eq!(
            Round::default()
                .learn(long.read_reply(from(), &answer).unwrap())
                .0
                .len(),
            1
        );
    }

    proptest! {
        #[test]
        fn bad_packets_do_no_harm(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            noise in prop::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let me = service("me", "10.0.0.1");
            let mut packet = service("other", "10.0.0.2").answer(&me.query(1).unwrap()).unwrap();
            for (at, value) in flips {
                let at = at.index(packet.len());
                packet[at] = value;
            }
            let cut = cut.index(packet.len() + 1);
            for packet in [&packet[..], &packet[..cut], &noise] {
                me.answer(packet);
                if let Some(reply) = me.read_reply(from(), packet) {
                    let mut round = Round::default();
                    round.learn(reply);
                }
            }
        }
    }
}

//! The headers and requests of the protocol (docs/compatibility.md#rpc-commands).
//!
//! Fields stand in alphabetical order, which is the order on the wire. The alias of a field is its place
//! when a body comes as an array.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::codec::{CodecError, decode, encode_into, list_or_nil, payload};

/// The protocol version a handshake must name.
pub const IPC_VERSION: i32 = 1;

/// Precedes every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestHeader {
    /// The command's name.
    pub command: String,
    /// Echoed in the answer and in every record of a subscription.
    pub seq: u64,
}

impl RequestHeader {
    /// Reads a header. A missing field keeps the value of the connection's previous request, as
    /// Serf's agent does it; nil in its place means the zero value.
    pub fn decode_after(previous: &RequestHeader, object: &[u8]) -> Result<RequestHeader, CodecError> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct Sent {
            #[serde(alias = "0", deserialize_with = "present")]
            command: Option<String>,
            #[serde(alias = "1", deserialize_with = "present")]
            seq: Option<u64>,
        }
        let Some(sent) = decode::<Option<Sent>>(object)? else {
            return Ok(RequestHeader::default());
        };
        Ok(RequestHeader {
            command: sent.command.unwrap_or_else(|| previous.command.clone()),
            seq: sent.seq.unwrap_or(previous.seq),
        })
    }
}

/// A field that came, even as nil.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Precedes every answer and every record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResponseHeader {
    /// What went wrong; empty for nothing.
    #[serde(alias = "0")]
    pub error: String,
    /// The request's number.
    #[serde(alias = "1")]
    pub seq: u64,
}

/// Lists the commands: the name on the wire, and the variant of [`Request`], with its body if it has one.
macro_rules! requests {
    (
        with_body { $($(#[$doc:meta])* $command:literal => $name:ident($body:ty),)* }
        without { $($(#[$bare_doc:meta])* $bare_command:literal => $bare:ident,)* }
    ) => {
        /// A request of any command, with its body.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $($(#[$doc])* $name($body),)*
            $($(#[$bare_doc])* $bare,)*
        }

        impl Request {
            /// The command's name on the wire.
            pub fn command(&self) -> &'static str {
                match self {
                    $(Request::$name(_) => $command,)*
                    $(Request::$bare => $bare_command,)*
                }
            }

            /// Whether a body follows the header of `command`; `None` for an unknown command.
            pub fn has_body(command: &str) -> Option<bool> {
                match command {
                    $($command)|* => Some(true),
                    $($bare_command)|* => Some(false),
                    _ => None,
                }
            }

            /// Reads the request of `command`, with the body's bytes if it has one. `Ok(None)` for an
            /// unknown command.
            pub fn decode(command: &str, body: &[u8]) -> Result<Option<Request>, CodecError> {
                Ok(Some(match command {
                    $($command => Request::$name(decode(body)?),)*
                    $($bare_command => Request::$bare,)*
                    _ => return Ok(None),
                }))
            }

            fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                match self {
                    $(Request::$name(body) => encode_into(body, out),)*
                    $(Request::$bare)|* => Ok(()),
                }
            }
        }
    };
}

requests! {
    with_body {
        /// Opens the conversation.
        "handshake" => Handshake(HandshakeRequest),
        /// Proves knowledge of the agent's token.
        "auth" => Auth(AuthRequest),
        /// Fires a user event.
        "event" => Event(EventRequest),
        /// Makes a failed member a left one.
        "force-leave" => ForceLeave(ForceLeaveRequest),
        /// Joins a cluster.
        "join" => Join(JoinRequest),
        /// Lists the members that match.
        "members-filtered" => MembersFiltered(MembersFilteredRequest),
        /// Changes the agent's tags.
        "tags" => Tags(TagsRequest),
        /// Subscribes to events.
        "stream" => Stream(StreamRequest),
        /// Subscribes to log lines.
        "monitor" => Monitor(MonitorRequest),
        /// Ends a subscription.
        "stop" => Stop(StopRequest),
        /// Starts a query.
        "query" => Query(QueryRequest),
        /// Answers a query that came as a stream record.
        "respond" => Respond(RespondRequest),
        /// Installs a key on all members.
        "install-key" => InstallKey(KeyRequest),
        /// Changes the primary key on all members.
        "use-key" => UseKey(KeyRequest),
        /// Removes a key from all members.
        "remove-key" => RemoveKey(KeyRequest),
        /// Asks for a node's network coordinate.
        "get-coordinate" => GetCoordinate(CoordinateRequest),
    }
    without {
        /// Lists all members.
        "members" => Members,
        /// Makes the agent leave and end.
        "leave" => Leave,
        /// Gathers the keys of all members.
        "list-keys" => ListKeys,
        /// Asks for the agent's figures.
        "stats" => Stats,
    }
}

impl Request {
    /// Header and body as sent. The bytes may hold a key or a token, so they are erased after use.
    pub fn encode(&self, seq: u64) -> Result<Zeroizing<Vec<u8>>, CodecError> {
        // Growing would leave unerased copies behind; every request with a secret fits in this.
        let mut out = Zeroizing::new(Vec::with_capacity(512));
        let command = self.command().to_owned();
        encode_into(&RequestHeader { command, seq }, &mut out)?;
        self.encode_body(&mut out)?;
        Ok(out)
    }
}

/// Body of `handshake`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HandshakeRequest {
    /// Must be [`IPC_VERSION`].
    #[serde(alias = "0")]
    pub version: i32,
}

/// Body of `auth`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AuthRequest {
    /// The token. Not shown by Debug.
    #[serde(alias = "0")]
    pub auth_key: Zeroizing<String>,
}

impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthRequest { auth_key: [hidden] }")
    }
}

/// Body of `event`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EventRequest {
    /// Whether receivers may drop all but the last of several events of this name.
    #[serde(alias = "2")]
    pub coalesce: bool,
    /// The event's name.
    #[serde(alias = "0")]
    pub name: String,
    /// Opaque bytes; empty stands for none.
    #[serde(alias = "1", with = "payload")]
    pub payload: Vec<u8>,
}

/// Body of `force-leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ForceLeaveRequest {
    /// The member's name.
    #[serde(alias = "0")]
    pub node: String,
    /// Whether to erase it altogether.
    #[serde(alias = "1")]
    pub prune: bool,
}

/// Body of `join`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinRequest {
    /// Whether the answer shall name the addresses that failed when others answered. Serf's agent does not know it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detail: bool,
    /// Addresses to try.
    #[serde(alias = "0", serialize_with = "list_or_nil")]
    pub existing: Vec<String>,
    /// Whether the agent shall see the cluster's past user events.
    #[serde(alias = "1")]
    pub replay: bool,
}

/// Body of `members-filtered`: anchored regular expressions, empty for "any".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MembersFilteredRequest {
    /// On the name.
    #[serde(alias = "2")]
    pub name: String,
    /// On the status.
    #[serde(alias = "1")]
    pub status: String,
    /// On the value of each named tag.
    #[serde(alias = "0")]
    pub tags: BTreeMap<String, String>,
}

/// Body of `tags`. Deletions come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TagsRequest {
    /// Tags to remove.
    #[serde(alias = "1", serialize_with = "list_or_nil")]
    pub delete_tags: Vec<String>,
    /// Tags to set.
    #[serde(alias = "0")]
    pub tags: BTreeMap<String, String>,
}

/// Body of `stream`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StreamRequest {
    /// Comma-separated event filters; empty or `*` for all.
    #[serde(alias = "0")]
    pub r#type: String,
}

/// Body of `monitor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MonitorRequest {
    /// The lowest level wanted, in any case.
    #[serde(alias = "0")]
    pub log_level: String,
}

/// Body of `stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StopRequest {
    /// Number of the request that started the stream or monitor.
    #[serde(alias = "0")]
    pub stop: u64,
}

/// Body of `query`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct QueryRequest {
    /// Exact names of who shall answer; empty for all.
    #[serde(alias = "0", serialize_with = "list_or_nil")]
    pub filter_nodes: Vec<String>,
    /// Unanchored regular expressions on tags.
    #[serde(alias = "1")]
    pub filter_tags: BTreeMap<String, String>,
    /// The query's name.
    #[serde(alias = "5")]
    pub name: String,
    /// Opaque bytes; empty stands for none.
    #[serde(alias = "6", with = "payload")]
    pub payload: Vec<u8>,
    /// Through how many further members an answer is relayed.
    #[serde(alias = "3")]
    pub relay_factor: u8,
    /// Whether acks are wanted.
    #[serde(alias = "2")]
    pub request_ack: bool,
    /// Nanoseconds; 0 for the agent's default.
    #[serde(alias = "4")]
    pub timeout: i64,
}

/// Body of `respond`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RespondRequest {
    /// The ID in the query's record.
    #[serde(rename = "ID", alias = "0")]
    pub id: u64,
    /// The answer.
    #[serde(alias = "1", with = "payload")]
    pub payload: Vec<u8>,
}

/// Body of the commands that change keys.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct KeyRequest {
    /// The key in base64. Not shown by Debug.
    #[serde(alias = "0")]
    pub key: Zeroizing<String>,
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRequest { key: [hidden] }")
    }
}

/// Body of `get-coordinate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CoordinateRequest {
    /// The node's name.
    #[serde(alias = "0")]
    pub node: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::rpc::frame;
    use crate::rpc::types::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| byte.is_ascii_hexdigit()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn key(text: &str) -> KeyRequest {
        KeyRequest {
            key: Zeroizing::new(text.to_owned()),
        }
    }

    /// What Serf 0.9.4's own client sends, recorded from the socket.
    fn recorded_requests() -> Vec<(u64, Request, &'static str)> {
        vec![
            (
                1,
                Request::Handshake(HandshakeRequest { version: 1 }),
                "82a7436f6d6d616e64a968616e647368616b65a35365710181a756657273696f6e01",
            ),
            (
                2,
                Request::Auth(AuthRequest {
                    auth_key: Zeroizing::new("tok".into()),
                }),
                "82a7436f6d6d616e64a461757468a35365710281a7417574684b6579a3746f6b",
            ),
            (
                2,
                Request::Event(EventRequest {
                    coalesce: true,
                    name: "deploy".into(),
                    payload: b"v1".to_vec(),
                }),
                "82a7436f6d6d616e64a56576656e74a35365710283a8436f616c65736365c3a44e616d65a66465706c6f79a75061796c6f6164c4027631",
            ),
            (
                2,
                Request::Event(EventRequest {
                    coalesce: true,
                    name: "deploy".into(),
                    payload: vec![],
                }),
                "82a7436f6d6d616e64a56576656e74a35365710283a8436f616c65736365c3a44e616d65a66465706c6f79a75061796c6f6164c0",
            ),
            (
                4,
                Request::Members,
                "82a7436f6d6d616e64a76d656d62657273a353657104",
            ),
            (
                2,
                Request::MembersFiltered(MembersFilteredRequest {
                    name: "n1".into(),
                    status: "alive".into(),
                    tags: strings(&[("role", "web")]),
                }),
                "82a7436f6d6d616e64b06d656d626572732d66696c7465726564a35365710283a44e616d65a26e31a6537461747573a5616c697665a45461677381a4726f6c65a3776562",
            ),
            (
                2,
                Request::MembersFiltered(MembersFilteredRequest::default()),
                "82a7436f6d6d616e64b06d656d626572732d66696c7465726564a35365710283a44e616d65a0a6537461747573a0a45461677380",
            ),
            (
                2,
                Request::Tags(TagsRequest {
                    delete_tags: vec![],
                    tags: strings(&[("a", "b")]),
                }),
                "82a7436f6d6d616e64a474616773a35365710282aa44656c65746554616773c0a45461677381a161a162",
            ),
            (
                2,
                Request::Tags(TagsRequest {
                    delete_tags: vec!["a".into()],
                    tags: strings(&[]),
                }),
                "82a7436f6d6d616e64a474616773a35365710282aa44656c6574655461677391a161a45461677380",
            ),
            (
                2,
                Request::Join(JoinRequest {
                    existing: vec!["127.0.0.1:1".into()],
                    ..JoinRequest::default()
                }),
                "82a7436f6d6d616e64a46a6f696ea35365710282a84578697374696e6791ab3132372e302e302e313a31a65265706c6179c2",
            ),
            (
                2,
                Request::Query(QueryRequest {
                    name: "load".into(),
                    request_ack: true,
                    timeout: 700_000_000,
                    ..QueryRequest::default()
                }),
                "82a7436f6d6d616e64a57175657279a35365710287ab46696c7465724e6f646573c0aa46696c7465725461677380a44e616d65a46c6f6164a75061796c6f6164c0\
                 ab52656c6179466163746f7200aa5265717565737441636bc3a754696d656f7574ce29b92700",
            ),
            (
                2,
                Request::Query(QueryRequest {
                    filter_nodes: vec!["n1".into()],
                    filter_tags: strings(&[("dc", "east")]),
                    name: "load".into(),
                    payload: b"hi".to_vec(),
                    relay_factor: 0,
                    request_ack: true,
                    timeout: 300_000_000,
                }),
                "82a7436f6d6d616e64a57175657279a35365710287ab46696c7465724e6f64657391a26e31aa46696c7465725461677381a26463a465617374a44e616d65a46c6f6164\
                 a75061796c6f6164c4026869ab52656c6179466163746f7200aa5265717565737441636bc3a754696d656f7574ce11e1a300",
            ),
            (
                50,
                Request::Stream(StreamRequest {
                    r#type: "member-join,user:deploy,query".into(),
                }),
                "82a7436f6d6d616e64a673747265616da35365713281a454797065bd6d656d6265722d6a6f696e2c757365723a6465706c6f792c7175657279",
            ),
            (
                51,
                Request::Respond(RespondRequest {
                    id: 1,
                    payload: b"my response".to_vec(),
                }),
                "82a7436f6d6d616e64a7726573706f6e64a35365713382a2494401a75061796c6f6164c40b6d7920726573706f6e7365",
            ),
            (
                3,
                Request::Monitor(MonitorRequest {
                    log_level: "INFO".into(),
                }),
                "82a7436f6d6d616e64a76d6f6e69746f72a35365710381a84c6f674c6576656ca4494e464f",
            ),
            (
                4,
                Request::Stop(StopRequest { stop: 3 }),
                "82a7436f6d6d616e64a473746f70a35365710481a453746f7003",
            ),
            (
                2,
                Request::ListKeys,
                "82a7436f6d6d616e64a96c6973742d6b657973a353657102",
            ),
            (
                2,
                Request::InstallKey(key("YWJj")),
                "82a7436f6d6d616e64ab696e7374616c6c2d6b6579a35365710281a34b6579a459574a6a",
            ),
            (
                2,
                Request::RemoveKey(key("YWJj")),
                "82a7436f6d6d616e64aa72656d6f76652d6b6579a35365710281a34b6579a459574a6a",
            ),
            (2, Request::Stats, "82a7436f6d6d616e64a57374617473a353657102"),
            (
                3,
                Request::GetCoordinate(CoordinateRequest {
                    node: "nosuch".into(),
                }),
                "82a7436f6d6d616e64ae6765742d636f6f7264696e617465a35365710381a44e6f6465a66e6f73756368",
            ),
            (
                2,
                Request::ForceLeave(ForceLeaveRequest {
                    node: "xx".into(),
                    prune: false,
                }),
                "82a7436f6d6d616e64ab666f7263652d6c65617665a35365710282a44e6f6465a27878a55072756e65c2",
            ),
        ]
    }

    #[test]
    fn requests_are_encoded_and_decoded_as_recorded() {
        for (seq, request, hex) in recorded_requests() {
            let expected = bytes(hex);
            assert_eq!(*request.encode(seq).unwrap(), expected, "{request:?}");
            let mut scan = frame::scan(1 << 20);
            let length = scan.advance(&expected).unwrap().unwrap();
            let (header, body) = expected.split_at(length);
            let header = RequestHeader::decode_after(&RequestHeader::default(), header).unwrap();
            assert_eq!((header.command.as_str(), header.seq), (request.command(), seq));
            assert_eq!(Request::has_body(&header.command), Some(!body.is_empty()));
            assert_eq!(Request::decode(&header.command, body), Ok(Some(request)));
        }
        assert_eq!(Request::decode("bogus", &[]), Ok(None));
        assert_eq!(Request::has_body("bogus"), None);
    }

    fn recorded<T: DeserializeOwned + Serialize + PartialEq + fmt::Debug>(value: &T, hex: &str) {
        recorded_by(value, hex, decode);
    }

    fn recorded_by<T: Serialize + PartialEq + fmt::Debug>(
        value: &T,
        hex: &str,
        decode: impl Fn(&[u8]) -> Result<T, CodecError>,
    ) {
        let expected = bytes(hex);
        let mut encoded = Vec::new();
        encode_into(value, &mut encoded).unwrap();
        assert_eq!(encoded, expected, "{value:?}");
        assert_eq!(&decode(&expected).unwrap(), value);
    }

    fn event(record: &EventRecord, hex: &str) {
        recorded_by(record, hex, EventRecord::decode);
    }

    #[test]
    fn answers_are_encoded_and_decoded_as_recorded() {
        recorded(
            &ResponseHeader {
                error: String::new(),
                seq: 1,
            },
            "82a54572726f72a0a353657101",
        );
        recorded(
            &ResponseHeader {
                error: "Invalid authentication token".into(),
                seq: 2,
            },
            "82a54572726f72bc496e76616c69642061757468656e7469636174696f6e20746f6b656ea353657102",
        );
        recorded(
            &ResponseHeader {
                error: "illegal base64 data at input byte 0".into(),
                seq: 2,
            },
            "82a54572726f72d923696c6c6567616c20626173653634206461746120617420696e70757420627974652030a353657102",
        );
        recorded(&JoinResponse::default(), "81a34e756d00");
        recorded(&MembersResponse::default(), "81a74d656d6265727390");
        recorded(
            &KeyResponse {
                num_nodes: 2,
                num_resp: 2,
                ..KeyResponse::default()
            },
            "85a44b657973c0a84d6573736167657380a64e756d45727200a84e756d4e6f64657302a74e756d5265737002",
        );
        recorded(
            &KeyResponse {
                keys: Some(vec![(Zeroizing::new("YWJj".into()), 2)]),
                num_nodes: 2,
                num_resp: 2,
                ..KeyResponse::default()
            },
            "85a44b65797381a459574a6a02a84d6573736167657380a64e756d45727200a84e756d4e6f64657302a74e756d5265737002",
        );
        recorded(
            &CoordinateResponse::default(),
            "82a5436f6f726484aa41646a7573746d656e74cb0000000000000000a54572726f72cb0000000000000000\
             a6486569676874cb0000000000000000a3566563c0a24f6bc2",
        );
        recorded(
            &StatsResponse(BTreeMap::from([
                ("agent".into(), strings(&[("name", "n1")])),
                ("tags".into(), strings(&[])),
            ])),
            "82a56167656e7481a46e616d65a26e31a47461677380",
        );
    }

    #[test]
    fn members_are_encoded_and_decoded_as_recorded() {
        let member = Member {
            addr: vec![127, 0, 0, 1],
            delegate_cur: 5,
            delegate_max: 5,
            delegate_min: 2,
            name: "n1".into(),
            port: 17997,
            protocol_cur: 2,
            protocol_max: 5,
            protocol_min: 1,
            status: "alive".into(),
            tags: strings(&[("role", "web")]),
        };
        let hex = "8ba441646472c4047f000001ab44656c656761746543757205ab44656c65676174654d617805ab44656c65676174654d696e02\
             a44e616d65a26e31a4506f7274cd464dab50726f746f636f6c43757202ab50726f746f636f6c4d617805ab50726f746f636f6c4d696e01\
             a6537461747573a5616c697665a45461677381a4726f6c65a3776562";
        recorded(&member, hex);
        recorded(
            &MembersResponse {
                members: vec![member.clone()],
            },
            &format!("81a74d656d6265727391{hex}"),
        );
        let joined = MemberEventRecord {
            event: "member-join".into(),
            members: vec![member],
        };
        event(
            &EventRecord::Member(joined),
            &format!("82a54576656e74ab6d656d6265722d6a6f696ea74d656d6265727391{hex}"),
        );
    }

    #[test]
    fn records_are_encoded_and_decoded_as_recorded() {
        event(
            &EventRecord::User(UserEventRecord {
                coalesce: false,
                event: "user".into(),
                l_time: 5,
                name: "deploy".into(),
                payload: b"9c45b87".to_vec(),
            }),
            "85a8436f616c65736365c2a54576656e74a475736572a54c54696d6505a44e616d65a66465706c6f79a75061796c6f6164c40739633435623837",
        );
        event(
            &EventRecord::Query(QueryEventRecord {
                event: "query".into(),
                id: 1,
                l_time: 8,
                name: "ask".into(),
                payload: b"15m".to_vec(),
            }),
            "85a54576656e74a57175657279a2494401a54c54696d6508a44e616d65a361736ba75061796c6f6164c40331356d",
        );
        let answer = |kind, from: &str, payload: &[u8]| QueryRecord {
            from: from.into(),
            payload: payload.to_vec(),
            r#type: kind,
        };
        recorded(
            &answer(QueryRecordKind::Ack, "n1", b""),
            "83a446726f6da26e31a75061796c6f6164c0a454797065a361636b",
        );
        recorded(
            &answer(QueryRecordKind::Response, "n1", b"hi\n"),
            "83a446726f6da26e31a75061796c6f6164c40368690aa454797065a8726573706f6e7365",
        );
        recorded(
            &answer(QueryRecordKind::Done, "", b""),
            "83a446726f6da0a75061796c6f6164c0a454797065a4646f6e65",
        );
        recorded(&LogRecord { log: "x".into() }, "81a34c6f67a178");
    }

    #[test]
    fn a_header_inherits_what_it_does_not_name() {
        let previous = RequestHeader {
            command: "members".into(),
            seq: 7,
        };
        let after = |hex: &str| RequestHeader::decode_after(&previous, &bytes(hex)).unwrap();
        assert_eq!(after("80"), previous);
        assert_eq!(
            after("81a353657109"),
            RequestHeader {
                command: "members".into(),
                seq: 9
            }
        );
        assert_eq!(
            after("81a3536571c0"),
            RequestHeader {
                command: "members".into(),
                seq: 0
            }
        );
        assert_eq!(
            after("92a57374617473 05"),
            RequestHeader {
                command: "stats".into(),
                seq: 5
            }
        );
        assert_eq!(after("c0"), RequestHeader::default());
        assert!(RequestHeader::decode_after(&previous, &bytes("81a3536571ff")).is_err());
    }

    #[test]
    fn bodies_are_read_leniently() {
        let event = |hex: &str| decode::<EventRequest>(&bytes(hex)).unwrap();
        let expected = EventRequest {
            coalesce: true,
            name: "d".into(),
            payload: b"x".to_vec(),
        };
        assert_eq!(
            event("93a164 a178 01"),
            expected,
            "by position, string for bytes, 1 for true"
        );
        assert_eq!(
            event("84 a5626f677573 05 a75061796c6f6164a178 a44e616d65c40164 a8436f616c65736365c3"),
            expected
        );
        assert_eq!(event("c0"), EventRequest::default());
        assert!(
            decode::<QueryRequest>(&bytes("81ab52656c6179466163746f72cd012c")).is_err(),
            "relay factor 300"
        );
        assert!(
            decode::<JoinRequest>(&bytes("81a84578697374696e67a161")).is_err(),
            "a string for a list"
        );
        assert!(
            decode::<QueryRecord>(&bytes("81a446726f6da26e31")).is_err(),
            "a record of no kind"
        );
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Request::InstallKey(key("topsecret")),
            Request::Auth(AuthRequest {
                auth_key: Zeroizing::new("topsecret".into())
            }),
            KeyResponse {
                keys: Some(vec![(Zeroizing::new("topsecret".into()), 1)]),
                ..KeyResponse::default()
            }
        );
        assert!(!shown.contains("topsecret"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            name: String,
            addr: Vec<u8>,
            port: u16,
            tags: BTreeMap<String, String>,
            timeout: i64,
            numbers in any::<[u8; 3]>(),
        ) {
            let [delegate_cur, protocol_cur, relay_factor] = numbers;
            let member =
                Member { addr: addr.clone(), delegate_cur, name: name.clone(), port, protocol_cur, tags: tags.clone(), ..Member::default() };
            let query =
                QueryRequest { filter_tags: tags, name, payload: addr, relay_factor, timeout, ..QueryRequest::default() };
            let mut encoded = Vec::new();
            encode_into(&member, &mut encoded).unwrap();
            prop_assert_eq!(decode::<Member>(&encoded).unwrap(), member);
            encoded.clear();
            encode_into(&query, &mut encoded).unwrap();
            prop_assert_eq!(decode::<QueryRequest>(&encoded).unwrap(), query);
        }

        #[test]
        fn damaged_requests_never_panic(which: proptest::sample::Index, at: proptest::sample::Index, byte: u8) {
            let requests = recorded_requests();
            let (seq, request, _) = which.get(&requests);
            let mut encoded = request.encode(*seq).unwrap().to_vec();
            *at.get_mut(&mut encoded) = byte;
            let mut scan = frame::scan(1 << 20);
            if let Ok(Some(length)) = scan.advance(&encoded) {
                let (header, body) = encoded.split_at(length);
                let _ = RequestHeader::decode_after(&RequestHeader::default(), header);
                for (_, other, _) in &requests {
                    let _ = Request::decode(other.command(), body);
                }
            }
        }
    }
}

//! Every limit on what a peer can make this program read or hold, one constant each.
//!
//! A limit stands here, and not beside its use, so that all of them can be reviewed at one glance.

use std::time::Duration;

/// Longest name of this node in bytes. A DNS label has 63 and a Linux host name 64; Serf's own validation,
/// where it is switched on, stops at 128 as well.
pub const NAME_MAX: usize = 128;

/// Longest name of a member in bytes. Serf limits no names; beyond the bytes of its datagrams none can be gossiped.
pub const PEER_NAME_MAX: usize = 1400;

/// Longest metadata (encoded tags) of a node in bytes; memberlist's own limit, checked by every sender.
pub const META_MAX: usize = 512;

/// Length of a version vector: minimum, maximum and current of memberlist, then of Serf.
pub const VSN_LEN: usize = 6;

/// Longest label in bytes: its length is written as one byte.
pub const LABEL_MAX: usize = 255;

/// How deep msgpack values may nest. The deepest known message (Serf's push/pull) needs five levels;
/// the rest is room for fields that later versions may add.
pub const MSGPACK_DEPTH_MAX: usize = 8;

/// Most bodies in one compound: their number is written as one byte.
pub const COMPOUND_BODIES_MAX: usize = 255;

/// Most bytes of a datagram after decompression. No UDP datagram can carry more in plain form, so no
/// honest sender has more to compress.
pub const DATAGRAM_PLAIN_MAX: usize = 64 * 1024;

/// Most bytes of one stream message, as it arrives as well as after decompression, unless configured
/// otherwise. memberlist caps the user state, the user message and the encrypted frame at 20 MiB each.
pub const STREAM_MESSAGE_MAX: usize = 20 * 1024 * 1024;

/// Longest ciphertext block an encrypted stream frame may announce; memberlist's own limit, inclusive.
pub const ENCRYPTED_FRAME_MAX: usize = 20 * 1024 * 1024;

/// How many times longer than its compressed form a stream message may become. LZW of real state
/// (names, addresses, an event ring that is mostly nil) stays below 20; a bomb reaches 1,300.
pub const STREAM_INFLATE_RATIO_MAX: usize = 100;

/// What any compressed stream message may inflate to, whatever the ratio: the ring of a quiet cluster
/// with a few large, repetitive events is small and compresses very well.
pub const STREAM_INFLATE_FLOOR: usize = 1024 * 1024;

/// Most bytes of a single msgpack struct inside a stream: a header, a node, a ping, an ack, an error
/// text. The largest of them, a node, needs about 750; the rest is room for unknown fields.
pub const STREAM_STRUCT_MAX: usize = 8 * 1024;

/// Most nodes in a push/pull; the limit of recent memberlist releases.
pub const PUSH_PULL_NODES_MAX: usize = 1 << 20;

/// Most slots in the event ring of a push/pull. Serf sends 512; a library user may configure more.
pub const EVENT_RING_MAX: usize = 1 << 16;

/// Most user events in the ring of a push/pull, over all its slots, because several may share one
/// Lamport time.
pub const RING_EVENTS_MAX: usize = 1 << 17;

/// Most filters in a query. Clients send one for names and one for each tag.
pub const QUERY_FILTERS_MAX: usize = 128;

/// Most tags of one member: no more fit into [`META_MAX`] bytes, at two bytes for the shortest.
pub const TAGS_MAX: usize = 256;

/// Highest incarnation of which a node can be accused, unless its own is higher. An honest one grows by
/// one for each refutation or change of tags, so half of the range is never reached, and the other half
/// is room to refute. Below it any jump is taken: a bound on jumps would let one forged accusation raise
/// a node beyond the reach of those who have missed it.
pub const MAX_INCARNATION: u32 = 1 << 31;

/// How far beyond [`MAX_INCARNATION`], or beyond what is known of a node if that is more, its alive
/// message may go: enough to refute any accusation, so little that the end of the range is not reached.
pub const MAX_INCARNATION_STEP: u32 = 1 << 16;

/// Highest Lamport time taken from a peer, unless our own clock is near it. Honest clocks count what
/// people and programs say, and never get there; below it any jump is taken, because whoever has missed
/// a jump must still understand those who have not.
pub const MAX_LTIME: u64 = 1 << 62;

/// How far beyond [`MAX_LTIME`], or beyond our own clock if that is more, a Lamport time may lie: enough
/// for a cluster to go on whose clocks somebody has pushed there, too little to exhaust the range.
pub const MAX_LTIME_STEP: u64 = 1 << 32;

/// Most nodes in the list, so that invented names cannot fill the memory.
pub const MAX_MEMBERS: usize = 1 << 17;

/// Most intents about unknown members that are remembered at a time.
pub const MAX_RECENT_INTENTS: usize = 1 << 14;

/// Most pings relayed for peers at a time; each lasts one probe timeout, so this is a rate limit too.
pub const MAX_RELAYS: usize = 512;

/// Most members whose word is kept that a suspect has refused them too: one more than are asked for, so that each of
/// them hears of enough others.
pub const MAX_WITNESSES: usize = 3;

/// Bytes of an answer about a name that two claim, which goes to an address without a known member: one member with
/// its tags.
pub const CONFLICT_ANSWER: usize = 1024;

/// Addresses without a member whose bytes are counted at a time, lest answers to them be longer.
pub const MAX_STRANGERS: usize = 4096;

/// Most names whose address is looked into at a time. Each costs a few pings, and takes a probe timeout.
pub const MAX_LOOKS: usize = 64;

/// Exchanges of one join that run at the same time.
pub const MAX_PARALLEL_JOINS: usize = 8;

/// Accusations of this node that are remembered, to tell its operator. Three are enough for that.
pub const MAX_ACCUSATIONS: usize = 64;

/// Failed members that wait to be tried again, or are; each try may last as long as a stream's deadline.
pub const MAX_RECONNECTS: usize = 8;

/// Discovered addresses joined together; anybody on the network can invent some.
pub const DISCOVERED_AT_ONCE: usize = 128;

/// Discovered addresses of which is remembered that they were joined, or have failed.
pub const MAX_DISCOVERED: usize = 4096;

/// Most user events remembered for one Lamport time. Senders that have not heard of each other yet
/// choose the same, so a burst from every node of a large cluster must fit.
pub const MAX_EVENTS_PER_LTIME: usize = 4096;

/// Largest answer to a query that travels by stream, where the asker takes such.
pub const STREAM_ANSWER_MAX: usize = 1 << 20;

/// Most query IDs remembered for one Lamport time; as for events.
pub const MAX_QUERIES_PER_LTIME: usize = 4096;

/// How long a query of somebody else can be answered here at most, whatever it asks for, so that what
/// is kept about it is not kept for ever.
pub const QUERY_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Most queries of our own that collect answers at the same time.
pub const MAX_OWN_QUERIES: usize = 1024;

/// Most queries of others that may still be answered by a handler or a client.
pub const MAX_OPEN_QUERIES: usize = 4096;

/// Longest expression that a client of this agent may give, compiled, in bytes of memory.
pub const REGEX_MAX: usize = 1 << 20;

/// What all tag filters of one query may take together, compiled. Compiling and matching cost time in proportion,
/// a few milliseconds for this much, in which the node does nothing else; and so do all others that the query
/// reaches. A hundred simple filters fit, or one with a few hundred repetitions of any letter.
pub const QUERY_FILTERS_WORK: usize = 256 * 1024;

/// What a class of letters by name, such as `\\pL`, counts at least: its tables have to be built before it is
/// known how large it becomes.
pub const FILTER_CLASS_WORK: usize = 8 * 1024;

/// Longest text of all tag filters of one query together. By default no query may have as many bytes.
pub const QUERY_FILTERS_TEXT: usize = 4 * 1024;

/// Compiled expressions of filters that are kept, those used last; together they take no more memory than a few
/// queries at their limit.
pub const FILTERS_KEPT: usize = 64;

/// Packets sealed with one key after which another is advised. Nonces are random: at 2^32 packets of a whole
/// cluster the odds that two of them are equal reach 2^-33, the most that NIST allows for AES-GCM; an agent
/// knows only of its own, and since its start.
pub const SEALED_BY_ONE_KEY: u64 = 1 << 31;

/// Bytes the UDP receive buffer holds: the largest datagram there can be.
pub const UDP_RECEIVE_BUFFER: usize = 65_536;

/// Bytes asked of the kernel for datagrams that wait; what memberlist asks.
pub const UDP_KERNEL_BUFFER: usize = 2 * 1024 * 1024;

/// Datagrams read in a row before timers, commands and other tasks have their turn: about a
/// millisecond's worth.
pub const DATAGRAM_BATCH: usize = 64;

/// Datagrams kept while the operating system takes no more. Gossip repeats itself, so a few rounds are
/// enough and older ones are not worth keeping.
pub const UNSENT_DATAGRAMS: usize = 256;

/// How long the end of the agent waits until those can be sent.
pub const LAST_SEND: Duration = Duration::from_millis(50);

/// Receive errors in a row that mean trouble with the socket itself.
pub const RECEIVE_ERRORS_IN_ROW: u32 = 64;

/// The same for errors of which each takes one datagram off the queue, as Windows has them: more than an
/// agent of a large cluster sends to members that are gone before it hears of one that lives, and so few
/// that, with the pause that follows, a socket that fails without end costs little.
pub const RECEIVE_RESETS_IN_ROW: u32 = 4096;

/// Pause before a socket in trouble is read again.
pub const RECEIVE_PAUSE: Duration = Duration::from_millis(50);

/// Pause after a connection could not be accepted, so that a lack of descriptors does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections the kernel completes before they are accepted. Many of them are mere port checks.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Tries to find a port that is free for TCP and UDP alike.
pub const FREE_PORT_TRIES: u32 = 32;

/// Inbound streams at once, of strangers, and as many of members. memberlist serves at most 127 push/pulls; twice that stays far below the
/// usual limit of 1,024 descriptors.
pub const STREAMS_MAX: usize = 256;

/// Inbound streams at once from one address (IPv6: one /64). Half of all, so that one host cannot lock
/// the others out, and yet a test cluster on one host works as with memberlist.
pub const STREAMS_PER_SOURCE_MAX: usize = 128;

/// How long a stream may take until it has said what it is about. Whoever dials begins to send at once, so this is
/// for a packet that is lost and sent again; without it, silence holds a place for all of a stream's deadline.
pub const STREAM_FIRST_BYTES: Duration = Duration::from_secs(1);

/// Bytes that all unfinished streams together may hold: three messages of the largest size, or some
/// hundred of a cluster of thousands.
pub const STREAM_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes asked of a stream at a time.
pub const STREAM_READ: usize = 8 * 1024;

/// How long an answered stream waits for the peer to close.
pub const STREAM_LINGER: Duration = Duration::from_secs(1);

/// Bytes read and thrown away meanwhile.
pub const STREAM_LINGER_BYTES: usize = 1024 * 1024;

/// Messages of streams that wait for the driver; a full queue holds the streams back.
pub const STREAM_EVENTS: usize = 64;

/// Outbound streams at once, so that a rejoin of a large cluster does not use up the descriptors.
pub const DIALS_MAX: usize = 256;

/// Requests that wait for the driver; a full queue makes callers wait.
pub const DRIVER_REQUESTS: usize = 1024;

/// Commands that wait for their answer. A join may take minutes, and each caller waits for its own.
pub const COMMANDS_IN_FLIGHT: usize = 4096;

/// How long the lines of one place in the program are counted together.
pub const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Warnings and errors of one place that are logged meanwhile; more are counted, and told in a sum.
pub const LOG_LINES: u32 = 20;

/// The same for lines of other levels. Who asks for details wants to see more of them.
pub const LOG_DETAIL_LINES: u32 = 500;

/// What peers do again and again is remembered for so many names, to be said ever less often.
pub const REPEATS_MAX: usize = 1024;

/// Time between two lines about another cluster's label: a host with a wrong address or label goes on for as long as
/// nobody looks.
pub const OTHER_CLUSTER_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How long output waits for the disk to store the clocks that it shows: well below a probe's time-out, so
/// that a slow disk does not make this node look failed.
pub const HOLD_MAX: Duration = Duration::from_millis(250);

/// Datagrams and stream messages that wait for the disk; more do not wait.
pub const HELD_OUTPUT: usize = 4096;

/// How long the end of the agent waits until the snapshot is on disk.
pub const LAST_FLUSH: Duration = Duration::from_secs(5);

/// How long a restarted node keeps back the user events that are gossiped to it until a peer has told it those
/// before them. A rejoin that works takes a fraction of a second.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// Most user events that wait for that: at their largest, as many bytes as the ring of recent ones may hold.
pub const CATCH_UP_EVENTS: usize = 1024;

/// Largest user event, name and payload together, whatever is configured; Serf's own hard limit.
pub const USER_EVENT_HARD_LIMIT: usize = 9 * 1024;

/// Most bytes of remembered user events: the ring travels in every push/pull, which peers refuse
/// above 20 MiB.
pub const EVENT_RING_BYTES_MAX: usize = 8 << 20;

/// User events that are held back for coalescing; more are delivered early, so that a flood cannot fill the
/// memory.
pub const USER_EVENTS_HELD_BACK: usize = 4096;

/// Member and user events that wait for one event handler, and as many queries; what comes on top is dropped and
/// counted. Some minutes of a script that takes a fraction of a second.
pub const HANDLER_QUEUE: usize = 1024;

/// Bytes of a script's output that the log shows, the last ones; Serf's own figure. As the answer to a query, the
/// output counts whole, up to [`STREAM_ANSWER_MAX`].
pub const HANDLER_OUTPUT: usize = 8 * 1024;

/// How long a program that names seeds (`exec=`) may take. Names of other seeds wait for it.
pub const SEED_PROGRAM_TIME: Duration = Duration::from_secs(10);

/// Bytes that it may print: addresses of a few thousand hosts.
pub const SEED_PROGRAM_OUTPUT: usize = 64 * 1024;

/// How long a script's output is waited for after its end, while something that it has left behind keeps it open. On
/// Windows a thread reads it, which comes to run late on a busy machine.
pub const HANDLER_OUTPUT_GRACE: Duration = Duration::from_millis(if cfg!(windows) { 1000 } else { 100 });

/// Outputs of what scripts have left behind that are read on and thrown away. Each takes a descriptor; when there
/// are more, the next is closed.
pub const HANDLER_OUTPUTS_OPEN: usize = 64;

/// RPC clients at once, unless configured otherwise (`rpc_max_clients`). Serf knows no limit; with a request of at most
/// a mebibyte each, this one bounds their memory.
pub const RPC_CLIENTS_MAX: usize = 4096;

/// Descriptors that are left to gossip, files and scripts, however many RPC clients are allowed: as many as
/// [`STREAMS_MAX`] and [`DIALS_MAX`] together.
pub const DESCRIPTORS_FOR_GOSSIP: usize = STREAMS_MAX + DIALS_MAX;

/// Descriptors that the agent asks the system for, if it may have more than it was given.
pub const DESCRIPTORS_WANTED: u64 = 16_384;

/// How long a client without a subscription must have been idle to give its seat to another, when all are taken: time
/// enough between two requests of a program.
pub const SEAT_YIELD_AFTER: Duration = Duration::from_secs(1);

/// How long a client waits for a seat that nobody gives up, before it is refused: less than the 10 s after which a command
/// takes the agent for dead.
pub const SEAT_WAIT: Duration = Duration::from_secs(5);

/// How long an RPC client may take to introduce itself (handshake, and token where one is needed), so
/// that strangers cannot hold all places. Afterwards it may idle for as long as it likes.
pub const RPC_INTRODUCTION: Duration = Duration::from_secs(60);

/// Largest object of an RPC client that has not introduced itself: a token fits many times.
pub const RPC_FRAME_OF_STRANGER: usize = 4 * 1024;

/// Wrong tokens of one address after which each further one, right or wrong, waits for its answer.
pub const RPC_WRONG_TOKENS: u32 = 5;

/// How long: each client guesses once a second then.
pub const RPC_TOKEN_PAUSE: Duration = Duration::from_secs(1);

/// Addresses of which wrong tokens are remembered at a time.
pub const RPC_GUESSERS_MAX: usize = 512;

/// How long an address must have been quiet for its wrong tokens to be forgotten.
pub const RPC_TOKEN_MEMORY: Duration = Duration::from_secs(60);

/// Idle time after which the system asks whether an RPC client's host is still there.
pub const RPC_KEEPALIVE: Duration = Duration::from_secs(60);

/// Bytes of short answers to an RPC client that leave together, when its next requests are here already.
pub const RPC_ANSWERS_HELD: usize = 4 << 10;

/// How long such an answer waits for the next.
pub const RPC_ANSWER_HOLD: Duration = Duration::from_millis(1);

/// Bytes of records of one subscription that leave together, when they wait already.
pub const RPC_RECORDS_TOGETHER: usize = 4 << 10;

/// How long an answer may wait for an RPC client that does not read.
pub const RPC_WRITE: Duration = Duration::from_secs(10);

/// How long a refused RPC client may take to read why, and one that made the agent leave to close.
pub const RPC_LINGER: Duration = Duration::from_secs(1);

/// What an event counts in the ring beyond its name and payload, in memory as on the wire. With it the
/// ring holds no more events than [`RING_EVENTS_MAX`].
pub const EVENT_RING_OVERHEAD: usize = 64;

/// Records that wait for an RPC client: per event stream, and per log monitor. As in Serf.
pub const RPC_RECORDS_WAITING: usize = 512;

/// Acknowledgements and answers that wait for an RPC client, per query. A large cluster's acknowledgements
/// come in bursts, and none of them comes twice.
pub const RPC_QUERY_ANSWERS_WAITING: usize = 4096;

/// Event streams and running queries of one RPC client together, since each has a queue, unless configured otherwise
/// (`rpc_max_subscriptions`).
pub const RPC_SUBSCRIPTIONS_MAX: usize = 128;

/// How often a client that does not read is looked at for what it has lost.
pub const RPC_LOSS_CHECK: Duration = Duration::from_secs(1);

/// Shortest time between two log lines about what one client loses.
pub const RPC_LOSS_REPORT: Duration = Duration::from_secs(10);

/// Steps of a template's program: some seconds of work, which a template of 100,000 members stays below.
pub const TEMPLATE_STEPS: u64 = 50_000_000;

/// Bytes that a template may put out.
pub const TEMPLATE_OUTPUT_MAX: usize = 16 * 1024 * 1024;

/// HTTP connections at once. Each costs some 20 KiB of buffers; scrapers and balancers need a handful.
pub const HTTP_CONNECTIONS_MAX: usize = 128;

/// HTTP clients that wait for events or for a change of the list of members. The other connections stay free for
/// those who only ask.
pub const HTTP_WAITING_MAX: usize = 64;

/// How long an HTTP client may take for the head of a request, and stay idle between two requests.
pub const HTTP_HEADERS_TIME: Duration = Duration::from_secs(5);

/// Header lines of an HTTP request; browsers send about 20.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Bytes of the head of an HTTP request.
pub const HTTP_HEAD_BYTES: usize = 16 * 1024;

/// How long an HTTP client may take no bytes.
pub const HTTP_WRITE: Duration = Duration::from_secs(10);

/// How long an HTTP client may wait for a change of the list of members.
pub const HTTP_WAIT: Duration = Duration::from_secs(300);

/// How often a quiet stream of events shows that it is alive; proxies close what is silent for a minute.
pub const HTTP_KEEPALIVE: Duration = Duration::from_secs(15);

/// Events that are kept for HTTP clients that come back, by number and by bytes.
pub const HTTP_FEED_EVENTS: usize = 1024;
/// See [`HTTP_FEED_EVENTS`].
pub const HTTP_FEED_BYTES: usize = 1024 * 1024;

/// Largest text snapshot of Serf that is read. Serf compacts its own at 256 bytes a member, which for
/// [`MAX_MEMBERS`] of them is half of it.
pub const SERF_SNAPSHOT_MAX: u64 = 64 << 20;

/// Longest line of a text snapshot of Serf that is read; what is longer is skipped with a warning. A name of the
/// greatest length and an address are far shorter.
pub const SERF_SNAPSHOT_LINE: usize = 4 * 1024;

/// Warnings about lines of a text snapshot that are kept; a file of another kind has nothing but such lines.
pub const SNAPSHOT_WARNINGS: usize = 20;

/// Bytes of such a line that a warning shows: a name of the length that Serf validates and an address fit.
pub const SNAPSHOT_LINE_SHOWN: usize = 256;

/// Largest value in the snapshot; a longer event is written in parts. sled keeps up to 17 entries on a page,
/// and a page above 128 KiB in a file of its own, which it does not sync.
pub const SNAPSHOT_PART_MAX: usize = 4 * 1024;

/// Shortest time between two flushes of the snapshot while nobody waits for one.
pub const SNAPSHOT_FLUSH: Duration = Duration::from_millis(100);

/// Records that wait for the snapshot's thread at most; when it lags further behind, all of them are dropped,
/// and the store begins anew from what the node then knows. Twice the members, since each one that is
/// forgotten waits as well.
pub const SNAPSHOT_PENDING: usize = 2 * MAX_MEMBERS;

/// How long the node waits for a disk that does not answer before it goes on without: less than the
/// shortest suspicion timeout, so that a slow disk makes nobody believe it dead.
pub const SNAPSHOT_STALL: Duration = Duration::from_secs(2);

/// First and longest pause before a disk that failed is tried again.
pub const SNAPSHOT_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Shortest time between two log lines about the same trouble with the snapshot.
pub const SNAPSHOT_LOG: Duration = Duration::from_secs(60);

/// How long the snapshot may take to be read before it counts as unreadable. 100,000 members take a few
/// seconds.
pub const SNAPSHOT_READ: Duration = Duration::from_secs(60);

/// The snapshot is rewritten when it takes more bytes than this, and more than [`SNAPSHOT_GROWTH`] times
/// what it holds. sled's files begin at one to two MiB.
pub const SNAPSHOT_SMALL: u64 = 8 << 20;

/// See [`SNAPSHOT_SMALL`].
pub const SNAPSHOT_GROWTH: u64 = 4;

/// Bytes of pages that sled may keep in memory. More than there ever is: it cannot read back a page that it
/// dropped in the middle of a transaction.
pub const SNAPSHOT_CACHE: u64 = 1 << 30;

/// Most entries read from a tree of the snapshot: the members, or the events of a ring in their parts.
pub const SNAPSHOT_ENTRIES_MAX: usize = 1 << 20;

/// Most nodes of `fyrd simulate`: every node holds a list of all, so memory grows with their square, to some
/// gigabytes here.
pub const SIMULATED_NODES_MAX: usize = 10_000;

/// How long the lock of a snapshot is waited for. The agent that is started again may meet the one before while
/// that one ends, or a handler that was being started when it was killed: such a child has all that its parent
/// held, until it becomes the program that it is to run.
pub const SNAPSHOT_LOCK: Duration = Duration::from_secs(2);

/// How often the files of a snapshot are looked after while nothing is to be written: whoever removes them is to
/// be told soon, and a look costs three calls of the system.
pub const SNAPSHOT_LOOK: Duration = Duration::from_secs(10);

/// Stores that could not be read and are kept inside the snapshot for whoever looks for the reason: more than one,
/// for the first is the most telling, and few, for a disk that damages files would be filled by them.
pub const SNAPSHOT_ASIDE: usize = 4;

/// Bytes of changes in a frame of the essence, or one change more: what a damage of one byte costs at most.
pub const ESSENCE_FRAME: usize = 16 * 1024;

/// Longest frame of the essence that is read: the changes, and a last one of the greatest length.
pub const ESSENCE_FRAME_MAX: usize = 2 * ESSENCE_FRAME;

/// Beginnings of a frame in a copy of the essence that may turn out to be none: enough for any damage of a disk,
/// and few enough that a file made of nothing else is given up at once.
pub const ESSENCE_FALSE_STARTS: usize = 10_000;

/// Most bytes of a copy of the essence that are read: [`MAX_MEMBERS`] of the greatest size, the windows, and
/// [`ESSENCE_GROWTH`] times as much of what has changed.
pub const ESSENCE_FILE_MAX: u64 = 512 << 20;

/// A copy of the essence is written anew when it has more bytes than this, and more than [`ESSENCE_GROWTH`] times
/// those of what it holds: with a hundred members, once in some thousand flushes.
pub const ESSENCE_SMALL: u64 = 512 * 1024;

/// See [`ESSENCE_SMALL`].
pub const ESSENCE_GROWTH: u64 = 3;

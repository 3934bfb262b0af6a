//! `keys rotate`: a new key takes the place of the old one, in steps none of which cuts anybody off.
//!
//! ```text
//! everybody answers -> install new -> all have it? -> use new -> all have it still? -> remove old
//! ```
//!
//! Each step is taken only when every known member has confirmed the one before, and is repeated until
//! then or until the time is up. While the old key is installed, all can read all. Every step can be
//! repeated without harm, so running the command again takes up where it stopped.

mod choice;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fyrd_keys::Key;
use zeroize::Zeroizing;

use super::super::{Failure, Terminal, table};
use super::survey::{Survey, name};
use crate::go::printable::word;
use crate::rpc::client::{Client, ClientError, KeyOperation};
use choice::Choice;
pub(super) use choice::Wishes;

/// Between two looks at the agent's own list of members, and the shortest time between two tries. A try itself takes
/// up to the query timeout when a member is silent.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest time between two tries while the list stays the same. Each try asks the whole cluster.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A single lost datagram shall not keep us from going back.
const GO_BACK_TRIES: usize = 3;

/// The rotation stops here.
enum Stop {
    /// Not everybody is known to have taken a step.
    Doubt {
        rows: Vec<String>,
        refused: bool,
        what: String,
        state: String,
    },
    Error(String),
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Stop {
        Stop::Error(format!("{error}. Nobody is cut off: the old key is removed last"))
    }
}

/// Rotates.
pub(super) async fn rotate(
    terminal: &mut Terminal<'_>,
    client: &mut Client,
    wishes: &Wishes,
) -> Result<(), Failure> {
    let mut rotation = Rotation {
        deadline: Instant::now() + wishes.timeout,
        timeout: wishes.timeout,
        told: String::new(),
        pause: PAUSE,
        terminal,
        client,
    };
    let mut again = String::from("keys rotate");
    let result = match rotation.prepare(wishes).await {
        Ok(choice) => {
            again = format!("keys rotate {}", choice.new.fingerprint());
            rotation.run(&choice, wishes.print).await
        }
        Err(stop) => Err(stop),
    };
    match result {
        Ok(()) => Ok(()),
        Err(Stop::Error(text)) => Err(Failure::Error(format!("\nError rotating keys: {text}"))),
        Err(Stop::Doubt {
            rows,
            refused,
            what,
            state,
        }) => {
            terminal.line(table::columns(&rows));
            let program = terminal.program().to_owned();
            Err(Failure::Error(format!(
                "\nError rotating keys: {what}\n{state}\n{}: '{program} {again}' goes on.",
                if refused {
                    "When what the members in doubt say is put right"
                } else {
                    "Once the members in doubt are back, or have left for good (force-leave)"
                }
            )))
        }
    }
}

struct Rotation<'r, 't> {
    terminal: &'r mut Terminal<'t>,
    client: &'r mut Client,
    deadline: Instant,
    timeout: Duration,
    /// What was last said about waiting, so that it is said once.
    told: String,
    /// How long to wait before the next try, unless the list of members changes.
    pause: Duration,
}

impl Rotation<'_, '_> {
    /// Waits until everybody answers, and finds out which keys are meant. Changes nothing.
    async fn prepare(&mut self, wishes: &Wishes) -> Result<Choice, Stop> {
        let survey = loop {
            let survey = self.list().await?;
            if survey.is_unanimous() {
                break survey;
            }
            if survey.is_refused() || !self.wait_for(&survey).await {
                let what = match survey.is_refused() {
                    true => "members refuse to list their keys".to_owned(),
                    false => format!("not every member answers{}", self.waited()),
                };
                let state = "Nothing was changed.".to_owned();
                return Err(self.doubt(&survey, what, state).await);
            }
        };
        if survey.is_cut {
            return Err(Stop::Error(
                "members hold more keys than they can list; remove some first".to_owned(),
            ));
        }
        choice::choose(&survey, wishes).map_err(Stop::Error)
    }

    async fn run(&mut self, choice: &Choice, print: bool) -> Result<(), Stop> {
        let new = name(&choice.new);
        let old: Vec<String> = choice.old.iter().map(name).collect();
        self.terminal
            .line(format!("==> Rotating from {} to {new}...", or_none(&old)));
        self.switch(choice).await?;
        for key in &choice.old {
            self.terminal
                .line(format!("==> Removing key {} from all members...", name(key)));
            self.remove(key, choice).await?;
        }
        let survey = self.list().await?;
        self.terminal.line(format!(
            "==> Successfully rotated! All {} members seal with {new}.",
            survey.alive.len()
        ));
        self.terminal.line(
            "    Their keyring files hold it; members without such a file need it as their -encrypt key, \
             and so do new members.",
        );
        if print {
            let mut line = Zeroizing::new(String::from("    "));
            line.push_str(&choice.new.to_text());
            self.terminal.line(line.as_str());
        } else {
            let program = self.terminal.program().to_owned();
            self.terminal
                .line(format!("    '{program} keys list -print' shows it."));
        }
        Ok(())
    }

    /// Until every member holds the new key and seals with it.
    async fn switch(&mut self, choice: &Choice) -> Result<(), Stop> {
        let mut went_back = None;
        loop {
            let covered = self.install(choice, went_back).await?;
            self.terminal.line("==> Changing primary key on all members...");
            let mut survey = Survey::take(self.client, KeyOperation::Use(choice.new.to_text())).await?;
            if survey.is_unanimous() && survey.alive.is_subset(&covered) {
                // A member that was restarted meanwhile may be back with the keys of old.
                survey = self.list().await?;
                if survey.is_unanimous() && survey.all_hold(&choice.new) {
                    return Ok(());
                }
            }
            // Who came after the key was installed does not hear us unless we go back.
            went_back = Some(self.go_back(choice).await);
            if !self.wait_for(&survey).await {
                let what = format!("not every member uses the new key{}", self.waited());
                let state = state_of_switch(choice, went_back == Some(true));
                return Err(self.doubt(&survey, what, state).await);
            }
        }
    }

    /// Until every member holds the new key: who they are. If it was used already, `went_back` tells
    /// whether the old one is in use again.
    async fn install(&mut self, choice: &Choice, went_back: Option<bool>) -> Result<BTreeSet<String>, Stop> {
        let key = &choice.new;
        self.terminal
            .line(format!("==> Installing key {} on all members...", name(key)));
        loop {
            let mut survey = Survey::take(self.client, KeyOperation::Install(key.to_text())).await?;
            if survey.is_unanimous() {
                survey = self.list().await?;
                if survey.is_unanimous() && survey.all_hold(key) {
                    return Ok(survey.alive);
                }
            }
            if survey.is_refused() || !self.wait_for(&survey).await {
                let what = format!("not every member has the new key{}", self.waited());
                let listed = self.list().await?;
                let state = match went_back {
                    Some(went_back) => state_of_switch(choice, went_back),
                    None => format!(
                        "{} is installed on {} of {} members, and was not put to use: everybody can still \
                         talk to everybody. 'keys remove {}' takes it back.",
                        name(key),
                        listed.holders(key),
                        listed.asked,
                        key.fingerprint()
                    ),
                };
                return Err(self.doubt(&survey, what, state).await);
            }
        }
    }

    /// Makes the old key the primary one again; whether every member that is there did so.
    async fn go_back(&mut self, choice: &Choice) -> bool {
        let Some(old) = &choice.fallback else { return false };
        for _ in 0..GO_BACK_TRIES {
            let used = Survey::take(self.client, KeyOperation::Use(old.to_text())).await;
            if used.is_ok_and(|survey| survey.error.is_empty()) {
                return true;
            }
        }
        false
    }

    /// Until no member holds the old key; it goes only while everybody is there to confirm the new one.
    async fn remove(&mut self, old: &Key, choice: &Choice) -> Result<(), Stop> {
        let new = &choice.new;
        loop {
            let mut survey = self.list().await?;
            if survey.is_unanimous() && survey.all_hold(new) {
                if survey.holders(old) == 0 {
                    return Ok(());
                }
                survey = Survey::take(self.client, KeyOperation::Remove(old.to_text())).await?;
                if survey.is_unanimous() {
                    continue;
                }
            }
            if survey.is_refused() || !self.wait_for(&survey).await {
                let what = format!("not every member has removed the old key{}", self.waited());
                let listed = self.list().await?;
                // As long as all have the old key, a member that is back with nothing else needs it.
                let state = if listed.all_hold(old) && self.go_back(choice).await {
                    state_of_switch(choice, true)
                } else {
                    format!(
                        "The others seal with {}; {} is still installed on {} of {} members.",
                        name(new),
                        name(old),
                        listed.holders(old),
                        listed.asked
                    )
                };
                return Err(self.doubt(&survey, what, state).await);
            }
        }
    }

    async fn list(&mut self) -> Result<Survey, Stop> {
        Ok(Survey::take(self.client, KeyOperation::List).await?)
    }

    /// Waits for whom the survey misses: until the agent's list of members changes, and if it does not, twice as long
    /// each time. False when the time is up.
    async fn wait_for(&mut self, survey: &Survey) -> bool {
        if Instant::now() + PAUSE >= self.deadline {
            return false;
        }
        let absent: Vec<String> = survey
            .absent
            .iter()
            .map(|(name, status)| format!("{} ({status})", word(name)))
            .collect();
        let told = match absent.is_empty() {
            true => "members that do not answer".to_owned(),
            false => absent.join(", "),
        };
        if told != self.told {
            self.terminal.line(format!("    waiting for {told}"));
            self.told = told;
            self.pause = PAUSE;
        }
        // The last try is made while there is time.
        let last = self.deadline.checked_sub(PAUSE).unwrap_or(self.deadline);
        let next = (Instant::now() + self.pause).min(last);
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        loop {
            tokio::time::sleep(PAUSE).await;
            if Instant::now() >= next {
                return true;
            }
            if !survey.still_holds(self.client).await.unwrap_or(false) {
                // An agent that is gone is found by the next try.
                self.pause = PAUSE;
                return true;
            }
        }
    }

    async fn doubt(&mut self, survey: &Survey, what: String, state: String) -> Stop {
        let silent = survey.silent(self.client).await;
        Stop::Doubt {
            rows: survey.doubts(&silent),
            refused: survey.is_refused(),
            what,
            state,
        }
    }

    fn waited(&self) -> String {
        if Instant::now() + PAUSE < self.deadline {
            return String::new();
        }
        format!(" (waited for {} s)", self.timeout.as_secs_f64())
    }
}

fn state_of_switch(choice: &Choice, went_back: bool) -> String {
    let new = choice.new.fingerprint();
    match choice.fallback.as_ref().filter(|_| went_back) {
        Some(old) => format!(
            "Went back: {} is the primary key again, and {new} stays installed. Everybody can still talk to \
             everybody.",
            name(old)
        ),
        None => format!(
            "Members seal with {new} or with their old key. They hold both, so everybody can still talk to \
             everybody."
        ),
    }
}

fn or_none(names: &[String]) -> String {
    match names {
        [] => "no other key".to_owned(),
        names => names.join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::super::survey::tests::{K1, K2};
    use super::choice::tests::{keys, wishes};
    use super::*;
    use crate::rpc::codec::encode_into;
    use crate::rpc::frame::{FrameReader, MAX_REQUEST_BYTES};
    use crate::rpc::types::{KeyResponse, Member, MembersResponse, Request, RequestHeader, ResponseHeader};

    /// A member of the modelled cluster: its keys, the primary first.
    #[derive(Clone)]
    struct Node {
        name: String,
        ring: Vec<Key>,
        is_up: bool,
    }

    /// A cluster as the agent `n1` sees it.
    struct Model {
        nodes: Vec<Node>,
        operations: usize,
        /// What goes wrong, and before which operation.
        fault: (Fault, usize),
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        None,
        /// A member comes that has only the old key.
        Newcomer,
        /// A member forgets all but the old key.
        Forgets,
        /// A member goes down and stays so.
        Crash,
        /// A member is down for three operations.
        Absence,
        /// A member does not answer once.
        Silence,
    }

    impl Model {
        fn new(fault: Fault, at: usize) -> Model {
            let node = |name: &str| Node {
                name: name.to_owned(),
                ring: keys(&[K1]),
                is_up: true,
            };
            Model {
                nodes: ["n1", "n2", "n3"].map(node).into(),
                operations: 0,
                fault: (fault, at),
            }
        }

        fn strike(&mut self) {
            let (fault, at) = self.fault;
            let (now, old) = (self.operations, keys(&[K1]));
            match fault {
                // Whom nobody can read does not get in.
                Fault::Newcomer if now == at && self.nodes[0].ring[0] == old[0] => {
                    self.nodes.push(Node {
                        name: "n4".to_owned(),
                        ring: old,
                        is_up: true,
                    });
                }
                Fault::Forgets if now == at => self.nodes[2].ring = old,
                Fault::Crash | Fault::Absence if now == at => self.nodes[2].is_up = false,
                Fault::Absence if now == at + 3 => self.nodes[2].is_up = true,
                _ => {}
            }
        }

        /// Whether the two can read each other.
        fn talk(&self, a: &Node, b: &Node) -> bool {
            a.is_up && b.is_up && a.ring.contains(&b.ring[0]) && b.ring.contains(&a.ring[0])
        }

        fn perform(&mut self, operation: &Request) -> (String, KeyResponse) {
            self.operations += 1;
            self.strike();
            let mut response = KeyResponse::default();
            let mut counts: Vec<(Zeroizing<String>, i64)> = Vec::new();
            for index in 0..self.nodes.len() {
                let silent = self.fault == (Fault::Silence, self.operations) && index == 2;
                let (agent, node) = (&self.nodes[0], &self.nodes[index]);
                response.num_nodes += i64::from(self.talk(agent, node));
                if silent || !self.talk(agent, node) {
                    continue;
                }
                response.num_resp += 1;
                let ring = &mut self.nodes[index].ring;
                match operation {
                    Request::InstallKey(body) if !ring.contains(&body.key.parse().unwrap()) => {
                        ring.push(body.key.parse().unwrap());
                    }
                    Request::UseKey(body) => {
                        let key: Key = body.key.parse().unwrap();
                        match ring.iter().position(|own| *own == key) {
                            Some(at) => ring.swap(0, at),
                            None => response.num_err += 1,
                        }
                    }
                    Request::RemoveKey(body) => ring.retain(|own| own.to_text() != body.key),
                    _ => {}
                }
                for key in ring.iter() {
                    match counts.iter_mut().find(|(text, _)| *text == key.to_text()) {
                        Some((_, count)) => *count += 1,
                        None => counts.push((key.to_text(), 1)),
                    }
                }
            }
            response.keys = Some(counts);
            let error = match response.num_resp == response.num_nodes && response.num_err == 0 {
                true => String::new(),
                false => "not all".to_owned(),
            };
            (error, response)
        }

        fn members(&self) -> MembersResponse {
            let seen = |node: &Node| match self.talk(&self.nodes[0], node) {
                true => "alive",
                false => "failed",
            };
            let member = |node: &Node| Member {
                name: node.name.clone(),
                status: seen(node).to_owned(),
                ..Member::default()
            };
            MembersResponse {
                members: self.nodes.iter().map(member).collect(),
            }
        }

        /// Answers requests until the client is gone.
        async fn serve(&mut self, stream: DuplexStream) {
            let (reader, mut writer) = tokio::io::split(stream);
            let mut frames = FrameReader::new(reader, MAX_REQUEST_BYTES);
            while let Ok(Some(frame)) = frames.next().await {
                let header = RequestHeader::decode_after(&RequestHeader::default(), frame).unwrap();
                let body = match Request::has_body(&header.command) {
                    Some(true) => frames.next().await.unwrap().unwrap().to_vec(),
                    _ => Vec::new(),
                };
                let request = Request::decode(&header.command, &body).unwrap().unwrap();
                let mut bytes = Vec::new();
                let mut answer = ResponseHeader {
                    error: String::new(),
                    seq: header.seq,
                };
                match &request {
                    Request::Members => {
                        encode_into(&answer, &mut bytes).unwrap();
                        encode_into(&self.members(), &mut bytes).unwrap();
                    }
                    Request::Handshake(_) => encode_into(&answer, &mut bytes).unwrap(),
                    Request::Query(_) => {
                        answer.error = "no pings here".to_owned();
                        encode_into(&answer, &mut bytes).unwrap();
                    }
                    operation => {
                        let (error, response) = self.perform(operation);
                        answer.error = error;
                        encode_into(&answer, &mut bytes).unwrap();
                        encode_into(&response, &mut bytes).unwrap();
                    }
                }
                writer.write_all(&bytes).await.unwrap();
            }
        }
    }

    /// Rotates from K1 to K2 in the model: whether it succeeded, and what it said.
    async fn rotate_model(model: &mut Model, millis: u64) -> (bool, String) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new("fyrd".into(), &mut out, &mut err);
        let wishes = Wishes {
            timeout: Duration::from_millis(millis),
            ..wishes(Some(K2), &[])
        };
        let rotating = async {
            let mut client = Client::over(Box::new(ours), None).await.unwrap();
            rotate(&mut terminal, &mut client, &wishes).await
        };
        let (result, ()) = tokio::join!(rotating, model.serve(theirs));
        let mut said = String::from_utf8(out).unwrap();
        if let Err(Failure::Error(text)) = &result {
            said.push_str(text);
        }
        (result.is_ok(), said)
    }

    /// Rotates with a fault; whether that stopped it.
    async fn survives(fault: Fault, at: usize) -> bool {
        let mut model = Model::new(fault, at);
        let (done, said) = rotate_model(&mut model, 700).await;
        let up: Vec<&Node> = model.nodes.iter().filter(|node| node.is_up).collect();
        for (a, b) in up.iter().flat_map(|a| up.iter().map(move |b| (a, b))) {
            let (one, other) = (&a.name, &b.name);
            assert!(model.talk(a, b), "{fault:?} at {at}: {one} and {other}\n{said}");
        }
        if done {
            assert!(fault != Fault::Crash, "{fault:?} at {at}: {said}");
            let rotated = up.iter().all(|node| node.ring == keys(&[K2]));
            assert!(rotated, "{fault:?} at {at}: {said}");
            return false;
        }
        assert!(said.contains("in doubt:"), "{fault:?} at {at}: {said}");
        model.fault = (Fault::None, 0);
        model.nodes.iter_mut().for_each(|node| node.is_up = true);
        let (done, said) = rotate_model(&mut model, 5000).await;
        assert!(done, "{fault:?} at {at}, once more: {said}");
        true
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(future)
    }

    /// Waiting for a member that stays away is no reason to ask all others twice a second.
    #[test]
    fn waiting_asks_the_cluster_ever_more_seldom() {
        let mut model = Model::new(Fault::Crash, 1);
        let (done, said) = block_on(rotate_model(&mut model, 4000));
        assert!(!done && said.contains("waiting for n3 (failed)"), "{said}");
        // At once, and after 0.5, 1.5 and 3.5 s.
        assert!((3..=4).contains(&model.operations), "{} tries", model.operations);
    }

    /// Whatever goes wrong at whatever point, the rotation either succeeds with all of the cluster, or
    /// stops with a cluster in which everybody who is up can talk to everybody; and then it can be
    /// completed once the fault is gone.
    #[test]
    fn a_fault_at_any_point_cuts_nobody_off() {
        use Fault::{Absence, Crash, Forgets, Newcomer, Silence};
        // Who forgets the new key after the old one is gone is lost, whoever rotates.
        let cases = [
            (Newcomer, 9),
            (Forgets, 6),
            (Crash, 8),
            (Absence, 8),
            (Silence, 9),
        ];
        let stopped: Vec<bool> = std::thread::scope(|scope| {
            let running: Vec<_> = cases
                .iter()
                .flat_map(|(fault, points)| (1..=*points).map(move |at| (*fault, at)))
                .map(|(fault, at)| scope.spawn(move || block_on(survives(fault, at))))
                .collect();
            running.into_iter().map(|case| case.join().unwrap()).collect()
        });
        assert!(
            stopped.contains(&true) && stopped.contains(&false),
            "faults stop some rotations: {stopped:?}"
        );
        let (done, said) = block_on(rotate_model(&mut Model::new(Fault::None, 0), 5000));
        assert!(done && !said.contains("waiting"), "{said}");
    }
}

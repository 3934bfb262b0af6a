//! What must hold in every world, whatever happens in it, and who looks whether it does.
//!
//! A [`Watch`] lets time pass and shows each [`Checker`] the world at short intervals. Checkers know the
//! protocol's promises and nothing of the plan by which a world is disturbed: what they need to know
//! about it (who is up, since when the network is calm) they read off the world itself. That each of
//! them bites is proven in `sim/tests/sim/checkers.rs`, by a planted bug ([`super::fault`]).

mod bounds;
mod clocks;
mod events;
mod lasting;
mod members;
mod rotation;
mod secrecy;
mod stored;

pub use bounds::WithinBounds;
pub use clocks::NeverBack;
pub use events::ExactlyOnce;
pub use members::{DeadFail, LivingStay, ViewsAgree};
pub use rotation::QuietRotation;
pub use secrecy::Sealed;
pub use stored::{HandledOnce, KeepsWord, Recorded};

use std::sync::Arc;
use std::time::Duration;

use super::Power;
pub use super::patience::Patience;
use super::traffic::Tapped;
use super::{HostId, World};
use fyrd_core::serf::{Member, MemberStatus};
use fyrd_core::time::Time;

/// How often the world is looked at.
const GLANCE: Duration = Duration::from_millis(500);

/// Every how many glances whole member lists are compared, which costs more.
const VIEWS_EVERY: u32 = 6;

/// After this many findings nothing more is collected: the first tells the most.
const FINDINGS_MAX: usize = 8;

/// What is known of one host, from outside.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its life; grows with each start.
    pub life: u32,
    /// Whether it runs.
    pub power: Power,
    /// When that life was first seen.
    pub born: Time,
    /// Since when it runs, or does not.
    pub since: Time,
    /// Whether it was asked to leave in this life, or in the last one if it is down.
    pub departed: bool,
}

/// The world at one moment, as checkers see it.
#[derive(Debug)]
pub struct Sight<'a> {
    /// The world.
    pub world: &'a World,
    /// The present.
    pub now: Time,
    /// How long things may take.
    pub patience: Patience,
    /// Each host's standing, by its number.
    pub standings: &'a [Standing],
    /// Since when the network has been calm, with no host frozen.
    pub calm_since: Option<Time>,
    /// What every host that is up believes, by its number; only now and then.
    pub views: Option<&'a [Option<Vec<Arc<Member>>>]>,
    /// What was sent since the last glance, if the world is tapped.
    pub packets: &'a [Tapped],
    /// How many suspicions began at each host since the last glance.
    pub suspicions: &'a [u64],
}

impl Sight<'_> {
    /// For how long the network has been calm.
    pub fn calm_for(&self) -> Duration {
        self.calm_since
            .map_or(Duration::ZERO, |since| self.now.since(since))
    }

    /// The hosts that are up and have not left.
    pub fn citizens(&self) -> impl Iterator<Item = HostId> {
        let is_citizen =
            |(_, standing): &(usize, &Standing)| standing.power == Power::Up && !standing.departed;
        let standings = self.standings.iter().enumerate();
        standings.filter(is_citizen).map(|(index, _)| HostId(index))
    }

    /// A host's standing.
    pub fn standing(&self, id: HostId) -> Standing {
        self.standings[id.0]
    }

    /// A host's name.
    pub fn name(&self, id: HostId) -> &str {
        self.world.host(id).name()
    }
}

/// Looks after one promise.
pub trait Checker: std::fmt::Debug {
    /// The promise, in a few words.
    fn promise(&self) -> &'static str;

    /// Looks at the world; tells of what must not be.
    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>);

    /// Whether something is still on its way to what it must become. A world may only end its run
    /// when nothing is.
    fn is_waiting(&self) -> bool {
        false
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When it was noticed.
    pub at: Time,
    /// Which promise.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = Duration::from_nanos(self.at.as_nanos()).as_secs_f64();
        write!(
            f,
            "at {seconds:.3} s, against \"{}\": {}",
            self.promise, self.what
        )
    }
}

/// Lets time pass under the eyes of all checkers.
#[derive(Debug)]
pub struct Watch {
    checkers: Vec<Box<dyn Checker>>,
    standings: Vec<Standing>,
    calm_since: Option<Time>,
    glances: u32,
    findings: Vec<Finding>,
}

impl Watch {
    /// All promises that any world must keep.
    pub fn all() -> Self {
        Watch::with(vec![
            Box::new(LivingStay::default()),
            Box::new(DeadFail::default()),
            Box::new(ViewsAgree::default()),
            Box::new(ExactlyOnce::default()),
            Box::new(NeverBack::default()),
            Box::new(WithinBounds::default()),
            Box::new(QuietRotation::default()),
            Box::new(KeepsWord::default()),
            Box::new(HandledOnce::default()),
            Box::new(Recorded::default()),
        ])
    }

    /// These promises.
    pub fn with(checkers: Vec<Box<dyn Checker>>) -> Self {
        Watch {
            checkers,
            standings: Vec::new(),
            calm_since: None,
            glances: 0,
            findings: Vec::new(),
        }
    }

    /// One promise more.
    pub fn add(&mut self, checker: impl Checker + 'static) {
        self.checkers.push(Box::new(checker));
    }

    /// What was found so far.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether any checker still waits for something to become what it must.
    pub fn is_waiting(&self) -> bool {
        self.checkers.iter().any(|checker| checker.is_waiting())
    }

    /// Lets time pass.
    pub fn run_for(&mut self, world: &mut World, duration: Duration) {
        let end = world.now() + duration;
        while world.now() < end {
            world.run_for(GLANCE.min(end.since(world.now())));
            self.look(world);
        }
    }

    /// Looks at the world now. Call it before anything is done to a host between two runs.
    pub fn look(&mut self, world: &mut World) {
        let packets = world.tapped();
        let suspicions = world.take_suspicions();
        self.update(world);
        self.glances += 1;
        let views: Option<Vec<_>> = self.glances.is_multiple_of(VIEWS_EVERY).then(|| {
            let view = |id: HostId| match world.host(id).power() {
                Power::Up => world.host(id).node().map(|node| node.members()),
                _ => None,
            };
            world.hosts().map(view).collect()
        });
        let sight = Sight {
            world,
            now: world.now(),
            patience: Patience::of(&world.config.profile, self.standings.len()),
            standings: &self.standings,
            calm_since: self.calm_since,
            views: views.as_deref(),
            packets: &packets,
            suspicions: &suspicions,
        };
        for checker in &mut self.checkers {
            let mut report = Vec::new();
            checker.look(&sight, &mut report);
            let promise = checker.promise();
            let findings = report.into_iter().map(|what| Finding {
                at: sight.now,
                promise,
                what,
            });
            let room = FINDINGS_MAX.saturating_sub(self.findings.len());
            self.findings.extend(findings.take(room));
        }
    }

    fn update(&mut self, world: &World) {
        let now = world.now();
        for id in world.hosts() {
            let host = world.host(id);
            let own = host.status_of(host.name());
            let is_leaving = matches!(own, Some(MemberStatus::Leaving | MemberStatus::Left));
            let fresh = Standing {
                life: host.life,
                power: host.power(),
                born: now,
                since: now,
                departed: is_leaving,
            };
            match self.standings.get_mut(id.0) {
                None => self.standings.push(fresh),
                Some(known) => {
                    let stays_departed =
                        known.departed && (fresh.power == Power::Down || known.life == fresh.life);
                    if known.life != fresh.life {
                        *known = fresh;
                    } else if known.power != fresh.power {
                        (known.power, known.since) = (fresh.power, now);
                    }
                    known.departed = fresh.departed || stays_departed;
                }
            }
        }
        let is_frozen = |standing: &Standing| standing.power == Power::Frozen;
        let is_blocked = |id| world.host(id).is_blocked();
        if !world.links.is_calm() || self.standings.iter().any(is_frozen) || world.hosts().any(is_blocked) {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
    }
}

impl World {
    /// How many suspicions began at each host since the last call.
    fn take_suspicions(&mut self) -> Vec<u64> {
        let measured = |host: &mut super::host::Host| {
            let node = host.node.as_mut();
            node.map_or(0, |node| node.take_measures().0.suspect)
        };
        self.hosts.iter_mut().map(measured).collect()
    }
}

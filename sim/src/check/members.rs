//! Who is there: the living stay, the dead fail, and all say the same.

use std::sync::Arc;

use super::lasting::Lasting;
use super::{Checker, Sight, Standing};
use crate::HostId;
use crate::Power;
use fyrd_core::serf::{Member, MemberStatus};

/// A living, connected node is not failed for good anywhere.
#[derive(Debug, Default)]
pub struct LivingStay {
    missing: Lasting<(HostId, HostId)>,
}

/// A dead node has failed, or left, everywhere within the bound.
#[derive(Debug, Default)]
pub struct DeadFail {
    alive: Lasting<(HostId, HostId)>,
}

/// All say the same about everybody who is there.
#[derive(Debug, Default)]
pub struct ViewsAgree {
    wrong: Lasting<(HostId, HostId)>,
}

fn find<'a>(view: &'a [Arc<Member>], name: &str) -> Option<&'a Member> {
    let place = view.binary_search_by(|member| (*member.name).cmp(name)).ok()?;
    view.get(place).map(|member| &**member)
}

/// What every citizen believes of each of these hosts.
fn beliefs<'a>(
    sight: &'a Sight<'a>,
    subjects: &'a [HostId],
) -> impl Iterator<Item = (HostId, HostId, Option<&'a Member>)> {
    let citizens = sight.citizens().filter_map(|observer| {
        let view = sight.views?.get(observer.0)?.as_ref()?;
        Some((observer, view))
    });
    citizens.flat_map(move |(observer, view)| {
        let believed = move |&subject: &HostId| (observer, subject, find(view, sight.name(subject)));
        subjects.iter().map(believed)
    })
}

impl Checker for LivingStay {
    fn promise(&self) -> &'static str {
        "a living, connected node is not failed for good anywhere"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        if sight.calm_since.is_none() {
            return self.missing.clear();
        }
        if sight.views.is_none() {
            return;
        }
        let citizens: Vec<HostId> = sight.citizens().collect();
        for (observer, subject, member) in beliefs(sight, &citizens) {
            if member.is_none_or(|member| member.status != MemberStatus::Alive) {
                self.missing.note((observer, subject));
            }
        }
        for (observer, subject) in self.missing.end_glance(sight.now, sight.patience.recover) {
            let status = sight.world.host(observer).status_of(sight.name(subject));
            report.push(format!(
                "{} sees {} as {status:?}, {:?} after the network became calm",
                sight.name(observer),
                sight.name(subject),
                sight.calm_for()
            ));
        }
    }

    fn is_waiting(&self) -> bool {
        self.missing.is_waiting()
    }
}

impl Checker for DeadFail {
    fn promise(&self) -> &'static str {
        "a dead node is failed everywhere within the bound"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        if sight.calm_since.is_none() {
            return self.alive.clear();
        }
        if sight.views.is_none() {
            return;
        }
        let is_down = |standing: &Standing| standing.power == Power::Down;
        let dead: Vec<HostId> = sight
            .world
            .hosts()
            .filter(|&id| is_down(&sight.standing(id)))
            .collect();
        for (observer, subject, member) in beliefs(sight, &dead) {
            let gone = |member: &Member| matches!(member.status, MemberStatus::Failed | MemberStatus::Left);
            if member.is_some_and(|member| !gone(member)) {
                self.alive.note((observer, subject));
            }
        }
        for (observer, subject) in self.alive.end_glance(sight.now, sight.patience.detect) {
            report.push(format!(
                "{} sees {} as {:?}, which has been down for {:?}",
                sight.name(observer),
                sight.name(subject),
                sight.world.host(observer).status_of(sight.name(subject)),
                sight.now.since(sight.standing(subject).since)
            ));
        }
    }

    fn is_waiting(&self) -> bool {
        self.alive.is_waiting()
    }
}

impl Checker for ViewsAgree {
    fn promise(&self) -> &'static str {
        "all views agree once the network is whole"
    }

    fn look(&mut self, sight: &Sight<'_>, report: &mut Vec<String>) {
        if sight.calm_since.is_none() {
            return self.wrong.clear();
        }
        let Some(views) = sight.views else { return };
        let citizens: Vec<HostId> = sight.citizens().collect();
        // A node knows best about itself, so whoever says something else is wrong. A member that is not
        // believed to be there is none of this checker's business.
        for (observer, subject, member) in beliefs(sight, &citizens) {
            let own = views
                .get(subject.0)
                .and_then(|view| find(view.as_ref()?, sight.name(subject)));
            let (Some(own), Some(member)) =
                (own, member.filter(|member| member.status == MemberStatus::Alive))
            else {
                continue;
            };
            if own != member {
                self.wrong.note((observer, subject));
            }
        }
        for (observer, subject) in self.wrong.end_glance(sight.now, sight.patience.spread) {
            let view = views
                .get(observer.0)
                .and_then(|view| find(view.as_ref()?, sight.name(subject)));
            report.push(format!("{} still believes {view:?}", sight.name(observer)));
        }
    }

    fn is_waiting(&self) -> bool {
        self.wrong.is_waiting()
    }
}

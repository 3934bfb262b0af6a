//! The graceful leave: say that we go, say that we are gone, give it time to spread
//! (docs/protocol.md#b6-intents).
//!
//! It always completes. A broadcast that nobody takes up only costs its time-out.

use tracing::warn;

use super::{Answer, CommandId, Node};
use crate::swim::queue::Token;
use crate::time::Time;

/// A leave under way.
#[derive(Debug)]
pub(super) struct Leave {
    commands: Vec<CommandId>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The leave intent is being broadcast.
    Intent { token: Option<Token>, deadline: Time },
    /// Our own death is being broadcast.
    Death { token: Option<Token>, deadline: Time },
    /// All is said; it spreads on.
    Spreading { until: Time },
    /// The leave is over; the process is about to end.
    Over,
}

impl Leave {
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Intent { deadline, .. } | Stage::Death { deadline, .. } => Some(deadline),
            Stage::Spreading { until } => Some(until),
            Stage::Over => None,
        }
    }
}

impl Node {
    pub(super) fn begin_leave(&mut self, now: Time, command: CommandId) {
        if let Some(leave) = &mut self.leave {
            match leave.stage {
                Stage::Over => self.answer(command, Answer::Done),
                _ => leave.commands.push(command),
            }
            return;
        }
        self.hold.leave();
        let token = self.token();
        let heard = self.serf.begin_leave(now, token);
        let deadline = now + self.config.profile.serf.broadcast_timeout;
        let stage = Stage::Intent {
            token: heard.then_some(token),
            deadline,
        };
        self.leave = Some(Leave {
            commands: vec![command],
            stage,
        });
    }

    pub(super) fn continue_leave(&mut self, now: Time, finished: &[Token]) {
        let ended = |token: &Option<Token>| token.is_none_or(|token| finished.contains(&token));
        loop {
            let Some(leave) = &mut self.leave else { return };
            match &leave.stage {
                Stage::Intent { token, deadline } if ended(token) || *deadline <= now => {
                    if !ended(token) {
                        warn!(target: "serf", "timeout while waiting for graceful leave");
                    }
                    let token = self.token();
                    let heard = self.swim.has_peers();
                    self.swim.leave(now, token, &mut self.serf);
                    let deadline = now + self.config.profile.serf.broadcast_timeout;
                    self.set_stage(Stage::Death {
                        token: heard.then_some(token),
                        deadline,
                    });
                }
                Stage::Death { token, deadline } if ended(token) || *deadline <= now => {
                    if !ended(token) {
                        warn!(target: "serf", "timeout waiting for leave broadcast");
                    }
                    let until = now + self.config.profile.serf.leave_propagate_delay;
                    self.set_stage(Stage::Spreading { until });
                }
                Stage::Spreading { until } if *until <= now => {
                    let commands = std::mem::take(&mut leave.commands);
                    leave.stage = Stage::Over;
                    for command in commands {
                        self.answer(command, Answer::Done);
                    }
                }
                _ => return,
            }
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(leave) = &mut self.leave {
            leave.stage = stage;
        }
    }
}

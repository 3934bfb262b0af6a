//! Whole clusters in the simulator.

mod campaign;
mod checkers;
mod evidence;
mod hostile;
mod islands;
mod membership;
mod memory;
mod moves;
mod repair;
mod replay;
mod serf;
mod silence;
mod soak;
mod spread;
mod stalls;
mod trouble;
mod weaknesses;

//! `rtt`: the round trip time between two nodes, estimated from their network coordinates.

use std::ffi::OsString;

use clap::Command;

use super::{Failure, Terminal, flags, rpc};
use crate::go;
use crate::go::printable::word;
use crate::rpc::types::Coordinate;

pub(super) fn define() -> Command {
    Command::new("rtt")
        .about("Estimates the round trip time between nodes")
        .long_about(
            "Estimates the round trip time between two nodes from their network coordinates, without sending \
             anything to them.\n\n\
             The names are those that the members command shows. Without a second name it is the agent's own.",
        )
        .override_usage("rtt [options] node1 [node2]")
        .args(rpc::arguments())
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        let names = match flags.words() {
            [first] => {
                let mut stats = client
                    .stats()
                    .await
                    .map_err(rpc::failed("Error querying agent"))?;
                let own = stats.remove("agent").and_then(|mut agent| agent.remove("name"));
                [rpc::text_word(first)?, own.unwrap_or_default()]
            }
            [first, second] => [rpc::text_word(first)?, rpc::text_word(second)?],
            _ => return Err(Failure::Usage(Some("One or two node names must be specified"))),
        };
        let mut found = Vec::new();
        for name in &names {
            let coordinate = client.get_coordinate(name.clone()).await;
            let coordinate = coordinate.map_err(rpc::failed("Error getting coordinates"))?;
            found.push(coordinate.ok_or_else(|| unknown(name))?);
        }
        let [first, second] = &names;
        let rtt = match found.as_slice() {
            [from, to] => estimate_ms(from, to),
            _ => None,
        };
        let rtt = rtt.ok_or_else(|| {
            Failure::Error(format!(
                "Error getting coordinates: {first} and {second} differ in dimension"
            ))
        })?;
        terminal.line(format!(
            "Estimated {} <-> {} rtt: {rtt:.3} ms",
            word(first),
            word(second)
        ));
        Ok(())
    })
}

fn unknown(name: &str) -> Failure {
    Failure::Error(format!(
        "Could not find a coordinate for node {}",
        go::quote(name)
    ))
}

/// Distance of the Euclidean parts plus both heights; plus both adjustments, if that stays positive.
/// Cut to whole nanoseconds. `None` when the coordinates have different dimensions.
fn estimate_ms(from: &Coordinate, to: &Coordinate) -> Option<f64> {
    if from.vec.len() != to.vec.len() {
        return None;
    }
    let squares: f64 = from.vec.iter().zip(&to.vec).map(|(a, b)| (a - b) * (a - b)).sum();
    let raw = squares.sqrt() + from.height + to.height;
    let adjusted = raw + from.adjustment + to.adjustment;
    let seconds = if adjusted > 0.0 { adjusted } else { raw };
    Some((seconds * 1e9).trunc() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinate(vec: &[f64], height: f64, adjustment: f64) -> Coordinate {
        Coordinate {
            vec: vec.to_vec(),
            height,
            adjustment,
            error: 1.0,
        }
    }

    #[test]
    fn estimates() {
        let a = coordinate(&[0.003, 0.0], 0.001, 0.0005);
        let cases = [
            (coordinate(&[0.0, 0.004], 0.001, 0.0), Some(7.5)),
            (coordinate(&[0.003, 0.0], 0.0, -0.0015), Some(1.0)),
            (coordinate(&[0.003, 0.0], 0.0, -0.0010), Some(0.5)),
            (coordinate(&[0.003], 0.0, 0.0), None),
        ];
        for (b, expected) in cases {
            match (estimate_ms(&a, &b), expected) {
                (Some(ms), Some(expected)) => assert!((ms - expected).abs() < 1e-5, "{ms} for {expected}"),
                (ms, expected) => assert_eq!(ms, expected),
            }
        }
    }
}

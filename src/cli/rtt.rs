//! `rtt`: the round trip time between two nodes, estimated from their network coordinates.

use std::ffi::OsString;

use clap::Command;
use serde::Serialize;

use super::info::Format;
use super::{Failure, Terminal, flags, rpc, table};
use crate::go;
use crate::go::printable::word;
use crate::rpc::client::Client;
use crate::rpc::types::Coordinate;

pub(super) fn define() -> Command {
    Command::new("rtt")
        .about("Estimates the round trip time between nodes")
        .long_about(
            "Estimates the round trip time between two nodes from their network coordinates, without sending \
             anything to them.\n\n\
             The names are those that the members command shows. Without a second name it is the agent's own.",
        )
        .override_usage("rtt [options] node1 [node2]\n       rtt -all [options] [node]")
        .args([
            flags::boolean(
                "all",
                "The times from one node, the agent's own if none is named, to all living members, the shortest first.",
            ),
            Format::argument(),
        ])
        .args(rpc::arguments())
}

/// An estimate as JSON.
#[derive(Serialize)]
struct Estimate<'a> {
    from: &'a str,
    to: &'a str,
    /// None for a member of which no coordinate is known.
    rtt_ms: Option<f64>,
}

async fn own_name(client: &mut Client) -> Result<String, Failure> {
    let stats = client.stats().await;
    let mut stats = stats.map_err(rpc::failed("Error querying agent"))?;
    let own = stats.remove("agent").and_then(|mut agent| agent.remove("name"));
    Ok(own.unwrap_or_default())
}

async fn coordinate_of(client: &mut Client, name: &str) -> Result<Option<Coordinate>, Failure> {
    let coordinate = client.get_coordinate(name.to_owned()).await;
    coordinate.map_err(rpc::failed("Error getting coordinates"))
}

/// The times from one node to all others that live.
async fn to_all(
    terminal: &mut Terminal<'_>,
    client: &mut Client,
    words: &[OsString],
    format: Format,
) -> Result<(), Failure> {
    let from = match words {
        [] => own_name(client).await?,
        [name] => rpc::text_word(name)?,
        _ => return Err(Failure::Usage(Some("With -all, one node name can be specified"))),
    };
    let own = coordinate_of(client, &from)
        .await?
        .ok_or_else(|| unknown(&from))?;
    let members = client.members().await;
    let members = members.map_err(rpc::failed("Error getting members"))?;
    let others = members
        .iter()
        .filter(|member| member.status == "alive" && member.name != from);
    let mut estimates = Vec::new();
    for member in others {
        let coordinate = coordinate_of(client, &member.name).await?;
        let rtt_ms = coordinate.and_then(|to| estimate_ms(&own, &to));
        estimates.push(Estimate {
            from: &from,
            to: &member.name,
            rtt_ms,
        });
    }
    // Whose time is not known comes last.
    estimates.sort_by(|a, b| {
        let key = |estimate: &Estimate<'_>| estimate.rtt_ms.unwrap_or(f64::INFINITY);
        key(a).total_cmp(&key(b)).then_with(|| a.to.cmp(b.to))
    });
    format.print(terminal, &estimates, || {
        let rows: Vec<String> = estimates.iter().map(row).collect();
        table::columns(&rows)
    })
}

fn row(estimate: &Estimate<'_>) -> String {
    match estimate.rtt_ms {
        Some(rtt) => format!("{}|{rtt:.3} ms", word(estimate.to)),
        None => format!("{}|unknown", word(estimate.to)),
    }
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    let format = Format::of(&flags)?;
    rpc::with_agent(&flags, terminal, async |terminal, mut client| {
        if flags.is_set("all") {
            return to_all(terminal, &mut client, flags.words(), format).await;
        }
        let names = match flags.words() {
            [first] => [rpc::text_word(first)?, own_name(&mut client).await?],
            [first, second] => [rpc::text_word(first)?, rpc::text_word(second)?],
            _ => return Err(Failure::Usage(Some("One or two node names must be specified"))),
        };
        let mut found = Vec::new();
        for name in &names {
            let coordinate = coordinate_of(&mut client, name).await?;
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
        let estimate = Estimate {
            from: first,
            to: second,
            rtt_ms: Some(rtt),
        };
        format.print(terminal, &estimate, || {
            format!("Estimated {} <-> {} rtt: {rtt:.3} ms", word(first), word(second))
        })
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

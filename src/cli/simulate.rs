//! `simulate`: a cluster tried out in a simulated network, before anything is rolled out.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use clap::Command;

use super::info::Format;
use super::{Failure, Terminal, flags};
use crate::agent::files::read_profile;
use crate::go;
use fyrd_core::bounds::SIMULATED_NODES_MAX;
use fyrd_core::envelope::Envelope;
use fyrd_core::node::limits;
use fyrd_sim::quantiles::Quantiles;
use fyrd_sim::trial::{Network, Progress, Report, Traffic, Trial};

/// How often the progress bar moves.
const REDRAW: Duration = Duration::from_millis(200);
const BAR: usize = 30;
/// More would take longer than anybody waits, and tell no more.
const EVENTS_MAX: i64 = 10_000;
/// A network that loses more is none.
const LOSS_MAX: f64 = 0.9;

pub(super) fn define() -> Command {
    Command::new("simulate")
        .about("Tries a cluster out in a simulated network")
        .long_about(
            "Runs a whole cluster in this process, on a simulated network and in simulated time, with the same \
             protocol code that the agent runs, and tells how it fared: how long it took to form, how fast user \
             events spread, when crashed nodes were noticed, whether living ones were taken for dead, and what a \
             node sends.\n\n\
             The same options with the same seed always give the same figures. To try a profile of your own \
             before rolling it out, give its file: -profile=FILE.toml.",
        )
        .override_usage("simulate [options]")
        .args([
            flags::integer("nodes", "100", "How many nodes, from 2 to 10,000."),
            flags::string(
                "profile",
                "lan",
                "The nodes' timing: lan, wan, local, or a file that ends in .toml, as for the agent.",
            ),
            flags::string(
                "network",
                "lan",
                "Where the nodes stand: 'lan' (under a millisecond apart), 'wan' (20 to 60 ms) or 'regions' \
                 (three, 40 to 115 ms apart). Default: wan with the profile wan, lan otherwise.",
            ),
            flags::string("label", "", "The nodes' label, as for the agent; it takes room in every packet."),
            flags::string("loss", "0", "The share of datagrams that is lost, from 0 to 0.9."),
            flags::integer("kill", "0", "How many nodes crash, all at once; at least one has to stay."),
            flags::integer("events", "0", "How many user events are sent, ten a second, up to 10,000."),
            flags::integer("seed", "1", "The seed of all randomness, not below 0."),
            Format::argument(),
        ])
}

pub(super) fn run(terminal: &mut Terminal<'_>, words: &[OsString]) -> Result<(), Failure> {
    let flags = flags::parse(define(), words)?;
    if let Some(word) = flags.words().first() {
        let word = go::quote(&word.to_string_lossy());
        return Err(Failure::Error(format!("Unexpected argument: {word}")));
    }
    // A wrong format is told before the work, not after it.
    let format = Format::of(&flags)?;
    let trial = trial(&flags).map_err(Failure::Error)?;
    let mut bar = terminal.takes_hints().then(Bar::default);
    let report = trial.run(&mut |progress| {
        if let Some(bar) = &mut bar {
            bar.draw(terminal, progress);
        }
    });
    if let Some(bar) = bar {
        bar.wipe(terminal);
    }
    format.print(terminal, &report, || text(&report))?;
    Ok(())
}

fn trial(flags: &flags::Flags) -> Result<Trial, String> {
    let number = |name: &str, usual: i64, least: i64, most: i64| {
        let value = flags.integer(name).unwrap_or(usual);
        if (least..=most).contains(&value) {
            Ok(value.unsigned_abs())
        } else {
            Err(format!("Invalid -{name}={value}: must be from {least} to {most}"))
        }
    };
    let nodes_max = i64::try_from(SIMULATED_NODES_MAX).unwrap_or(i64::MAX);
    let nodes = number("nodes", 100, 2, nodes_max)?;
    let kill = number("kill", 0, 0, i64::MAX)?;
    if kill >= nodes {
        return Err(format!(
            "Invalid -kill={kill}: at least one of the {nodes} nodes has to stay"
        ));
    }
    let profile = read_profile(flags.string("profile").unwrap_or("lan"))?;
    let usual = if profile.name == "wan" { "wan" } else { "lan" };
    let network = match flags.string("network").unwrap_or(usual) {
        "lan" => Network::Lan,
        "wan" => Network::Wan,
        "regions" => Network::Regions,
        other => {
            let other = go::quote(other);
            return Err(format!("Invalid -network={other}: must be lan, wan or regions"));
        }
    };
    let label = flags.string("label").unwrap_or_default();
    let overhead = Envelope::new(None, label.as_bytes().to_vec(), false).label_overhead();
    let checked = limits::check_label(label).and_then(|()| profile.check_label(overhead));
    checked.map_err(|reason| format!("Invalid -label={}: {reason}", go::quote(label)))?;
    let text = flags.string("loss").unwrap_or("0");
    let loss = text
        .parse::<f64>()
        .ok()
        .filter(|loss| (0.0..=LOSS_MAX).contains(loss));
    Ok(Trial {
        nodes: nodes as usize,
        profile,
        network,
        label: label.to_owned(),
        loss: loss.ok_or_else(|| {
            format!(
                "Invalid -loss={}: must be a share from 0 to {LOSS_MAX}, such as 0.02",
                go::quote(text)
            )
        })?,
        kill: kill as usize,
        events: number("events", 0, 0, EVENTS_MAX)? as usize,
        seed: number("seed", 1, 0, i64::MAX)?,
    })
}

/// A bar that is drawn over itself.
#[derive(Default)]
struct Bar {
    drawn: Option<(Instant, &'static str)>,
}

impl Bar {
    fn draw(&mut self, terminal: &mut Terminal<'_>, progress: Progress) {
        let same = |(at, phase): (Instant, &str)| at.elapsed() < REDRAW && phase == progress.phase;
        if self.drawn.is_some_and(same) {
            return;
        }
        self.drawn = Some((Instant::now(), progress.phase));
        let full = (progress.done * BAR as f64) as usize;
        let (full, rest) = ("#".repeat(full), "-".repeat(BAR.saturating_sub(full)));
        terminal.help(&format!(
            "\r[{full}{rest}] {:3.0} % {:<20}",
            progress.done * 100.0,
            progress.phase
        ));
    }

    fn wipe(self, terminal: &mut Terminal<'_>) {
        if self.drawn.is_some() {
            terminal.help(&format!("\r{:width$}\r", "", width = BAR + 30));
        }
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!(
        "{} nodes, profile {}, network {}, {} % loss, seed {}; {:.0} s of simulated time",
        report.nodes,
        report.profile,
        match report.network {
            Network::Lan => "lan",
            Network::Wan => "wan",
            Network::Regions => "regions",
        },
        (report.loss * 1e4).round() / 1e2,
        report.seed,
        report.simulated_s,
    )];
    lines.push(match report.formed_s {
        Some(seconds) => format!("\nFormed: every node saw every other after {seconds:.2} s"),
        None => "\nFormed: not within the time that the profile allows".to_owned(),
    });
    let events = &report.events;
    if events.sent > 0 {
        lines.push(format!(
            "\nEvents: {} sent, {} did not reach every node",
            events.sent, events.incomplete
        ));
        lines.push(percentiles("to each node", &events.delay_s));
        lines.push(percentiles("to the last node", &events.everywhere_s));
    }
    let detection = &report.detection;
    if detection.killed > 0 {
        lines.push(format!(
            "\nCrashes: {} nodes, {} not noticed everywhere in time",
            detection.killed, detection.undetected
        ));
        lines.push(percentiles("noticed by the first", &detection.first_s));
        lines.push(percentiles("known to the last", &detection.everywhere_s));
    }
    let mistakes = report.false_positives;
    lines.push(format!(
        "\nFalse positives: {} times a living node was taken for dead, {} different ones",
        mistakes.events, mistakes.nodes
    ));
    lines.push("\nA node sends, each second".to_owned());
    lines.push(traffic("at rest", report.rest));
    lines.push(traffic("over the whole time", report.whole));
    lines.join("\n")
}

fn percentiles(what: &str, quantiles: &Quantiles) -> String {
    let Quantiles {
        p50, p90, p99, max, ..
    } = quantiles;
    format!("  {what:<22} median {p50:.2} s, 90 % {p90:.2} s, 99 % {p99:.2} s, all {max:.2} s")
}

fn traffic(when: &str, traffic: Traffic) -> String {
    format!(
        "  {when:<22} {:.1} datagrams, {:.0} bytes in them, {:.0} bytes in streams",
        traffic.datagrams_per_s, traffic.datagram_bytes_per_s, traffic.stream_bytes_per_s
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulate(words: &[&str]) -> (Result<(), Failure>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let result = run(&mut Terminal::new("fyrd".into(), &mut out, &mut err), &words);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn bad_values_are_told_with_what_would_be_right() {
        for (words, text) in [
            (&["-nodes=1"][..], "Invalid -nodes=1: must be from 2 to 10000"),
            (&["-nodes=10001"], "Invalid -nodes=10001: must be from 2 to 10000"),
            (
                &["-kill=5", "-nodes=5"],
                "Invalid -kill=5: at least one of the 5 nodes has to stay",
            ),
            (
                &["-kill=-1"],
                "Invalid -kill=-1: must be from 0 to 9223372036854775807",
            ),
            (
                &["-loss=2"],
                "Invalid -loss=\"2\": must be a share from 0 to 0.9, such as 0.02",
            ),
            (
                &["-loss=nan"],
                "Invalid -loss=\"nan\": must be a share from 0 to 0.9, such as 0.02",
            ),
            (
                &["-loss="],
                "Invalid -loss=\"\": must be a share from 0 to 0.9, such as 0.02",
            ),
            (
                &["-events=10001"],
                "Invalid -events=10001: must be from 0 to 10000",
            ),
            (
                &["-label=a\tb"],
                "Invalid -label=\"a\\tb\": label \"a\\tb\" holds a control character, must be visible text",
            ),
            (
                &["-seed=-1"],
                "Invalid -seed=-1: must be from 0 to 9223372036854775807",
            ),
            (
                &["-network=mars"],
                "Invalid -network=\"mars\": must be lan, wan or regions",
            ),
            (
                &["-profile=LAN"],
                "Unknown profile: LAN (there are lan, wan, local, and files that end in .toml)",
            ),
            (&["-format=xml"], "Encoding error: Invalid output format \"xml\""),
            (&["100"], "Unexpected argument: \"100\""),
        ] {
            let (result, out) = simulate(words);
            let Err(Failure::Error(error)) = result else {
                panic!("{words:?}: {result:?}");
            };
            assert_eq!((error.as_str(), out.as_str()), (text, ""), "{words:?}");
        }
        assert!(matches!(simulate(&["-nodes=x"]).0, Err(Failure::Flags(_))));
    }
}

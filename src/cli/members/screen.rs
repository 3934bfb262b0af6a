//! The members as people see them: a header, columns that fit the screen, and colours.

use super::{address, tags};
use crate::go::printable::word;
use crate::rpc::types::Member;

/// Below this width, tags are not broken into lines: they would be columns of letters.
const NARROWEST_TAGS: usize = 20;

/// How members are shown.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Characters of a line, if that is known.
    pub width: Option<usize>,
    /// Whether colours are wanted.
    pub colours: bool,
    /// Whether protocol versions are shown too.
    pub detailed: bool,
}

impl Screen {
    /// The whole table. Nothing in it that members say acts on the terminal.
    pub fn table(self, members: &[Member]) -> String {
        let mut header = vec!["NAME", "ADDRESS", "STATUS"];
        if self.detailed {
            header.push("PROTOCOL");
        }
        let rows: Vec<Vec<String>> = members.iter().map(|member| self.cells(member)).collect();
        let widths: Vec<usize> = (0..header.len())
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column).map(String::as_str));
                cells
                    .chain([header[column]])
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let indent = widths.iter().map(|width| width + 2).sum::<usize>();
        let mut lines = vec![self.line(header.into_iter().map(str::to_owned), &widths, "", "TAGS")];
        for (member, row) in members.iter().zip(rows) {
            let mut parts = self.broken(member, indent).into_iter();
            let first = parts.next().unwrap_or_default();
            lines.push(self.line(row.into_iter(), &widths, colour(&member.status), &first));
            lines.extend(parts.map(|part| format!("{:indent$}{part}", "")));
        }
        lines.join("\n")
    }

    fn cells(self, member: &Member) -> Vec<String> {
        let mut cells = vec![
            word(&member.name).into_owned(),
            address(member),
            word(&member.status).into_owned(),
        ];
        if self.detailed {
            let (current, min, max) = (member.delegate_cur, member.delegate_min, member.delegate_max);
            cells.push(format!("{current} [{min}, {max}]"));
        }
        cells
    }

    fn line(self, cells: impl Iterator<Item = String>, widths: &[usize], colour: &str, last: &str) -> String {
        let mut line = String::new();
        for (column, (cell, width)) in cells.zip(widths).enumerate() {
            let padded = format!("{cell:width$}");
            match (column, colour) {
                (STATUS, colour) if self.colours && !colour.is_empty() => {
                    line.push_str(&format!("{colour}{padded}{PLAIN}  "));
                }
                _ => line.push_str(&format!("{padded}  ")),
            }
        }
        line.push_str(last);
        line.trim_end().to_owned()
    }

    /// The tags in lines that fit; one that is too long has a line of its own, and none is cut.
    fn broken(self, member: &Member, indent: usize) -> Vec<String> {
        let room = self
            .width
            .map_or(usize::MAX, |width| width.saturating_sub(indent));
        let room = if room < NARROWEST_TAGS { usize::MAX } else { room };
        let tags = tags(member);
        let mut lines: Vec<String> = Vec::new();
        for (number, tag) in tags.iter().enumerate() {
            let comma = if number + 1 < tags.len() { "," } else { "" };
            let tag = format!("{}{comma}", word(tag));
            match lines.last_mut() {
                Some(line) if line.chars().count() + tag.chars().count() <= room => line.push_str(&tag),
                _ => lines.push(tag),
            }
        }
        lines
    }
}

/// The place of the status in a row.
const STATUS: usize = 2;

const PLAIN: &str = "\u{1b}[0m";

fn colour(status: &str) -> &'static str {
    match status {
        "alive" => "\u{1b}[32m",
        "leaving" => "\u{1b}[33m",
        "failed" => "\u{1b}[31m",
        "left" => "\u{1b}[2m",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::member;
    use super::*;

    const PLAIN_SCREEN: Screen = Screen {
        width: None,
        colours: false,
        detailed: false,
    };

    #[test]
    fn a_header_and_columns_that_fit() {
        let members = [
            member("n1", &[("dc", "east"), ("role", "web"), ("version", "1.2.3")]),
            member("node\u{1b}[2J", &[]),
        ];
        assert_eq!(
            PLAIN_SCREEN.table(&members),
            "NAME         ADDRESS         STATUS  TAGS\n\
             n1           127.0.0.1:7946  alive   dc=east,role=web,version=1.2.3\n\
             node\\x1b[2J  127.0.0.1:7946  alive"
        );
        let narrow = Screen {
            width: Some(59),
            ..PLAIN_SCREEN
        };
        assert_eq!(
            narrow.table(&members[..1]),
            "NAME  ADDRESS         STATUS  TAGS\n\
             n1    127.0.0.1:7946  alive   dc=east,role=web,\n                              version=1.2.3"
        );
        // Too narrow for columns: the terminal breaks the line.
        let tiny = Screen {
            width: Some(30),
            ..PLAIN_SCREEN
        };
        assert_eq!(tiny.table(&members), PLAIN_SCREEN.table(&members));
        assert_eq!(PLAIN_SCREEN.table(&[]), "NAME  ADDRESS  STATUS  TAGS");
    }

    #[test]
    fn details_and_colours() {
        let screen = Screen {
            colours: true,
            detailed: true,
            ..PLAIN_SCREEN
        };
        assert_eq!(
            screen.table(&[member("n1", &[])]),
            "NAME  ADDRESS         STATUS  PROTOCOL  TAGS\n\
             n1    127.0.0.1:7946  \u{1b}[32malive \u{1b}[0m  5 [2, 5]"
        );
    }
}

//! Whether all nodes of two clusters speak versions that all of them understand
//! (docs/protocol.md#a13-merging-a-pushpull).

/// One node's versions, and whether it is alive.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    /// The node's name, for the error.
    pub name: &'a str,
    /// pmin, pmax, pcur, dmin, dmax, dcur; `None` when it did not say.
    pub vsn: Option<[u8; 6]>,
    /// Only living nodes narrow the common range; all must lie within it.
    pub alive: bool,
}

/// Whether two nodes can be in one cluster: each speaks what the other understands.
pub fn understand(a: &[u8; 6], b: &[u8; 6]) -> bool {
    let speaks = |a: &[u8; 6], b: &[u8; 6]| (b[0]..=b[1]).contains(&a[2]) && (b[3]..=b[4]).contains(&a[5]);
    // Version 0 of memberlist's protocol stands for "not said".
    b[0] != 0 && speaks(a, b) && speaks(b, a)
}

/// Checks every node against the range that all living nodes have in common.
pub fn check<'a>(nodes: impl Iterator<Item = Speaker<'a>> + Clone) -> Result<(), String> {
    let mut ranges = [(0u8, u8::MAX); 2];
    for vsn in nodes
        .clone()
        .filter(|node| node.alive)
        .filter_map(|node| node.vsn)
    {
        for (range, triple) in ranges.iter_mut().zip([[vsn[0], vsn[1]], [vsn[3], vsn[4]]]) {
            *range = (range.0.max(triple[0]), range.1.min(triple[1]));
        }
    }
    for node in nodes {
        let vsn = node.vsn.unwrap_or_default();
        for ((low, high), (current, layer)) in ranges
            .iter()
            .zip([(vsn[2], "protocol"), (vsn[5], "delegate protocol")])
        {
            if current < *low || current > *high {
                return Err(format!(
                    "node '{}' speaks {layer} version {current}, which is outside of [{low}, {high}], the range all living nodes understand",
                    node.name
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERF: [u8; 6] = [1, 5, 2, 2, 5, 5];

    fn node(name: &str, vsn: Option<[u8; 6]>, alive: bool) -> Speaker<'_> {
        Speaker { name, vsn, alive }
    }

    #[test]
    fn two_nodes_understand_each_other_or_not() {
        let table = [
            (SERF, true),
            ([1, 5, 2, 2, 5, 4], true),
            ([2, 2, 2, 5, 5, 5], true),
            ([0, 5, 2, 2, 5, 5], false),
            ([5, 1, 2, 2, 5, 5], false),
            // It speaks what we do not understand, or understands nothing we speak.
            ([1, 9, 9, 2, 5, 5], false),
            ([3, 5, 3, 2, 5, 5], false),
            ([1, 5, 2, 2, 4, 4], false),
            ([1, 5, 2, 0, 0, 0], false),
        ];
        for (vsn, fits) in table {
            assert_eq!(understand(&SERF, &vsn), fits, "{vsn:?}");
        }
    }

    #[test]
    fn a_common_range_must_hold_every_node() {
        let table: [(&[Speaker<'_>], bool); 6] = [
            (&[node("a", Some(SERF), true), node("b", Some(SERF), true)], true),
            (
                &[
                    node("a", Some(SERF), true),
                    node("b", Some([1, 5, 2, 2, 5, 4]), true),
                ],
                true,
            ),
            // One that understands only an older range.
            (
                &[
                    node("a", Some(SERF), true),
                    node("b", Some([1, 5, 2, 2, 4, 4]), true),
                ],
                false,
            ),
            // A dead one does not narrow the range, but must lie within it.
            (
                &[
                    node("a", Some(SERF), true),
                    node("b", Some([1, 5, 2, 2, 4, 4]), false),
                ],
                true,
            ),
            (
                &[
                    node("a", Some(SERF), true),
                    node("b", Some([1, 5, 9, 2, 5, 5]), false),
                ],
                false,
            ),
            // One that did not say counts as version 0.
            (&[node("a", Some(SERF), true), node("b", None, false)], false),
        ];
        for (i, (nodes, fits)) in table.iter().enumerate() {
            assert_eq!(check(nodes.iter().copied()).is_ok(), *fits, "row {i}");
        }
    }
}

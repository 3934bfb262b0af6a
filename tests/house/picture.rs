//! The picture of the house: crates and rooms, their order, and that nothing goes round in a circle.
//!
//! A room is a module at the top of a crate. Modules beside each other, with all that is in them, must not
//! use each other in a circle. A module and those inside it may: the outer one is their door.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::circles::circles;
use crate::sources::{House, Place};

/// The crates, and their roots.
const CRATES: [(&str, &str); 5] = [
    ("main", "src/main.rs"),
    ("fyrd", "src/lib.rs"),
    ("fyrd_sim", "sim/src/lib.rs"),
    ("fyrd_core", "core/src/lib.rs"),
    ("fyrd_keys", "keys/src/lib.rs"),
];

/// The order of crates and rooms: each uses only what stands below it. Who is not listed stands below all.
const ORDER: [&str; 17] = [
    "main",
    "fyrd::cli",
    "fyrd::agent",
    "fyrd::http",
    "fyrd::rpc",
    "fyrd::templates",
    "fyrd::events",
    "fyrd::driver",
    "fyrd::snapshot",
    "fyrd_sim",
    "fyrd::go",
    "fyrd_core::node",
    "fyrd_core::serf",
    "fyrd_core::swim",
    "fyrd_core::envelope",
    "fyrd_core::wire",
    "fyrd_core::msgpack",
];

#[test]
fn no_modules_use_each_other_in_a_circle() {
    assert_eq!(circles_in(&house()), [""; 0]);
}

#[test]
fn every_arrow_points_down() {
    let upward = upward_in(&house());
    assert!(upward.is_empty(), "{upward:#?}");
}

/// The design draws a line of rooms for each crate.
#[test]
fn the_design_shows_this_picture() {
    let design = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/design.md");
    let design = std::fs::read_to_string(design).expect("the design");
    for name in ["fyrd", "fyrd_core"] {
        let rooms = ORDER.iter().filter_map(|listed| listed.split_once("::"));
        let rooms = rooms.filter(|(of, _)| *of == name).map(|(_, room)| room);
        let line = rooms.collect::<Vec<_>>().join(" -> ");
        assert!(design.contains(&line), "the design does not show: {line}");
    }
}

#[test]
fn planted_circles_and_upward_arrows_are_noticed() {
    let house_of = |core: &str, shell: &str| {
        let mut house = House::default();
        house.add_text("fyrd_core", core);
        house.add_text("fyrd", shell);
        house
    };
    let circles_of = |core: &str| circles_in(&house_of(core, ""));
    assert_eq!(
        circles_of("mod a { use crate::b::B; } mod b { pub struct B; }"),
        [""; 0]
    );
    let circle = ["fyrd_core::a fyrd_core::b"];
    for (a, b) in [
        ("use crate::b::B;", "pub struct B; fn f(_: crate::a::A) {}"),
        ("use super::b as c;", "fn f() { println!(\"{}\", crate::a::A); }"),
        // By way of what another module shows of them, and out of an inner one.
        ("use crate::B;", "use super::c::A; pub struct B;"),
        ("mod d { use crate::b::B; }", "use crate::a;"),
    ] {
        let core = format!(
            "pub use b::B; mod a {{ pub struct A; {a} }} mod b {{ {b} }} mod c {{ pub use crate::a::A; }}"
        );
        assert_eq!(circles_of(&core), circle, "{core}");
    }
    // Tests may use what they like, and a module and what is in it belong together.
    let core = "mod a { mod d { use super::A; } use d::D; } mod b { #[cfg(test)] mod t { use crate::a; } \
                use crate::c; } mod c { #[test] fn f() { crate::b::f(); } }";
    assert_eq!(circles_of(core), [""; 0]);

    let upward = |core: &str, shell: &str| upward_in(&house_of(core, shell));
    assert_eq!(upward("mod wire {}", "mod cli { use fyrd_core::wire; }"), [""; 0]);
    assert_eq!(
        upward("mod wire { use crate::swim; } mod swim {}", ""),
        ["fyrd_core::wire -> fyrd_core::swim"]
    );
    assert_eq!(
        upward("", "mod rpc { fn f() { crate::cli::f(); } } mod cli {}"),
        ["fyrd::rpc -> fyrd::cli"]
    );
    assert_eq!(
        upward("", "mod new { use super::agent; } mod agent {}"),
        ["fyrd::new -> fyrd::agent"]
    );
}

fn house() -> House {
    let mut house = House::default();
    for (name, root) in CRATES {
        house.add_crate(name, &Path::new(env!("CARGO_MANIFEST_DIR")).join(root));
    }
    house
}

/// Circles of modules that stand beside each other.
fn circles_in(house: &House) -> Vec<String> {
    let arrows: BTreeSet<(Place, Place)> = house.arrows().iter().filter_map(beside).collect();
    let text = |circle: &BTreeSet<Place>| {
        let names: Vec<String> = circle.iter().map(|place| place.join("::")).collect();
        names.join(" ")
    };
    circles(&arrows).iter().map(text).collect()
}

/// The modules beside each other that an arrow goes between; none if it goes out of a module or into one.
fn beside((from, to): &(Place, Place)) -> Option<(Place, Place)> {
    let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let at = |place: &Place| place.get(..=shared).map(<[String]>::to_vec);
    Some((at(from)?, at(to)?))
}

/// Arrows between rooms that go against the order.
fn upward_in(house: &House) -> Vec<String> {
    let rank = |room: &str| ORDER.iter().position(|listed| *listed == room);
    let mut upward = Vec::new();
    for (from, to) in rooms_in(house) {
        let below = rank(&to).is_none_or(|to| rank(&from).is_some_and(|from| from < to));
        if !below {
            upward.push(format!("{from} -> {to}"));
        }
    }
    upward
}

/// The arrows between rooms. Two crates are a room each.
fn rooms_in(house: &House) -> BTreeSet<(String, String)> {
    let room = |place: &Place| match place[0].as_str() {
        "fyrd" | "fyrd_core" => place[..place.len().min(2)].join("::"),
        name => name.to_owned(),
    };
    let arrows = house.arrows();
    let rooms = arrows.iter().map(|(from, to)| (room(from), room(to)));
    rooms.filter(|(from, to)| from != to).collect()
}

#[test]
fn the_picture_is_shown() {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in rooms_in(&house()) {
        below.entry(from).or_default().insert(to);
    }
    for (from, to) in &below {
        println!("{from} -> {}", to.iter().cloned().collect::<Vec<_>>().join(", "));
    }
}

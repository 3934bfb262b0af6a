//! Files that follow the cluster: rendered from templates when members change, checked, put in place at once, and
//! then told to whoever reads them (docs/guide.md#templates).

mod engine;
mod file;
mod keeper;
mod spec;
mod view;

pub use engine::{Rendered, check, render};
pub use keeper::{Keeper, Source};
pub use spec::Spec;
pub use view::{Entry, View};

//! Reload at SIGHUP (docs/compatibility.md#signals): the files are read again, and what can change while running does:
//! log level, event handlers, tags, and what signals mean. All else waits for a restart, and it is said what does.
//!
//! Of the tags, only those change that changed in the configuration since it was last loaded, so that
//! tags set by command stay; Serf forgets them. A mistake leaves all as it was.

use std::cell::{Ref, RefCell};
use std::hash::RandomState;
use std::rc::Rc;

use tokio::sync::Notify;
use tracing::info;

use super::files::Sources;
use super::logging::{Console, Level};
use super::options::Options;
use super::service_manager::{self, News};
use super::{Agent, advice, files, setup};
use crate::rpc::server::Backend;
use fyrd_core::serf::{Tags, tags};

/// What can be reloaded, and from where.
#[derive(Debug)]
pub(super) struct Reload {
    paths: Vec<String>,
    /// Which files were read when that was last done without a mistake.
    sources: RefCell<Sources>,
    /// What the command line says, without secrets.
    flags: Options,
    /// What the agent runs by, without secrets. Its tags are those of the configuration.
    in_force: RefCell<Options>,
    /// What the secrets of the start were.
    secrets: Marks,
    protocol: u8,
    wanted: Notify,
}

/// By which secrets are known again, without keeping them.
#[derive(Debug)]
struct Marks {
    hasher: RandomState,
    marks: Vec<(&'static str, u64)>,
}

impl Marks {
    fn of(options: &Options) -> Marks {
        let hasher = RandomState::new();
        let marks = options.secret_marks(&hasher);
        Marks { hasher, marks }
    }

    /// The keys of those that are others now.
    fn changed(&self, options: &Options) -> Vec<&'static str> {
        let now = options.secret_marks(&self.hasher);
        let pairs = now.into_iter().zip(&self.marks);
        let changed = pairs.filter(|(now, before)| now != *before);
        changed.map(|((key, _), _)| key).collect()
    }
}

/// A change of tags, as the `tags` command makes it.
#[derive(Debug, Default, PartialEq)]
struct TagChange {
    set: Tags,
    delete: Vec<String>,
}

impl Reload {
    /// Starts from what the agent was started with.
    pub fn new(
        paths: &[String],
        sources: Sources,
        flags: Options,
        in_force: Options,
        protocol: u8,
    ) -> Reload {
        Reload {
            paths: paths.to_vec(),
            sources: RefCell::new(sources),
            flags: flags.without_secrets(),
            secrets: Marks::of(&in_force),
            in_force: RefCell::new(in_force.without_secrets()),
            protocol,
            wanted: Notify::new(),
        }
    }

    /// What the agent runs by.
    pub fn in_force(&self) -> Ref<'_, Options> {
        self.in_force.borrow()
    }

    /// Asks for a reload; one that waits already serves both.
    pub fn request(&self) {
        self.wanted.notify_one();
    }

    /// Reloads whenever asked to; never comes back.
    pub async fn serve(self: Rc<Self>, agent: Agent, console: Console) {
        loop {
            self.wanted.notified().await;
            service_manager::tell(News::Reloading);
            console.headline("Reloading configuration...");
            let reloaded = self.reload(&agent, &console).await;
            if let Err(line) = &reloaded {
                console.headline(line);
                console.headline("Failed to reload configs");
                advice::on(line).iter().for_each(|advice| console.hint(advice));
            }
            service_manager::tell(News::Ready(match reloaded {
                Ok(()) => "Serving",
                Err(_) => "Serving, as configured before: the reload failed",
            }));
        }
    }

    /// Checks everything, and then changes everything. The error is a line for the user.
    async fn reload(&self, agent: &Agent, console: &Console) -> Result<(), String> {
        console.reopen_file();
        let (mut options, sources) = files::read_options(&self.paths, &self.flags)?;
        sources.remarks.iter().for_each(|remark| console.headline(remark));
        sources.can_follow(&self.sources.borrow())?;
        setup::check(&mut options, console)?;
        let level = Level::parse(&options.log_level)?;
        let change = self.tag_change(agent, &options.tags).await?;
        let secrets = self.secrets.changed(&options);
        let options = options.without_secrets();
        let others = self.in_force().only_at_a_start(&options);
        for key in others.into_iter().chain(secrets) {
            console.headline(&format!(
                "Warning: '{key}' is another in the configuration now, which takes effect at the next start only"
            ));
        }
        let mut next = self.in_force().clone();
        next.reload(options);
        let handlers = setup::handlers(&next)?;
        let order = setup::handler_order(&next)?;
        #[cfg(feature = "templates")]
        let templates = setup::templates(&next)?;

        console.set_level(level);
        let timeout = setup::handler_timeout(&next);
        agent.0.handlers.replace(handlers, order, timeout);
        #[cfg(feature = "templates")]
        agent.0.templates.replace(templates, agent);
        let before = self.in_force.replace(next);
        self.sources.replace(sources);
        let taken = before.changed_by_reload(&self.in_force());
        match taken.is_empty() {
            true => info!(target: "agent", "Configuration reloaded: nothing to take over has changed"),
            false => info!(target: "agent", "Configuration reloaded, taken over: {}", taken.join(", ")),
        }
        if change != TagChange::default()
            && let Err(reason) = agent.set_tags(change.set, change.delete).await
        {
            console.headline(&format!("Failed to update tags: {reason}"));
            self.in_force.borrow_mut().tags = before.tags;
        }
        Ok(())
    }

    async fn tag_change(&self, agent: &Agent, configured: &Tags) -> Result<TagChange, String> {
        if agent.0.tags_file.is_some() && !configured.is_empty() {
            return Err(setup::TAGS_AND_TAGS_FILE.to_string());
        }
        let read = agent.0.driver.read(|node| node.tags().clone()).await;
        let current = read.map_err(|e| e.to_string())?;
        let change = difference(&self.in_force().tags, configured, &current);
        let mut next = current;
        next.retain(|name, _| !change.delete.contains(name));
        next.extend(change.set.clone());
        tags::write(&next, self.protocol).map_err(|e| format!("Failed to update tags: {e}"))?;
        Ok(change)
    }
}

/// What turns the `old` configuration's tags into the `new` one's. A tag that the configuration does not
/// have any more, and that was set to something else by command, stays.
fn difference(old: &Tags, new: &Tags, current: &Tags) -> TagChange {
    let changed = |(name, value): &(&String, &String)| old.get(*name) != Some(*value);
    let gone =
        |(name, value): &(&String, &String)| !new.contains_key(*name) && current.get(*name) == Some(*value);
    TagChange {
        set: new
            .iter()
            .filter(changed)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        delete: old.iter().filter(gone).map(|(name, _)| name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Tags {
        text.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn only_what_changed_in_the_configuration_changes() {
        // Old configuration, new one, tags as they are; what is set, what is deleted.
        #[rustfmt::skip]
        let table = [
            ("", "", "x=1", "", ""),
            ("a=1", "a=1", "a=1 x=1", "", ""),
            ("a=1", "a=1", "a=9", "", ""),
            ("a=1", "a=1", "", "", ""),
            ("a=1", "a=2", "a=1", "a=2", ""),
            ("a=1", "a=2", "a=9", "a=2", ""),
            ("a=1", "a=1 b=1", "a=1", "b=1", ""),
            ("a=1 b=1", "b=1", "a=1 b=1 x=1", "", "a"),
            ("a=1", "", "a=9", "", ""),
            ("a=1", "b=", "a=1", "b=", "a"),
        ];
        for (old, new, current, set, delete) in table {
            let expected = TagChange {
                set: tags(set),
                delete: delete.split_whitespace().map(str::to_string).collect(),
            };
            assert_eq!(
                difference(&tags(old), &tags(new), &tags(current)),
                expected,
                "{old} -> {new}, now {current}"
            );
        }
    }
}

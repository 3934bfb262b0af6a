//! Events as they happen, as a stream that browsers and `curl -N` read (server-sent events).

use std::rc::Rc;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::body::Body;
use super::feed::{Entry, Feed, Place};
use super::places::Place as Held;
use fyrd_core::bounds::{HTTP_KEEPALIVE, HTTP_WRITE};

/// Which events a client wants: all if none is named.
#[derive(Debug, Default)]
pub(super) struct Wanted(Vec<String>);

impl Wanted {
    /// Those of these kinds; `user:NAME` and `query:NAME` are those of one name.
    pub(super) fn new<'a>(kinds: impl Iterator<Item = &'a str>) -> Wanted {
        Wanted(kinds.map(str::to_owned).collect())
    }

    fn fits(&self, entry: &Entry) -> bool {
        let fits = |wanted: &String| match wanted.split_once(':') {
            None => wanted == entry.kind,
            Some((kind, name)) => kind == entry.kind && entry.name.as_deref() == Some(name),
        };
        // What was lost may have been wanted.
        self.0.is_empty() || entry.kind == "lost" || self.0.iter().any(fits)
    }
}

/// The stream of events after `from`, or from now on. It holds the client's place for as long as it lasts.
pub(super) fn stream(feed: &Rc<Feed>, from: Option<Place>, wanted: Wanted, held: Held) -> Body {
    let (pieces, body) = Body::pieces();
    let end = feed.end();
    let missed_life = from.is_some_and(|from| from.life != end.life || from.number > end.number);
    let start = from.filter(|_| !missed_life).unwrap_or(end);
    let client = Client {
        feed: Rc::clone(feed),
        pieces,
        wanted,
        _held: held,
    };
    spawn_local(async move {
        // Ends when the client does.
        let _ = client.run(start.number, missed_life).await;
    });
    body
}

struct Client {
    feed: Rc<Feed>,
    pieces: mpsc::Sender<Bytes>,
    wanted: Wanted,
    _held: Held,
}

/// The client is gone, or does not read.
struct Gone;

impl Client {
    async fn run(&self, mut number: u64, missed_life: bool) -> Result<(), Gone> {
        let mut news = self.feed.news();
        self.send(": the events of this agent\nretry: 2000\n\n".to_owned())
            .await?;
        if missed_life {
            // How many there were in the agent's life before, nobody knows.
            self.send(lost(self.feed.place(number), "null")).await?;
        }
        loop {
            news.mark_unchanged();
            match self.feed.after(number) {
                Ok(entries) => {
                    for entry in entries {
                        number = entry.number;
                        if self.wanted.fits(&entry) {
                            let id = self.feed.place(number);
                            let Entry { kind, text, .. } = &*entry;
                            self.send(format!("id: {id}\nevent: {kind}\ndata: {text}\n\n"))
                                .await?;
                        }
                    }
                }
                Err(missed) => {
                    number += missed;
                    self.send(lost(self.feed.place(number), &missed.to_string()))
                        .await?;
                }
            }
            tokio::select! {
                changed = news.changed() => changed.map_err(|_| Gone)?,
                () = sleep(HTTP_KEEPALIVE) => self.send(":\n\n".to_owned()).await?,
                () = self.pieces.closed() => return Err(Gone),
            }
        }
    }

    async fn send(&self, text: String) -> Result<(), Gone> {
        match timeout(HTTP_WRITE, self.pieces.send(text.into())).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

fn lost(place: Place, events: &str) -> String {
    format!("id: {place}\nevent: lost\ndata: {{\"event\":\"lost\",\"events\":{events}}}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_choose() {
        let entry = |kind, name: Option<&str>| Entry {
            number: 1,
            kind,
            name: name.map(str::to_owned),
            text: String::new(),
        };
        let fits = |wanted: &[&str], kind, name| Wanted::new(wanted.iter().copied()).fits(&entry(kind, name));
        assert!(fits(&[], "member-join", None));
        assert!(fits(&["member-join"], "member-join", None));
        assert!(!fits(&["member-join"], "member-leave", None));
        assert!(fits(&["user"], "user", Some("deploy")));
        assert!(fits(&["member-join", "user:deploy"], "user", Some("deploy")));
        assert!(!fits(&["user:deploy"], "user", Some("other")));
        assert!(!fits(&["query:deploy"], "user", Some("deploy")));
        assert!(fits(&["user:deploy"], "lost", None));
    }
}

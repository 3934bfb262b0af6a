//! A stream's message while it arrives.

use std::fmt;

use super::{OtherLabel, REMOTE_IS_ENCRYPTED, REMOTE_IS_PLAIN};
use crate::msgpack;
use crate::wire::{DecodeError, Fault, StreamDecoder, StreamPrefix};

/// One stream message as it arrived, its label taken off.
#[derive(Debug)]
pub enum Received {
    /// An encrypted frame.
    Sealed {
        /// Its type and length, which the encryption covers.
        header: [u8; 5],
        /// What follows.
        block: Vec<u8>,
    },
    /// A message in plain form, complete.
    Plain(Box<StreamDecoder>),
}

/// Why no message can come of a stream.
#[derive(Debug)]
pub enum Unreadable {
    /// The peer is to be told.
    Refused(String),
    /// The stream is to be closed without a word.
    Dropped(String),
    /// The same, for it is of another cluster.
    OtherLabel(OtherLabel),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Refused(reason) | Unreadable::Dropped(reason) => f.write_str(reason),
            Unreadable::OtherLabel(other) => write!(f, "discarding stream with {other}"),
        }
    }
}

/// The bytes of a message that is still arriving.
#[derive(Debug)]
pub struct Assembly<'a> {
    /// What has arrived and no decoder has taken yet: append to it, then [`Assembly::advance`].
    pub bytes: Vec<u8>,
    /// The label to expect before anything else; `None` once it is off.
    label: Option<&'a [u8]>,
    encrypted: bool,
    /// Collects a message in plain form.
    decoder: Option<Box<StreamDecoder>>,
}

impl<'a> Assembly<'a> {
    /// `label` is what the other side must send first; `None` when it sends none, as the answering side does.
    pub fn new(label: Option<&'a [u8]>, encrypted: bool) -> Self {
        Assembly {
            bytes: Vec::new(),
            label,
            encrypted,
            decoder: None,
        }
    }

    /// Looks at what has arrived, and gives the message once it is complete.
    pub fn advance(&mut self) -> Result<Option<Received>, Unreadable> {
        if self.decoder.is_none() && !self.take_label()? {
            return Ok(None);
        }
        if self.decoder.is_some() {
            return self.collect_plain();
        }
        match StreamPrefix::parse(&self.bytes).map_err(refusal)? {
            StreamPrefix::NeedMore => Ok(None),
            StreamPrefix::Label { .. } => {
                let reason = "discarding stream with a label where there must be none";
                Err(Unreadable::Dropped(reason.to_owned()))
            }
            StreamPrefix::Encrypted { .. } if !self.encrypted => {
                Err(Unreadable::Refused(REMOTE_IS_ENCRYPTED.to_owned()))
            }
            StreamPrefix::Encrypted { len, header } if self.bytes.len() >= header.len() + len => {
                let mut block = std::mem::take(&mut self.bytes);
                block.drain(..header.len());
                block.truncate(len);
                Ok(Some(Received::Sealed { header, block }))
            }
            StreamPrefix::Encrypted { .. } => Ok(None),
            StreamPrefix::Plain if self.encrypted => Err(Unreadable::Refused(REMOTE_IS_PLAIN.to_owned())),
            StreamPrefix::Plain => {
                self.decoder = Some(Box::default());
                self.collect_plain()
            }
        }
    }

    /// Takes the label off; false when it is not all there.
    fn take_label(&mut self) -> Result<bool, Unreadable> {
        let Some(expected) = self.label else {
            return Ok(true);
        };
        match StreamPrefix::parse(&self.bytes).map_err(refusal)? {
            StreamPrefix::NeedMore => return Ok(false),
            StreamPrefix::Label { label, len } if label == expected => drop(self.bytes.drain(..len)),
            StreamPrefix::Label { label, .. } => return Err(other_label(label, expected)),
            _ if !expected.is_empty() => return Err(other_label(b"", expected)),
            _ => {}
        }
        self.label = None;
        Ok(true)
    }

    fn collect_plain(&mut self) -> Result<Option<Received>, Unreadable> {
        let Some(mut decoder) = self.decoder.take() else {
            return Ok(None);
        };
        decoder.push(&self.bytes);
        self.bytes.clear();
        if decoder
            .is_complete()
            .map_err(|error| Unreadable::Dropped(error.to_string()))?
        {
            return Ok(Some(Received::Plain(decoder)));
        }
        self.decoder = Some(decoder);
        Ok(None)
    }
}

fn other_label(met: &[u8], own: &[u8]) -> Unreadable {
    Unreadable::OtherLabel(OtherLabel {
        met: met.to_vec(),
        own: own.to_vec(),
    })
}

/// A frame beyond the limit is answered as Serf does.
fn refusal(error: DecodeError) -> Unreadable {
    match error.fault {
        Fault::Value(msgpack::Fault::TooMany { len, .. }) => {
            Unreadable::Refused(format!("Remote node state is larger than limit ({len})"))
        }
        _ => Unreadable::Dropped(error.to_string()),
    }
}

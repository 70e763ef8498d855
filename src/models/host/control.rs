//! Speaks the control protocol between Signalbox and a template: one line of JSON per message, with descriptors as
//! ancillary data.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Flags of a receive: descriptors arrive with close-on-exec set, where the system can do that, so that a process that
/// is executed at the same moment does not inherit them.
#[cfg(not(target_os = "macos"))]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_os = "macos")]
const RECEIVE: RecvFlags = RecvFlags::empty();

/// A message from Signalbox to a template.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TemplateRequest<'a> {
    /// Configures the template; sent once, first.
    Begin {
        libraries: &'a [String],
        exclude: &'a [String],
        data_limit: Option<u64>,
        /// The Python source of each program that the template or a child runs, by name.
        programs: BTreeMap<&'static str, &'static str>,
    },
    /// Asks the template to import everything now.
    Warm {},
    /// Asks the template to fork a child.
    Fork {
        id: u64,
        kind: &'static str,
        arguments: &'a [String],
        environment: &'a [(String, String)],
        /// The Python source of the child's program, where the template was not begun with it.
        program: Option<&'static str>,
    },
    /// Names modules that a child had to import when it loaded a model, for the template to import as well.
    Preload { modules: &'a [String] },
}

/// A message from a template to Signalbox.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TemplateReport {
    /// The template has understood its configuration.
    Begun {},
    /// The template has imported everything.
    Warmed { seconds: f64 },
    /// The template cannot import MLflow, and ends.
    Failed { reason: String },
    /// The template has forked a child; its socket and its output pipe come along as descriptors.
    Forked { id: u64, pid: i32 },
    /// The template cannot fork a child.
    Refused { id: u64, reason: String },
    /// The template has reaped a child, which had this wait status.
    Exited { pid: i32, status: i32 },
    /// The template has a message for the log.
    Noticed { warning: bool, message: String },
}

/// The receiving half of the control socket: bytes and descriptors that have arrived and were not used yet.
#[derive(Debug, Default)]
pub(super) struct ReportReader {
    bytes: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

impl ReportReader {
    /// Returns the next report, or `None` when the template has closed its end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self, stream: &UnixStream) -> Result<Option<TemplateReport>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line = self.bytes.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(Error::from);
            }
            if stream.async_io(Interest::READABLE, || self.receive(stream)).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes the oldest descriptor that has arrived; descriptors come in the order of their reports.
    pub(super) fn take_descriptor(&mut self) -> Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| Error::new(ErrorKind::InvalidData, "a descriptor is missing"))
    }

    /// Receives bytes and descriptors, and returns the number of bytes: 0 when the template has closed its end.
    fn receive(&mut self, stream: &UnixStream) -> Result<usize> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RECEIVE)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.bytes.extend_from_slice(&bytes[..received.bytes]);
        Ok(received.bytes)
    }
}

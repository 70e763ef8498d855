//! What Signalbox and a template say to each other: a line of JSON each, beside it the descriptors that it is about.

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

/// Descriptors are received closed to what is executed at the same moment, where the system can do that.
#[cfg(not(target_os = "macos"))]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_os = "macos")]
const RECEIVE: RecvFlags = RecvFlags::empty();

/// What a template is asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TemplateRequest<'a> {
    /// Said once, first.
    Begin {
        libraries: &'a [String],
        exclude: &'a [String],
        data_limit: Option<u64>,
        /// What a child of each kind runs.
        programs: BTreeMap<&'static str, &'static str>,
    },
    /// Import everything now.
    Warm {},
    /// Make a child.
    Fork { id: u64, kind: &'static str, arguments: &'a [String], environment: &'a [(String, String)] },
    /// These modules were missing when a child loaded a model.
    Preload { modules: &'a [String] },
}

/// What a template tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TemplateReport {
    /// It has understood what it was told first.
    Begun {},
    /// Everything is imported.
    Warmed { seconds: f64 },
    /// MLflow cannot be imported; it ends.
    Failed { reason: String },
    /// There is a child: its socket and its output pipe come along.
    Forked { id: u64, pid: i32 },
    /// There is none.
    Refused { id: u64, reason: String },
    /// A child has been reaped, with this wait status.
    Exited { pid: i32, status: i32 },
    /// Something for the log.
    Noticed { warning: bool, message: String },
}

/// The receiving half.
#[derive(Debug, Default)]
pub(super) struct ReportReader {
    bytes: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

impl ReportReader {
    /// The next report; none when the template has closed its end. Nothing is lost when this is dropped.
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

    /// The descriptor that came first with the reports so far. They come in the order of the reports.
    pub(super) fn descriptor(&mut self) -> Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| Error::new(ErrorKind::InvalidData, "a descriptor is missing"))
    }

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

//! The section `server`: the HTTP shim.

use std::net::{IpAddr, Ipv4Addr};

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::units::HumanSize;

/// Address and limits of the HTTP shim.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address to listen on; loopback by default.
    #[schemars(extend("pattern" = r"^\d+\.\d+\.\d+\.\d+$|:"))]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it.
    pub port: u16,
    /// Largest body that is accepted. A record must fit the broker's `message.max.bytes` too.
    #[serde(with = "HumanSize")]
    pub max_body: ByteSize,
    /// Most calls that wait for an answer; the next one is refused and may come back.
    pub max_pending: usize,
    /// Partition of the replies topic that this instance reads; by default one is picked by the instance's identity.
    pub reply_partition: Option<i32>,
    /// Callers that are admitted; not supported yet.
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub auth: Option<IgnoredAny>,
    /// Certificate and key; not supported yet.
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub tls: Option<IgnoredAny>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 5000,
            max_body: ByteSize::kib(960),
            max_pending: 4096,
            reply_partition: None,
            auth: None,
            tls: None,
        }
    }
}

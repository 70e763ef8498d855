//! The partition of the replies topic that one instance reads.

use uuid::Uuid;

use super::error::ShimError;

/// Names the partition of the replies topic that this instance reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplyPartition {
    pub(super) topic: String,
    pub(super) partition: i32,
}

impl ReplyPartition {
    /// Picks the partition the config names, else one by the instance's identity, so that instances spread out.
    ///
    /// # Errors
    /// When the topic does not exist or has no such partition.
    pub(super) fn choose(
        topic: &str,
        count: Option<i32>,
        configured: Option<i32>,
        instance: Uuid,
    ) -> Result<Self, ShimError> {
        let topic = topic.to_owned();
        let count = match count {
            Some(count) if count > 0 => count,
            _ => return Err(ShimError::MissingTopic { topic }),
        };
        match configured {
            Some(partition) if !(0..count).contains(&partition) => {
                Err(ShimError::ReplyPartition { partition, topic, count })
            }
            Some(partition) => Ok(Self { topic, partition }),
            None => {
                // The instance's id is random, so instances spread evenly over the partitions.
                let picked = instance.as_u128() % u128::from(count.unsigned_abs());
                Ok(Self { topic, partition: i32::try_from(picked).unwrap_or_default() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_is_configured_or_follows_from_instance() {
        let choose = |count, configured, instance| {
            ReplyPartition::choose("replies", count, configured, Uuid::from_u128(instance))
                .map(|chosen| chosen.partition)
        };
        assert_eq!(choose(Some(8), Some(7), 1).unwrap(), 7);
        assert_eq!(choose(Some(8), None, 19).unwrap(), 3);
        assert_eq!(choose(Some(1), None, u128::MAX).unwrap(), 0);
        let error = choose(Some(8), Some(8), 1).unwrap_err().to_string();
        assert!(
            error.starts_with("server.reply_partition 8 does not exist: topic 'replies' has 8 partitions"),
            "{error}"
        );
        assert!(choose(Some(8), Some(-1), 1).is_err());
        assert!(matches!(choose(None, None, 1), Err(ShimError::MissingTopic { .. })));
    }
}

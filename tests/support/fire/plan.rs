//! Plans a run: the content of each request and the reply that it must get, all from its number.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::model::SLOWEST;

/// Routes of a model that computes; it has a different answer to one and the same number for each of them.
const ROUTES: [&str; 2] = ["gold", "plain"];

/// Describes all requests of one run. Two plans with different seeds share no correlation id.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The number of requests.
    pub(crate) requests: u64,
    /// The number of keys.
    pub(crate) keys: u64,
    /// The number of partitions of the replies topic. Each request names one, the same for all of its key, so that the
    /// order of a key's replies is the order of their offsets.
    pub(crate) reply_partitions: i32,
    /// Tells whether requests name the partition; else the reply's key decides it, and requests may wait in retry
    /// topics.
    pub(crate) names_partition: bool,
    /// The number of requests in a thousand that go to the model which computes its answer, and takes its time.
    pub(crate) computed_per_mille: u64,
    /// The least length of a computed answer, in bytes.
    pub(crate) answer_bytes: usize,
}

/// Describes the reply that a request must get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) endpoint: &'static str,
    pub(crate) route: &'static str,
    /// The partition of the reply; `None` allows any.
    pub(crate) partition: Option<i32>,
    pub(crate) answer: Vec<u8>,
}

impl Plan {
    /// Plans a thousand keys; one request in ten is computed.
    pub(crate) fn new(seed: u64, requests: u64, reply_partitions: i32) -> Self {
        Self {
            seed,
            requests,
            keys: 1_009,
            reply_partitions,
            names_partition: true,
            computed_per_mille: 100,
            answer_bytes: 0,
        }
    }

    /// Returns the correlation id.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{:016x}-{number}", self.seed)
    }

    /// Returns the number that an id was made from, and `None` for an id of somebody else.
    pub(crate) fn number(&self, id: &[u8]) -> Option<u64> {
        let (seed, number) = std::str::from_utf8(id).ok()?.split_once('-')?;
        let number = number.parse().ok()?;
        (u64::from_str_radix(seed, 16) == Ok(self.seed) && number < self.requests).then_some(number)
    }

    /// Returns the key of a request.
    pub(crate) fn key(&self, number: u64) -> u64 {
        self.chance(number, "key") % self.keys
    }

    /// Returns the header `endpoint`.
    pub(crate) fn endpoint(&self, number: u64) -> &'static str {
        let chance = self.chance(number, "endpoint");
        match chance % 1_000 < self.computed_per_mille {
            true => "computed",
            false => ["north", "south"][usize::from((chance / 1_000).is_multiple_of(2))],
        }
    }

    /// Returns the header `x-tier`, which the routes have conditions on; it is the alias of the route as well.
    pub(crate) fn tier(&self, number: u64) -> &'static str {
        ROUTES[usize::from(self.chance(number, "tier").is_multiple_of(2))]
    }

    /// Returns the value.
    pub(crate) fn payload(&self, number: u64) -> Vec<u8> {
        format!("{{\"inputs\": [{number}]}}").into_bytes()
    }

    /// Returns the partition of the replies topic that the request asks for.
    pub(crate) fn reply_partition(&self, number: u64) -> Option<i32> {
        let partitions = u64::from(self.reply_partitions.unsigned_abs());
        self.names_partition.then(|| i32::try_from(self.key(number) % partitions).unwrap())
    }

    /// Returns the reply that a request must get.
    pub(crate) fn due(&self, number: u64) -> Due {
        let (endpoint, route) = (self.endpoint(number), self.tier(number));
        let answer = match endpoint {
            "computed" => Self::computed(number, route, self.answer_bytes),
            _ => b"{\"predictions\": []}".to_vec(),
        };
        Due { endpoint, route, partition: self.reply_partition(number), answer }
    }

    /// Returns the answer of a model that computes to a number, in this many bytes at least.
    pub(crate) fn computed(number: u64, route: &str, bytes: usize) -> Vec<u8> {
        let mut answer = format!("{{\"predictions\": [\"{route}\", {}]}}", number * 3 + 1).into_bytes();
        answer.resize(answer.len().max(bytes), b' ');
        answer
    }

    /// Tells whether a failing model fails on this request whenever it comes; see `Conduct::Failing`.
    pub(crate) fn fails(&self, number: u64) -> bool {
        self.endpoint(number) == "computed" && Self::scattered(number) / SLOWEST % 100 < 10
    }

    /// Returns a number that has nothing to do with those before and after.
    pub(super) fn scattered(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
    }

    fn chance(&self, number: u64, of_what: &str) -> u64 {
        xxh3_64_with_seed(of_what.as_bytes(), self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_those_of_others_are_not() {
        let (plan, other) = (Plan::new(7, 100, 4), Plan::new(8, 100, 4));
        assert!((0..100).all(|number| plan.number(plan.id(number).as_bytes()) == Some(number)));
        for foreign in [other.id(1), plan.id(100), "requests-3-17".to_owned(), String::new()] {
            assert_eq!(plan.number(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn requests_spread_over_endpoints_routes_and_partitions() {
        let plan = Plan::new(7, 10_000, 4);
        let share = |of: &dyn Fn(u64) -> bool| (0..10_000).filter(|number| of(*number)).count();
        for (endpoint, least) in [("north", 4_000), ("south", 4_000), ("computed", 800)] {
            for route in ROUTES {
                let count = share(&|number| plan.endpoint(number) == endpoint && plan.tier(number) == route);
                assert!(count > least / 2, "{endpoint}/{route}: {count}");
            }
        }
        assert!((0..4).all(|partition| share(&|number| plan.reply_partition(number) == Some(partition)) > 2_000));
    }
}

//! Runs tests against a real Apache Kafka, a real MLflow and the real binary; `tests/run` installs the first two. One
//! line is one module.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the bans are for what runs in production")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "../support/mod.rs"]
#[cfg(test)]
mod support;

mod services; // the real services do what the other tests stand on
mod binary; // the binary starts, stops and starts again
mod quickstart; // the first thing a newcomer runs
mod python; // the Python package, as pip installs it
mod doctor; // what a newcomer has got wrong, and the cure
mod routing; // the main job: ten thousand requests, over Kafka and over HTTP
mod page; // the status page, in a real browser
mod reload; // the config file changes under load
mod shares; // routes that share, and a route that is asked for
mod models; // models that are found in a real registry, loaded, called
mod zoo; // every kind of model answers as `mlflow models serve` does
mod batching; // requests that go together are answered as if each had gone alone
mod threads; // several calls at once in one process
mod blame; // the blame for a missing prediction
mod hostile; // models that hurt nobody but themselves
mod following; // stages and aliases that move
mod reborn; // a model is registered again under its number
mod shelf; // more models than there is memory for
mod killed; // kill -9, and nothing is left
mod canary; // a share that moves by itself
mod shadow; // copies that nobody waits for
mod decision; // a policy outside names the route
mod evaluators; // conditions that Python evaluates, killed and late
mod topics; // topics that are missing
mod recovery; // routes that cannot answer, and those that take their place
mod faults; // bad requests get one clear fault each
mod barred; // endings that no topic takes as they are
mod limits; // requests and answers that are too large
mod ready; // the readiness of requests and replies
mod strained; // brokers that take little, or nothing for a while
mod offline; // a partition of the replies that is away
mod crash; // kill -9
mod exactly_once; // kill -9, and each reply once
mod order; // replies in the order of their requests
mod park; // requests that are put aside, and one that no process survives
mod deadly; // poison pills, which no process survives
mod anew; // topics that are deleted and made again
mod growth; // partitions that are added
mod groups; // the owners of parked requests
mod lag; // no lag when nothing is left to do
mod fairness; // turns for callers who wait, and for nobody else
mod answered; // answers at once for callers who wait
mod rebalance; // instances come and go
mod redrive; // dead letters go back, and those that a filter leaves stay
mod batch; // each row of a file gets its answer, however often the run is killed
mod outage; // the broker stops and comes back
mod fire; // everything at once, and a checker that counts the cost

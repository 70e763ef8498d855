//! Keys that wait for a restart.

use super::*;

#[test]
fn restart_keys_are_named_and_routes_need_none() {
    let config = |keys: &str, alias: &str| {
        let text =
            format!("model_endpoints: [{{name: a, routes: [{{model_uri: builtin:noop, alias: {alias}}}]}}]\n{keys}");
        parse(&text, "file", &|_| None).unwrap().config
    };
    let in_use = config("", "b");
    assert!(config("", "c").waits_for_restart(&in_use).is_empty());
    let keys = "kafka: {group_id: other, properties: {client.id: b}}\nserver: {port: 1}\nregistry: {refresh: 1s}\nmodels: {cache: {size: 1GiB}}\nconditions: {timeout: 1s}";
    let waiting =
        ["kafka.group_id", "kafka.properties", "server.port", "registry.refresh", "models.cache", "conditions.timeout"];
    assert_eq!(config(keys, "b").waits_for_restart(&in_use), waiting);
}

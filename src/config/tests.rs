use super::*;
#[test]
fn smoke() {
    let text = "
model_endpoints:
  - name: a
    strateg: first
    timeout: 10
    routes:
      - model_uri: ${X}
        alias: [1]
        weigth: 3
        on_condition_error: skp
      -
        model_uri: x
      - foo
kafka:
  partitions: {a: 1}
  ordering: kee
  delivery: exactly_once
  properties: {linger.ms: 5, foo: bar}
  max_in_flight_bytes: 3 parsecs
  bootstrap_servers: \"a:b\"
server:
  host: localhost
  port: 99999
  tls: {a: b}
models:
";
    println!("{:#?}", parse(text, "x.yaml", &|_| None).map_err(|e| println!("{e}")));
}

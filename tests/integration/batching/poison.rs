//! Covers requests that the others of their batch suffer for: not longer than it takes to find them.

use super::*;

fn picky() -> Signalbox {
    let uri = "models:/picky-model/1";
    let hosting = Hosting::of(Mlflow::shared())
        .endpoint("picky", uri)
        .endpoint_with("alone", uri, "60s", ", batch: off")
        .endpoint_with("vouched", uri, "60s", ", batch: {verify: false, max_rows: 16}")
        .endpoint_with("short", uri, "700ms", ", batch: {verify: false}");
    hosting.start()
}

fn says(says: &str, milliseconds: f64) -> Value {
    json!({"dataframe_records": [{"says": says, "ms": milliseconds}]})
}

async fn sum(caller: &Caller, name: &str, endpoint: &str) -> f64 {
    metric(caller, name, &format!("{{endpoint=\"{endpoint}\",route=\"only\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn bad_request_fails_alone_in_batch() {
    let signalbox = picky();
    let caller = Caller::of(&signalbox);
    caller.ask("alone", &says("warm", 0.5)).await;
    for endpoint in ["picky", "vouched"] {
        // Where every tenth ends its host, no batch is without one.
        for (bad, every) in [("poison", 50), ("crash", 50), ("crash", 10_u16)] {
            let payloads: Vec<_> = (0..200_u16)
                .map(|number| match number % every {
                    7 => says(&format!("{bad} {number}"), 0.5),
                    _ => says(&format!("fine {number}"), 0.5 + f64::from(number) / 1000.0),
                })
                .collect();
            let answers = join_all(payloads.iter().map(|payload| caller.ask(endpoint, payload))).await;
            for (number, answer) in answers.iter().enumerate() {
                if number % usize::from(every) == 7 {
                    let (code, message) = answer.fault();
                    let why =
                        if bad == "poison" { "ValueError: something in there is poisoned" } else { "exit status: 7" };
                    assert!(code == "MODEL_ERROR" && message.contains(why), "{message}");
                } else {
                    assert_eq!(answer.text(), format!(r#"{{"predictions": [{{"heard": "fine {number}"}}]}}"#));
                    assert_eq!(answer.version(), "1");
                    let attempts: u32 = answer.header("x-attempts").parse().unwrap();
                    assert!((1..=10).contains(&attempts), "{attempts}");
                }
            }
        }
        let (rows, calls) = (sum(&caller, "rows_sum", endpoint).await, sum(&caller, "rows_count", endpoint).await);
        let splits = sum(&caller, "splits_total", endpoint).await;
        println!("{endpoint}: {rows} rows in {calls} calls, {splits} splits");
        assert!(rows / calls > 2.0 && splits >= 1.0, "{rows} rows in {calls} calls, {splits} splits");
    }
    assert_eq!(caller.model("picky-model/1").await.unwrap().singly, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn hopeless_requests_alone_are_shed_when_overloaded() {
    let signalbox = picky();
    let caller = Caller::of(&signalbox);
    caller.ask("alone", &says("warm", 0.5)).await;
    // Requests that come one at a time wait for nobody.
    for number in 0..16 {
        assert_eq!(caller.ask("short", &says(&format!("{number}"), 150.0)).await.status, 200);
    }
    // A call takes 150 ms and each request has 700 ms, so that of each flood only the first few calls are in time. A
    // machine that stands still for a moment spoils one flood, but not all.
    let mut answers = Vec::new();
    for _ in 0..5 {
        let flood = (0..400).map(|number| {
            let payload = says(&format!("{number}"), 150.0);
            let caller = caller.clone();
            async move { caller.ask("short", &payload).await }
        });
        answers.extend(join_all(flood).await);
    }
    let (answered, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    let shed: Vec<_> =
        refused.iter().filter(|answer| answer.status == 503 && answer.text().contains("are waiting before")).collect();
    let outcome = format!("{} answered, {} refused, {} of them at once", answered.len(), refused.len(), shed.len());
    println!("{outcome}");
    assert!(answered.len() >= 80 && shed.len() > refused.len() / 2, "{outcome}");
    assert!(refused.iter().all(|answer| [503, 504].contains(&answer.status)), "{outcome}");
    for answer in shed {
        assert!(!answer.header("retry-after").is_empty(), "{}", answer.text());
    }
}

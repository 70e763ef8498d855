//! Tests calls of several requests, some of which the model refuses.

use super::independence::tries;
use super::*;
use crate::invocation::Answers;

const PATIENCE: Duration = Duration::from_secs(20);

/// Calls the host for requests of one row each, which have a text or none.
async fn ask<T: serde::Serialize>(host: &ModelHost, says: &[T], patience: Duration) -> Result<Answers, InvokeFailure> {
    let rows: Vec<Value> = says.iter().map(|says| json!([says])).collect();
    let body = json!({"dataframe_split": {"columns": ["says"], "data": rows}});
    ask_for(host, &body, &vec![1; says.len()], patience).await
}

async fn ask_for(host: &ModelHost, body: &Value, rows: &[usize], patience: Duration) -> Result<Answers, InvokeFailure> {
    let headers = Headers::default();
    let payload = body.to_string().into();
    let call = Call { content_type: "application/json", payload, headers: &headers, timeout: PATIENCE };
    host.invoke(&call, Several { rows, patience }).await
}

/// Returns the refused requests.
async fn refused(host: &ModelHost, says: &[&str]) -> Vec<usize> {
    refused_after(host, says).await.0
}

/// Returns the refused requests, and the number of calls that it took to answer the others. Checks that the others are
/// answered as without the refused ones.
async fn refused_after<T: serde::Serialize + Copy>(host: &ModelHost, says: &[T]) -> (Vec<usize>, u64) {
    let before = calls(host).await;
    let answers = ask(host, says, PATIENCE).await.unwrap();
    let took = calls(host).await - before - 1;
    let others = says.iter().enumerate().filter(|(number, _)| !answers.refused.contains(number));
    let others: Vec<T> = others.map(|(_, says)| *says).collect();
    assert_eq!(answers.reply.body, ask(host, &others, PATIENCE).await.unwrap().reply.body);
    (answers.refused, took)
}

async fn calls(host: &ModelHost) -> u64 {
    let answers = ask(host, &["calls"], PATIENCE).await.unwrap();
    let body: Value = serde_json::from_slice(&answers.reply.body).unwrap();
    body["predictions"][0].as_u64().unwrap()
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_leaves_out_refused_requests_and_answers_the_others() {
    let world = HostWorld::bare();
    let (host, _) = world.start(&world.stunts("rows")).await.unwrap();
    let fine: Vec<String> = (0..100).map(|number| format!("fine {number}")).collect();
    let with = |bad: &[(usize, &'static str)]| {
        let mut says: Vec<&str> = fine.iter().map(String::as_str).collect();
        bad.iter().for_each(|(number, bad)| says[*number] = bad);
        says
    };
    assert_eq!(refused(&host, &with(&[])).await, [0; 0]);
    for (number, bad) in [(0, "poison"), (57, "poisonous"), (99, "exit")] {
        assert_eq!(refused(&host, &with(&[(number, bad)])).await, [number]);
    }
    let three = with(&[(3, "named d"), (4, "poisoned e"), (90, "exits f")]);
    assert_eq!(refused(&host, &three).await, [3, 4, 90]);

    // One call fails, seven find the request among a hundred, and one leaves it out.
    assert_eq!(refused_after(&host, &with(&[(70, "poison")])).await, (vec![70], 9));
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_leaves_out_refused_requests_when_they_have_several_rows_or_no_table() {
    let world = HostWorld::bare();
    let (host, _) = world.start(&world.stunts("rows")).await.unwrap();
    let table = json!({"dataframe_records": [{"says": "a"}, {"says": "b"}, {"says": "poison"}, {"says": "c"}]});
    let answers = ask_for(&host, &table, &[2, 2], PATIENCE).await.unwrap();
    assert_eq!(&answers.reply.body[..], br#"{"predictions": [["a", 2, 0], ["b", 2, 1]]}"#);
    assert_eq!(answers.refused, [1]);
    let columns = json!({"inputs": {"number": [5, 13, 7]}});
    let answers = ask_for(&host, &columns, &[1, 1, 1], PATIENCE).await.unwrap();
    assert_eq!((&answers.reply.body[..], &answers.refused[..]), (&br#"{"predictions": [5, 7]}"#[..], &[1][..]));
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_calls_odd_requests_alone_beforehand_while_they_are_refused() {
    let world = HostWorld::bare();
    let (host, _) = world.start(&world.stunts("rows")).await.unwrap();
    let lacking = |lack: &[usize]| -> Vec<_> { (0..20).map(|n| (!lack.contains(&n)).then_some("fine")).collect() };
    // One call fails, one shows that a request without a text is refused, and one leaves out all of them; later calls
    // need not fail first.
    for calls in [3, 2, 2] {
        assert_eq!(refused_after(&host, &lacking(&[3, 12])).await, (vec![3, 12], calls));
    }
    assert_eq!(refused_after(&host, &lacking(&[])).await, (vec![], 1));
    // The model takes requests without a number: one is called alone, and none from then on.
    let numbers: Vec<_> = (0..20).map(|n| json!({"says": "fine", "number": (n != 5).then_some(1.5)})).collect();
    let body = json!({"dataframe_records": numbers});
    for took in [2, 1] {
        let before = calls(&host).await;
        let answers = ask_for(&host, &body, &[1; 20], PATIENCE).await.unwrap();
        assert_eq!((answers.refused, calls(&host).await - before - 1), (vec![], took));
    }
    world.end().await;
}

#[test]
#[ignore = "needs MLflow; tests/run starts it"]
fn search_finds_each_refused_request_in_few_calls() {
    tries(include_str!("bad_rows.py"));
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn call_fails_as_a_whole_when_refused_requests_cannot_be_found() {
    let world = HostWorld::bare();
    let (host, _) = world.start(&world.stunts("rows")).await.unwrap();
    // The first call has no good request, and the second has no time for a search.
    for (says, patience) in [(&["poison", "poison"][..], PATIENCE), (&["slow", "a", "named b"], Duration::ZERO)] {
        let failure = ask(&host, says, patience).await.unwrap_err();
        assert_eq!((failure.fault.code, failure.lost), (Code::ModelError, None));
    }
    assert_eq!(refused(&host, &["slow", "a", "named b"]).await, [2]);
    // The model that took the memory may still have it.
    let failure = ask(&host, &["a", "leak", "named b"], PATIENCE).await.unwrap_err();
    assert!(failure.fault.message.contains("its process is replaced"), "{}", failure.fault.message);
    world.end().await;
}

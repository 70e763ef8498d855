//! Tests calls of several requests, some of which the model refuses.

use super::*;
use crate::invocation::Answers;

const PATIENCE: Duration = Duration::from_secs(20);

/// Calls the host for requests of one row each.
async fn ask(host: &ModelHost, says: &[&str], patience: Duration) -> Result<Answers, InvokeFailure> {
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
/// answered as without the refused ones, and that individual answers are those of requests that come alone.
async fn refused_after(host: &ModelHost, says: &[&str]) -> (Vec<usize>, u64) {
    let before = calls(host).await;
    let answers = ask(host, says, PATIENCE).await.unwrap();
    let took = calls(host).await - before - 1 - answers.told.len() as u64;
    for (number, result) in answers.refused.iter().zip(&answers.told) {
        let alone = ask(host, &[says[*number]], PATIENCE).await.unwrap_err();
        assert_eq!(result.as_ref().unwrap_err(), &alone.fault);
    }
    let others = says.iter().enumerate().filter(|(number, _)| !answers.refused.contains(number));
    let others: Vec<&str> = others.map(|(_, says)| *says).collect();
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

    // A request that the exception names is found at once: one call fails, one probes the request, and one leaves it
    // out.
    assert_eq!(refused_after(&host, &with(&[(70, "named g")])).await, (vec![70], 3));
    // Requests that resemble earlier refused ones are found, after some calls, without a call that fails as a whole.
    for number in 0..10 {
        let bad = with(&[(number, "poison"), (number + 50, "poison")]);
        assert_eq!(refused(&host, &bad).await, [number, number + 50]);
    }
    // Soon a probe of resembling requests is made in each eighth call only.
    let bad = with(&[(1, "poison"), (2, "poison"), (60, "poison")]);
    let mut took = Vec::new();
    for _ in 0..16 {
        let (refused, calls) = refused_after(&host, &bad).await;
        assert_eq!(refused, [1, 2, 60]);
        took.push(calls);
    }
    took.sort_unstable();
    assert_eq!(took, [&[1; 14][..], &[2; 2]].concat());
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
    let told: Vec<_> = answers.told.into_iter().map(|told| told.unwrap_err()).collect();
    let alone = json!({"dataframe_records": [{"says": "poison"}, {"says": "c"}]});
    assert_eq!(told, [ask_for(&host, &alone, &[2], PATIENCE).await.unwrap_err().fault]);
    let columns = json!({"inputs": {"number": [5, 13, 7]}});
    let answers = ask_for(&host, &columns, &[1, 1, 1], PATIENCE).await.unwrap();
    assert_eq!((&answers.reply.body[..], &answers.refused[..]), (&br#"{"predictions": [5, 7]}"#[..], &[1][..]));
    world.end().await;
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

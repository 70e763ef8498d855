//! Tests whose fault a failed call is, by models of many kinds and payloads that are wrong in many ways, beside the
//! answers of MLflow's own scoring app.

use super::*;

/// A request's content type and body as hexadecimal digits, the answer of MLflow's scoring app, and the side at fault:
/// `caller`, `model` or `answer`, or none.
#[derive(Debug, serde::Deserialize)]
struct BlameCase {
    what: String,
    content_type: String,
    body: String,
    status: u16,
    answered: String,
    whose: Option<String>,
}

/// A model with the requests to ask it.
#[derive(Debug, serde::Deserialize)]
struct BlamedModel {
    directory: PathBuf,
    cases: Vec<BlameCase>,
}

fn bytes_of(hexadecimal: &str) -> Bytes {
    let pairs = hexadecimal.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn blame_follows_the_origin_when_a_call_fails() {
    let directory = tempfile::tempdir().unwrap();
    let mut spec = spec();
    let traces = format!("sqlite:///{}", directory.path().join("traces.db").display());
    spec.environment.push(("MLFLOW_TRACKING_URI".into(), traces));
    let world = HostWorld::new(spec);
    let mut saving = Command::new(python());
    saving.args(["-c", include_str!("blamed.py")]).arg(directory.path()).env("PYTHONHASHSEED", "0");
    // MLflow writes traces of some of these models to the current directory.
    saving.current_dir(directory.path());
    let saved = saving.output().unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let asked = std::fs::read(directory.path().join("asked.json")).unwrap();
    let asked: Vec<BlamedModel> = serde_json::from_slice(&asked).unwrap();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for BlamedModel { directory, cases } in asked {
        let (host, _) = world.start(&directory).await.unwrap();
        for case in cases {
            compared += 1;
            let headers = Headers::default();
            let payload = bytes_of(&case.body);
            let timeout = Duration::from_secs(60);
            let call = Call { content_type: &case.content_type, payload, headers: &headers, timeout };
            let result = host.invoke(&call, Several::default()).await.map(|answers| answers.reply);
            if let Some(why) = case.mistaken(result) {
                wrong.push(format!(
                    "{}, {}: {why} (MLflow: {} {})",
                    directory.display(),
                    case.what,
                    case.status,
                    case.answered
                ));
            }
        }
        assert!(!host.is_gone());
    }
    println!("{compared} payloads compared");
    assert!(wrong.is_empty(), "{} of {compared} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    world.end().await;
}

impl BlameCase {
    /// Describes the error in an answer, if there is one.
    fn mistaken(&self, result: Result<Reply, InvokeFailure>) -> Option<String> {
        let fault = match result {
            Ok(reply) => {
                let same = self.whose.is_none() && self.status == 200 && reply.body == self.answered.as_bytes();
                return (!same).then(|| format!("answered {reply:?}"));
            }
            Err(failure) => failure.fault,
        };
        let told = match (fault.code, &*fault.message) {
            (Code::BadRequest, _) => "caller",
            (Code::ModelError, message) if message.starts_with("the model's answer cannot be written as JSON: ") => {
                "answer"
            }
            (Code::ModelError, _) => "model",
            _ => "nobody",
        };
        let is_clean = !fault.message.contains("Traceback") && !fault.message.contains("secret");
        let same = self.whose.as_deref() == Some(told) && !fault.retryable && is_clean;
        (!same).then(|| format!("should be the fault of {:?}, and is {fault:?}", self.whose))
    }
}

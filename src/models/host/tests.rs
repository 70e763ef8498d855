//! Tests hosts with the real MLflow: `SIGNALBOX_TEST_PYTHON` names an interpreter that has it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::model_host::InvokeFailure;
use super::*;
use crate::invocation::{Call, LARGEST_REPLY, Several};
use crate::message::{Code, Fault, Headers, Reply, Stage};

mod bad_rows;
mod blame;
mod independence;
mod inheritance;
mod mlflow_patches;
mod spares;
mod template;
mod threads;

/// A template, and a directory for models.
struct HostWorld {
    template: Arc<Template>,
    tasks: TaskTracker,
    closing: CancellationToken,
    directory: TempDir,
}

fn python() -> String {
    crate::config::environment("SIGNALBOX_TEST_PYTHON")
        .expect("SIGNALBOX_TEST_PYTHON names an interpreter that has mlflow")
}

fn spec() -> TemplateSpec {
    TemplateSpec {
        python: python(),
        libraries: vec!["sklearn".into(), "a_library_that_is_missing".into()],
        // MLflow's messages show sets, whose order depends on the hash seed.
        environment: vec![("PYTHONHASHSEED".into(), "0".into()), ("MLFLOW_DISABLE_TELEMETRY".into(), "true".into())],
        ..Default::default()
    }
}

impl HostWorld {
    fn new(spec: TemplateSpec) -> Self {
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let template = Template::new(spec, tasks.clone(), &closing);
        Self { template, tasks, closing, directory: tempfile::tempdir().unwrap() }
    }

    /// Makes a template without libraries, which is ready sooner.
    fn bare() -> Self {
        Self::new(TemplateSpec { libraries: Vec::new(), ..spec() })
    }

    /// Writes a model whose load does what this word says.
    fn stunts(&self, when_loaded: &str) -> PathBuf {
        let directory = self.directory.path().join(when_loaded);
        std::fs::create_dir_all(directory.join("code")).unwrap();
        std::fs::write(directory.join("code/stunts.py"), include_str!("tests/stunts.py")).unwrap();
        std::fs::write(directory.join("data"), when_loaded).unwrap();
        std::fs::write(directory.join("requirements.txt"), "numpy<1\n").unwrap();
        let flavor = "flavors:\n  python_function: {loader_module: stunts, code: code, data: data}\n";
        std::fs::write(directory.join("MLmodel"), flavor).unwrap();
        directory
    }

    async fn start(&self, directory: &Path) -> Result<(ModelHost, LoadReport), Fault> {
        self.start_within(directory, Duration::from_secs(120)).await
    }

    async fn start_within(&self, directory: &Path, limit: Duration) -> Result<(ModelHost, LoadReport), Fault> {
        ModelHost::start(&self.template, &host_spec(directory, limit, None)).await
    }

    async fn start_proven(&self, directory: &Path, warm_up: WarmUpResult) -> Result<(ModelHost, LoadReport), Fault> {
        ModelHost::start(&self.template, &host_spec(directory, Duration::from_secs(120), Some(warm_up))).await
    }

    async fn end(self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn host_spec(directory: &Path, limit: Duration, warm_up: Option<WarmUpResult>) -> HostSpec {
    let deadline = Instant::now() + limit;
    HostSpec {
        shown: "models:/m/1".into(),
        threads: 1,
        output: OutputLog::new("m/1".into()),
        directory: directory.to_owned(),
        deadline,
        load_timeout: limit,
        warm_up,
    }
}

async fn invoke(host: &ModelHost, body: impl Into<Bytes>) -> Result<Reply, InvokeFailure> {
    invoke_within(host, body, Duration::from_secs(60)).await
}

async fn invoke_within(host: &ModelHost, body: impl Into<Bytes>, timeout: Duration) -> Result<Reply, InvokeFailure> {
    let headers = Headers::default();
    let call = Call { content_type: "application/json", payload: body.into(), headers: &headers, timeout };
    host.invoke(&call, Several::default()).await.map(|answers| answers.reply)
}

async fn stunt(host: &ModelHost, name: &str) -> Result<Value, InvokeFailure> {
    let reply = invoke(host, request(name)).await?;
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    Ok(body["predictions"][0].clone())
}

fn request(name: &str) -> String {
    json!({"dataframe_records": [{"stunt": name}]}).to_string()
}

fn pid(pid: u64) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Tells whether a process runs; a zombie does not.
fn is_alive(pid: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

async fn vanish(pids: &[u64]) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < give_up, "some of {pids:?} still run");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A request's content type and body, and the status, content type and body of the answer.
type ScoringCase = (String, String, u16, String, String);

/// Saves a real model once, and returns its directory with the scoring server's answers about it.
fn real_model() -> (PathBuf, Vec<ScoringCase>) {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let mut saving = Command::new(python());
        saving.args(["-c", include_str!("tests/models.py")]).arg(directory.path()).env("PYTHONHASHSEED", "0");
        let saved = saving.output().unwrap();
        assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
        directory
    });
    let expected = std::fs::read(directory.path().join("expected.json")).unwrap();
    (directory.path().join("text"), serde_json::from_slice(&expected).unwrap())
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_answers_as_the_scoring_server_does() {
    let world = HostWorld::new(spec());
    let (directory, cases) = real_model();
    let mut child = world.template.fork(&Task::Model).await.unwrap();
    let load = json!({"load": {"directory": directory, "max_answer_bytes": 1 << 20, "skip_warm_up": false}});
    let answer = child.ask(&load, b"").await.unwrap();
    assert!(answer.head.starts_with(b"{\"loaded\""), "{:?}", answer.head);
    for (content_type, body, status, answered_type, answered) in &cases {
        let answer = child.ask(&json!({"invoke": {"content_type": content_type}}), body.as_bytes()).await.unwrap();
        let head: Value = serde_json::from_slice(&answer.head).unwrap();
        let told = (&head["status"], &head["content_type"], std::str::from_utf8(&answer.body).unwrap());
        assert_eq!(told, (&json!(status), &json!(answered_type), &**answered), "{content_type} {body}");
    }
    assert!(cases.iter().any(|case| case.2 == 200) && cases.iter().any(|case| case.2 == 415));

    let (host, report) = world.start(&directory).await.unwrap();
    assert_eq!(report.warm_up.example, Some(ExampleResult::Answered));
    let installed = Command::new(python()).args(["-c", "import sklearn; print(sklearn.__version__)"]).output().unwrap();
    let installed = String::from_utf8(installed.stdout).unwrap();
    assert_eq!(
        report.warm_up.unmet,
        [
            &*format!("scikit-learn==0.1.0 is required, {} is installed", installed.trim()),
            "a-library-that-is-missing>=2 is required, it is not installed"
        ]
    );
    let (_, body, _, answered_type, answered) = &cases[0];
    let reply = invoke(&host, body.clone()).await.unwrap();
    assert_eq!((&*reply.content_type, &reply.body[..]), (&**answered_type, answered.as_bytes()));
    let failure = invoke(&host, cases[1].1.clone()).await.unwrap_err();
    assert_eq!((failure.fault.code, failure.fault.retryable, failure.lost), (Code::ModelError, false, None));
    assert_eq!(failure.fault.message, "the model raised RuntimeError: asked to raise");
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_is_ready_in_milliseconds_and_small_when_its_template_is_warm() {
    let world = HostWorld::new(spec());
    let (directory, cases) = real_model();
    let begun = Instant::now();
    world.template.warm().await.unwrap();
    println!("template: {:?}", begun.elapsed());
    let (mut times, mut sizes, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..20 {
        let begun = Instant::now();
        let (host, report) = world.start(&directory).await.unwrap();
        times.push(begun.elapsed());
        println!("{:?} {:?}", begun.elapsed(), report.phases);
        let begun = Instant::now();
        invoke(&host, cases[0].1.clone()).await.unwrap();
        calls.push(begun.elapsed());
        let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", host.pid())).unwrap();
        let private = memory.lines().filter(|line| line.starts_with("Private_"));
        sizes.push(private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum::<u64>());
    }
    for list in [&mut times, &mut calls] {
        list.sort();
        println!("median {:?}, worst {:?}", list[10], list[19]);
    }
    sizes.sort_unstable();
    println!("private memory: median {} KiB", sizes[10]);
    // The bounds are rough, since the machine may be busy. Without a warm template a load takes seconds, and 200 MiB.
    assert!(times[0] < Duration::from_millis(400) && sizes[10] < 32 << 10, "{times:?} {sizes:?}");
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_lives_on_when_its_model_raises_or_floods() {
    let world = HostWorld::new(TemplateSpec { data_limit: Some(512 << 20), libraries: Vec::new(), ..spec() });
    let (host, report) = world.start(&world.stunts("nothing")).await.unwrap();
    assert_eq!(report.warm_up.example, None);
    assert!(
        report.warm_up.unmet.len() == 1 && report.warm_up.unmet[0].starts_with("numpy<1 is required, "),
        "{report:?}"
    );
    let pid = stunt(&host, "pid").await.unwrap();
    assert_eq!(pid, json!(host.pid()));
    for (name, code, message) in [
        ("exit", Code::ModelError, "the model raised SystemExit: 3"),
        (
            "large",
            Code::PayloadTooLarge,
            "the answer of models:/m/1 is larger than 64 MiB, the most that a reply may have; ask for fewer rows, or raise \
             message.max.bytes of the broker and in kafka.properties",
        ),
        (
            "unwritable",
            Code::ModelError,
            "the model's answer cannot be written as JSON: it holds a value of type object",
        ),
    ] {
        let failure = stunt(&host, name).await.unwrap_err();
        assert_eq!((failure.fault.code, &*failure.fault.message, failure.lost), (code, message, None));
    }
    assert_eq!(stunt(&host, "flood").await.unwrap(), json!(1));
    assert!(host.child_output().tail().count() <= 20);
    assert_eq!((stunt(&host, "pid").await.unwrap(), host.is_gone()), (pid, false));
    // A model that ran out of memory may keep what it has for ever.
    let failure = stunt(&host, "leak").await.unwrap_err();
    let message =
        "the model raised MemoryError: it may take no more memory (models.memory_limit), so its process is replaced";
    assert_eq!((failure.fault.code, &*failure.fault.message, failure.lost), (Code::ModelError, message, None));
    assert!(host.is_gone());
    host.gone().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_reports_its_exit_and_leaves_no_process_when_it_ends() {
    let world = HostWorld::bare();
    let directory = world.stunts("nothing");
    for (name, how) in [
        ("end", "its process ended (exit status: 3)"),
        ("kill", "its process ended (signal: 9 (SIGKILL))"),
        ("crash", "its process ended (signal: 11 (SIGSEGV)"),
        ("deaf", "its process ended (signal: 9 (SIGKILL))"),
    ] {
        let (host, _) = world.start(&directory).await.unwrap();
        let helper = stunt(&host, "helper").await.unwrap().as_u64().unwrap();
        assert!(is_alive(helper));
        let failure = stunt(&host, name).await.unwrap_err();
        assert_eq!((failure.fault.code, failure.fault.retryable), (Code::ModelError, true));
        assert!(failure.fault.message.contains(how), "{name}: {}", failure.fault);
        assert!(!failure.fault.message.contains("this is"), "what a model prints may be secret: {}", failure.fault);
        let Some(Lost::Ended { reason, .. }) = failure.lost else { panic!("{:?}", failure.lost) };
        assert_eq!(reason.as_deref(), (name == "end").then_some("this is the end"));
        assert!(host.is_gone());
        host.gone().await;
        vanish(&[u64::from(host.pid()), helper]).await;
    }
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_is_killed_when_it_hangs_or_is_given_up() {
    let world = HostWorld::bare();
    let directory = world.stunts("nothing");
    let (host, _) = world.start(&directory).await.unwrap();
    let failure = invoke_within(&host, request("hang"), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((failure.fault.code, failure.lost), (Code::DeadlineExceeded, Some(Lost::TimedOut)));
    assert!(host.is_gone());
    assert_eq!(host.gone().await.to_string(), "signal: 9 (SIGKILL)");
    assert!(!is_alive(host.pid().into()));

    let (host, _) = world.start(&directory).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(50), stunt(&host, "hang")).await;
    assert!(given_up.is_err() && host.is_gone());
    host.gone().await;

    let (host, _) = world.start(&directory).await.unwrap();
    let (pid, gone) = (host.pid(), host.gone());
    drop(host);
    gone.await;
    assert!(!is_alive(pid.into()));
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn load_reports_the_reason_when_it_fails() {
    let world = HostWorld::bare();
    let first = world.template.fork(&Task::Model).await.unwrap();
    for (name, limit, why) in [
        (
            "import",
            60,
            "models:/m/1 cannot be loaded: ModuleNotFoundError: No module named 'a_library_that_is_missing'. ",
        ),
        ("exit", 60, "models:/m/1 cannot be loaded: SystemExit: no such luck. "),
        ("sleep", 3, "it was not ready within models.load_timeout (3s); the last it printed: sleeping"),
    ] {
        let [loads, _] = world.spares(&[&first]).await;
        let fault = world.start_within(&world.stunts(name), Duration::from_secs(limit)).await.unwrap_err();
        assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
        assert!(fault.message.contains(why), "{fault}");
        // The failed host's process is gone already: below the template only spares for the next load are left.
        assert!(!is_alive(loads.into()), "{name}");
        assert!(world.children(&[&first]).await.len() <= 2, "{name}");
        let advice = fault.message.contains("numpy<1 is required, ") && fault.message.contains("runtime: mlflow_serve");
        assert_eq!(advice, name != "sleep", "{fault}");
    }
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn server_answers_as_mlflow_and_leaves_no_process_when_stopped() {
    let world = HostWorld::new(spec());
    let (directory, cases) = real_model();
    let limit = Duration::from_secs(120);
    let spec = ServerSpec {
        shown: "models:/m/1".into(),
        model: directory.display().to_string(),
        env_manager: "local",
        environments: None,
        concurrency: 1,
        deadline: Instant::now() + limit,
        load_timeout: limit,
    };
    let (server, backend) = spec.start(&world.template).await.unwrap();
    let headers = Headers::default();
    let payload = Bytes::from(cases[0].1.clone());
    let call = Call { content_type: "application/json", payload, headers: &headers, timeout: limit };
    let reply = backend.invoke(call, LARGEST_REPLY).await.unwrap();
    assert_eq!(reply.body, cases[0].4.as_bytes());
    // The server's own children are in its process group.
    let group = server.pid().to_string();
    let processes = Command::new("ps").args(["-eo", "pgid=,pid="]).output().unwrap().stdout;
    let processes = String::from_utf8(processes).unwrap();
    let processes = processes.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    let pids: Vec<u64> =
        processes.filter(|(its, _)| *its == group).map(|(_, pid)| pid.trim().parse().unwrap()).collect();
    assert!(pids.len() >= 2, "{pids:?}");
    let gone = server.gone();
    assert!(!server.is_gone());
    server.kill();
    gone.await;
    vanish(&pids).await;
    world.end().await;
}

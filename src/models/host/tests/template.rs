//! Tests templates: what becomes of their children when either is killed, and interpreters that cannot be one.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::*;
use crate::models::host::template::TemplateError;

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn template_ends_its_hosts_and_restarts_when_it_is_killed() {
    let world = HostWorld::bare();
    let directory = world.stunts("nothing");
    let (host, _) = world.start(&directory).await.unwrap();
    let helper = stunt(&host, "helper").await.unwrap();
    // The helper is in a session of its own, and nobody who knows of it is left.
    rustix::process::kill_process(pid(helper.as_u64().unwrap()), rustix::process::Signal::KILL).unwrap();
    let template = u64::from(world.template.pid().await.unwrap());
    rustix::process::kill_process(pid(template), rustix::process::Signal::KILL).unwrap();
    host.gone().await;
    assert!(host.is_gone() && !is_alive(host.pid().into()));
    assert!(stunt(&host, "pid").await.unwrap_err().lost.is_some());
    let (host, _) = world.start(&directory).await.unwrap();
    assert_eq!(stunt(&host, "pid").await.unwrap(), json!(host.pid()));
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn fork_gets_a_new_template_when_the_old_one_was_just_killed() {
    let world = HostWorld::bare();
    for _ in 0..3 {
        drop(world.template.fork(&Task::Model).await.unwrap());
        let template = world.template.pid().await.unwrap();
        rustix::process::kill_process(pid(template.into()), rustix::process::Signal::KILL).unwrap();
    }
    let child = world.template.fork(&Task::Clerk).await.unwrap();
    assert!(is_alive(child.pid().into()));
    world.end().await;
    vanish(&[child.pid().into()]).await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn children_end_when_signalbox_is_killed() {
    for _ in 0..3 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--ignored",
            "--exact",
            "--nocapture",
            "models::host::tests::template::doomed_process_waits_to_be_killed",
        ]);
        let mut doomed = command.env("SIGNALBOX_TEST_DOOMED", "yes").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(doomed.stdout.take().unwrap()).lines();
        let pids = lines.find_map(|line| line.unwrap().split_once("pids ").map(|(_, pids)| pids.to_owned())).unwrap();
        let pids: Vec<u64> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
        assert!(pids.len() == 5 && pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
        doomed.kill().unwrap();
        doomed.wait().unwrap();
        vanish(&pids).await;
    }
}

/// The process that the test above kills, with a host that waits, one that computes in C, and one that loads.
#[tokio::test]
#[ignore = "it is killed by another test"]
async fn doomed_process_waits_to_be_killed() {
    if crate::config::environment("SIGNALBOX_TEST_DOOMED").is_none() {
        return;
    }
    let world = HostWorld::bare();
    let directory = world.stunts("nothing");
    let (waits, _) = world.start(&directory).await.unwrap();
    let (computes, _) = world.start(&directory).await.unwrap();
    let helper = stunt(&waits, "helper").await.unwrap();
    let mut loads = world.template.fork(&Task::Model).await.unwrap();
    let pids = [u64::from(waits.pid()), computes.pid().into(), loads.pid().into(), helper.as_u64().unwrap()];
    let template = world.template.pid().await.unwrap();
    let load = json!({"load": {"directory": world.stunts("sleep"), "max_answer_bytes": 1, "skip_warm_up": false}});
    let endless = Duration::from_secs(1000);
    let _ = tokio::join!(loads.ask(&load, b""), invoke_within(&computes, request("hang"), endless), async {
        sleep(Duration::from_millis(300)).await;
        println!("pids {template} {} {} {} {}", pids[0], pids[1], pids[2], pids[3]);
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn template_explains_itself_and_is_not_retried_at_once_when_its_interpreter_lacks_mlflow() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let python = directory.path().join("python");
    std::fs::write(&python, "#!/bin/sh\necho started >>\"$0.log\"\nexec python3 -S \"$@\"\n").unwrap();
    std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
    let python = python.display().to_string();
    let world = HostWorld::new(TemplateSpec { python: python.clone(), ..Default::default() });
    let error = world.template.warm().await.unwrap_err();
    assert_eq!(error, TemplateError::NoMlflow { python: python.clone() });
    assert!(error.to_string().contains("-m pip install mlflow"), "{error}");
    // The interpreter is not started again at once.
    for _ in 0..3 {
        assert_eq!(world.template.fork(&Task::Model).await.unwrap_err(), error);
    }
    assert_eq!(std::fs::read_to_string(python + ".log").unwrap(), "started\n");
    world.end().await;

    let world = HostWorld::new(TemplateSpec { python: "/nowhere/python".into(), ..Default::default() });
    let error = world.template.warm().await.unwrap_err();
    assert!(
        error.to_string().contains("no Python at /nowhere/python (models.python, or the route's `python`)"),
        "{error}"
    );
    world.closing.cancel();
    assert_eq!(world.template.warm().await.unwrap_err(), TemplateError::Stopping);

    for python in ["/bin/ls", "/bin/true"] {
        let world = HostWorld::new(TemplateSpec { python: python.into(), ..Default::default() });
        let error = world.template.warm().await.unwrap_err().to_string();
        assert_eq!(error, format!("{python} (models.python, or the route's `python`) is no Python that can be used"));
        world.end().await;
    }
}

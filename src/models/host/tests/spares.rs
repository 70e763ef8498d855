//! Tests children that are forked before they are asked for, and loads that take earlier results as read.

use super::*;

impl HostWorld {
    /// Lists the template's children except `others`.
    pub(super) async fn children(&self, others: &[&Child]) -> Vec<u32> {
        let template = self.template.pid().await.unwrap();
        let children = std::fs::read_to_string(format!("/proc/{template}/task/{template}/children")).unwrap();
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.filter(|pid| others.iter().all(|child| child.pid() != *pid)).collect()
    }

    /// Waits until the template has two children besides `others`, and returns the older one first.
    pub(super) async fn spares(&self, others: &[&Child]) -> [u32; 2] {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            let children = self.children(others).await;
            if let [older, newer] = children[..] {
                return [older, newer];
            }
            assert!(Instant::now() < give_up, "{children:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn fork_takes_the_oldest_spare_when_a_model_is_loaded() {
    let world = HostWorld::bare();
    let first = world.template.fork(&Task::Model).await.unwrap();
    let [older, newer] = world.spares(&[&first]).await;
    // A client is never a spare.
    let client = world.template.fork(&Task::Clerk).await.unwrap();
    assert!(![older, newer].contains(&client.pid()));
    let second = world.template.fork(&Task::Model).await.unwrap();
    assert_eq!(second.pid(), older);

    // A spare that has ended in the meantime is not handed out.
    let [killed, left] = world.spares(&[&first, &client, &second]).await;
    assert_eq!(killed, newer);
    rustix::process::kill_process(pid(killed.into()), rustix::process::Signal::KILL).unwrap();
    while world.children(&[]).await.contains(&killed) {
        sleep(Duration::from_millis(2)).await;
    }
    let mut third = world.template.fork(&Task::Model).await.unwrap();
    assert_eq!(third.pid(), left);
    let load =
        json!({"load": {"directory": world.stunts("nothing"), "max_answer_bytes": 1 << 20, "skip_warm_up": false}});
    let answer = third.ask(&load, b"").await.unwrap();
    assert!(answer.head.starts_with(b"{\"loaded\""), "{:?}", answer.head);

    let last = world.spares(&[&first, &client, &second, &third]).await;
    world.end().await;
    vanish(&last.map(u64::from)).await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn load_skips_the_warm_up_when_its_results_are_known() {
    let world = HostWorld::bare();
    let directory = world.stunts("nothing");
    let ends_it = request("end");
    std::fs::write(directory.join("serving_input_example.json"), ends_it).unwrap();
    assert!(world.start(&directory).await.is_err());
    let warm_up = WarmUpResult {
        example: Some(ExampleResult::Answered),
        unmet: vec!["as it was".into()],
        ..WarmUpResult::default()
    };
    let (host, report) = world.start_proven(&directory, warm_up.clone()).await.unwrap();
    assert_eq!(report.warm_up, warm_up);
    assert_eq!(stunt(&host, "pid").await.unwrap(), json!(host.pid()));
    world.end().await;
}

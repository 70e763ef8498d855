//! Tests what a host inherits from the template and from Signalbox.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_inherits_imports_except_excluded_ones() {
    let world = HostWorld::new(TemplateSpec { exclude: vec!["sklearn".into()], ..spec() });
    let directory = world.stunts("tool");
    let (first, _) = world.start(&directory).await.unwrap();
    let modules = stunt(&first, "modules").await.unwrap();
    assert!(
        modules.as_array().unwrap().contains(&json!("mlflow"))
            && !modules.as_array().unwrap().contains(&json!("sklearn"))
    );
    assert_eq!(stunt(&first, "inherited").await.unwrap(), json!(false));
    // A later host has inherited the modules that the first one had to import.
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        let (next, _) = world.start(&directory).await.unwrap();
        assert_eq!(stunt(&next, "sockets").await.unwrap(), json!(1), "only its own");
        if stunt(&next, "inherited").await.unwrap() == json!(true) {
            break;
        }
        assert!(Instant::now() < give_up);
    }
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn host_has_only_its_own_sockets_when_signalbox_leaves_others_open() {
    // librdkafka's pipes are like this socket pair: an executed process inherits them.
    let kept = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None).unwrap();
    let world = HostWorld::bare();
    let (host, _) = world.start(&world.stunts("nothing")).await.unwrap();
    assert_eq!(stunt(&host, "sockets").await.unwrap(), json!(1), "only its own");
    drop(kept);
    world.end().await;
}

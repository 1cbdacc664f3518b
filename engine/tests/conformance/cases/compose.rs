//! `docker compose` 2.40, as a user types it.

use crate::{cases::cases, host::Said, scene::Scene};
use std::fs;
use tempfile::TempDir;

cases! { "compose":
    two_services_find_each_other_and_go_without_a_trace,
    a_service_waits_for_the_health_of_another,
    run_exec_logs_and_ps_work,
    a_service_is_scaled_and_recreated,
    a_service_is_built,
}

struct Project<'a> {
    scene: &'a Scene<'a>,
    folder: TempDir,
    name: String,
}

impl<'a> Project<'a> {
    fn new(scene: &'a Scene<'a>, file: &str) -> Self {
        assert!(scene.host.has_compose(), "the compose plugin is not installed");
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("compose.yaml"), file).unwrap();
        Self { scene, folder, name: scene.name("p") }
    }

    fn said(&self, arguments: &[&str]) -> Said {
        let file = self.folder.path().join("compose.yaml").display().to_string();
        let flags = ["compose", "--progress", "plain", "-p", &self.name, "-f", &file];
        self.scene.said(&[&flags, arguments].concat())
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.said(arguments);
        assert_eq!(said.code, 0, "compose {arguments:?} said {said:?}");
        said.out.trim_end().to_owned()
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        self.said(&["down", "-v", "-t", "0", "--remove-orphans", "--rmi", "local"]);
    }
}

const TWO: &str = "
services:
  web:
    image: busybox
    command: sh -c 'while :; do echo hello | nc -l -p 80; done'
    stop_signal: SIGKILL
    volumes: [data:/data]
    environment: { A: one }
    labels: { l: m }
  client:
    image: busybox
    depends_on: [web]
    command: sh -c 'for i in 1 2 3 4 5 6 7 8 9; do nc -w 3 web 80 && exit; sleep 0.2; done'
volumes:
  data:
";

fn two_services_find_each_other_and_go_without_a_trace(s: &Scene<'_>) {
    let project = Project::new(s, TWO);
    project.ok(&["up", "-d", "--quiet-pull"]);
    let client = format!("{}-client-1", project.name);
    assert_eq!(s.wait(&client), 0);
    assert_eq!(s.ok(&["logs", &client]), "hello");
    let networks = s.ok(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(networks.contains(&format!("{}_default", project.name)), "{networks}");
    let again = project.said(&["up", "-d"]);
    assert_eq!(again.code, 0, "{again:?}");
    project.ok(&["down", "-v"]);
    for list in [&["ps", "-a"][..], &["network", "ls"], &["volume", "ls"]] {
        let left = s.ok(list);
        assert!(!left.contains(&project.name), "{left}");
    }
}

fn a_service_waits_for_the_health_of_another(s: &Scene<'_>) {
    let project = Project::new(
        s,
        "
services:
  slow:
    image: busybox
    command: sh -c 'sleep 0.5; touch /ready; exec sleep 1000'
    stop_signal: SIGKILL
    healthcheck: { test: test -e /ready, interval: 200ms, retries: 50 }
  after:
    image: busybox
    command: echo started
    depends_on: { slow: { condition: service_healthy } }
",
    );
    project.ok(&["up", "-d", "--wait", "slow"]);
    project.ok(&["up", "-d"]);
    assert_eq!(s.wait(&format!("{}-after-1", project.name)), 0);
}

fn run_exec_logs_and_ps_work(s: &Scene<'_>) {
    let project = Project::new(s, TWO);
    assert_eq!(
        project.ok(&["run", "--rm", "--no-deps", "-T", "web", "sh", "-c", "echo $A"]),
        "one"
    );
    project.ok(&["up", "-d", "web"]);
    assert_eq!(project.ok(&["exec", "-T", "web", "echo", "in"]), "in");
    assert_eq!(project.ok(&["ps", "--services"]), "web");
    project.ok(&["restart", "-t", "0", "web"]);
    project.ok(&["pause", "web"]);
    project.ok(&["unpause", "web"]);
    assert!(project.ok(&["config", "--services"]).contains("client"));
    assert!(project.ok(&["top", "web"]).contains("sh"));
    project.ok(&["stop", "-t", "0"]);
    assert_eq!(project.ok(&["ps", "-q"]), "");
    assert!(project.ok(&["logs", "--no-log-prefix", "web"]).lines().count() < 10);
}

fn a_service_is_scaled_and_recreated(s: &Scene<'_>) {
    let project = Project::new(s, TWO);
    project.ok(&["up", "-d", "--scale", "web=2", "web"]);
    let ids = project.ok(&["ps", "-q", "web"]);
    assert_eq!(ids.lines().count(), 2);
    project.ok(&["up", "-d", "--force-recreate", "-t", "0", "web"]);
    let new = project.ok(&["ps", "-q", "web"]);
    assert!(!new.is_empty() && new.lines().all(|id| !ids.contains(id)), "{ids} {new}");
}

fn a_service_is_built(s: &Scene<'_>) {
    let project = Project::new(
        s,
        "services: { made: { build: ., image: IMAGE } }".replace("IMAGE", &s.name("i")).as_str(),
    );
    fs::write(
        project.folder.path().join("Dockerfile"),
        "FROM busybox\nCMD [\"echo\", \"built\"]\n",
    )
    .unwrap();
    project.ok(&["build"]);
    assert_eq!(project.ok(&["run", "--rm", "-T", "made"]), "built");
}

//! `docker system df`, sizes, and what prune takes away.

use crate::engine::{Engine, moment};

const WRITE: &str = "dd if=/dev/zero of=/x bs=1000 count=1000 2>/dev/null; rm /etc/passwd; \
                     ln -s /x /y; mkdir /d";

#[test]
fn sizes_are_those_that_docker_counts() {
    let engine = Engine::start();
    engine.ok(&["run", "--name", "ww", "-v", "vv:/v", "busybox", "sh", "-c", WRITE]);
    let image: u64 = engine.ok(&["inspect", "-f", "{{.Size}}", "busybox"]).parse().unwrap();
    let sizes = engine.ok(&["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "ww"]);
    assert_eq!(sizes, format!("1000002 {}", image + 1_000_002));
    assert!(engine.ok(&["ps", "-as", "--format", "{{.Size}}"]).starts_with("1MB (virtual "));
    engine.ok(&["run", "--rm", "-v", "vv:/v", "busybox", "sh", "-c", "echo four > /v/f"]);
    let (status, answer) = engine.api("GET", "/system/df", "");
    assert_eq!(status, 200);
    let df: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(df["LayersSize"], image);
    assert_eq!(df["Images"][0]["Containers"], 1);
    assert_eq!(df["Images"][0]["SharedSize"], 0);
    assert_eq!(df["Containers"][0]["SizeRw"], 1_000_002);
    let usage = serde_json::json!({ "RefCount": 1, "Size": 5 });
    assert_eq!(df["Volumes"][0]["UsageData"], usage);
    assert_eq!(df["BuildCache"], serde_json::json!([]));
    let (_, answer) = engine.api("GET", "/system/df?type=volume", "");
    let df: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!(df["Images"].is_null() && df["Volumes"].is_array(), "{answer}");
    let (status, answer) = engine.api("GET", "/system/df?type=nope", "");
    assert!(status == 400 && answer.contains("unknown object type: nope"), "{answer}");
    assert!(engine.ok(&["system", "df", "-v"]).contains("vv"));
}

#[test]
fn prune_takes_what_nobody_uses_and_says_how_much_that_was() {
    let engine = Engine::start();
    engine.ok(&["run", "--name", "ww", "--label", "a=b", "busybox", "sh", "-c", WRITE]);
    engine.ok(&["create", "--name", "nn", "busybox"]);
    let pruned = engine.ok(&["container", "prune", "-f", "--filter", "label!=a"]);
    assert!(pruned.contains("Total reclaimed space: 0B"), "{pruned}");
    let pruned = engine.ok(&["container", "prune", "-f"]);
    assert!(pruned.contains("Total reclaimed space: 1MB"), "{pruned}");
    assert_eq!(engine.ok(&["ps", "-aq"]), "");

    engine.ok(&["create", "--name", "user", "busybox"]);
    engine.ok(&["tag", "busybox", "again"]);
    let prune = |filters: &str| {
        let filters = filters.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        engine.api("POST", &format!("/images/prune?filters={filters}"), "")
    };
    let nothing = r#"{"ImagesDeleted":null,"SpaceReclaimed":0}"#;
    assert_eq!(prune(r#"{"dangling":["false"]}"#).1.trim(), nothing, "a container uses it");
    engine.ok(&["rm", "user"]);
    assert_eq!(prune("{}").1.trim(), nothing, "it has a name");
    assert_eq!(prune(r#"{"dangling":["false"],"until":["24h"]}"#).1.trim(), nothing, "too new");
    assert!(prune(r#"{"dangling":["xx"]}"#).1.contains("invalid filter 'dangling=[xx]'"));
    assert!(prune(r#"{"nope":["xx"]}"#).1.contains("invalid filter 'nope'"));
    let said = engine.ok(&["image", "prune", "-af"]);
    for line in ["untagged: busybox:latest", "untagged: again:latest", "deleted: sha256:"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(!said.contains("reclaimed space: 0B"), "{said}");
    assert_eq!(engine.ok(&["images", "-q"]), "");
    let events = engine.ok(&[
        "events",
        "--since",
        "1m",
        "--until",
        &moment(),
        "--filter",
        "event=prune",
        "--format",
        "{{.Type}} {{.Actor.Attributes.reclaimed}}",
    ]);
    let lines: Vec<&str> = events.lines().collect();
    assert_eq!(lines[..2], ["container 0", "container 1000002"]);
}

//! `docker build` by the classic builder, and what is pruned and counted.

use crate::{
    cases::cases,
    http::{Request, text},
    scene::{Answer, Scene, encoded, tar_of},
};
use serde_json::{Value, json};

cases! { "build, prune and usage":
    a_dockerfile_is_built_step_by_step,
    files_of_the_context_are_copied,
    stages_copy_from_each_other,
    arguments_are_expanded,
    a_second_build_comes_from_the_cache,
    labels_target_and_tags_are_taken,
    a_failing_step_ends_the_build,
    a_dockerfile_out_of_order_is_refused,
    entrypoint_user_expose_and_volume_are_kept,
    onbuild_runs_in_the_next_build,
    an_archive_is_unpacked_by_add,
    build_by_the_cli_prints_the_id_when_quiet,
    build_prune_has_dockers_fields,
    system_df_has_dockers_fields (alone),
    containers_are_pruned_by_label,
    networks_are_pruned_by_label,
    volumes_are_pruned_by_label,
    images_are_pruned_by_label,
    prune_removes_only_what_is_unused (alone),
}

fn build(s: &Scene<'_>, query: &str, files: &[(&str, &[u8])]) -> Answer {
    let path = format!("/v1.51/build?rm=1&{query}");
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    s.send(&Request { method: "POST", path: &path, headers, body: &tar_of(files) })
}

/// Builds; gives what the builder said, which must be a success.
#[track_caller]
fn built(s: &Scene<'_>, part: &str, files: &[(&str, &[u8])]) -> String {
    let answer = build(s, &format!("t={}", s.name(part)), files).expect(200);
    let objects = answer.objects();
    let said: String = objects.iter().filter_map(|object| object["stream"].as_str()).collect();
    assert!(said.contains("Successfully built "), "{:?}", text(&answer.body));
    said
}

fn output(s: &Scene<'_>, part: &str, command: &[&str]) -> String {
    let (name, image) = (s.name("run"), s.name(part));
    s.ok(&[&["run", "--rm", "--name", &name, &image], command].concat())
}

fn config(s: &Scene<'_>, part: &str) -> Value {
    s.get(&format!("/images/{}/json", s.name(part))).expect(200).json()["Config"].clone()
}

fn a_dockerfile_is_built_step_by_step(s: &Scene<'_>) {
    let file = b"FROM busybox\nRUN echo made >/made\nENV A=1\nCMD [\"cat\", \"/made\"]\n";
    let said = built(s, "i", &[("Dockerfile", file)]);
    for line in [
        "Step 1/4 : FROM busybox\n",
        "Step 2/4 : RUN echo made >/made\n",
        " ---> Running in ",
        "Step 4/4 : CMD [\"cat\", \"/made\"]\n",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert!(said.contains(&format!("Successfully tagged {}:latest\n", s.name("i"))), "{said}");
    assert_eq!(output(s, "i", &[]), "made");
    assert!(config(s, "i")["Env"].as_array().unwrap().contains(&json!("A=1")));
}

fn files_of_the_context_are_copied(s: &Scene<'_>) {
    let file = b"FROM busybox\nWORKDIR /w\nCOPY a sub/ ./\nCOPY --chown=nobody:nogroup a /b\n";
    built(s, "i", &[("Dockerfile", file), ("a", b"1"), ("sub/c", b"2")]);
    assert_eq!(output(s, "i", &["sh", "-c", "cat a c; stat -c '%U %a' /b"]), "12nobody 644");
}

fn stages_copy_from_each_other(s: &Scene<'_>) {
    let file = b"FROM busybox AS one\nRUN echo 1 >/x\nFROM busybox\nCOPY --from=one /x /y\nCOPY --from=0 /x /z\n";
    built(s, "i", &[("Dockerfile", file)]);
    assert_eq!(output(s, "i", &["sh", "-c", "cat /y /z; test ! -e /x"]), "1\n1");
}

fn arguments_are_expanded(s: &Scene<'_>) {
    let file = b"ARG BASE=busybox\nFROM $BASE\nARG A=default\nARG B\nENV C=${A}-${B:-none}\nRUN echo $A $B $C >/out\nCMD [\"cat\",\"/out\"]\n";
    let arguments = encoded("{\"B\":\"given\"}");
    build(s, &format!("t={}&buildargs={arguments}", s.name("i")), &[("Dockerfile", file)])
        .expect(200);
    assert_eq!(output(s, "i", &[]), "default given default-given");
}

fn a_second_build_comes_from_the_cache(s: &Scene<'_>) {
    let file: &[u8] = b"FROM busybox\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid >/random\nCMD [\"cat\",\"/random\"]\n";
    let mark = s.name("mark");
    built(s, "i", &[("Dockerfile", file), ("a", mark.as_bytes())]);
    let first = output(s, "i", &[]);
    let said = built(s, "i", &[("Dockerfile", file), ("a", mark.as_bytes())]);
    assert!(said.contains(" ---> Using cache\n"), "{said}");
    assert_eq!(output(s, "i", &[]), first);
    built(s, "j", &[("Dockerfile", file), ("a", b"changed")]);
    assert_ne!(output(s, "j", &[]), first);
    let fresh = build(
        s,
        &format!("nocache=1&t={}", s.name("k")),
        &[("Dockerfile", file), ("a", mark.as_bytes())],
    );
    assert!(!text(&fresh.body).contains("Using cache"));
}

fn labels_target_and_tags_are_taken(s: &Scene<'_>) {
    let file = b"FROM busybox AS first\nLABEL a=1\nCMD [\"echo\",\"first\"]\nFROM busybox\nCMD [\"echo\",\"second\"]\n";
    let labels = encoded("{\"b\":\"2\"}");
    let query = format!("target=first&labels={labels}&t={0}&t={0}:v2&dockerfile=D", s.name("i"));
    build(s, &query, &[("D", file)]).expect(200);
    assert_eq!(output(s, "i", &[]), "first");
    assert_eq!(config(s, "i")["Labels"], json!({ "a": "1", "b": "2" }));
    s.get(&format!("/images/{}:v2/json", s.name("i"))).expect(200);
}

fn a_failing_step_ends_the_build(s: &Scene<'_>) {
    let answer =
        build(s, &format!("t={}", s.name("i")), &[("Dockerfile", b"FROM busybox\nRUN exit 7\n")])
            .expect(200);
    let last = answer.objects().last().unwrap().clone();
    let words = "The command '/bin/sh -c exit 7' returned a non-zero code: 7";
    assert_eq!((&last["error"], &last["errorDetail"]["code"]), (&json!(words), &json!(7)));
    s.get(&format!("/images/{}/json", s.name("i"))).refuses(404, "No such image");
    let missing = build(s, "", &[("Dockerfile", b"FROM busybox\nCOPY nope /\n")]);
    assert!(text(&missing.body).contains("COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"), "{:?}", text(&missing.body));
}

fn a_dockerfile_out_of_order_is_refused(s: &Scene<'_>) {
    for (file, words) in [
        (&b"NONSENSE x\n"[..], "dockerfile parse error on line 1: unknown instruction: NONSENSE"),
        (b"RUN x\n", "no build stage in current context"),
        (b"FROM busybox\nCOPY x\n", "COPY requires at least two arguments"),
        (b"FROM busybox\nEXPOSE\n", "EXPOSE requires at least one argument"),
        (b"", "the Dockerfile (Dockerfile) cannot be empty"),
    ] {
        let answer = build(s, "", &[("Dockerfile", file)]);
        let body = text(&answer.body);
        assert!(answer.status() >= 400 && body.contains(words), "{} {body}", answer.status());
    }
    let answer = build(s, "dockerfile=Other", &[("Dockerfile", b"FROM busybox\n")]);
    assert!(
        answer.message().contains("Cannot locate specified Dockerfile: Other"),
        "{}",
        answer.message()
    );
}

fn entrypoint_user_expose_and_volume_are_kept(s: &Scene<'_>) {
    let file = b"FROM busybox\nENTRYPOINT [\"echo\"]\nCMD [\"x\"]\nUSER nobody\nEXPOSE 80/tcp 90/udp\nVOLUME /v\nSTOPSIGNAL INT\nHEALTHCHECK --interval=3s CMD true\nSHELL [\"/bin/sh\",\"-ec\"]\nLABEL a=\"b c\"\nMAINTAINER me\n";
    built(s, "i", &[("Dockerfile", file)]);
    let kept = config(s, "i");
    assert_eq!((&kept["Entrypoint"], &kept["Cmd"]), (&json!(["echo"]), &json!(["x"])));
    assert_eq!((&kept["User"], &kept["StopSignal"]), (&json!("nobody"), &json!("INT")));
    assert_eq!(kept["ExposedPorts"], json!({ "80/tcp": {}, "90/udp": {} }));
    assert_eq!((&kept["Volumes"], &kept["Labels"]), (&json!({ "/v": {} }), &json!({ "a": "b c" })));
    assert_eq!(
        kept["Healthcheck"],
        json!({ "Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000_u64 })
    );
    assert_eq!(kept["Shell"], json!(["/bin/sh", "-ec"]));
    let image = s.get(&format!("/images/{}/json", s.name("i"))).json();
    assert_eq!(image["Author"], "me");
}

fn onbuild_runs_in_the_next_build(s: &Scene<'_>) {
    built(s, "base", &[("Dockerfile", b"FROM busybox\nONBUILD RUN echo later >/later\n")]);
    assert_eq!(config(s, "base")["OnBuild"], json!(["RUN echo later >/later"]));
    let file = format!("FROM {}\nCMD [\"cat\",\"/later\"]\n", s.name("base"));
    built(s, "i", &[("Dockerfile", file.as_bytes())]);
    assert_eq!(output(s, "i", &[]), "later");
}

fn an_archive_is_unpacked_by_add(s: &Scene<'_>) {
    let inner = tar_of(&[("inside", b"unpacked")]);
    let file = b"FROM busybox\nADD a.tar /d/\nCOPY a.tar /c/\n";
    built(s, "i", &[("Dockerfile", file), ("a.tar", &inner)]);
    assert_eq!(output(s, "i", &["sh", "-c", "cat /d/inside; ls /c"]), "unpackeda.tar");
}

fn build_by_the_cli_prints_the_id_when_quiet(s: &Scene<'_>) {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), "FROM busybox\nCOPY . /all\n").unwrap();
    std::fs::write(folder.path().join("kept"), "1").unwrap();
    std::fs::write(folder.path().join("left"), "2").unwrap();
    std::fs::write(folder.path().join(".dockerignore"), "left\n").unwrap();
    let (image, path) = (s.name("i"), folder.path().display().to_string());
    let id = s.ok(&["build", "-q", "-t", &image, &path]);
    assert_eq!(s.get(&format!("/images/{image}/json")).expect(200).json()["Id"], id);
    assert_eq!(output(s, "i", &["ls", "/all"]), "Dockerfile\nkept");
}

fn build_prune_has_dockers_fields(s: &Scene<'_>) {
    let until = encoded("{\"until\":[\"2000h\"]}");
    let pruned = s.poke(&format!("/build/prune?filters={until}")).expect(200).json();
    assert!(pruned["SpaceReclaimed"].is_u64(), "{pruned}");
}

fn system_df_has_dockers_fields(s: &Scene<'_>) {
    let image = s.image("image");
    let mount = format!("{}:/v", s.name("v"));
    let script = "head -c 1000 /dev/zero >/v/f; head -c 5000 /dev/zero >/f";
    let id =
        s.create("c", json!({ "Cmd": ["sh", "-c", script], "HostConfig": { "Binds": [mount] } }));
    s.start(&id);
    s.wait(&id);
    let usage = s.get("/system/df").expect(200).json();
    let find = |kind: &str, name: &str| {
        let all = usage[kind].as_array().unwrap();
        all.iter().find(|entry| entry.to_string().contains(name)).cloned().unwrap()
    };
    let volume = find("Volumes", &s.name("v"));
    assert_eq!(volume["UsageData"]["RefCount"], 1);
    assert!(volume["UsageData"]["Size"].as_i64().unwrap() >= 1000);
    let container = find("Containers", &s.name("c"));
    assert!(container["SizeRw"].as_i64().unwrap() >= 5000);
    assert_eq!(find("Images", &image)["Containers"], 0);
    assert!(usage["LayersSize"].as_i64().unwrap() > 0);
    s.same_shape("VolumeInspect of system df", &volume);
    let only = s.get("/system/df?type=volume").expect(200).json();
    assert!(only["Images"].is_null() && only["Volumes"].is_array(), "{only}");
    s.get("/system/df?type=nonsense").refuses(400, "unknown object type: nonsense");
    assert!(s.ok(&["system", "df"]).contains("Local Volumes"));
}

/// A filter for what bears this case's label.
fn labelled(s: &Scene<'_>) -> String {
    encoded(&json!({ "label": [s.name("label")] }).to_string())
}

fn containers_are_pruned_by_label(s: &Scene<'_>) {
    let labels = json!({ s.name("label"): "" });
    let created = s.create("a", json!({ "Labels": labels }));
    let running =
        s.create("b", json!({ "Labels": labels, "Cmd": ["sleep", "1000"], "StopSignal": "KILL" }));
    s.start(&running);
    let pruned = s.poke(&format!("/containers/prune?filters={}", labelled(s))).expect(200).json();
    assert_eq!(pruned["ContainersDeleted"], json!([created]));
    assert_eq!(pruned["SpaceReclaimed"], 0);
    let none = s.poke(&format!("/containers/prune?filters={}", labelled(s))).expect(200).json();
    assert_eq!(none["ContainersDeleted"], json!(null));
}

fn networks_are_pruned_by_label(s: &Scene<'_>) {
    let labels = json!({ s.name("label"): "" });
    s.post("/networks/create", &json!({ "Name": s.name("n"), "Labels": labels })).expect(201);
    let pruned = s.poke(&format!("/networks/prune?filters={}", labelled(s))).expect(200).json();
    assert_eq!(pruned["NetworksDeleted"], json!([s.name("n")]));
}

fn volumes_are_pruned_by_label(s: &Scene<'_>) {
    let labels = json!({ s.name("label"): "" });
    s.post("/volumes/create", &json!({ "Name": s.name("v"), "Labels": labels })).expect(201);
    let anonymous = s.poke(&format!("/volumes/prune?filters={}", labelled(s))).expect(200).json();
    assert_eq!(
        anonymous["VolumesDeleted"],
        json!([]),
        "only anonymous ones, unless all are asked for"
    );
    let all = encoded(&json!({ "label": [s.name("label")], "all": ["1"] }).to_string());
    let pruned = s.poke(&format!("/volumes/prune?filters={all}")).expect(200).json();
    assert_eq!(pruned["VolumesDeleted"], json!([s.name("v")]));
}

fn images_are_pruned_by_label(s: &Scene<'_>) {
    let image = s.name("image");
    let change = encoded(&format!("LABEL {}=1", s.name("label")));
    let path = format!("/v1.51/images/create?fromSrc=-&repo={image}&changes={change}");
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    s.send(&Request { method: "POST", path: &path, headers, body: &tar_of(&[("f", b"x")]) })
        .expect(200);
    let dangling = s.poke(&format!("/images/prune?filters={}", labelled(s))).expect(200).json();
    assert_eq!(dangling["ImagesDeleted"], json!(null));
    let all = encoded(&json!({ "label": [s.name("label")], "dangling": ["false"] }).to_string());
    let pruned = s.poke(&format!("/images/prune?filters={all}")).expect(200).json();
    assert_eq!(pruned["ImagesDeleted"][0]["Untagged"], format!("{image}:latest"));
}

fn prune_removes_only_what_is_unused(s: &Scene<'_>) {
    let used = s.idle("used");
    let unused = s.create("unused", json!({}));
    let anonymous = s.post("/volumes/create", &json!({})).expect(201).json()["Name"].clone();
    let named = s.post("/volumes/create", &json!({ "Name": s.name("v") })).expect(201).json();
    s.post("/networks/create", &json!({ "Name": s.name("n") })).expect(201);
    let out = s.ok(&["system", "prune", "-f", "--volumes"]);
    assert!(out.contains(&unused) && out.contains(&s.name("n")), "{out}");
    assert!(
        out.contains(anonymous.as_str().unwrap()) && out.contains("Total reclaimed space"),
        "{out}"
    );
    assert_eq!(s.inspect(&used)["State"]["Running"], true);
    s.get(&format!("/volumes/{}", named["Name"].as_str().unwrap())).expect(200);
    s.get("/images/busybox/json").expect(200);
}

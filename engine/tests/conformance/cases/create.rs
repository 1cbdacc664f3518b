//! Creating and inspecting: what is asked for is what is kept, and nonsense is refused.

use crate::{cases::cases, scene::Scene};
use serde_json::{Value, json};

cases! { "create and inspect":
    a_created_container_is_inspected_with_dockers_fields,
    a_running_container_is_inspected_with_dockers_fields,
    the_answer_to_create_is_an_id_and_a_list_of_warnings,
    a_name_without_one_given_is_two_words,
    a_name_can_be_had_once,
    a_name_out_of_order_is_refused,
    an_image_that_is_not_there_is_no_such_image,
    a_container_is_found_by_name_id_and_short_id,
    settings_come_back_as_they_were_given,
    port_bindings_are_null_where_none_were_given,
    the_images_defaults_are_merged_with_what_is_asked,
    limits_that_make_no_sense_are_refused,
    options_that_make_no_sense_are_refused,
    conflicting_network_options_are_refused,
    bad_mounts_are_refused_in_dockers_words,
    a_container_without_a_command_is_refused,
    an_entrypoint_can_be_emptied,
    inspect_with_size_has_both_sizes,
    the_cli_creates_with_every_common_flag,
}

fn a_created_container_is_inspected_with_dockers_fields(s: &Scene<'_>) {
    let host = json!({ "PortBindings": {} });
    let id = s.create("a", json!({ "Cmd": ["true"], "HostConfig": host }));
    let container = s.inspect(&id);
    assert_eq!(container["Id"], id);
    assert_eq!(container["Name"], format!("/{}", s.name("a")));
    assert_eq!(container["State"]["Status"], "created");
    assert_eq!(container["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(container["Path"], "true");
    assert_eq!(container["Args"], json!([]));
    assert_eq!(container["RestartCount"], 0);
    assert_eq!(container["Mounts"], json!([]));
    assert_eq!(container["Config"]["Labels"], json!({}));
    assert_eq!(container["NetworkSettings"]["Ports"], json!({}));
    s.same_shape("ContainerInspect of a created one", &comparable(container));
}

fn port_bindings_are_null_where_none_were_given(s: &Scene<'_>) {
    for (part, host) in [
        ("a", json!(null)),
        ("b", json!({})),
        ("c", json!({ "PortBindings": null })),
        ("d", json!({ "PortBindings": {} })),
        ("e", json!({ "PortBindings": { "80/tcp": null } })),
    ] {
        let given = host["PortBindings"].clone();
        let id = s.create(part, json!({ "Cmd": ["true"], "HostConfig": host }));
        assert_eq!(s.inspect(&id)["HostConfig"]["PortBindings"], given, "{part}");
    }
}

/// Without what depends on how images are stored and processes confined.
fn comparable(mut container: Value) -> Value {
    for field in ["GraphDriver", "ImageManifestDescriptor", "AppArmorProfile"] {
        container.as_object_mut().unwrap().remove(field);
    }
    container
}

fn a_running_container_is_inspected_with_dockers_fields(s: &Scene<'_>) {
    let id = s.idle("a");
    let container = s.inspect(&id);
    assert_eq!(container["State"]["Status"], "running");
    assert_eq!(container["State"]["Running"], true);
    assert!(container["State"]["Pid"].as_i64().unwrap() > 0);
    let network = &container["NetworkSettings"]["Networks"]["bridge"];
    assert!(!network["IPAddress"].as_str().unwrap().is_empty(), "{network}");
    assert!(!network["Gateway"].as_str().unwrap().is_empty(), "{network}");
    assert_eq!(network["MacAddress"].as_str().unwrap().len(), 17);
    assert_eq!(container["NetworkSettings"]["IPAddress"], network["IPAddress"]);
    s.same_shape("ContainerInspect of a running one", &comparable(container));
}

fn the_answer_to_create_is_an_id_and_a_list_of_warnings(s: &Scene<'_>) {
    let path = format!("/containers/create?name={}", s.name("a"));
    let answer = s.post(&path, &json!({ "Image": "busybox" })).expect(201).json();
    assert_eq!(answer["Id"].as_str().unwrap().len(), 64);
    assert_eq!(answer["Warnings"], json!([]));
}

fn a_name_without_one_given_is_two_words(s: &Scene<'_>) {
    let labels = json!({ "case": s.name("") });
    let body = json!({ "Image": "busybox", "Labels": labels });
    let answer = s.post("/containers/create", &body).expect(201).json();
    let id = answer["Id"].as_str().unwrap();
    let name = s.inspect(id)["Name"].as_str().unwrap().to_owned();
    s.delete(&format!("/containers/{id}")).expect(204);
    assert!(name.starts_with('/') && name.contains('_'), "{name}");
}

fn a_name_can_be_had_once(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let name = s.name("a");
    let again = s.post(&format!("/containers/create?name={name}"), &json!({ "Image": "busybox" }));
    let words = format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    );
    again.refuses(409, &words);
}

fn a_name_out_of_order_is_refused(s: &Scene<'_>) {
    for name in ["a%2Fb", "-a", "a%20b", "%C3%A4"] {
        let answer =
            s.post(&format!("/containers/create?name={name}"), &json!({ "Image": "busybox" }));
        answer.refuses(400, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    }
}

fn an_image_that_is_not_there_is_no_such_image(s: &Scene<'_>) {
    let create = |image: &str| s.post("/containers/create", &json!({ "Image": image }));
    create("nobodys").refuses(404, "No such image: nobodys:latest");
    create("nobodys:tag").refuses(404, "No such image: nobodys:tag");
    create("some.where/nobodys").refuses(404, "No such image: some.where/nobodys:latest");
    create("sha256:0000000000000000000000000000000000000000000000000000000000000000")
        .refuses(404, "No such image: sha256:0000");
    let err = s.fails(125, &["run", "--rm", "--pull", "never", "nobodys", "true"]);
    assert!(err.contains("No such image: nobodys:latest"), "{err}");
}

fn a_container_is_found_by_name_id_and_short_id(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let name = s.name("a");
    for key in [name.clone(), id.clone(), id.chars().take(12).collect()] {
        let path = format!("/v1.51/containers/{key}/json");
        assert_eq!(s.get(&path).expect(200).json()["Id"], id, "{key}");
    }
    s.get(&format!("/containers/{name}x/json")).refuses(404, "No such container");
}

fn settings_come_back_as_they_were_given(s: &Scene<'_>) {
    let config = json!({
        "Hostname": "box", "Domainname": "example.org", "User": "nobody", "Tty": true,
        "OpenStdin": true, "Env": ["A=1", "B="], "Cmd": ["sh", "-c", "true"], "WorkingDir": "/tmp",
        "Labels": { "a": "b", "c": "" }, "StopSignal": "SIGUSR1", "StopTimeout": 3,
        "ExposedPorts": { "80/tcp": {} },
        "HostConfig": {
            "Memory": 64 << 20, "MemorySwap": 128 << 20, "CpuShares": 512, "NanoCpus": 500_000_000,
            "PidsLimit": 50, "ReadonlyRootfs": true, "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"],
            "Dns": ["192.0.2.1"], "DnsSearch": ["example.org"], "DnsOptions": ["ndots:2"],
            "ExtraHosts": ["a:192.0.2.2"], "SecurityOpt": ["no-new-privileges"],
            "Tmpfs": { "/run": "size=1m" }, "ShmSize": 1 << 20, "Sysctls": { "net.ipv4.ip_forward": "1" },
            "Ulimits": [{ "Name": "nofile", "Soft": 100, "Hard": 200 }], "OomScoreAdj": 100,
            "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 }, "Init": true,
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m" } },
            "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "0" }] },
            "GroupAdd": ["5"], "Annotations": { "x": "y" },
        },
    });
    let id = s.create("a", config.clone());
    let kept = s.inspect(&id);
    for (field, value) in config.as_object().unwrap() {
        if field != "HostConfig" {
            assert_eq!(&kept["Config"][field], value, "{field}");
        }
    }
    for (field, value) in config["HostConfig"].as_object().unwrap() {
        assert_eq!(&kept["HostConfig"][field], value, "{field}");
    }
}

fn the_images_defaults_are_merged_with_what_is_asked(s: &Scene<'_>) {
    let image = s.name("image");
    let changes =
        ["ENV A=1 B=2", "WORKDIR /tmp", "LABEL l=m", "EXPOSE 81", "ENTRYPOINT [\"echo\"]"];
    let mut arguments = vec!["create", "--name"];
    let made = s.name("made");
    arguments.extend([made.as_str(), "busybox"]);
    s.ok(&arguments);
    let mut commit = vec!["commit"];
    changes.iter().for_each(|change| commit.extend(["-c", change]));
    commit.extend([made.as_str(), image.as_str()]);
    s.ok(&commit);
    let config =
        json!({ "Image": image, "Env": ["B=3", "C=4"], "Labels": { "n": "o" }, "Cmd": ["hi"] });
    let kept = s.inspect(&s.create("a", config));
    let env = kept["Config"]["Env"].as_array().unwrap();
    for entry in ["A=1", "B=3", "C=4"] {
        assert!(env.contains(&json!(entry)), "{env:?}");
    }
    assert!(!env.contains(&json!("B=2")), "{env:?}");
    assert_eq!(kept["Config"]["Labels"], json!({ "l": "m", "n": "o" }));
    assert_eq!(kept["Config"]["WorkingDir"], "/tmp");
    assert_eq!(kept["Config"]["ExposedPorts"], json!({ "81/tcp": {} }));
    assert_eq!((&kept["Path"], &kept["Args"]), (&json!("echo"), &json!(["hi"])));
}

/// Each must be refused with those words.
fn refused(s: &Scene<'_>, cases: &[(Value, &str)]) {
    for (host_config, words) in cases {
        let body = json!({ "Image": "busybox", "HostConfig": host_config });
        let answer = s.post(&format!("/containers/create?name={}", s.name("x")), &body);
        // Docker itself says 500 where it forgot whose fault it was.
        let status = answer.status();
        assert!(matches!(status, 400 | 500), "{host_config}: {status} {:?}", answer.json());
        assert!(answer.message().contains(words), "{host_config}: {}", answer.message());
    }
}

fn limits_that_make_no_sense_are_refused(s: &Scene<'_>) {
    refused(
        s,
        &[
            (json!({ "Memory": 5 }), "Minimum memory limit allowed is 6MB"),
            (
                json!({ "MemorySwap": 1 << 30 }),
                "You should always set the Memory limit when using Memoryswap limit",
            ),
            (
                json!({ "Memory": 64 << 20, "MemorySwap": 32 << 20 }),
                "Minimum memoryswap limit should be larger than memory limit",
            ),
            (
                json!({ "Memory": 64 << 20, "MemoryReservation": 128 << 20 }),
                "Minimum memory limit can not be less than memory reservation limit",
            ),
            (json!({ "NanoCpus": 1_000_000_000_000_000_i64 }), "ange of CPUs is from 0.01 to"),
            (
                json!({ "NanoCpus": 1_000_000_000, "CpuPeriod": 1000 }),
                "Conflicting options: Nano CPUs and CPU Period",
            ),
            (json!({ "CpuPeriod": 10 }), "CPU cfs period can not be less than 1ms"),
            (json!({ "CpuQuota": 10 }), "CPU cfs quota can not be less than 1ms"),
            (json!({ "CpusetCpus": "x" }), "Invalid value x for cpuset cpus"),
            (json!({ "CpusetCpus": "4000" }), "Requested CPUs are not available"),
            (
                json!({ "OomScoreAdj": 2000 }),
                "Invalid value 2000, range for oom score adj is [-1000, 1000]",
            ),
            (json!({ "ShmSize": -1 }), "SHM size can not be less than 0"),
        ],
    );
}

fn options_that_make_no_sense_are_refused(s: &Scene<'_>) {
    refused(
        s,
        &[
            (
                json!({ "RestartPolicy": { "Name": "x" } }),
                "invalid restart policy: unknown policy 'x'",
            ),
            (
                json!({ "RestartPolicy": { "Name": "always", "MaximumRetryCount": 3 } }),
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ),
            (
                json!({ "AutoRemove": true, "RestartPolicy": { "Name": "always" } }),
                "can't create 'AutoRemove' container with restart policy",
            ),
            (
                json!({ "CapAdd": ["NO_SUCH"] }),
                "invalid CapAdd: unknown capability: \"CAP_NO_SUCH\"",
            ),
            (json!({ "PortBindings": { "x": [{}] } }), "invalid port specification: \"x\""),
            (
                json!({ "PortBindings": { "80/tcp": [{ "HostPort": "99999" }] } }),
                "invalid port specification: \"99999\"",
            ),
            (json!({ "PidMode": "nonsense" }), "invalid PID mode: nonsense"),
            (json!({ "UTSMode": "nonsense" }), "invalid UTS mode: nonsense"),
            (json!({ "IpcMode": "nonsense" }), "invalid IPC mode: nonsense"),
            (json!({ "ExtraHosts": ["x"] }), "bad format for add-host: \"x\""),
            (
                json!({ "Isolation": "hyperv" }),
                "invalid isolation (hyperv): linux only supports 'default'",
            ),
            (json!({ "CgroupnsMode": "x" }), "invalid cgroup namespace mode: x"),
            (json!({ "Runtime": "nope" }), "unknown or invalid runtime name: nope"),
            (json!({ "VolumesFrom": ["nobody"] }), "No such container: nobody"),
            (
                json!({ "Links": ["nobody:x"] }),
                "could not get container for nobody: No such container: nobody",
            ),
            (
                json!({ "LogConfig": { "Type": "json-file", "Config": { "a": "b" } } }),
                "unknown log opt 'a' for json-file log driver",
            ),
            (json!({ "StorageOpt": { "size": "1G" } }), "--storage-opt is supported only for"),
            (json!({ "SecurityOpt": ["x"] }), "invalid --security-opt 1: \"x\""),
        ],
    );
}

fn conflicting_network_options_are_refused(s: &Scene<'_>) {
    let create =
        |config: Value| s.post(&format!("/containers/create?name={}", s.name("x")), &config);
    let container = json!({ "Image": "busybox", "Hostname": "x", "HostConfig": { "NetworkMode": "container:y" } });
    create(container).refuses(400, "conflicting options: hostname and the network mode");
    let ports = json!({
        "Image": "busybox", "ExposedPorts": { "80/tcp": {} },
        "HostConfig": { "NetworkMode": "container:y" },
    });
    create(ports)
        .refuses(400, "conflicting options: port exposing and the container type network mode");
    let uts = json!({ "Image": "busybox", "Hostname": "x", "HostConfig": { "UTSMode": "host" } });
    create(uts).refuses(400, "conflicting options: hostname and the UTS mode");
}

fn bad_mounts_are_refused_in_dockers_words(s: &Scene<'_>) {
    refused(
        s,
        &[
            (json!({ "Binds": ["/a:/b:/c:/d"] }), "invalid volume specification: '/a:/b:/c:/d'"),
            (
                json!({ "Binds": ["/a:/"] }),
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
            (json!({ "Binds": ["/tmp:/b:nonsense"] }), "invalid mode: nonsense"),
            (json!({ "Binds": ["/tmp:/b", "/usr:/b"] }), "Duplicate mount point: /b"),
            (
                json!({ "Mounts": [{ "Type": "bind", "Source": "/no/such/dir", "Target": "/x" }] }),
                "invalid mount config for type \"bind\": bind source path does not exist: /no/such/dir",
            ),
            (
                json!({ "Mounts": [{ "Type": "bind", "Source": "/tmp", "Target": "" }] }),
                "invalid mount config for type \"bind\": field Target must not be empty",
            ),
            (json!({ "Mounts": [{ "Type": "nonsense", "Target": "/x" }] }), "mount type unknown"),
            (
                json!({ "Mounts": [{ "Type": "tmpfs", "Source": "/x", "Target": "/x" }] }),
                "invalid mount config for type \"tmpfs\": field Source must not be specified",
            ),
            (
                json!({ "Mounts": [{ "Type": "volume", "Source": "../x", "Target": "/x" }] }),
                "only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed",
            ),
        ],
    );
}

fn a_container_without_a_command_is_refused(s: &Scene<'_>) {
    let image = s.image("bare");
    let answer = s.post("/containers/create", &json!({ "Image": image }));
    answer.refuses(400, "no command specified");
}

fn an_entrypoint_can_be_emptied(s: &Scene<'_>) {
    let config = json!({ "Entrypoint": ["echo", "a"], "Cmd": ["b"] });
    let kept = s.inspect(&s.create("a", config));
    assert_eq!((&kept["Path"], &kept["Args"]), (&json!("echo"), &json!(["a", "b"])));
    assert_eq!(
        s.ok(&["run", "--rm", "--name", &s.name("b"), "--entrypoint", "", "busybox", "echo", "x"]),
        "x"
    );
}

fn inspect_with_size_has_both_sizes(s: &Scene<'_>) {
    let id = s.run("a", "head -c 100000 /dev/zero >/file");
    s.wait(&id);
    let container = s.get(&format!("/containers/{id}/json?size=1")).expect(200).json();
    let (written, all) = (&container["SizeRw"], &container["SizeRootFs"]);
    assert!((100_000..200_000).contains(&written.as_i64().unwrap()), "{written}");
    assert!(all.as_i64() > written.as_i64(), "{all}");
    assert!(s.inspect(&id).get("SizeRw").is_none());
}

fn the_cli_creates_with_every_common_flag(s: &Scene<'_>) {
    let name = s.name("a");
    s.ok(&[
        "create",
        "--name",
        &name,
        "--hostname",
        "h",
        "-e",
        "A=1",
        "-l",
        "x=y",
        "-w",
        "/tmp",
        "-u",
        "1:1",
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "--cap-drop",
        "ALL",
        "--read-only",
        "--tmpfs",
        "/t",
        "--restart",
        "unless-stopped",
        "--stop-signal",
        "INT",
        "--stop-timeout",
        "2",
        "--log-opt",
        "max-size=1m",
        "--dns",
        "192.0.2.1",
        "--add-host",
        "a:192.0.2.9",
        "--init",
        "--security-opt",
        "no-new-privileges",
        "-p",
        "127.0.0.1::80",
        "-it",
        "--shm-size",
        "1m",
        "--sysctl",
        "net.ipv4.ip_forward=0",
        "--health-cmd",
        "true",
        "--expose",
        "9",
        "busybox",
        "sh",
    ]);
    let format = "{{.Config.Hostname}} {{.Config.User}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} \
                  {{.HostConfig.RestartPolicy.Name}} {{json .Config.Healthcheck.Test}}";
    let kept = s.ok(&["inspect", "-f", format, &name]);
    assert_eq!(kept, "h 1:1 67108864 500000000 unless-stopped [\"CMD-SHELL\",\"true\"]");
}

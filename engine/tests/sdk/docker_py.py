"""docker-py, unchanged, against the engine at DOCKER_HOST: what its users do most."""

import io
import tarfile
import threading

import docker

client = docker.from_env(timeout=60)


def tar_of(name, content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def the_engine_answers():
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["OSType"] == "linux"


def a_run_gives_its_output_and_its_failure():
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    try:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    except docker.errors.ContainerError as error:
        assert error.exit_status == 3 and error.stderr == b"bad\n", error
    else:
        raise AssertionError("a failure was taken for a success")
    try:
        client.containers.run("nobodys-at-all", "true")
    except (docker.errors.ImageNotFound, docker.errors.APIError):
        pass
    else:
        raise AssertionError("an image that is not there was run")


def a_container_lives():
    container = client.containers.run(
        "busybox", "sleep 1000", detach=True, labels={"sdk": "py"}, environment={"A": "1"}, stop_signal="KILL"
    )
    try:
        assert container.status in ("created", "running")
        code, output = container.exec_run(["sh", "-c", "echo $A; echo e >&2; exit 4"], demux=True)
        assert (code, output) == (4, (b"1\n", b"e\n")), (code, output)
        assert container in client.containers.list(filters={"label": "sdk=py"})
        container.pause()
        container.reload()
        assert container.status == "paused"
        container.unpause()
        assert "sleep 1000" in str(container.top()["Processes"])
        assert container.stats(stream=False)["id"] == container.id
        assert container.put_archive("/tmp", tar_of("f", b"sent"))
        chunks, stat = container.get_archive("/tmp/f")
        assert stat["name"] == "f" and b"sent" in b"".join(chunks)
        container.rename("sdk-py-renamed")
        assert client.containers.get("sdk-py-renamed").id == container.id
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] == 137
        assert {"Path": "/tmp/f", "Kind": 1} in container.diff()
    finally:
        container.remove(force=True, v=True)


def logs_flow():
    container = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"], detach=True)
    try:
        assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
        assert container.logs(tail=1) == b"3\n"
    finally:
        container.remove(force=True)


def attached_input_arrives():
    container = client.containers.create("busybox", "cat", stdin_open=True)
    try:
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        socket._sock.sendall(b"typed\n")
        got = b""
        while b"typed\n" not in got:
            got += socket._sock.recv(100)
        assert got == b"\x01\0\0\0\0\0\0\x06typed\n", got
        socket.close()
    finally:
        container.remove(force=True)


def events_flow():
    seen = []
    events = client.events(decode=True, filters={"label": "sdk=events"})
    reader = threading.Thread(target=lambda: seen.extend(event["Action"] for event, _ in zip(events, range(2))))
    reader.start()
    client.containers.create("busybox", "true", labels={"sdk": "events"}).remove()
    reader.join(30)
    assert seen == ["create", "destroy"], seen
    events.close()


def volumes_and_networks_are_made_and_used():
    volume = client.volumes.create("sdk-py-volume", labels={"a": "b"})
    network = client.networks.create("sdk-py-network", driver="bridge")
    server = None
    try:
        mounts = {"sdk-py-volume": {"bind": "/v", "mode": "rw"}}
        client.containers.run("busybox", "touch /v/kept", volumes=mounts, remove=True)
        assert client.containers.run("busybox", "ls /v", volumes=mounts, remove=True) == b"kept\n"
        server = client.containers.run("busybox", "sleep 1000", name="sdk-py-server", network=network.name, detach=True)
        client.containers.run(
            "busybox", "ping -c1 -W5 sdk-py-server", network=network.name, remove=True
        )
        network.reload()
        assert network.containers == [server]
    finally:
        if server:
            server.remove(force=True)
        network.remove()
        volume.remove()


def images_are_built_tagged_saved_and_loaded():
    dockerfile = io.BytesIO(b"FROM busybox\nRUN echo built >/built\nCMD cat /built\n")
    image, log = client.images.build(fileobj=dockerfile, tag="sdk-py-image", rm=True)
    try:
        assert any("Successfully built" in line.get("stream", "") for line in log)
        assert client.containers.run("sdk-py-image", remove=True) == b"built\n"
        assert image.tag("sdk-py-image", "v2")
        image.reload()
        saved = b"".join(image.save(named="sdk-py-image:v2"))
        client.images.remove("sdk-py-image:v2")
        assert client.images.load(saved)[0].id == image.id
    finally:
        for tag in ("sdk-py-image", "sdk-py-image:v2"):
            client.images.remove(tag, force=True)


for case in (
    the_engine_answers,
    a_run_gives_its_output_and_its_failure,
    a_container_lives,
    logs_flow,
    attached_input_arrives,
    events_flow,
    volumes_and_networks_are_made_and_used,
    images_are_built_tagged_saved_and_loaded,
):
    case()
    print("docker-py:", case.__name__.replace("_", " "), flush=True)

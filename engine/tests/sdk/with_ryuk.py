"""A client of testcontainers dies, and its reaper removes what it has left."""

import os
import subprocess
import sys
import time

import docker

if sys.argv[1:] == ["die"]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    network = Network().create()
    container = DockerContainer("busybox").with_command("sleep 1000").with_network(network).start()
    print(container.get_wrapped_container().id, network.id, flush=True)
    os._exit(0)

client = docker.from_env()
other = client.containers.run("busybox", "sleep 1000", detach=True)
client_of_testcontainers = subprocess.run(
    [sys.executable, __file__, "die"], check=True, stdout=subprocess.PIPE, text=True
)
container, network = client_of_testcontainers.stdout.split()
deadline = time.monotonic() + 30
while len(client.containers.list(all=True)) > 1 or client.networks.list(ids=[network]):
    left = [(it.name, it.status, it.logs()) for it in client.containers.list(all=True)]
    assert time.monotonic() < deadline, left
    time.sleep(0.1)
assert [it.id for it in client.containers.list()] == [other.id]
other.remove(force=True)
print("testcontainers: the reaper removes what a client has left, and itself", flush=True)

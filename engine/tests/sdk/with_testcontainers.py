"""testcontainers for Python, unchanged, against the engine at DOCKER_HOST."""

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

with DockerContainer("busybox").with_command("sh -c 'echo is ready; exec sleep 1000'").waiting_for(
    LogMessageWaitStrategy("is ready")
) as container:
    assert container.exec("echo inside").output == b"inside\n"
    assert b"is ready" in container.get_logs()[0]
print("testcontainers: a container is waited for, executed in, and removed", flush=True)

with Network() as network:
    server = DockerContainer("busybox").with_command("sleep 1000")
    with server.with_network(network).with_network_aliases("server"):
        client = DockerContainer("busybox").with_command("sleep 1000")
        with client.with_network(network) as client:
            code, output = client.exec("ping -c1 -W5 server")
            assert code == 0, output
print("testcontainers: two containers find each other on a network", flush=True)

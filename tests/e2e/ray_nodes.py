"""A Ray cluster of several nodes on this machine: ``python -m tests.e2e.ray_nodes``, told what to do line by line.

The first line that it says is the cluster's address; ``add N`` adds a node of N cores, ``kill N``
kills the N-th as a machine dies: at once, with all that runs there. Its end, or that of its
standard input, is the cluster's.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import psutil
from ray.cluster_utils import Cluster


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes = []
    say(cluster.address)
    try:
        for line in sys.stdin:
            what, _, number = line.strip().partition(" ")
            if what == "add":
                nodes.append(cluster.add_node(num_cpus=int(number)))
            else:
                node = nodes[int(number)]
                (raylet,) = node.all_processes["raylet"]
                for process in psutil.Process(raylet.process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                cluster.remove_node(node, allow_graceful=False)
            say(line.strip())
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()

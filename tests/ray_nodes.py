"""A real Ray cluster of raylets on this machine, as a program: prints its address and their pids, ends with stdin."""

import json
import os
import sys
import warnings

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
warnings.simplefilter("ignore")
from ray.cluster_utils import Cluster  # noqa: E402


def main(nodes):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    others = [cluster.add_node(num_cpus=1) for _ in range(nodes - 1)]
    cluster.wait_for_nodes(timeout=200)
    raylets = [node.all_processes["raylet"][0].process.pid for node in [cluster.head_node, *others]]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Runs in a Python that has lerobot (made for 0.4.4): leaves one episode out with its own tool.

python lerobot_delete.py FOLDER OUT EPISODE
"""

import sys

from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main():
    folder, out, episode = sys.argv[1:]
    dataset = LeRobotDataset("local/peer", root=folder)
    print(delete_episodes(dataset, [int(episode)], out, "local/less").num_episodes)


if __name__ == "__main__":
    main()

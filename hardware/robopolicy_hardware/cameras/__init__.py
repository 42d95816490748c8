"""Cameras at this machine: the newest picture of each with its stamp, whatever is unplugged meanwhile."""

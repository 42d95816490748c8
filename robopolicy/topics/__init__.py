"""ROS 2 topics as fields: which topic is which camera, state or command, and what its messages hold."""

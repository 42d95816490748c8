"""Devices a person drives a robot with: keyboard, gamepad, SpaceMouse, ROS 2 topics, browser."""

"""A FAKE, see rclpy/__init__.py."""

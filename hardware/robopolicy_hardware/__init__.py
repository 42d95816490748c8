"""What touches an arm: safety, mock, ROS 2."""

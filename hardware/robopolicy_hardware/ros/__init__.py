"""ROS 2: topics on the wire, without ROS, and the robot behind them."""

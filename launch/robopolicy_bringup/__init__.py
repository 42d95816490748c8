"""ROS 2 package marker; the launch files beside it start the installed `robopolicy` executable."""

"""A FAKE of the few things of rclpy that robopolicy uses: nodes, raw topics, services, parameters, a lifecycle.

Everything happens between the nodes of one process. It runs every line of ours and catches typos, order, deadlocks and
shutdown. It does not prove that rclpy is like it: the tests marked ``ros2`` do, on a machine with ROS. Names and
signatures are those of rclpy's own source, December 2024.
"""

from rclpy.node import Node


class Context:
    def __init__(self):
        self.up, self.args = False, []

    def ok(self):
        return self.up

    def try_shutdown(self):
        self.up = False


def init(*, args=None, context=None, domain_id=None, signal_handler_options=None):
    assert not context.up
    assert domain_id is None or isinstance(domain_id, int)
    context.up, context.args = True, list(args or [])


def try_shutdown(*, context=None, uninstall_handlers=None):
    context.try_shutdown()


def create_node(node_name, *, context=None, namespace=None):
    return Node(node_name, context=context, namespace=namespace)

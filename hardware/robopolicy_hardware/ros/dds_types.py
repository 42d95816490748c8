"""ROS 2 message types as DDS has them: CycloneDDS sees the fields, the bytes are left as they are."""

from functools import cache
from typing import Any

from robopolicy_hardware.ros.codec import message, typestore


def wire_type(kind: str) -> str:
    """Return the DDS name of a message type: ``pkg/msg/Name`` is ``pkg::msg::dds_::Name_``."""
    package, _, name = kind.split("/")
    return f"{package}::msg::dds_::{name}_"


def ros_type(wire: str) -> str:
    """Return the ROS name of a DDS type, or the name as it is if it is none of ROS's."""
    package, _, name = wire.partition("::msg::dds_::")
    return f"{package}/msg/{name.removesuffix('_')}" if name else wire


@cache
def struct_of(kind: str) -> Any:
    """Return the DDS type of a message: its declared fields for discovery, its bytes left as they are."""
    from cyclonedds.idl import make_idl_struct

    message(kind)
    name = kind.rpartition("/")[2]
    fields = {field: _field(*what) for field, what in typestore().fielddefs[kind][1]}
    struct = make_idl_struct(f"{name}_", wire_type(kind).replace("::", "."), fields)

    class Bytes:
        """A received sample, not decoded yet."""

        def __init__(self, cdr: bytes) -> None:
            self.cdr = cdr

    # A subclass cannot have these: CycloneDDS looks at the class that was made from the fields.
    struct.serialize = lambda self, *args, **options: self.cdr
    struct.deserialize = classmethod(lambda cls, data, *args, **options: Bytes(bytes(data)))
    struct.deserialize_key = classmethod(lambda cls, data, *args, **options: None)  # comes when a writer leaves
    return struct


def _field(node: Any, what: Any) -> Any:
    from cyclonedds.idl import types

    if node.name == "NAME":
        return struct_of(what)
    if node.name == "BASE":
        name = what[0] if isinstance(what, tuple) else what
        special = {"string": str, "bool": bool, "octet": types.byte, "byte": types.byte, "char": types.uint8}
        return special.get(name) or getattr(types, name)
    inner, size = what
    element = _field(*inner)
    return types.array[element, size] if node.name == "ARRAY" else types.sequence[element]

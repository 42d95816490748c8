"""ROS 2 messages and their bytes: rosbags knows both, whatever carries them."""

from functools import cache
from typing import Any

from robopolicy.errors import MissingExtra, UnknownName


def message(kind: str) -> type:
    """Return the class of a message type, e.g. ``geometry_msgs/msg/TwistStamped``.

    Raises:
        UnknownName: naming the types of the same package.
    """
    types = typestore().types
    if kind not in types:
        package = kind.partition("/")[0] + "/"
        raise UnknownName(
            "message type", kind, [name for name in types if name.startswith(package)] or ["PKG/msg/TYPE"]
        )
    found: type = types[kind]
    return found


def encoded(message: Any, kind: str) -> bytes:
    """Return the little-endian CDR of a message, header and all, as every ROS 2 node sends it."""
    return bytes(typestore().serialize_cdr(message, kind))


def decoded(cdr: bytes, kind: str) -> Any:
    """Return the message that ``cdr`` holds; raises whatever rosbags raises of bytes that are none."""
    return typestore().deserialize_cdr(cdr, kind)


def hashed(kind: str) -> str:
    """Return the type's hash, ``RIHS01_...``, which newer ROS asks for."""
    found: str = typestore().hash_rihs01(kind)
    return found


@cache
def typestore() -> Any:
    """Return rosbags' types; MissingExtra without it."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingExtra("rosbags", "ros") from error
    return get_typestore(Stores.ROS2_JAZZY)

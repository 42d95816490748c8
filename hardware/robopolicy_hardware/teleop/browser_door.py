"""The door of the browser page: nobody gets the page or its websocket without the token."""

import hmac
import http
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from robopolicy.errors import MissingExtra, RobopolicyError, UsageError

REFUSED = b"403: this page needs its token. Open the whole address that the program printed.\n"
HEADERS = {  # of every page: nothing may keep it, frame it or learn its address
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
PING_S = 5.0  # a connection that is silent for this long twice is closed
_ONE_AT_A_TIME = threading.Lock()


class Door:
    """Lets in who shows the token: in the address once, from then on in a cookie that the page's own requests carry.

    The cookie is useless to other web pages: it is ``SameSite=Strict`` and ``HttpOnly``, and a request that some other
    page sent (its ``Origin`` is not the ``Host`` asked) is refused whatever it carries.

    Args:
        token: the secret, at least 8 characters.

    Raises:
        UsageError: if the token is too short.
    """

    def __init__(self, token: str) -> None:
        if len(token) < 8:
            raise UsageError(f"the token has {len(token)} characters; want at least 8, or none to have one made")
        self._token = token
        # Cookies know no ports: the name keeps two programs on one machine apart.
        self.cookie = f"robopolicy_{sha256(token.encode()).hexdigest()[:12]}"

    def admits(self, path: str, headers: Any) -> bool:
        """Whether a request with this path and these headers may come in."""
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
            return False
        given = parse_qs(urlsplit(path).query).get("token", []) + self._in_cookies(headers)
        return any(hmac.compare_digest(token.encode(), self._token.encode()) for token in given)

    def _in_cookies(self, headers: Any) -> list[str]:
        found = []
        for line in headers.get_all("Cookie"):
            try:
                morsel = SimpleCookie(line).get(self.cookie)
            except CookieError:
                continue
            found += [morsel.value] if morsel is not None else []
        return found

    def guard(self, process_request: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Return a websockets ``process_request`` that asks for the token before the one given here."""
        from websockets.datastructures import Headers
        from websockets.http11 import Response

        def guarded(connection: Any, request: Any) -> Any:
            if not self.admits(request.path, request.headers):
                headers = Headers({**HEADERS, "Content-Type": "text/plain", "Content-Length": str(len(REFUSED))})
                return Response(http.HTTPStatus.FORBIDDEN, "Forbidden", headers, REFUSED)
            response = process_request(connection, request)
            if response is not None:
                response.headers.update(HEADERS)
                response.headers["Set-Cookie"] = f"{self.cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            return response

        return guarded


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: if the port is taken or the host is not this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:  # the latter is a port beyond 65535
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host} port {port}: {reason}; give another port, or 0 for any") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``; a name that is no address counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guarded_viser(door: Door, listening: socket.socket) -> Any:
    """Return a ``viser.ViserServer`` that listens on ``listening`` behind ``door``.

    viser offers no hook for requests: it calls ``websockets.asyncio.server.serve`` with a handler of its own, and that
    public name is where the door is hung while viser starts. A viser that did not come through here would be an open
    door, so it is stopped at once and an error.

    Raises:
        MissingExtra: without viser.
        RobopolicyError: if viser did not come through the door.
    """
    try:
        import viser
        import websockets.asyncio.server as server
    except ImportError as error:
        raise MissingExtra("viser", "teleop") from error
    guarded = 0

    def serve(handler: Any, host: Any, port: Any, *, process_request: Any, **options: Any) -> Any:
        nonlocal guarded
        guarded += 1
        options |= {"process_request": door.guard(process_request), "ping_interval": PING_S, "ping_timeout": PING_S}
        return plain(handler, sock=listening, **options)

    with _ONE_AT_A_TIME, quietly():
        plain = server.serve
        server.serve = serve  # type: ignore[assignment, misc]
        try:
            page = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
        finally:
            server.serve = plain  # type: ignore[misc]
        if guarded != 1:
            page.stop()
            raise RobopolicyError("this viser does not let itself be guarded by a token; install viser>=1.1,<2")
    return page


@contextmanager
def quietly() -> Iterator[None]:
    """Keep viser from printing: it says where it listens, without the token, and that it stopped."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def address(host: str, port: int, token: str) -> str:
    """Return the page's address with its token; of a wildcard host, by the address others reach this machine at."""
    if host in ("0.0.0.0", "::", ""):
        host = _outward_address()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"


def _outward_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: this only asks the routing table
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()

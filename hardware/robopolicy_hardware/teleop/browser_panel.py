"""The panels of the page: state, gripper, episode buttons and camera pictures."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy.types import Event, Phase, Status
from robopolicy_hardware.teleop.browser_hand import Hand, HandState

WIDEST = 480  # px, of a picture for the page
PHASES: dict[Phase, tuple[str, str]] = {  # word and colour
    "waiting": ("ready", "#1971c2"),
    "recording": ("recording", "#c92a2a"),
    "paused": ("paused", "#e67700"),
    "saving": ("saving", "#5f3dc4"),
}
# Event, words, colour, icon, key, and in which phases it can be pressed. Letters only: space and enter would press the
# button clicked last as well.
BUTTONS: tuple[tuple[Event, str, str, str, str, tuple[Phase, ...]], ...] = (
    ("start", "Start", "green", "PLAYER_RECORD", "B", ("waiting",)),
    ("success", "Success", "green", "CHECK", "S", ("recording", "paused")),
    ("failure", "Failure", "red", "X", "F", ("recording", "paused")),
    ("pause", "Pause", "yellow", "PLAYER_PAUSE", "P", ("recording", "paused")),
    ("takeover", "Take over", "blue", "STEERING_WHEEL", "T", ("recording", "paused")),
    ("release", "Give back", "blue", "ROBOT", "E", ("recording", "paused")),
    ("discard", "Discard", "gray", "TRASH", "D", ("recording", "paused")),
    ("redo", "Start over", "gray", "REFRESH", "R", ("recording", "paused")),
    ("undo", "Undo episode", "gray", "ARROW_BACK_UP", "U", ("waiting",)),
    ("quit", "Quit", "gray", "POWER", "Q", ("waiting",)),
)
CLOSE, OPEN = "Close gripper", "Open gripper"
TURN, MOVE = "Turn tool", "Move tool"
# A notification may lie over the handle, above all on a telephone: a finger goes through it, but for its cross.
STYLE = """<style>
.rp{font:13.5px/1.5 system-ui,sans-serif;padding:.1em .8em}
.rp b{font-variant-numeric:tabular-nums}
.rp .phase{display:inline-block;color:#fff;border-radius:.4em;padding:.05em .7em;font-weight:600;margin-right:.6em}
.rp .line{display:flex;justify-content:space-between;gap:.2em .8em;flex-wrap:wrap}
.rp .warn{color:#c92a2a;font-weight:600}
.rp .dim{opacity:.7}
.mantine-Button-root{min-height:2.9em;padding:0 .3em;font-size:.95rem;touch-action:manipulation}
img[style*="max-width: 100%"]{width:100%;border-radius:.3em}
div:has(>div>.mantine-Button-root){display:grid;grid-template-columns:repeat(2,minmax(0,1fr));padding:.3em .4em}
div:has(>div>.mantine-Button-root)>*{grid-column:1/-1}
div:has(>.mantine-Button-root){grid-column:auto!important;margin:0 .3em!important}
.mantine-Notification-root{pointer-events:none!important}
.mantine-Notification-closeButton{pointer-events:auto}
@media(max-width:40em){
div[style*="fixed"]:has(.rp){max-height:46%!important}
div[style*="fixed"]:has(.rp),div[style*="fixed"]:has(.rp) div[style*="20em"]{width:100%!important}
}
</style>"""


class Panel:
    """What is on the page beside the scene; `update` and `pictures` belong to the page's thread."""

    def __init__(self, server: Any, hand: Hand, spec: PolicySpec) -> None:
        import viser

        self._server, self._hand = server, hand
        gui = server.gui
        gui.set_panel_label("robopolicy")
        gui.main_panel.dock_right()  # beside the scene: floating over it, it would hide the handle
        gui.main_panel.set_width(320)
        self._style = gui.add_html(STYLE)
        self._state = gui.add_html("")
        self._roles: dict[int, tuple[Any, Any]] = {}  # each browser's own line, and its button to drive
        self._refusals: dict[int, Any] = {}  # what each browser that does not drive was told last
        self._shown = ""
        self._gripper, self._has_policy, self._paused = 1.0, False, False
        self._grip: Any = None
        self._turn: Any = None
        kind, dim = spec.action.kind, spec.action.dim
        if kind == "tool_pose" or (kind == "tool_delta" and dim in (4, 7)):
            self._grip = gui.add_button(CLOSE, color="dark", icon=viser.Icon.HAND_GRAB)
            self._on(self._grip, gui.add_command("Open or close the gripper", hotkey="G"), self._toggle)
        if kind == "tool_pose" or (kind == "tool_delta" and dim in (6, 7)):
            self._turn = gui.add_button(TURN, color="indigo", icon=viser.Icon.ROTATE)
            self._on(self._turn, gui.add_command("Turn the tool, or move it", hotkey="W"), hand.turned_over)
        self._buttons = {}
        for event, words, colour, icon, key, _ in BUTTONS:
            button = gui.add_button(words, color=colour, icon=getattr(viser.Icon, icon), visible=event == "start")
            self._on(
                button,
                gui.add_command(words, hotkey=key),
                lambda client, event=event: hand.pressed(client, event, paused=self._paused),
            )
            self._buttons[event] = button
        self._images = self._add_cameras(spec)

    def update(self, status: Status | None, state: HandState, gripper: float | None) -> None:
        """Show what changed: the phase, the numbers, who drives, which buttons there are."""
        if gripper is not None:
            self._gripper = gripper
        self._show_roles(state)
        if self._grip is not None:
            _assign(self._grip, "label", CLOSE if self._gripper > 0.5 else OPEN)
        if self._turn is not None:
            _assign(self._turn, "label", MOVE if state.turning else TURN)
        if status is None:
            return
        self._paused = status.phase == "paused"
        self._has_policy |= status.source == "policy"
        can = {"takeover": status.source == "policy", "release": self._has_policy and status.source != "policy"}
        for event, *_, phases in BUTTONS:
            _assign(self._buttons[event], "visible", status.phase in phases and can.get(event, True))
        _assign(self._buttons["pause"], "label", "Go on" if status.phase == "paused" else "Pause")
        if (content := _in_words(status, state)) != self._shown:
            self._shown = self._state.content = content

    def pictures(self, images: Mapping[str, np.ndarray]) -> None:
        """Show the newest camera pictures, (H, W, 3) uint8 each."""
        for name, image in images.items():
            if name in self._images:
                self._images[name].image = image

    def _add_cameras(self, spec: PolicySpec) -> dict[str, Any]:
        if not spec.cameras:
            return {}
        with self._server.gui.add_folder("Cameras"):
            return {
                name: self._server.gui.add_image(
                    np.full((*_fitted(camera.height, camera.width), 3), 230, np.uint8), label=name, format="jpeg"
                )
                for name, camera in spec.cameras.items()
            }

    def _show_roles(self, state: HandState) -> None:
        clients = self._server.get_clients()
        for number in self._roles.keys() - clients.keys():
            del self._roles[number]
            self._refusals.pop(number, None)
        driver = state.clients.get(-1 if state.driver is None else state.driver)
        for number, client in clients.items():
            if number not in self._roles:
                line = client.gui.add_html("", order=-1.0)
                button = client.gui.add_button("Drive from here", color="blue", order=-0.5, visible=False)
                self._on(button, None, self._drive)
                self._roles[number] = line, button
            line, button = self._roles[number]
            if number == state.driver:
                words = f"<b>You drive:</b> {state.reason or 'the robot follows the handle'}"
            else:
                words = f"<b>You watch:</b> {driver.name if driver else 'nobody'} drives"
            _assign(line, "content", f'<div class="rp">{words}</div>')
            _assign(button, "visible", number != state.driver)
            if number == state.driver:
                self._take_back(number)

    def _drive(self, client: int) -> bool:
        self._hand.drive(client)
        return True

    def _toggle(self, client: int) -> bool:
        return self._hand.gripped(client, 0.0 if self._gripper > 0.5 else 1.0)

    def _on(self, button: Any, command: Any, act: Any) -> None:
        """Let a button, and a key, do what ``act(client)`` does; who may not is told so."""

        async def pressed(event: Any) -> None:
            if event.client is None or act(event.client.client_id):
                return
            self._refuse(event.client)

        button.on_click(pressed)
        if command is not None:
            command.on_trigger(pressed)

    def _refuse(self, client: Any) -> None:
        """Say why nothing happened, once however often it is tried."""
        self._take_back(client.client_id)
        self._refusals[client.client_id] = client.add_notification(
            "You watch", "Another browser drives. Press “Drive from here” first.", auto_close_seconds=4.0
        )

    def _take_back(self, client: int) -> None:
        """What was said to a browser that did not drive is not on its screen any more."""
        if (told := self._refusals.pop(client, None)) is not None:
            told.remove()


def for_people(image: np.ndarray) -> np.ndarray:
    """Return a picture fit for the page: at most 480 px wide; a depth map (H, W) in greys, what is near bright."""
    step = -(-image.shape[1] // WIDEST)
    image = image[::step, ::step]
    if image.ndim == 2:
        seen = image[image > 0]
        furthest = float(np.percentile(seen, 95)) if seen.size else 1.0
        grey = np.where(image > 0, 255 - 215 * np.clip(image / furthest, 0, 1), 0).astype(np.uint8)
        image = np.repeat(grey[..., None], 3, axis=2)
    return np.ascontiguousarray(image)


def _fitted(height: int, width: int) -> tuple[int, int]:
    step = -(-width // WIDEST)
    return -(-height // step), -(-width // step)


def _assign(handle: Any, name: str, value: Any) -> None:
    if getattr(handle, name) != value:
        setattr(handle, name, value)


def _in_words(status: Status, state: HandState) -> str:
    word, colour = PHASES[status.phase]
    minutes, seconds = divmod(int(status.time_s), 60)
    drops = f'<span class="warn">{status.dropped} dropped</span>' if status.dropped else "<span>0 dropped</span>"
    latency = f"{state.latency_s * 1e3:.0f} ms" if state.present else "–"
    cameras = f"<span>cameras <b>{status.camera_hz:.0f} Hz</b></span>" if status.camera_hz else ""
    lines = [
        f'<span><span class="phase" style="background:{colour}">{word}</span>'
        f"episode <b>{status.episode}</b> of <b>{status.episodes}</b></span><b>{minutes}:{seconds:02d}</b>",
        f"<span><b>{status.rate_hz:.1f} Hz</b></span>{cameras}<span>latency <b>{latency}</b></span>{drops}",
        f'<span class="dim">driven by <b>{status.source}</b></span>',
    ]
    if status.message:
        lines.append(f"<span>{html.escape(status.message)}</span>")
    return '<div class="rp">' + "".join(f'<div class="line">{line}</div>' for line in lines) + "</div>"

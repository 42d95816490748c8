"""The page in a real Chromium: from the disk with no network, and from the local server."""

import json
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser_chromium import Tab, chromium
from recordings import META, SECOND

from robopolicy.errors import DatasetError
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, Step, Verdict
from robopolicy_data.derived import write_derived
from robopolicy_data.edit import delete
from robopolicy_data.exporters.zipped import export_zip
from robopolicy_data.labels import label
from robopolicy_data.reader import Dataset
from robopolicy_data.view.page import _reduction, thin, write_page
from robopolicy_data.view.pictures import BLOCK, Cell, colour, reduced
from robopolicy_data.view.server import ViewServer
from robopolicy_data.writer import DatasetWriter

SPEC = PolicySpec(
    cameras={"front": CameraSpec(120, 160), "deep": CameraSpec(48, 64, "depth")},
    state={"q": StateSpec(2, ("rad",)), "grip": StateSpec(1, ("open",))},
    action=ActionSpec("vector", ("x", "y"), ("m",)),
    rate_hz=20.0,
)
STEPS = 60
PLOTS = 4  # q, grip, action, monitor


def hue(k: int) -> np.ndarray:
    """A picture whose colour tells its step: red grows, blue falls."""
    return np.broadcast_to(np.array([4 * k, 40, 250 - 4 * k], np.uint8), (120, 160, 3)).copy()


def make(path, episodes=6):
    with DatasetWriter(path, SPEC) as writer:
        for number in range(episodes):
            success = (True, False, None)[number % 3]
            episode = writer.begin(replace(META, operator=("ana", "bo")[number % 2], seed=number, success=success))
            for k in range(STEPS):
                stamp = SECOND + k * SPEC.period_ns
                state = {"q": np.array([k, -k], np.float32), "grip": np.array([number], np.float32)}
                images = {"front": hue(k), "deep": np.full((48, 64), 500 + 10 * k, np.uint16)}
                judged = {1: "alarm", 4: "overrun"}.get(number, "nominal") if k > 45 else "nominal"
                verdict = Verdict(stamp, {}, k / 10, 4.5, 0.1, judged)
                seen = Observation(stamp, state, images, dict.fromkeys(images, stamp))
                source = "human" if 20 <= k < 30 else "policy"
                episode.add(Step(seen, np.array([0.1 * k, 1], np.float32), stamp, source, verdict))
            episode.commit()
    idle = np.arange(STEPS) < 12
    speed = np.arange(STEPS, dtype=np.float32)
    write_derived(
        path, 2, "quality@1", {"idle": idle, "speed": speed}, {"idle_share": 0.2, "outlier": ["slow </script> one"]}
    )
    label(path, 2, notes="<b>mind</b> the gap", marks=[{"name": "slip", "start": 30, "stop": 40}])
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make(tmp_path_factory.mktemp("view") / "d.zarr")


@pytest.fixture(scope="module")
def page(dataset):
    return write_page(dataset, dataset.with_name("page"))


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield Tab(running)


@pytest.fixture
def tab(browser, page):
    browser.errors.clear()
    browser.requests.clear()
    browser.size(1400, 900)
    browser.open("about:blank")
    browser.open(page.index.as_uri())
    browser.until("view.episode && films.length === 2 && films.every(f => f.shown >= 0)")
    return browser


def shown(tab):
    """Wait until every camera shows the frame of the cursor's time."""
    tab.until("films.every(f => f.shown === indexAt(f.times, view.time))")


def cursors(tab):
    """Where each cursor stands in its area, 0 to 1."""
    return tab.eval(
        "[...document.querySelectorAll('.cursor')].map(c => { const p = c.parentNode.getBoundingClientRect();"
        " const b = c.getBoundingClientRect(); return ((b.left + b.right) / 2 - p.left) / p.width; })"
    )


def pixel(tab, selector, path):
    """The colour in the middle of an element, as it is on the screen."""
    x, y = tab.eval(
        f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('{selector}').getBoundingClientRect())"
    )
    tab.page.screenshot(path=path)
    return cv2.imread(str(path))[round(y), round(x), ::-1].astype(int)


def test_it_opens_from_the_disk_without_a_network_or_an_error(tab, page):
    assert tab.eval("document.querySelectorAll('.row').length") == 6
    assert tab.eval("document.querySelector('#summary').textContent") == "6 episodes · 18.0 s · 20 Hz"
    tab.eval("document.querySelectorAll('.row')[5].scrollIntoView()")
    tab.click(".row[data-number='5'] a")
    tab.until("view.episode.number === 5 && films.every(f => f.shown >= 0)")
    assert tab.errors == []
    assert {url.split(":")[0] for url in tab.requests} <= {"file", "data", "about"}
    text = page.index.read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert page.note in tab.eval("document.querySelector('#note').textContent")
    assert page.megabytes < 2


def test_one_cursor_moves_every_camera_curve_and_number(tab, tmp_path):
    box = tab.eval("(r => [r.x, r.y, r.width, r.height])(document.querySelector('.tracks').getBoundingClientRect())")
    y = box[1] + box[3] - 4
    tab.page.mouse.move(box[0] + 0.3 * box[2], y)
    tab.page.mouse.down()
    for share in (0.4, 0.5, 0.75):
        tab.page.mouse.move(box[0] + share * box[2], y)
    tab.page.mouse.move(box[0] + 0.75 * box[2], y)
    tab.page.mouse.up()
    shown(tab)
    time = tab.eval("view.time")
    assert time == pytest.approx(0.75 * (STEPS - 1) / 20, abs=0.01)
    places = cursors(tab)
    assert len(places) == 1 + PLOTS
    assert all(place == pytest.approx(0.75, abs=0.005) for place in places)
    step = int(time * 20 + 1e-6)
    values = tab.eval("plots.find(p => p.title === 'q').curves.map(c => c.value.textContent)")
    assert [float(v) for v in values] == [step, -step]
    kept = tab.eval("films[0].times")
    frame = int(tab.eval("document.querySelector('canvas[data-camera=front]').dataset.frame"))
    assert kept[frame] <= time + 1e-6 < (kept[frame + 1] if frame + 1 < len(kept) else 9)
    red, _, blue = pixel(tab, "canvas[data-camera=front]", tmp_path / "a.png")
    k = round(kept[frame] * 20)
    assert (red, blue) == (pytest.approx(4 * k, abs=12), pytest.approx(250 - 4 * k, abs=12))


def test_keys_play_step_and_change_episode(tab):
    tab.key("ArrowRight")
    tab.key("ArrowRight")
    assert tab.eval("view.time") == pytest.approx(0.1, abs=1e-6)
    tab.key("End")
    shown(tab)
    assert tab.eval("view.time") == pytest.approx(2.95)
    tab.key("Home")
    tab.key("]")
    assert tab.eval("view.speed") == 2
    tab.key("Space")
    tab.until("view.time > 0.5")
    tab.until("!view.playing")
    assert tab.eval("view.time") == pytest.approx(2.95), "it stops at the end"
    tab.key("j")
    tab.until("view.episode.number === 1")
    assert tab.eval("location.hash") == "#1"
    tab.key("k")
    tab.until("view.episode.number === 0")
    assert tab.errors == []


def test_filters_and_order(tab):
    numbers = "[...document.querySelectorAll('.row')].map(r => Number(r.dataset.number))"
    tab.click("[data-outcome=failure]")
    assert tab.eval(numbers) == [1, 4]
    tab.click("[data-outcome=all]")
    tab.eval("(s => { s.value = 'bo'; s.onchange(); })(byId('by-operator'))")
    assert tab.eval(numbers) == [1, 3, 5]
    tab.eval("(s => { s.value = ''; s.onchange(); })(byId('by-operator'))")
    tab.click("#search")
    tab.page.keyboard.insert_text("slip")
    assert tab.eval(numbers) == [2]
    tab.eval("(s => { s.value = ''; s.oninput({ target: s }); })(byId('search'))")
    tab.eval("(s => { s.value = 'alarm'; s.onchange(); })(byId('by-flag'))")
    assert tab.eval(numbers) == [1, 4], "an overrun is one"
    tab.eval("(s => { s.value = ''; s.onchange(); })(byId('by-flag'))")
    tab.eval("(s => { s.value = 'newest'; s.onchange(); })(byId('by-sort'))")
    assert tab.eval(numbers) == [5, 4, 3, 2, 1, 0]
    tab.eval("(s => { s.value = 'number'; s.onchange(); })(byId('by-sort'))")


def test_bands_marks_and_notes_are_shown_as_text(tab):
    tab.eval("openRow(view.about.episodes[2], 0)")
    tab.until("view.episode.number === 2")
    assert tab.eval("[...document.querySelectorAll('#timeline .labels span')].map(s => s.textContent)") == [
        "driver", "monitor", "idle", "marks",
    ]  # fmt: skip
    spans = tab.eval("view.episode.bands.find(b => b.name === 'driver').spans")
    assert spans == [[0, 1.0, "policy"], [1.0, 1.5, "human"], [1.5, 3.0, "policy"]]
    assert tab.eval("view.episode.bands.find(b => b.name === 'idle').spans") == [[0, 0.6, "idle"]]
    assert tab.eval("byId('notes').textContent") == "<b>mind</b> the gap\nOutlier: slow </script> one"
    assert tab.eval("document.querySelectorAll('#notes b').length") == 0, "notes are text, never markup"
    tab.eval("seek(1.5)")
    assert tab.eval("plots.at(-1).title + ' ' + plots.at(-1).curves[0].value.textContent") == "speed (quality@1) 30.00"
    badges = tab.eval("[...document.querySelectorAll('#title .badge')].map(b => b.textContent)")
    assert badges == ["unlabelled", "outlier", "17 % human", "20 % idle", "slip"]


def test_what_was_chosen_becomes_commands(tab, dataset):
    tab.eval("view.picks.clear()")
    for number, key in ((3, "x"), (4, "x"), (5, "x"), (0, "x"), (2, "s")):
        tab.eval(f"openRow(view.about.episodes[{number}], 0)")
        tab.until(f"view.episode.number === {number}")
        tab.key(key)
    assert tab.eval("[...document.querySelectorAll('#tray code')].map(c => c.textContent)") == [
        f"robopolicy data label {dataset} 2 --success true",
        f"robopolicy data delete {dataset} 0 3-5",
    ]
    for number, key in ((3, "x"), (4, "x"), (5, "x"), (0, "x"), (2, "s")):
        tab.eval(f"openRow(view.about.episodes[{number}], 0)")
        tab.key(key)
    assert tab.eval("byId('tray').hidden")


def test_a_phone_shows_the_list_then_the_episode(tab):
    tab.size(400, 800, 2, mobile=True)
    assert tab.eval("getComputedStyle(document.querySelector('aside')).display") == "none"
    assert tab.eval("document.documentElement.scrollWidth") <= 400
    tab.click("#back")
    assert tab.eval("getComputedStyle(document.querySelector('main')).display") == "none"
    assert tab.eval("document.documentElement.scrollWidth") <= 400
    tab.click(".row[data-number='1'] a")
    tab.until("view.episode.number === 1 && document.body.classList.contains('watching')")


def test_dark_and_light_and_a_link_into_an_episode(tab, page):
    before = tab.eval("document.documentElement.dataset.theme")
    tab.key("d")
    assert tab.eval("document.documentElement.dataset.theme") != before
    tab.open("about:blank")
    tab.open(page.index.as_uri() + "#4@1.5")
    tab.until("view.episode && view.episode.number === 4")
    assert tab.eval("document.documentElement.dataset.theme") != before, "it is remembered"
    assert tab.eval("view.time") == pytest.approx(1.5)
    tab.key("d")


@pytest.fixture
def server(dataset):
    with ViewServer(dataset) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(server, path, **headers):
    with urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers)) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_the_server_sends_the_bytes_of_the_shard(server, dataset):
    episode = Dataset(dataset)[3]
    kind, data = get(server, "frame/3/front/17.jpg")
    assert kind == "image/jpeg"
    assert data == list(episode.frame_bytes("front"))[17]
    deep = cv2.imdecode(np.frombuffer(get(server, "frame/3/deep/0.jpg")[1], np.uint8), 1)[..., ::-1]
    assert deep.shape == (48, 64, 3)
    assert deep[24, 32, 0] > 100 > deep[24, 32, 2], "near is red"
    for path in ("frame/3/front/999.jpg", "frame/9/front/0.jpg", "frame/3/none/0.jpg", "..%2fzarr.json", "edits.jsonl"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(server, path)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(server, "", Host="evil.example")
    assert server.server_address[0] == "127.0.0.1"


def test_the_page_of_the_server_shows_every_frame_and_new_episodes(server, dataset, browser, tmp_path):
    browser.errors.clear()
    browser.requests.clear()
    browser.size(1400, 900)
    browser.open(server.url + "#3")
    browser.until("view.episode && view.episode.number === 3 && films.every(f => f.shown >= 0)")
    assert browser.eval("films[0].times.length") == STEPS
    assert browser.eval("films[0].src").endswith("?" + Dataset(dataset)[3].attributes["uuid"][:12]), "for the cache"
    browser.eval("seek(2.05)")
    shown(browser)
    assert browser.eval("document.querySelector('canvas[data-camera=front]').dataset.frame") == "41"
    red, _, blue = pixel(browser, "canvas[data-camera=front]", tmp_path / "a.png")
    assert (red, blue) == (pytest.approx(164, abs=10), pytest.approx(86, abs=10))
    assert browser.errors == []
    assert all(url.startswith((server.url, "data:", "about:")) for url in browser.requests)
    label(dataset, 5, task="renamed")
    delete(dataset, 4)
    try:
        browser.open("about:blank")
        browser.open(server.url)
        browser.until("view.about")
        assert browser.eval("view.about.episodes.map(e => e.number)") == [0, 1, 2, 3, 5]
        assert browser.eval("view.about.episodes[4].task") == "renamed"
    finally:
        from robopolicy_data.edit import undo

        undo(dataset), undo(dataset)


def test_a_zip_is_looked_at_as_a_folder_is(dataset, tmp_path):
    export_zip(dataset, tmp_path / "d.zip")
    assert write_page(tmp_path / "d.zip", tmp_path / "p", episodes=[2]).episodes == 1
    with ViewServer(tmp_path / "d.zip") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert get(server, "frame/3/front/17.jpg")[1] == list(Dataset(dataset)[3].frame_bytes("front"))[17]
        server.shutdown()


def test_a_page_is_written_again_but_nothing_else_is_overwritten(dataset, tmp_path):
    first = write_page(dataset, tmp_path / "p", episodes=[1, 3])
    assert first.episodes == 2
    write_page(dataset, tmp_path / "p", episodes=[0])
    assert sorted(p.name for p in (tmp_path / "p" / "episodes").iterdir()) == ["000000.js"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match="neither empty nor such a page"):
        write_page(dataset, tmp_path / "mine")
    with pytest.raises(DatasetError, match=r"has no episode 9; it has 0-5"):
        write_page(dataset, tmp_path / "p", episodes=[9])


def spoil(file):
    data = bytearray(file.read_bytes())
    data[3] ^= 255
    file.write_bytes(data)


def test_a_damaged_episode_says_so_and_the_others_are_shown(browser, tmp_path):
    path = make(tmp_path / "d.zarr", episodes=4)
    spoil(next((path / "episodes/000001/action/command").glob("c.*")))
    spoil(next((path / "episodes/000002/action/source").glob("c.*")))
    page = write_page(path, tmp_path / "p")
    assert "DAMAGED, as `robopolicy data check` says: 1-2" in page.note
    with ViewServer(path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for place in (page.index.as_uri(), server.url):
            browser.open("about:blank")
            browser.open(place)
            browser.until("view.episode && films.every(f => f.shown >= 0)")
            for number, array in ((1, "action/command"), (2, "action/source")):
                browser.click(f".row[data-number='{number}'] a")
                browser.until(f"byId('notes').textContent.includes('cannot be read: episode {number}, {array}')")
                assert browser.eval("document.querySelectorAll('#films *, #plots *').length") == 0
                browser.key("ArrowRight")
            browser.click(".row[data-number='3'] a")
            browser.until("view.episode && view.episode.number === 3 && films.every(f => f.shown >= 0)")
        server.shutdown()


def test_steps_are_counted_by_their_stamps_where_a_gap_is(browser, tmp_path):
    with DatasetWriter(tmp_path / "d.zarr", SPEC) as writer:
        episode = writer.begin(META)
        for k in range(STEPS):
            stamp = SECOND + k * SPEC.period_ns + (2 * SECOND if k >= 20 else 0)
            images = {"front": hue(k), "deep": np.full((48, 64), 500, np.uint16)}
            state = {"q": np.zeros(2, np.float32), "grip": np.zeros(1, np.float32)}
            seen = Observation(stamp, state, images, dict.fromkeys(images, stamp))
            episode.add(Step(seen, np.zeros(2, np.float32), stamp, "human"))
        episode.commit()
    browser.open(write_page(tmp_path / "d.zarr", tmp_path / "p").index.as_uri() + "#0@0.95")
    browser.until("view.episode")
    step = "document.querySelector('#stepno').textContent"
    assert browser.eval(step) == f"step 19 of {STEPS - 1}"
    browser.eval("seek(2.5)")
    assert browser.eval(step) == f"step 19 of {STEPS - 1}", "none came since"
    browser.key("ArrowRight")
    assert browser.eval(step) == f"step 20 of {STEPS - 1}"
    assert browser.eval("view.time") == pytest.approx(3.0)
    browser.key("ArrowLeft")
    assert browser.eval("view.time") == pytest.approx(0.95)
    browser.key("End")
    browser.key("ArrowRight")
    assert browser.eval(step) == f"step {STEPS - 1} of {STEPS - 1}"


def test_frames_are_reduced_until_the_page_is_small_enough(dataset):
    opened = Dataset(dataset)
    width, rate = _reduction(opened, list(opened), 48)
    assert (width, rate) == (320, 10)
    width, rate = _reduction(opened, list(opened), 0.25)
    assert rate < 10
    times = np.arange(100) / 30
    kept = thin(times, 10)
    assert len(kept) == 34
    assert np.all(np.diff(times[kept]) > 0.09)
    cell = reduced(CameraSpec(480, 640), 320)
    assert cell == Cell(320, 240)
    assert all(side % BLOCK == 0 for side in Cell(100, 50).padded)


def test_depth_is_coloured_from_near_to_far_and_black_where_unknown():
    frame = np.array([[0, 500, 1000, 2000]], np.uint16)
    shown = colour(frame, (500, 2000)).astype(int)
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, 1, 0] > shown[0, 1, 2]
    assert shown[0, 3, 2] > shown[0, 3, 1]


def test_what_goes_into_the_page_is_json(page):
    text = (page.index.parent / "episodes" / "000002.js").read_text()
    body = json.loads(text.removeprefix("robopolicy.episode(").removesuffix(");\n").replace("<\\/", "</"))
    assert body["steps"] == STEPS
    assert "</script" not in text


def test_rerun_gets_pictures_curves_and_the_outcome(dataset, tmp_path):
    pytest.importorskip("rerun", reason="pip install 'robopolicy[view]'")
    from rerun.chunk import RrdReader

    from robopolicy_data.view.rerun import to_rerun

    assert to_rerun(dataset, tmp_path / "one.rrd", episodes=[1]) == [tmp_path / "one.rrd"]
    several = to_rerun(dataset, tmp_path / "x.rrd", episodes=[0, 2])
    assert [p.name for p in several] == ["x-000000.rrd", "x-000002.rrd"]
    chunks: dict[str, list] = {}
    for chunk in RrdReader(str(tmp_path / "one.rrd")).store().stream():
        chunks.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    (action,) = (b for b in chunks["/action"] if "Scalars:scalars" in b.schema.names)
    assert np.allclose(action.column("Scalars:scalars").to_pylist(), Dataset(dataset)[1].action())
    frames = [b for b in chunks["/camera/front"] if "EncodedImage:blob" in b.schema.names]
    blobs = [bytes(row[0]) for b in frames for row in b.column("EncodedImage:blob").to_pylist()]
    assert blobs == list(Dataset(dataset)[1].frame_bytes("front"))
    assert sum(b.num_rows for b in chunks["/camera/deep"]) >= STEPS
    outcome = chunks["/outcome"][0].column("TextDocument:text").to_pylist()[0][0]
    assert outcome.startswith("# Episode 1: failure")
    with pytest.raises(DatasetError, match=r"no \.rrd file"):
        to_rerun(dataset, tmp_path / "x.mp4")

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from robopolicy.errors import EvaluationError
from robopolicy.evaluation import video
from robopolicy.evaluation.outcomes import Mark, Outcome
from robopolicy.evaluation.page import failures_first
from robopolicy.evaluation.plots import trace_plot
from robopolicy.evaluation.report import write_report
from robopolicy.evaluation.rollouts import Options, evaluate, film
from robopolicy.evaluation.statistics import summarise
from robopolicy.evaluation.video import VideoWriter, write_video

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps the texts and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.counts, self.words = [], [], {}, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value for name, value in attrs if name in ("src", "href", "data", "action", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def moving(n=30, size=(48, 64)):
    frames = np.full((n, *size, 3), 240, np.uint8)
    for t in range(n):
        frames[t, 10:30, t : t + 20] = (200, 30, 30)
    return frames


def read(path):
    capture = video.load_cv2().VideoCapture(str(path))
    rate_hz = capture.get(video.load_cv2().CAP_PROP_FPS)
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1][:, :, ::-1])
    capture.release()
    return np.stack(frames), rate_hz


@pytest.mark.parametrize("size", [(48, 64), (96, 97)])
def test_video_holds_the_pictures(tmp_path, capfd, size):
    frames = moving(size=size)
    path = write_video(tmp_path / "a" / "v.webm", frames, rate_hz=10)
    back, rate_hz = read(path)
    assert rate_hz == pytest.approx(10)
    assert back.shape == (30, size[0] // 2 * 2, size[1] // 2 * 2, 3), "chroma is stored at half size"
    error = np.abs(back.astype(int) - frames[:, : back.shape[1], : back.shape[2]]).mean()
    assert error < 6, "colours are right, not swapped"
    assert path.read_bytes()[:4] == b"\x1a\x45\xdf\xa3", "Matroska, which WebM is"
    assert [p.name for p in path.parent.iterdir()] == ["v.webm"]
    assert "not supported" not in capfd.readouterr().err


def test_alarm_is_framed_in_red(tmp_path):
    writer = VideoWriter(tmp_path / "v.webm", rate_hz=10)
    for t, frame in enumerate(moving()):
        writer.add(frame, alarm=t >= 15)
    writer.close()
    writer.close()
    back, _ = read(tmp_path / "v.webm")
    edge = back[:, 0].mean(axis=1)  # (T, 3)
    assert np.all(edge[:14].min(axis=1) > 200)
    assert np.all(edge[17:, 0] - edge[17:, 2] > 100)


def test_poster_is_the_last_picture(tmp_path):
    frames = moving()
    frames[-1] = (20, 200, 20)
    path = write_video(tmp_path / "v.webm", frames, rate_hz=10)
    cv2 = video.load_cv2()
    picture = cv2.imdecode(np.frombuffer(video.last_picture(path), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(picture.mean(axis=(0, 1)), [20, 200, 20], atol=6)
    (tmp_path / "broken.webm").write_bytes(b"\x1a\x45\xdf\xa3")
    assert video.last_picture(tmp_path / "broken.webm") is None


def test_missing_system_library_names_the_command(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "cv2":
                raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(EvaluationError, match="libglib2"):
        video.load_cv2()


def test_film_repeats_what_was_counted_and_is_made_once(tmp_path):
    counted = evaluate(tiny.PointWorld, tiny.make_agent, [1, 2], make_safety=tiny.AnythingGoes, jobs=1)
    films = film(tiny.PointWorld, tiny.make_agent, [1, 2], tmp_path, make_safety=tiny.AnythingGoes, identity="a")
    for outcome in counted:
        filmed = films[outcome.seed]
        assert (filmed.success, filmed.score, filmed.steps) == (outcome.success, outcome.score, outcome.steps)
        assert len(read(filmed.video)[0]) == (outcome.steps + 1) // 2 + 1, "every second step, and the last moment"
    first, second = (Path(films[seed].video) for seed in (1, 2))
    before = first.stat().st_mtime_ns
    second.unlink()
    other = film(tiny.PointWorld, tiny.make_agent, [1], tmp_path, make_safety=tiny.AnythingGoes, identity="b")
    assert Path(other[1].video) != first, "another policy's films do not overwrite these"
    film(tiny.PointWorld, tiny.make_agent, [1, 2], tmp_path, make_safety=tiny.AnythingGoes, identity="a")
    assert first.stat().st_mtime_ns == before
    assert second.exists(), "the lost one is made again"


def marks(values, threshold=1.0):
    return tuple(Mark(2 * i, v, threshold, 0.3, "alarm" if v > threshold else "nominal") for i, v in enumerate(values))


def test_failures_come_first():
    outcomes = [
        Outcome(1, True, 1.0),
        Outcome(2, True, 1.0, alarm_step=3),
        Outcome(3, False),
        Outcome(4, error="x"),
        Outcome(5, False),
    ]
    assert [outcome.seed for outcome in failures_first(outcomes)] == [4, 3, 5, 2, 1]


def test_page_is_whole_honest_and_self_contained(tmp_path):
    outcomes = [Outcome(seed, seed % 7 > 0, 0.9, 30, marks=marks([0.1, 0.2])) for seed in range(20)]
    outcomes[3] = Outcome(3, error="RuntimeError: <script>alert(1)</script>")
    options = Options(video_every=2)
    films = film(tiny.PointWorld, tiny.make_agent, [0, 1], tmp_path / "v", make_safety=tiny.AnythingGoes, identity="a",
                 options=options)  # fmt: skip
    held = Outcome(
        7, False, 0.3, 40, 12, "far out", 10, "tossed <away>", marks([0.1] * 5 + [200.0]), None, films[0].video
    )
    promise = {"guarantee": "at most 5 %", "score": "kernel", "alpha": 0.05, "threshold": 1.0, "k": 19}
    path = write_report(
        tmp_path, outcomes, summarise(outcomes), films, title="Policy & world",
        facts={"command": "robopolicy eval --seeds 0:20", "env": "tiny", "seeds": "0:20", "sha": "abc"},
        deployed=[("Disturbed", held)],
        monitor=promise | {"n_calibration": 19},
    )  # fmt: skip
    page = Page(path.read_text())
    assert page.counts["video"] == 3
    assert all(link.startswith(("data:video/webm;base64,", "data:image/jpeg;base64,")) for link in page.links)
    assert "http" not in path.read_text()
    assert "script" not in page.counts
    for words in ("Policy & world", "16 of 19 episodes", "1 errors", "tossed <away>", "robopolicy eval --seeds 0:20",
                  "the filmed run differs", "Clopper-Pearson", "alarm 12", "disturbed 10", "8 more episodes", "abc",
                  "at most 5 %", "log scale"):  # fmt: skip
        assert words in page.words, words
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["summary"]["success"] | {"low": 0, "high": 0} == {
        "successes": 16, "n": 19, "low": 0, "high": 0, "confidence": 0.95, "method": "clopper-pearson"
    }  # fmt: skip
    assert [Outcome.from_json(o) for o in results["outcomes"]] == outcomes
    assert "numpy" in results["facts"]["versions"]


def test_page_of_one_episode_without_monitor_or_film(tmp_path):
    outcomes = [Outcome(0, False, 0.0, 30)]
    page = Page(write_report(tmp_path, outcomes, summarise(outcomes), {}, title="t", facts={}).read_text())
    assert "0 of 1 episodes" in page.words
    assert "video" not in page.counts


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [1e-9, 1e9], [0.5, None], [None]])
def test_trace_plots_of_odd_values(values):
    marks_ = tuple(Mark(i, v, 0.1, 0.3, "nominal") for i, v in enumerate(values))
    for width in (300, 420):
        svg = trace_plot(Outcome(0, steps=1, marks=marks_, alarm_step=0, disturb_step=1), width=width)
        assert "nan" not in svg
        assert "inf" not in svg
        Page(svg)
    assert trace_plot(Outcome(0)) == ""


def label_box(svg, words):
    """Where a text of the drawing is, about: left, right."""
    [(x, anchor)] = re.findall(rf'<text x="([\d.]+)" y="[\d.]+" class="tick" text-anchor="(\w+)">{words}', svg)
    return (float(x), float(x) + 80) if anchor == "start" else (float(x) - 80, float(x))


@pytest.mark.parametrize("width", [300, 420])
@pytest.mark.parametrize(("alarm", "disturb"), [(0, None), (1, 0), (4, 2), (58, 55), (30, 20), (60, 59), (None, None)])
def test_no_line_stands_in_the_label_of_the_threshold(alarm, disturb, width):
    values = marks([0.1] * 10 + [3.0] * 21)
    svg = trace_plot(Outcome(0, steps=60, marks=values, alarm_step=alarm, disturb_step=disturb), width=width)
    left, right = label_box(svg, "threshold")
    assert 0 <= left < right <= width
    for x in re.findall(r'<line x1="([\d.]+)" x2="\1" y1="4"', svg):
        assert not left < float(x) < right
    assert svg.rindex("<line") < svg.index("<text"), "letters lie on top of lines"

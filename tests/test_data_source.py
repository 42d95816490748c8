"""Datasets behind a zip, an HTTP server and S3: the same numbers, in ranges, and one clear line otherwise."""

import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import SPEC, record, require_intact

from robopolicy.errors import DatasetError
from robopolicy_data.catalog import CATALOG, write_catalog
from robopolicy_data.derived import write_derived
from robopolicy_data.exporters.zipped import export_zip
from robopolicy_data.loader import Loader
from robopolicy_data.reader import Dataset
from robopolicy_data.source import FolderSource
from robopolicy_data.writer import DatasetWriter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "d.zarr"
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        for seed in range(4):
            record(writer, seed)
    return path


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A file server with byte ranges and, unless asked for, no listings; it remembers what it sent."""

    sent: list[tuple[str, int]]
    ranges = listings = True
    busy = ""  # paths that hold it are refused for now

    def do_GET(self):
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if self.busy and self.busy in self.path:
            return self.send_error(503)
        if path.is_dir() and not self.listings:
            return self.send_error(403)
        if wanted is None or not self.ranges or not path.is_file():
            self.sent.append((self.path, path.stat().st_size if path.is_file() else 0))
            return super().do_GET()
        data, (first, last) = path.read_bytes(), wanted.removeprefix("bytes=").split("-")
        begin = len(data) - int(last) if first == "" else int(first)
        end = len(data) if first == "" or last == "" else min(int(last) + 1, len(data))
        self.sent.append((self.path, end - begin))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        self.wfile.write(data[begin:end])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(folder):
    """Return a function that serves the folder above the dataset: (URL, what was sent)."""
    servers = []

    def start(**options):
        sent = []
        handler = type("Handler", (Ranges,), {"sent": sent, **options})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder.parent)))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}", sent

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def require_same(there, folder):
    """Compare everything that can be read of two places."""
    here = Dataset(folder)
    assert len(there) == len(here) == 4
    assert there.spec == here.spec
    for one, other in zip(there, here, strict=True):
        assert one.number == other.number
        assert one.meta == other.meta
        assert one.attributes == other.attributes
        require_intact(one)
        assert one.derived_names() == []
        assert one.verdicts() is None
        assert list(one.frame_bytes("front", [2, 0])) == list(other.frame_bytes("front", [2, 0]))


def test_a_zip_of_ours_is_the_dataset_and_stock_zarr_reads_it(folder, tmp_path):
    import zarr
    from zarr.storage import ZipStore

    told = []
    assert export_zip(folder, tmp_path / "d.zip", progress=lambda done, total: told.append((done, total))) == 4
    assert told[-1][0] == told[-1][1] == len(told) > 4 * 10
    require_same(Dataset(tmp_path / "d.zip"), folder)
    with ZipStore(tmp_path / "d.zip", mode="r") as store:
        group = zarr.open_group(store, mode="r")
        images = Dataset(folder)[2].images("wrist")
        assert np.array_equal(group["episodes/000002/obs/cam/wrist"][:], images)
    with pytest.raises(DatasetError, match=r"d\.zip exists; export to a new place"):
        export_zip(folder, tmp_path / "d.zip")
    with pytest.raises(DatasetError, match=r"d\.zip is a file, which is only read"):
        write_catalog(tmp_path / "d.zip")
    with pytest.raises(DatasetError, match=r"d\.zip is a file, which is only read"):
        write_derived(tmp_path / "d.zip", 0, "t@1", {"a": np.zeros(4)})
    with pytest.raises(DatasetError, match=r"d\.zip is no folder of this machine"):
        _ = Dataset(tmp_path / "d.zip").path


def test_a_zip_of_the_folder_is_read_and_a_compressed_one_refused(folder, tmp_path):
    for name, kind in (("stored.zip", zipfile.ZIP_STORED), ("packed.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / name, "w", kind) as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, Path("d.zarr") / path.relative_to(folder))
    require_same(Dataset(tmp_path / "stored.zip"), folder)
    with pytest.raises(DatasetError, match=r"is compressed; single frames need a stored zip: zip -0 -r"):
        Dataset(tmp_path / "packed.zip")


def test_zips_that_are_none_are_said_so(folder, tmp_path):
    export_zip(folder, tmp_path / "whole.zip")
    data = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=r"cut\.zip is a file but no whole zip file"):
        Dataset(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("notes.txt", "hello")
    with pytest.raises(DatasetError, match=r"expected a zarr\.json at the top of the zip .* it has notes\.txt"):
        Dataset(tmp_path / "other.zip")
    damaged = bytearray(data)
    at = data.index(Dataset(folder)[1].action().tobytes())
    damaged[at] ^= 1
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(DatasetError, match=r"episode 1, action/command: c\.0\.0 is damaged"):
        Dataset(tmp_path / "damaged.zip")[1].action()


def test_a_folder_may_be_called_zip_and_a_zip_zarr(folder, tmp_path):
    os.symlink(folder, tmp_path / "folder.zip")
    require_same(Dataset(tmp_path / "folder.zip"), folder)
    export_zip(folder, tmp_path / "file.zarr")
    require_same(Dataset(tmp_path / "file.zarr"), folder)
    require_same(Dataset(f"file://{folder}"), folder)


@pytest.mark.parametrize("catalog", [False, True])
def test_over_http(folder, serve, catalog):
    url, sent = serve()
    if catalog:
        assert write_catalog(folder) == 4
    try:
        there = Dataset(f"{url}/d.zarr")
        assert [episode.length for episode in there] == [episode.length for episode in Dataset(folder)]
        assert len([path for path, _ in sent if path.endswith("zarr.json")]) == (1 if catalog else 5)
        require_same(there, folder)
    finally:
        (folder / CATALOG).unlink(missing_ok=True)


def test_a_frame_costs_its_bytes_and_no_shard(folder, serve):
    url, sent = serve()
    episode, own = Dataset(f"{url}/d.zarr")[3], Dataset(folder)[3]
    episode.shard("front")
    sent.clear()
    assert np.array_equal(episode.images("front", [4]), own.images("front", [4]))
    shard = own.path / "obs/cam/front/c.0.0.0.0"
    fetched = sum(size for path, size in sent if path.endswith(shard.name))
    assert fetched == own.frame_sizes("front")[4] < shard.stat().st_size / 2


@pytest.mark.parametrize("cache", ["decoded", "compressed", "disk"])
def test_training_reads_a_zip_over_http(folder, serve, tmp_path, cache):
    if not (folder.parent / "d.zip").exists():
        export_zip(folder, folder.parent / "d.zip")
    url, _ = serve()
    options = {"n_obs": 2, "horizon": 4, "batch_size": 6, "threads": 2}
    with Loader([f"{url}/d.zip"], **options, cache=cache) as there, Loader([folder], **options) as here:
        for step in range(3):
            got, want = there.batch(step), here.batch(step)
            assert np.array_equal(got["action"], want["action"])
            for camera in SPEC.cameras:
                assert np.array_equal(got["images"][camera], want["images"][camera])


def test_servers_that_cannot_are_said_so(folder, serve):
    whole, _ = serve(ranges=False)
    with pytest.raises(DatasetError, match="serves whole files only; single frames need a server with byte ranges"):
        Dataset(f"{whole}/d.zarr")[0].images("front", [1])
    mute, _ = serve(listings=False)
    with pytest.raises(DatasetError, match="episodes cannot be "):
        Dataset(f"{mute}/d.zarr")
    write_catalog(folder)
    try:
        require_same(Dataset(f"{mute}/d.zarr"), folder)
    finally:
        (folder / CATALOG).unlink()
    with pytest.raises(DatasetError, match=r"nothing\.zarr is not a robopolicy dataset"):
        Dataset(f"{whole}/nothing.zarr")
    with pytest.raises(DatasetError, match=r"nothing\.zip does not exist"):
        Dataset(f"{whole}/nothing.zip")
    with pytest.raises(DatasetError, match=r"http://127\.0\.0\.1:9/.* cannot be read"):
        Dataset("http://127.0.0.1:9/d.zarr")
    with pytest.raises(DatasetError, match=r"gopherx://.*want a folder, a \.zip, or a URL"):
        Dataset("gopherx://host/d.zarr")


def test_a_server_that_is_busy_is_not_one_without_the_file(folder, serve):
    url, _ = serve(busy="derived")
    episode = Dataset(f"{url}/d.zarr")[0]
    for read in (episode.verdicts, lambda: episode.derived("quality@1"), episode.derived_names):
        with pytest.raises(DatasetError, match=r"derived/.*cannot be read: 503"):
            read()


def test_a_path_keeps_a_url_whole(folder, serve):
    url, _ = serve()
    assert len(Dataset(Path(f"{url}/d.zarr"))) == 4, "a command line may make a Path of it"


def test_the_catalog_is_for_far_readers_only(folder, tmp_path, serve):
    write_catalog(folder)
    try:
        text = json.loads((folder / CATALOG).read_text())
        text["episodes"].pop()
        (folder / CATALOG).write_text(json.dumps(text))
        assert len(Dataset(folder)) == 4, "the folder is the truth"
        url, _ = serve()
        assert len(Dataset(f"{url}/d.zarr")) == 3
        (folder / CATALOG).write_text("{}")
        with pytest.raises(DatasetError, match=r"catalog\.json is not a catalog of a dataset; write it anew"):
            Dataset(f"{url}/d.zarr")
    finally:
        (folder / CATALOG).unlink()


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from robopolicy_data.reader import Dataset\n"
        "try:\n    Dataset('s3://bucket/d.zarr')\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("MissingExtra s3fs is not installed")
    assert "robopolicy[remote]" in said


def test_a_folder_source_reads_whole_and_in_part(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(100)))
    source = FolderSource(tmp_path)
    assert source.read("f") == bytes(range(100))
    assert source.read_range("f", -5, 5) == bytes(range(95, 100))
    assert source.read_range("f", 90, 50) == bytes(range(90, 100))
    assert source.size("f") == 100
    with pytest.raises(FileNotFoundError):
        source.read("f/below")
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        source.read("")


S3 = """
import sys
from pathlib import Path
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
client.create_bucket(Bucket="demos")
root = Path(sys.argv[1])
for path in root.rglob("*"):
    if path.is_file():
        client.upload_file(str(path), "demos", f"lab/{path.relative_to(root.parent)}")
print(port, flush=True)
sys.stdin.read()
"""


def test_from_an_s3_endpoint(folder, monkeypatch):
    """A real S3 protocol over a real socket: moto's server in a process and an environment of its own."""
    pytest.importorskip("s3fs", reason="pip install 'robopolicy[remote]'")
    python = os.environ.get("ROBOPOLICY_MOTO_PYTHON")
    if not python:  # its hundred dependencies and s3fs's make pip search for many minutes, so it is no extra of ours
        pytest.skip("set ROBOPOLICY_MOTO_PYTHON to a Python that has moto[server]; CI does")
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    server = subprocess.Popen(
        [python, "-c", S3, str(folder)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        port = int(server.stdout.readline())
        for key, value in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")):
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        there = Dataset("s3://demos/lab/d.zarr")
        assert [episode.meta for episode in there] == [episode.meta for episode in Dataset(folder)]
        require_intact(there[0])
        with pytest.raises(DatasetError, match=r"s3://demos/lab/none\.zarr is not a robopolicy dataset"):
            Dataset("s3://demos/lab/none.zarr")
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()

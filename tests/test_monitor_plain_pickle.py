"""Pickles of strangers: what they may hold comes back bit for bit, what they may not never runs."""

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from numpy.f2py.crackfortran import myeval

from robopolicy.errors import MonitorError
from robopolicy.monitor.plain_pickle import load_plain, plain_from_bytes

PROTOCOLS = (2, 3, 4, 5)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_plain_containers_come_back_as_they_were(protocol, tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2, 3))
    data = {
        "floats": rng.normal(size=(3, 4, 2)).astype(np.float32), "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
        "strided": rng.normal(size=(6, 4))[::2], "turned": rng.normal(size=(2, 3, 4)).transpose(1, 0, 2),
        "big endian": np.arange(5, dtype=">i4"), "none of three": np.zeros((0, 3)), "one": np.array(7.5),
        "words": np.array(["id", "ood"]), "bytes": np.array([b"a", b"bc"]), "bool": np.array([True, False]),
        "half": np.float16([1, 2]), "complex": np.array([1 + 2j]), "uint8": np.arange(256, dtype=np.uint8),
        "frozen": np.broadcast_to(np.float32(3), (2, 2)),
        "scalars": [np.float64(np.pi), np.float32(1e-3), np.int64(-5), np.bool_(True), np.str_("x")],
        "dtypes": (np.dtype("f4"), np.dtype(">i2")),
        "plain": [1, -1, 2**70, 0.1, "ä\n", b"\x00\xff", b"", True, None, (), (1, (2, [3])), {1, 2}, set()],
        "ordered": OrderedDict(b=1, a=np.ones(2)), "array of bytes": bytearray(b"\x00\xffz"), 3: {"x": {}},
        "twice": [shared, shared], "many": list(range(2500)),
    }  # fmt: skip
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(data, protocol))
    read = load_plain(tmp_path / "data.pkl")
    assert same(read, data)
    assert read["twice"][0] is read["twice"][1]
    assert read["floats"].flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_files_of_either_numpy_are_read(protocol, package):
    data = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(2)}
    written = renamed(pickle.dumps(data, protocol), package)
    assert package.encode() in written
    assert same(plain_from_bytes(written, "x"), data)


def renamed(data, package):
    """A small pickle with numpy's module names of another version."""
    for module in ("multiarray", "numeric"):
        for own in ("numpy.core", "numpy._core"):
            old, new = f"{own}.{module}".encode(), f"{package}.{module}".encode()
            data = data.replace(bytes([len(old)]) + old, bytes([len(new)]) + new).replace(b"c" + old, b"c" + new)
    if data[2:3] == b"\x95":  # a frame has a length too
        data = data[:3] + struct.pack("<Q", len(data) - 11) + data[11:]
    return data


class Does:
    """An object whose pickle calls ``function``."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


def attacks(marker: Path):
    touch = f"open({str(marker)!r}, 'w').close()"
    loader = marker.with_name("inner.pkl")
    loader.write_bytes(pickle.dumps(Does(exec, touch)))
    objects = np.empty(1, object)
    objects[0] = Does(exec, touch)
    return {
        "posix.system": Does(os.system, f"touch {marker}"),
        "builtins.eval": Does(eval, touch),
        "builtins.exec": [1, {"deep": (Does(exec, touch),)}],
        "builtins.getattr": Does(getattr, 1, "real"),
        "io.open": Does(open, str(marker), "w"),
        "numpy.load": Does(np.load, str(loader), None, True),
        "numpy.f2py.crackfortran.myeval": Does(myeval, touch),
        "numpy.fromfile": Does(np.fromfile, str(loader)),
        "numpy.memmap": Does(np.memmap, str(marker), "u1", "w+", 0, (4,)),
        "exec": objects,
        "pathlib": marker,
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_would_run_is_refused_by_name_and_does_not_run(protocol, tmp_path):
    marker, path = tmp_path / "it-ran", tmp_path / "evil.pkl"
    for name, attack in attacks(marker).items():
        path.write_bytes(pickle.dumps({"metadata": {"task": "x"}, "rollout": [attack]}, protocol))
        with pytest.raises(MonitorError) as refused:
            load_plain(path)
        said = str(refused.value).replace("__builtin__", "builtins")
        assert name in said, said
        assert str(path) in said
        assert "\n" not in said
        assert not marker.exists(), name


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def stack_global(module, name):
    return short(module) + short(name) + b"\x93"


NDARRAY = stack_global("numpy", "ndarray")
DTYPE = stack_global("numpy", "dtype")
CORE = "numpy.core.multiarray"
RAW = {
    "posix.system": b"cposix\nsystem\n(S'touch MARKER'\ntR.",  # protocol 0
    "nt.system": b"(int\nsystem\n.",  # INST
    "os.system": b"\x80\x04" + stack_global("os", "system") + short("touch MARKER") + b"\x85R.",
    "numpy.core.multiarray.ndarray.__class__": b"\x80\x04" + stack_global(CORE, "ndarray.__class__") + b".",
    "multiarray.scalar.__globals__": b"\x80\x04" + stack_global(CORE, "scalar.__globals__") + b".",
    "a name that is no text": b"\x80\x04" + short("os") + b"N\x93.",
    r"os.sys\n\x1b[31mtem": b"\x80\x04" + stack_global("os", "sys\n\x1b[31mtem") + b".",
    "uses STRING": b"S'\\d'\n.",
    "uses PERSID": b"Pfile\n.",
    "uses EXT1": b"\x80\x02\x82\x01.",
    "uses NEWOBJ": b"\x80\x04" + NDARRAY + b"K\x03\x85\x85\x81.",
    "uses NEXT_BUFFER": b"\x80\x05\x97.",
    "would change ndarray": b"\x80\x04" + NDARRAY + b"}" + short("x") + b"K\x01sb.",
    "would change set": b"\x80\x04" + stack_global("builtins", "set") + b"N}" + short("x") + b"K\x01s\x86b.",
    "holds ndarray itself": b"\x80\x04]" + NDARRAY + b"a.",
    "an array of nothing": b"\x80\x04" + NDARRAY + b"J\xff\xff\xff\x7f\x85\x85R.",
    "an array without content": b"\x80\x04" + stack_global(CORE, "_reconstruct") + NDARRAY + b"K\x00\x85C\x01b\x87R.",
    "a class of its own": b"\x80\x04" + stack_global(CORE, "_reconstruct") + DTYPE + b"K\x00\x85C\x01b\x87R.",
    "array of Python objects": b"\x80\x04" + DTYPE + short("O8") + b"\x89\x88\x87R.",
    "dtype 'V8'": b"\x80\x04" + DTYPE + short("V8") + b"\x89\x88\x87R.",
    "dtype 'M8[ns]'": b"\x80\x04" + DTYPE + short("M8[ns]") + b"\x89\x88\x87R.",
    "makes a bytearray of": b"\x80\x04cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "makes a bytes of": b"\x80\x04cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",
    "nests tuples": b"\x80\x04})" + b"\x85" * 100_000 + b"Ns.",
    "deeper than 64": b"\x80\x04" + b"](" * 100_000 + b"e" * 100_000 + b".",
    "or one in itself": b"\x80\x04]\x94h\x00a.",
    "a key of type _Global": b"\x80\x04}" + NDARRAY + b"Ns.",
}  # fmt: skip


@pytest.mark.parametrize("said", RAW)
def test_crafted_opcodes_are_refused_in_words(said, tmp_path):
    data = RAW[said].replace(b"MARKER", str(tmp_path / "m").encode()[:40])
    before = set(tmp_path.iterdir())
    with pytest.raises(MonitorError, match="only numpy arrays and plain") as refused:
        plain_from_bytes(data, "evil.pkl")
    assert said in str(refused.value)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "data",
    {
        "a memo of 2 ** 32 - 2 places": b"\x80\x04Nr\xfe\xff\xff\xff.",
        "8 exabytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
        "cut short": pickle.dumps({"a": np.arange(1000.0)})[:-200],
        "nothing": b"",
        "text": b"not a pickle at all",
        "a protocol to come": b"\x80\x09N.",
        "an empty stack": b"\x80\x04s.",
        "a place that nobody filled": b"\x80\x04h\x07.",
        "set on a number": b"\x80\x04K\x01K\x02K\x03s.",
        "a key that is a list": b"\x80\x04}]Ns.",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_is_no_whole_pickle_is_told_in_one_line(data):
    with pytest.raises(MonitorError, match=r"broken\.pkl") as refused:
        plain_from_bytes(data[1], "broken.pkl")
    assert "\n" not in str(refused.value)


def claimed(shape, raw, code="f8", order="<"):
    """A pickled array that claims ``shape`` and has the bytes ``raw``."""
    out = b"\x80\x04" + stack_global(CORE, "_reconstruct") + NDARRAY + b"K\x00\x85C\x01b\x87R("
    out += b"K\x01(" + b"".join(b"\x8a" + bytes([9]) + n.to_bytes(9, "little", signed=True) for n in shape) + b"t"
    out += DTYPE + short(code) + b"\x89\x88\x87R(K\x03" + short(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return out + b"\x89B" + struct.pack("<I", len(raw)) + raw + b"tb."


def test_an_array_has_the_bytes_it_claims():
    assert same(plain_from_bytes(claimed((2, 3), bytes(range(48))), "x"), np.frombuffer(bytes(range(48))).reshape(2, 3))
    for shape, raw in [((10**12,), b"\0" * 8), ((2,), b"\0" * 24), ((-1, -1), b"\0" * 8), ((0, 2**62), b"")]:
        with pytest.raises(MonitorError, match="array"):
            plain_from_bytes(claimed(shape, raw), "x")


def test_references_to_references_cost_what_the_file_costs():
    """Thirty lists, each of two of the one before: 2^30 items for whoever walks them all."""
    body = b"\x80\x04]\x94"
    for i in range(30):
        body += b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94"
    level, depth = plain_from_bytes(body + b".", "x"), 0
    while level:
        level, depth = level[0], depth + 1
    assert depth == 30


def test_nothing_is_imported_for_a_pickle(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MonitorError, match=r"planted\.thing"):
        plain_from_bytes(b"\x80\x04" + stack_global("planted", "thing") + b".", "x")
    assert not (tmp_path / "ran").exists()


def test_the_reader_itself_refuses_what_the_scan_let_pass(monkeypatch, tmp_path):
    """Two locks: whoever fools the walk through the opcodes stands before the second."""
    from robopolicy.monitor import plain_pickle

    monkeypatch.setattr(plain_pickle, "scan", lambda data: None)
    marker = tmp_path / "ran"
    for attack in (Does(os.system, f"touch {marker}"), Does(eval, f"open({str(marker)!r}, 'w')")):
        with pytest.raises(MonitorError, match=r"asks for (posix\.system|builtins\.eval)"):
            plain_from_bytes(pickle.dumps(attack), "x")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_damaged_file_is_read_or_refused_in_one_line(protocol):
    """Bytes changed, cut out, put in, copied: never another error, never a warning, never a crash."""
    rng = np.random.default_rng(protocol)
    good = pickle.dumps({"a": np.eye(2), "b": [np.float32(1), {1}, ("x", b"y")], "c": OrderedDict(d=2.5)}, protocol)
    said = []
    for _ in range(1500):
        data, at = bytearray(good), int(rng.integers(len(good)))
        match rng.integers(4):
            case 0:
                data[at] = rng.integers(256)
            case 1:
                del data[at : at + int(rng.integers(1, 6))]
            case 2:
                data[at:at] = rng.bytes(int(rng.integers(1, 5)))
            case _:
                other = int(rng.integers(len(good)))
                data[at:at] = good[other : other + int(rng.integers(1, 40))]
        try:
            plain_from_bytes(bytes(data), "damaged.pkl")
        except MonitorError as error:
            said.append(str(error))
    assert len(said) > 700
    assert all(line.isprintable() for line in said)

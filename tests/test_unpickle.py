"""The allow-list unpickler: plain data comes through unchanged, nothing else comes through at all."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.data import opcodes
from harness.data.unpickle import release, unpickle
from harness.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
IN_A_FOLDER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True, params=["read", "mapped"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs twice: as for small files, and with nearly every block left in the file, as large ones are."""
    if request.param == "mapped":
        monkeypatch.setattr(opcodes, "LARGE", 8)


class Call:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def written(folder: Path, content: Any, protocol: int = 4) -> Path:
    path = folder / "data.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def small_data() -> dict[str, Any]:
    return {
        "train": {
            "id": ["a$_$1", "a$_$2"],
            "raw_text": np.array(["good", "ünïcode"], dtype=object),
            "annotations": np.array(["Positive", "Negative"]),
            "text": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
            "audio": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
            "regression_labels": np.array([1.5, -2], dtype=">f4"),
            "audio_lengths": [np.int64(1), 2],
            "mask": np.array([True, False]),
            "bytes": [b"", b"\x00\xff", np.array([b"x", b"yz"])],
            "more": collections.OrderedDict(a={1, 2}, b=frozenset([3]), c=(1 + 2j, None, True, 2**70)),
            "empty": np.empty((0, 3), np.float32),
            "number": np.float32(0.25),
            "name": np.str_("n"),
        }
    }


def same(a: Any, b: Any) -> bool:
    """Equal in type, dtype, shape and value; an OrderedDict may come back as the ordered dictionary that a dict is."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and all(map(same, a.ravel().tolist(), b.ravel().tolist()))
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b or a != a)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_come_through_unchanged(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path, small_data(), protocol)
    assert same(pickle.loads(path.read_bytes()), unpickle(path))


@pytest.mark.parametrize("old", [b"numpy.core.", b"numpy._core."])
def test_both_spellings_of_numpys_module_are_read(tmp_path: Path, old: bytes) -> None:
    """NumPy 1 wrote numpy.core, NumPy 2 writes numpy._core; protocol 2 spells names without lengths."""
    raw = pickle.dumps(small_data(), 2)
    assert b"numpy._core." in raw
    assert same(pickle.loads(raw), unpickle(written(tmp_path, raw.replace(b"numpy._core.", old))))


def test_an_array_pickled_by_python_2_is_read(tmp_path: Path) -> None:
    """Python 2 stored an array's bytes as a str (opcode U), and dtype codes too."""
    raw = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
        + struct.pack("<2f", 1.5, -200.0)
        + b"tb."
    )
    assert same(np.array([1.5, -200.0], np.float32), unpickle(written(tmp_path, raw)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", [">f4", "<f4", ">i8", ">U4"])
def test_byte_order_comes_back_as_numpy_restores_it(tmp_path: Path, dtype: str, protocol: int) -> None:
    array = np.arange(300).astype(dtype).reshape(20, 15, order="F")  # over 255 bytes: shorter blocks are never left in the file
    path = written(tmp_path, array, protocol)
    assert same(pickle.loads(path.read_bytes()), unpickle(path))


@IN_A_FOLDER
@given(
    array=hnp.arrays(
        dtype=st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.unicode_string_dtypes()),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_any_array_comes_through_any_protocol(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    path = written(tmp_path, array, protocol)
    assert same(pickle.loads(path.read_bytes()), unpickle(path))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("wrap", ["bare", "in a dictionary", "in an object array", "as a state"])
@pytest.mark.parametrize("attack", ["os.system", "eval", "exec", "getattr", "subprocess", "__import__"])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, attack: str, wrap: str, protocol: int) -> None:
    trace = tmp_path / "ran"
    call = {
        "os.system": Call(os.system, f"touch {trace}"),
        "eval": Call(builtins.eval, f"open({str(trace)!r}, 'w')"),
        "exec": Call(builtins.exec, f"open({str(trace)!r}, 'w')"),
        "getattr": Call(builtins.getattr, "x", "upper"),
        "subprocess": Call(subprocess.Popen, ["touch", str(trace)]),
        "__import__": Call(builtins.__import__, "antigravity"),
    }[attack]
    nested: Any = {
        "bare": call,
        "in a dictionary": {"train": {"id": ["a"], "text": call}},
        "in an object array": np.array([1, call], dtype=object),
        "as a state": Call(collections.OrderedDict, [["a", call]]),
    }[wrap]
    with pytest.raises(DataError, match=r"data\.pkl would run or load '[\w.]+': refused"):
        unpickle(written(tmp_path, nested, protocol))
    assert not trace.exists()


def test_the_attacks_would_work_on_the_ordinary_unpickler(tmp_path: Path) -> None:
    """Guards the tests above against attacks that are none."""
    trace = tmp_path / "ran"
    pickle.loads(pickle.dumps({"train": Call(os.system, f"touch {trace}")}))
    assert trace.exists()


NAMES = {np.ma.MaskedArray: "_mareconstruct", type(Path()): "PosixPath", collections.defaultdict: "defaultdict"}


@pytest.mark.parametrize("content", [np.ma.array([1]), Path("x"), collections.defaultdict(int)])
def test_other_classes_are_refused_by_name(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=f"would run or load '.*{NAMES[type(content)]}'"):
        unpickle(written(tmp_path, content))


def test_a_record_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dtype"):
        unpickle(written(tmp_path, np.zeros(2, dtype=[("a", "f4")])))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_truncated_pickle_is_always_a_data_error(tmp_path: Path, protocol: int) -> None:
    raw = pickle.dumps(small_data(), protocol)
    for end in [*range(0, len(raw), 97), len(raw) - 1]:
        with pytest.raises(DataError, match=r"data\.pkl is not a whole pickle"):
            unpickle(written(tmp_path, raw[:end]))


@IN_A_FOLDER
@given(data=st.data())
def test_a_damaged_pickle_is_read_or_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    """Any few bytes changed: either the change hit plain data, or a DataError says so; never another exception."""
    raw = bytearray(pickle.dumps(small_data(), data.draw(st.sampled_from(PROTOCOLS))))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpickle(written(tmp_path, bytes(raw)))
    except DataError as error:
        assert "data.pkl" in error.problem


@IN_A_FOLDER
@given(raw=st.binary(max_size=200))
def test_garbage_is_read_or_a_data_error(tmp_path: Path, raw: bytes) -> None:
    try:
        unpickle(written(tmp_path, raw))
    except DataError as error:
        assert "data.pkl" in error.problem


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
OBJECT_DTYPE = b"cnumpy\ndtype\n(\x8c\x02O8\x89\x88tR(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK%ctb"


def array_with(dtype: bytes, data: bytes, length: int = 1) -> bytes:
    return b"\x80\x04" + ARRAY + b"(K\x01(K" + bytes([length]) + b"t" + dtype + b"\x89" + data + b"tb."


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (array_with(OBJECT_DTYPE % 63, b"C\x08AAAAAAAA"), "do not fill"),
        (array_with(OBJECT_DTYPE % 0, b"C\x08AAAAAAAA"), "do not fill"),  # flags cleared: bytes would become pointers
        (array_with(OBJECT_DTYPE % 63, b"]K\x01a", length=9), "do not fill"),  # NumPy itself would read past the list
        (b"\x80\x04cnumpy._core.multiarray\nscalar\n(" + OBJECT_DTYPE % 0 + b"C\x08AAAAAAAAtR.", "objects"),
        (b"\x80\x04cnumpy\nndarray\n((K\x09ttR.", "not restored this way"),
        (b"\x80\x04c_codecs\nencode\n\x8c\x01a\x8c\x03bz2\x86R.", "bz2"),
        (b"\x80\x04cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.", "positional argument"),
        (b"\x80\x04ccollections\nOrderedDict\n}\x8c\x06_calls\x8c\x01xsb.", "tries to change"),
        (b"\x80\x04cnumpy\nndarray\nN}\x8c\x09_functionNs\x86b.", "tries to change"),
        (b"\x80\x04K\x01r\xff\xff\xff\x7f.", "memo number"),  # would reserve 32 GB
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc.", "not a whole pickle"),  # claims a terabyte of bytes
        (b"\x80\x04\x82\x01.", "extension"),
        (b"\x80\x04Pid\n.", "persistent"),
    ],
)  # fmt: skip
def test_tricks_below_the_level_of_names_are_refused(tmp_path: Path, raw: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        unpickle(written(tmp_path, raw))


def test_a_file_that_is_not_there_or_a_folder_is_a_data_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            unpickle(path)


def test_large_arrays_are_views_of_the_file_whose_pages_can_be_given_back(tmp_path: Path) -> None:
    content = {"large": np.arange(2**19, dtype=np.float32).reshape(2, -1), "small": np.arange(3), "bytes": bytes(range(256)) * 8192}
    for protocol in (3, 4, 5):  # earlier ones spell bytes as text
        found = unpickle(written(tmp_path, {**content, "objects": np.array([content["large"], "x"], dtype=object)}, protocol))
        assert not found["large"].flags.writeable
        release(found["large"])
        release(found["small"])
        np.testing.assert_array_equal(found["large"], content["large"])
        np.testing.assert_array_equal(found["objects"][0], content["large"])
        assert found["bytes"] == content["bytes"] and found["objects"][1] == "x"


def test_an_array_that_stands_in_several_places_is_one_array(tmp_path: Path) -> None:
    array = np.arange(2**18, dtype=np.float64)
    found = unpickle(written(tmp_path, [array, {"again": array}, (array, 1)]))
    assert all(np.shares_memory(found[0], other) for other in (found[1]["again"], found[2][0]))

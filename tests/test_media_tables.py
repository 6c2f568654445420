"""From folders of films to the rendered tables of MKCC and AMCM, through the command line; the same rows on pixels and on features."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from kit import typed
from test_audiovisual_baselines import TINY

from harness.data import store

pytest.importorskip("av")
pytest.importorskip("soundfile")

import faces  # noqa: E402  (it needs both)

CHECKOUT = Path(__file__).parents[1]
# The published networks have millions of parameters and are trained dozens of times here: the same layers, fewer and narrower.
NARROW: dict[str, dict[str, Any]] = TINY | {
    "mkcc": {"channels": [4, 8]},
    "amcm": {"grid": 4, "width": 8, "depth": 1, "blocks": [1, 1, 1, 1], "trunk": [8, 8, 8, 8], "query": 8, "key": 8},
    "mult": {"layers": 1},
}
MKCC = ("16/4/4 actors", "6 folds of 4 actors", "published folds")
AMCM = ("random folds", "folds by subject")


@pytest.fixture
def place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where commands are typed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # no mirror: it takes longer than these trials
    return place


def extracted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """24 actors, two emotions each, as ``ravdess@films`` (colours of 16 x 16) and ``ravdess@units`` (action units)."""
    for actor in range(1, 25):
        for emotion in ("happy", "sad"):
            take = faces.made_take(emotion, 2 * actor + (emotion == "sad"), frames=8)
            name = f"01-01-{faces.EMOTIONS.index(emotion) + 1:02d}-01-01-01-{actor:02d}"
            faces.openface_table(faces.ravdess_film(place / "films", name, take, 48, 32).with_suffix(".csv"), take.units)
    sound = "--audio mfcc --workers 1"
    typed(capsys, "data import ravdess films")
    typed(
        capsys,
        f"data extract ravdess --vision frames --set frames.count=3 --set frames.size=16 --set frames.colour=true {sound} --as films",
    )
    typed(capsys, f"data extract ravdess --vision openface {sound} --as units")


def narrow(place: Path, item: str) -> None:
    """The project's table in ``./reports``, its rows, protocols and numbers as they are, with narrower networks."""
    content = tomllib.loads((CHECKOUT / "reports" / f"{item}.toml").read_text(encoding="utf-8"))
    rows = content.pop("rows")
    for row in rows:
        row["config"] = {**NARROW.get(row.get("method", ""), {}), **row.get("config", {})}
        if not row["config"] or not row.get("method"):
            del row["config"]
    lines = [f"{key} = {toml(value)}" for key, value in {**content, "rows": rows}.items()]
    path = place / "reports" / f"{item}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def table(place: Path, name: str) -> dict[str, Any]:
    return json.loads((place / "results" / "tables" / f"{name}.json").read_text(encoding="utf-8"))


def check(content: Mapping[str, Any], protocols: Sequence[str], rows: set[str]) -> None:
    """Every row was measured under each protocol in full, and shows what the others differ by from the first."""
    assert [one["name"] for one in content["protocols"]] == list(protocols)
    lines = {(line["row"], line["kind"], line["protocol"]): line for line in content["lines"]}
    assert {row for row, kind, _ in lines if kind == "measured"} == rows | {"majority", "logistic"}
    for row in rows | {"majority", "logistic"}:
        scores = [lines[row, "measured", protocol]["cells"]["accuracy"]["mean"] for protocol in protocols]
        assert all(0 <= score <= 1 for score in scores)
        for protocol in protocols:
            assert lines[row, "measured", protocol]["n"] == lines[row, "measured", protocol]["expected"] > 0
        for protocol, score in zip(protocols[1:], scores[1:], strict=True):
            found = lines[row, "difference", f"{protocol} minus {protocols[0]}"]["cells"]["accuracy"]["mean"]
            assert found == pytest.approx(score - scores[0], abs=1e-9)


@pytest.mark.slow
def test_the_same_table_on_pixels_and_on_features(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MKCC's Table 3 as it is, some rows: what the data hold says what is read, and nothing else has to be said."""
    extracted(place, capsys)
    assert "768 (16 x 16 colour pictures)" in typed(capsys, "data show ravdess@films")
    assert "pictures" not in typed(capsys, "data show ravdess@units")
    narrow(place, "mkcc/t3")
    sizes = {}
    for name in ("films", "units"):
        typed(capsys, f"reproduce mkcc/t3 --data ravdess@{name} --budget smoke --inline --methods conv1d_audio,mmtm --figures none")
        check(table(place, f"mkcc_t3_ravdess-{name}"), MKCC, {"1D CNN", "MMTM"})
        text = (place / "results" / "tables" / f"mkcc_t3_ravdess-{name}.md").read_text(encoding="utf-8")
        assert all(f"measured, {protocol} (n = " in text for protocol in MKCC)
        assert "difference, 6 folds of 4 actors minus 16/4/4 actors" in text
        fingerprint = store.load(f"ravdess@{name}", place / "data").card.fingerprint
        records = [json.loads(path.read_text()) for path in (place / "results" / "records").glob("*/record.json")]
        sizes[name] = {
            (record["identity"]["method"], record["parameters"]) for record in records if record["identity"]["data"] == fingerprint
        }
    common = {method for method, size in sizes["films"] & sizes["units"]}
    assert common == {"conv1d_audio", "majority", "logistic"}, "networks on vision are others on pixels, at the same settings"
    # both variants have the same sound, so the row of sound alone is the same to the bit
    alone = [
        [line["cells"]["accuracy"]["mean"] for line in table(place, f"mkcc_t3_ravdess-{name}")["lines"] if line["row"] == "1D CNN"]
        for name in ("films", "units")
    ]
    assert alone[0] == alone[1]


@pytest.mark.slow
def test_mkcc_table_3_from_films(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row that has a method, under every protocol."""
    extracted(place, capsys)
    narrow(place, "mkcc/t3")
    typed(capsys, "reproduce mkcc/t3 --data ravdess@films --budget smoke --inline --figures none")
    found = table(place, "mkcc_t3_ravdess-films")
    check(found, MKCC, {line["row"] for line in found["lines"]} - {"majority", "logistic"})
    assert len({line["row"] for line in found["lines"]}) == 8 + 7 + 2


@pytest.mark.slow
@pytest.mark.parametrize(("vision", "settings"), [("frames", "--set frames.count=3 --set frames.size=16"), ("openface", "")])
def test_amcm_table_3_from_films(place: Path, capsys: pytest.CaptureFixture[str], vision: str, settings: str) -> None:
    """Films with sound as eNTERFACE'05 has them; random folds and folds by subject side by side."""
    for subject in range(1, 7):
        for emotion, prototype in {"anger": "angry", "happiness": "happy"}.items():
            for sentence in (1, 2):
                take = faces.made_take(prototype, 10 * subject + sentence, frames=8)
                film = faces.enterface_film(place / "films", subject, emotion, sentence, take, 48, 40)
                faces.openface_table(film.with_suffix(".csv"), take.units)
    typed(capsys, "data import enterface05 films")
    typed(capsys, f"data extract enterface05 --vision {vision} {settings} --audio mfcc --as av --workers 1")
    narrow(place, "amcm/t3")
    typed(capsys, "reproduce amcm/t3 --data enterface05@av --budget smoke --inline --figures none")
    found = table(place, "amcm_t3_enterface05-av")
    check(found, AMCM, {line["row"] for line in found["lines"]} - {"majority", "logistic"})

"""The keys of table files as a JSON schema, by which editors complete and check them while they are typed."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from harness.data import catalogue
from harness.experiments.cost_tables import COLUMNS, CostSpec
from harness.experiments.figure_items import FigureSpec
from harness.experiments.papers import TableSpec
from harness.training.by_class import metrics

NAME = "table.schema.json"
FROM_PLACE = ("paper", "item", "percent")  # set on load: no keys of a file


def text() -> str:
    """The schema of ``reports/<paper>/<item>.toml`` of every kind, as JSON."""
    kinds: dict[str, type[BaseModel]] = {"scores": TableSpec, "cost": CostSpec, "figure": FigureSpec}
    definitions: dict[str, Any] = {}
    for name, kind in kinds.items():
        definitions |= _definitions(name, kind)
    _name_what_is_known(definitions)
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A table or figure of a paper",
        "anyOf": [{"$ref": f"#/definitions/{name}"} for name in kinds],
        "definitions": definitions,
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _definitions(name: str, kind: type[BaseModel]) -> dict[str, Any]:
    """A model and those that it is made of, by name."""
    schema = kind.model_json_schema(ref_template="#/definitions/{model}")
    found = {**schema.pop("$defs", {}), name: schema}
    return {model: _plain(part) for model, part in found.items()}


def _plain(part: Any) -> Any:
    """Without what follows from the file's place; a printed number is a number, never a text."""
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    if "anyOf" in part:
        part = {**part, "anyOf": [one for one in part["anyOf"] if not (one.get("type") == "string" and "pattern" in one)]}
    if isinstance(part.get("properties"), dict):
        part = {**part, "properties": {key: value for key, value in part["properties"].items() if key not in FROM_PLACE}}
    if isinstance(part.get("required"), list):
        part = {**part, "required": [key for key in part["required"] if key not in FROM_PLACE]}
    return {key: _plain(value) for key, value in part.items()}


def _name_what_is_known(definitions: dict[str, Any]) -> None:
    """Names of metrics and data sets, and the short forms that a file may use."""
    scores, row, cost = definitions["scores"]["properties"], definitions["Row"]["properties"], definitions["cost"]["properties"]
    sets = list(catalogue.known())
    for properties in (scores, definitions["figure"]["properties"]):
        properties["datasets"]["items"] = {"type": "string", "enum": sets}
    cost["dataset"] = {"type": "string", "enum": sets}
    scores["metrics"]["items"] = {"type": "string", "enum": list(metrics)}
    cost["columns"]["items"] = {"type": "string", "enum": [*COLUMNS, *metrics]}
    cell = {"anyOf": [{"type": "number"}, {"$ref": "#/definitions/Published"}]}
    row["published"]["additionalProperties"]["additionalProperties"] = cell
    scheme = {"$ref": "#/definitions/Scheme"}
    kinds = definitions["Scheme"]["properties"]["kind"]
    scores["protocol"] = {"anyOf": [kinds, scheme, {"type": "array", "items": scheme}]}

"""``new-table``: a table file to fill in."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from harness.errors import ConfigError
from harness.experiments import papers, table_schema

SKELETON = """\
#:schema ../{schema}
# {name}: `harness reproduce {name}` runs and renders it. All keys: docs/tables.md. Lines that begin with # can go.

title = "Comparison of models"
# kind = "ablation" # or "robustness"; unset: "comparison", which `harness reproduce mosi` selects
caption = ""
citation = "" # the paper
source = "" # where in the paper; how its numbers were read

datasets = ["mosi"] # names from `harness list datasets`
metrics = ["mae", "corr", "acc2_nonneg", "acc7"] # the columns
seeds = [42, 1, 11, 111, 1111]
protocol = "official"
# protocol = {{ kind = "grouped", folds = 5 }} # or several side by side: [{{ ... }}, {{ ... }}]
reference = "Theirs" # the row that the others are tested against

[[rows]]
name = "Theirs"
method = "misa" # from `harness list methods`; without a method, a row has its published numbers alone
citation = "Hazarika et al. 2020"
published.mosi = {{ mae = 0.783, acc7 = 42.3 }} # as printed: per cent where the metric is one

[[rows]]
name = "Ours"
method = "lmf"
rerun = true # the paper's authors ran it themselves
# modalities = ["text", "audio"] # unset: all that the data have
# published.mosi = {{ mae = {{ mean = 0.750, std = 0.004, dagger = true }} }}

[[rows]]
name = "Ours, slower steps"
method = "lmf"
config = {{ "training.learning_rate" = 0.0005 }} # settings from `harness list methods --verbose`

# [[holes]] # numbers that the paper prints and this file cannot give
# rows = ["Theirs"]
# metrics = ["corr"]
# reason = "illegible"

# [[findings]] # printed below the table
# text = "The text says 42.4, the table 42.3."
"""


def new_table(name: str) -> None:
    """Write ``reports/<paper>/<item>.toml`` below the working folder. ConfigError for another name, or where the file exists."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*", name):
        raise ConfigError(f"'{name}' is not PAPER/ITEM", "Write two names of small letters and digits, such as mine/t1.")
    path = Path("reports") / f"{name}.toml"
    if path.exists():
        raise ConfigError(f"{path} exists", "Choose another name, or edit it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SKELETON.format(name=name, schema=table_schema.NAME), encoding="utf-8")
    (path.parents[1] / table_schema.NAME).write_text(table_schema.text(), encoding="utf-8")  # editors complete keys by it
    spec = papers.read(path)
    methods = ", ".join(dict.fromkeys(row.method for row in spec.rows if row.method))
    text = f"Written: {path}, with rows of {methods} as examples. Edit it, then: harness reproduce {name} --quick"
    Console().print(text, highlight=False, markup=False, soft_wrap=True)

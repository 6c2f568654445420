"""The outcome of one test between two systems."""

from __future__ import annotations

from math import nan

from pydantic import ConfigDict, Field

from harness.data.schema import Frozen

ONE_RUN = "one training run of each system"
THESE_RUNS = "these training runs"
THIS_TEST_SET = "this test set"


class Comparison(Frozen):
    """System A (a row) against system B (the reference) in one metric. NaN where a value is undefined; ``note`` says why.

    Differences and intervals are in the metric's own units (fractions, not times 100).
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")  # NaN and infinity survive a round trip through JSON

    test: str
    conditional_on: str = Field(description="what the claim holds for; empty when it generalises over clips and seeds")
    metric: str
    difference: float = Field(description="A - B")
    p: float = Field(description="two-sided, of no difference")
    low: float = Field(nan, description="lower end of the 95 % interval of the difference")
    high: float = nan
    statistic: float | None = None
    df: float | None = None
    seeds: int | None = Field(None, description="training runs per system: seeds, or folds times repeats; the smaller number if unequal")
    clips: int | None = None
    clusters: int | None = Field(None, description="resampled units (videos, speakers); None when clips are taken as independent")
    note: str = ""

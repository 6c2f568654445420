"""Tests between two systems of a table: one door to the modules that hold them.

``compare`` picks the test by design: a fixed split with seeds, the two-level bootstrap; repeated k-fold, the corrected
t-test; a single run, McNemar for accuracies of independent clips and the bootstrap over clusters otherwise.
"""

from harness.analysis.bootstrap import two_level_bootstrap, two_level_bootstraps
from harness.analysis.classical import corrected_t, holm, paired_t, wilcoxon
from harness.analysis.comparisons import Comparison
from harness.analysis.designs import DEFAULT_TESTS, compare, compare_seeds_only, default_test
from harness.analysis.effects import a12, dz, iqm, rank_biserial, t_interval
from harness.analysis.pairs import Design, Pair
from harness.analysis.permutation import cluster_sign_flip, mcnemar

__all__ = [
    "DEFAULT_TESTS",
    "Comparison",
    "Design",
    "Pair",
    "a12",
    "cluster_sign_flip",
    "compare",
    "compare_seeds_only",
    "corrected_t",
    "default_test",
    "dz",
    "holm",
    "iqm",
    "mcnemar",
    "paired_t",
    "rank_biserial",
    "t_interval",
    "two_level_bootstrap",
    "two_level_bootstraps",
    "wilcoxon",
]

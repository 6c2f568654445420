"""Development and reproduction sessions. All share one environment, made on first use and reused until its inputs change."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
# nox gives every session an environment of its own; one of several GB is enough, so this file makes and shares it.
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests", "tests-slow"]

ENVIRONMENT = ROOT / ".nox" / "harness"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
EXTRAS = "text,audio,video,faces,figures,tune,ray,ui,dev"
INPUTS = ("pyproject.toml", "constraints.txt")
PARALLEL = ("--numprocesses=auto", "--dist=worksteal", "--ignore=tests/benchmarks")
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def environment(session: nox.Session) -> None:
    """Make the shared environment, unless it was made from this very state of its inputs."""
    state = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in INPUTS) + f"{EXTRAS}{sys.version}{ROOT}".encode()).hexdigest()
    stamp = ENVIRONMENT / ".installed"
    if not stamp.exists() or stamp.read_text() != state:
        session.run(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(ENVIRONMENT))
        session.run(str(BIN / "python"), "-m", "pip", "install", "--quiet", "-c", "constraints.txt", "-e", f".[{EXTRAS}]")
        stamp.write_text(state)


def run(session: nox.Session, tool: str, *arguments: str, **variables: str) -> None:
    """Run a tool of the shared environment."""
    environment(session)
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    session.run(str(BIN / tool), *arguments, env={**QUIET, "PATH": path, **variables}, external=True)


def pytest(session: nox.Session, *arguments: str) -> None:
    """Run tests, one thread per process."""
    run(session, "pytest", *arguments, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


@nox.session(name="reproduce-mosi")
def reproduce_mosi(session: nox.Session) -> None:
    """Run what CMU-MOSI's tables lack and render them: nox -s reproduce-mosi [-- --quick --data mosi@minilm ...]."""
    run(session, "harness", "reproduce", "mosi", *session.posargs)


@nox.session
def reproduce(session: nox.Session) -> None:
    """Reproduce a paper, an item or a data set: nox -s reproduce -- iidaf/t3 [options]."""
    run(session, "harness", "reproduce", *session.posargs)


@nox.session
def report(session: nox.Session) -> None:
    """Render tables from the records that exist: nox -s report -- iidaf/t3."""
    run(session, "harness", "report", *session.posargs)


@nox.session
def tune(session: nox.Session) -> None:
    """Search a method's settings on validation: nox -s tune -- iidaf mosi --trials 30."""
    run(session, "harness", "tune", *session.posargs)


@nox.session
def ui(session: nox.Session) -> None:
    """Open MLflow's pages over results/mlflow.db."""
    results = Path(os.environ.get("MER_RESULTS", "results")).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{results / 'mlflow.db'}")
    run(session, "mlflow", "ui", "--backend-store-uri", uri, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the slow ones, a process per core: nox -s tests [-- pytest options]."""
    pytest(session, *(session.posargs or [*PARALLEL, "-m", "not slow"]))


@nox.session(name="tests-slow")
def tests_slow(session: nox.Session) -> None:
    """The slow tests, a process per core; then those that measure speed, alone."""
    pytest(session, *PARALLEL, "-m", "slow")
    pytest(session, "tests/benchmarks", "-m", "not slow")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and the one-way imports."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    run(session, "lint-imports")

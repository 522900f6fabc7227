"""Every task of the project: `nox -l` lists them, arguments after `--` pass through.

Each environment is installed in ONE pip call together with `-c constraints.txt`: a later call
without the pins could replace torch by a build of several gigabytes, and sibling packages that
are not on an index can only be resolved when they are named in the same call.
"""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests"]

ROOT = Path(__file__).parent
# package -> the sibling packages that it needs
SIBLINGS = {
    "geco-core": (),
    "geco-models": (),
    "geco-theory": (),
    "geco-experiments": ("geco-core", "geco-models", "geco-theory"),
}
PACKAGES = tuple(SIBLINGS)
TOGETHER = "together"
LINTERS = ("ruff",)
TYPE_STUBS = ("types-tqdm", "pandas-stubs")
PEERS = ("cooper-optim", "humancompatible-train", "zuko", "normflows", "nflows")


def group(name: str) -> list[str]:
    """The requirements of a package's `test` dependency group."""
    project = nox.project.load_toml(ROOT / "packages" / name / "pyproject.toml")
    return nox.project.dependency_groups(project, "test")


def install(session: nox.Session, *requirements: str, editable: tuple[str, ...] = ()) -> None:
    """Install everything of a session in one call, under the pins."""
    packages = [word for name in editable for word in ("-e", f"./packages/{name}")]
    session.install("-c", "constraints.txt", *packages, *requirements)


def pytest(session: nox.Session, *args: str) -> None:
    """Run pytest with one thread per worker, on the machine's own datasets where it has them."""
    session.env.setdefault("OMP_NUM_THREADS", "1")
    session.env.setdefault("MPLBACKEND", "Agg")
    home = os.environ.get("GECO_DATA_HOME")
    if home:  # a relative path must survive a change of folder
        session.env["GECO_DATA_HOME"] = str(Path(home).resolve())
    session.run("pytest", *args)


@nox.session
@nox.parametrize("scope", [TOGETHER, *PACKAGES], ids=[TOGETHER, *PACKAGES])
def tests(session: nox.Session, scope: str) -> None:
    """All packages together with the repository's own tests, then each package alone."""
    args = session.posargs or ["-n", "auto"]
    if scope == TOGETHER:
        needs = sorted({r for name in PACKAGES for r in group(name)})
        install(session, *needs, "nox", editable=PACKAGES)
        pytest(session, *args)
    else:
        install(session, *group(scope), editable=(*SIBLINGS[scope], scope))
        pytest(session, f"packages/{scope}/tests", *args)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests marked `slow`: learning on real data, long crash tests (tens of minutes)."""
    needs = sorted({r for name in PACKAGES for r in group(name)})
    install(session, *needs, "nox", editable=PACKAGES)
    pytest(session, "-m", "slow", *(session.posargs or ["-n", "auto"]))


@nox.session
@nox.parametrize("package", PACKAGES, ids=list(PACKAGES))
def wheels(session: nox.Session, package: str) -> None:
    """Build each wheel, install it into a fresh environment, run that package's tests there."""
    dist = Path(session.create_tmp()) / "dist"
    names = [*SIBLINGS[package], package]
    session.install("-c", "constraints.txt", "build", *group(package))
    built = []
    for name in names:
        out = dist / name
        session.run("python", "-m", "build", "--outdir", str(out), f"packages/{name}", silent=True)
        built.append(str(max(out.glob("*.whl"), key=lambda path: path.stat().st_mtime)))
    session.install("-c", "constraints.txt", "--force-reinstall", "--no-deps", *built)
    session.install("-c", "constraints.txt", *built, *group(package))
    pytest(session, f"packages/{package}/tests", *(session.posargs or ["-n", "auto"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting and lint rules over the whole tree."""
    install(session, *LINTERS)
    session.run("ruff", "check", *(session.posargs or ["."]))
    session.run("ruff", "format", "--check", *(session.posargs or ["."]))


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy --strict over the sources of all four packages."""
    install(session, "mypy", *TYPE_STUBS, "distributed", editable=PACKAGES)
    session.run("mypy", *(session.posargs or [f"packages/{name}/src" for name in PACKAGES]))


@nox.session
def reproduce(session: nox.Session) -> None:
    """Make every figure and table: `nox -s reproduce -- --profile smoke|laptop|paper`."""
    install(session, editable=PACKAGES)
    session.run("geco", "reproduce", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Ratios against named baselines: `nox -s bench -- NAME [ARGS]`; without NAME, the list."""
    scripts = {path.stem.replace("_", "-"): path for path in (ROOT / "benchmarks").glob("*.py")}
    names = ", ".join(sorted(scripts))
    if not session.posargs:
        session.error(f"name a benchmark: {names}")
    name, *args = session.posargs
    if name not in scripts:
        session.error(f"no benchmark {name!r}; there are: {names}")
    install(session, *PEERS, "distributed", editable=PACKAGES)
    session.run("python", str(scripts[name]), *args)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as HTML under docs/_build."""
    install(session, "sphinx", "myst-parser", "furo", editable=PACKAGES)
    session.run(
        "sphinx-build",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "docs",
        "docs/_build/html",
        *session.posargs,
    )

"""Every task of the project: `nox -l` lists them, arguments after `--` pass through.

Each environment is installed in ONE pip call together with `-c constraints.txt`: a later call
without the pins could replace torch by a build of several gigabytes, and sibling packages that
are not on an index can only be resolved when they are named in the same call.
"""

import os
import shutil
import subprocess
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
CHECKS, TOGETHER = "checks", "together"
LINTERS = ("ruff",)
TYPES = ("mypy", "types-tqdm", "pandas-stubs", "distributed")
DOCS = ("sphinx", "myst-nb", "furo", "sphinx-copybutton", "sphinx-mathjax-offline")
PEERS = ("cooper-optim", "humancompatible-train", "zuko", "normflows", "nflows")
# the frameworks that geco-core is shown in; a session of their own
FRAMEWORKS = ("lightning", "accelerate", "transformers", "pytorch-ignite", "diffusers")
LOGGERS = ("tensorboard",)
SITE = "docs/_build/html"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def usable(version: str) -> bool:
    """Whether this machine has a Python of a version that starts."""
    program = shutil.which(f"python{version}")
    if program is None:
        return False
    # version managers put programs on the path that only say what is missing
    return subprocess.run([program, "-c", ""], capture_output=True).returncode == 0


def group(name: str) -> list[str]:
    """The requirements of a package's `test` dependency group."""
    project = nox.project.load_toml(ROOT / "packages" / name / "pyproject.toml")
    return nox.project.dependency_groups(project, "test")


def groups() -> list[str]:
    """The test requirements of all packages, and of the repository's own tests."""
    return sorted({requirement for name in PACKAGES for requirement in group(name)} | {"nox"})


def install(session: nox.Session, *requirements: str, editable: tuple[str, ...] = ()) -> None:
    """Install everything of a session in one call, under the pins."""
    packages = [word for name in editable for word in ("-e", f"./packages/{name}")]
    session.install("-c", "constraints.txt", *packages, *requirements)


def settings(session: nox.Session) -> None:
    """One thread a process, no window, and the machine's own datasets where it has them."""
    session.env.setdefault("OMP_NUM_THREADS", "1")
    session.env.setdefault("MPLBACKEND", "Agg")
    home = os.environ.get("GECO_DATA_HOME")
    if home:  # a relative path must survive a change of folder
        session.env["GECO_DATA_HOME"] = str(Path(home).resolve())


def pytest(session: nox.Session, *args: str) -> None:
    """Run pytest with one thread per worker."""
    settings(session)
    session.run("pytest", *args)


def check_lint(session: nox.Session, *paths: str) -> None:
    """Ruff's rules and its formatting."""
    session.run("ruff", "check", *(paths or ["."]))
    session.run("ruff", "format", "--check", *(paths or ["."]))


def check_types(session: nox.Session, *paths: str) -> None:
    """Mypy, strict."""
    session.run("mypy", *(paths or [f"packages/{name}/src" for name in PACKAGES]))


def build_docs(session: nox.Session, *args: str) -> None:
    """The site under docs/_build/html; a warning, or a link that leads nowhere, is an error."""
    settings(session)
    shutil.rmtree(ROOT / SITE, ignore_errors=True)  # pages that are no longer made
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", SITE, *args)
    session.run("python", "tools/built_site.py", SITE)


@nox.session
@nox.parametrize("scope", [CHECKS, TOGETHER, *PACKAGES], ids=[CHECKS, TOGETHER, *PACKAGES])
def tests(session: nox.Session, scope: str) -> None:
    """Lint, types and docs; all packages together; each package alone. This is what CI runs."""
    args = session.posargs or ["-n", "auto"]
    if scope == CHECKS:  # one environment for the three: they need the same packages
        install(session, *LINTERS, *TYPES, *DOCS, editable=PACKAGES)
        check_lint(session)
        check_types(session)
        build_docs(session)
    elif scope == TOGETHER:
        install(session, *groups(), editable=PACKAGES)
        pytest(session, *args)
    else:
        install(session, *group(scope), editable=(*SIBLINGS[scope], scope))
        pytest(session, f"packages/{scope}/tests", *args)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests marked `slow`: learning on real data, long crash tests (tens of minutes)."""
    install(session, *groups(), editable=PACKAGES)
    pytest(session, "-m", "slow", *(session.posargs or ["-n", "auto"]))


@nox.session(python=list(filter(usable, PYTHONS)) or False)
def pythons(session: nox.Session) -> None:
    """All tests under every Python from 3.11 on that this machine has."""
    install(session, *groups(), editable=PACKAGES)
    pytest(session, *(session.posargs or ["-n", "auto"]))


@nox.session
def integrations(session: nox.Session) -> None:
    """The recipes for other frameworks: their tests, then each copied out of the built page."""
    needs = {*FRAMEWORKS, *LOGGERS, *DOCS, *group("geco-core"), *group("geco-models")}
    install(session, *sorted(needs), editable=PACKAGES)
    session.env["GECO_REQUIRE_FRAMEWORKS"] = "1"  # here a missing one is a failure, not a skip
    pytest(session, "packages/geco-core/tests/integrations", *session.posargs)
    build_docs(session)
    pages = (f"{SITE}/{name}.html" for name in ("getting-started", "one-run", "frameworks"))
    session.run("python", "tools/recipes.py", *pages)


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
    check_lint(session, *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy --strict over the sources of all four packages."""
    install(session, *TYPES, editable=PACKAGES)
    check_types(session, *session.posargs)


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
    install(session, *DOCS, editable=PACKAGES)
    build_docs(session, *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Look at the built pages in a headless Chromium: `nox -s browser -- --shots FOLDER`."""
    install(session, *DOCS, "playwright", editable=PACKAGES)
    build_docs(session)
    session.run("python", "tools/browser.py", SITE, *session.posargs)


@nox.session
def gallery(session: nox.Session) -> None:
    """Run the notebooks of the documentation anew, outputs kept in place (minutes)."""
    install(session, "nbclient", "ipykernel", "matplotlib", editable=PACKAGES)
    settings(session)
    session.run("python", "tools/gallery.py", *session.posargs)


@nox.session(venv_backend="none")
def version(session: nox.Session) -> None:
    """Set the number of the coming release: `nox -s version -- 0.2.0`."""
    session.run("python", "tools/release.py", "version", *session.posargs)


@nox.session(venv_backend="none")
def address(session: nox.Session) -> None:
    """Set the project's address: `nox -s address -- https://host.example/owner/geco`."""
    session.run("python", "tools/release.py", "address", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """Build what is published, check it, and run each README's example on what was built."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    install(session, "build", "twine")
    for name in PACKAGES:  # the wheel is built from the source archive, not from the folder
        session.run(
            "python", "-m", "build", "--outdir", str(dist), f"packages/{name}", silent=True
        )
    files = sorted(dist.iterdir())
    kinds = sorted(path.suffix for path in files)
    if kinds != [".gz"] * len(PACKAGES) + [".whl"] * len(PACKAGES):
        session.error(f"eight files were to be built, there are {[path.name for path in files]}")
    session.run("twine", "check", "--strict", *map(str, files))
    address = nox.project.load_toml(ROOT / "pyproject.toml")["tool"]["geco"]["address"]
    if address.startswith("https://example.org/"):
        session.warn(f"{address} is a placeholder: `nox -s address` before anything is uploaded")
    wheel = {path.name.split("-")[0].replace("_", "-"): str(path) for path in dist.glob("*.whl")}
    settings(session)
    for name in PACKAGES:
        home = Path(session.create_tmp()) / name
        shutil.rmtree(home, ignore_errors=True)
        session.run("python", "-m", "venv", str(home))
        python = str(home / ("Scripts" if os.name == "nt" else "bin") / "python")
        # siblings by path: a package of the same name on an index must not be taken instead
        needs = [wheel[sibling] for sibling in (*SIBLINGS[name], name)]
        session.run(
            python, "-m", "pip", "install", "-q", "-c", "constraints.txt", *needs, external=True
        )
        session.run(python, "tools/readme.py", f"packages/{name}/README.md", external=True)

"""Where a result comes from: versions, commit and hardware, in general terms."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

__all__ = ["git_commit", "hardware", "provenance", "versions"]

PACKAGES = (
    "geco-core",
    "geco-models",
    "geco-theory",
    "geco-experiments",
    "torch",
    "numpy",
    "xarray",
    "h5netcdf",
    "scikit-learn",
)


def versions() -> str:
    """Python's and the packages' versions, comma-separated."""
    found = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def git_commit() -> str:
    """The commit of the source tree that this package is used from, or an empty string.

    An installed wheel has no commit; a tree with changes is marked `-dirty`.
    """
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        tracked = subprocess.run(  # noqa: S603
            [*command[:3], "ls-files", "--error-unmatch", str(Path(__file__))],
            capture_output=True,
            timeout=10,
            check=False,
        )
        if tracked.returncode:
            return ""
        answer = subprocess.run(  # noqa: S603
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=False
        )
        # describe does not see sources that were never added
        new = subprocess.run(  # noqa: S603
            [*command[:3], "ls-files", "--others", "--exclude-standard", "--", str(folder.parent)],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if answer.returncode:
        return ""
    commit = answer.stdout.strip()
    return commit if commit.endswith("-dirty") or not new.stdout.strip() else f"{commit}-dirty"


def hardware(device: torch.device) -> str:
    """The kind of processor or accelerator, without names of machines."""
    threads = torch.get_num_threads()
    text = f"{platform.machine()} CPU, {os.cpu_count()} cores, {threads} threads"
    if device.type == "cuda":
        text += f", {torch.cuda.get_device_name(device)}"
    elif device.type != "cpu":
        text += f", {device.type}"
    return text


def provenance(device: torch.device) -> dict[str, str]:
    """Attributes that say where a result comes from."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": hardware(device),
        "platform": sys.platform,
    }

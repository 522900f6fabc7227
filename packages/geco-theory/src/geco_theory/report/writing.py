"""Files that appear whole under their names, or not at all."""

import csv
import io
import os
from pathlib import Path

import xarray as xr

from geco_theory.report.collecting import part
from geco_theory.report.reading import has_h5netcdf


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole: it appears complete under its name, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_dataset(path: Path, results: xr.Dataset) -> None:
    """Write netCDF whole: version 4 where h5netcdf is installed, otherwise version 3."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if has_h5netcdf():
            results.to_netcdf(temporary, engine="h5netcdf")
        else:
            results.to_netcdf(temporary, engine="scipy", format="NETCDF3_64BIT")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tables(folder: Path, results: xr.Dataset) -> list[Path]:
    """Write path, transitions and advice as csv files; return their paths."""
    written = []
    for name, key in (("path", "temperature"), ("transition", "transition"), ("advice", "kappa")):
        found = part(results, name)
        if found is None or not found.sizes.get(key, 0):
            continue
        columns = {
            str(n): v.values for n, v in found.reset_coords().variables.items() if v.dims == (key,)
        }
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        path = folder / f"{name}.csv"
        write_atomically(path, buffer.getvalue().encode("utf-8"))
        written.append(path)
    return written

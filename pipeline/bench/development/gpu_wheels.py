"""Collects the wheels that `landcover bench gpu` needs on a machine without internet that has PyTorch and torchvision.

    make gpu-wheels      # build/gpu-wheels.tar.xz

What PyTorch and torchvision need themselves (NumPy, Pillow, …) is there already. All others come with the versions of
constraints.txt. A wheel is a zip file, which compresses each member alone; its members are stored here and compressed
together, which takes a third off. pip installs these wheels like any other.
"""

import argparse
import importlib.metadata
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

NEEDED = (
    *("affine", "cryptography", "dask", "dask-cuda", "distributed", "huggingface-hub", "lazy-loader", "odc-geo"),
    "packaging",
    *("platformdirs", "psutil", "pydantic", "pyproj", "pystac", "pyyaml", "rasterio", "rich", "safetensors"),
    *("segmentation-models-pytorch", "shapely", "typer", "urllib3"),
    *("hypothesis", "pytest", "pytest-timeout", "pytest-xdist"),
)
"""What the bench and the tests marked `gpu` import, beside PyTorch."""
THERE = ("torch", "torchvision")
"""Installed on that machine, with what they need."""
NEWER = frozenset({canonicalize_name("typing-extensions")})
"""PyTorch needs it too, but accepts versions that pydantic does not."""
WITHOUT = frozenset(
    canonicalize_name(name)
    for name in ("bokeh", "cuda-core", "hf-xet", "numpy", "pandas", "rapids-dask-dependency", "xarray")
)
"""Downloads from a hub, xarray's users of odc-geo and Dask's dashboard need some of them; dask-cuda imports cuda-core,
which many machines with a GPU have."""
MOST_BYTES = 45 * 2**20
"""Of the archive and the checkout together, compressed."""
_GLIBC_MINORS = (34, 28, 27, 24, 17, 12, 5)
"""Wheels for manylinux_2_N; pip takes only those that it is given."""
_FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**28}]


def requirements_of(
    names: Iterable[str], *, python: str, without: frozenset[NormalizedName] = frozenset()
) -> frozenset[NormalizedName]:
    """All that some packages need on Linux, themselves among it, by the metadata of this environment.

    Args:
        names: of packages that are installed here.
        python: version of the other machine's Python, such as `3.12`.
        without: packages that are left out, with all that only they need.
    """
    machine = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    found: set[NormalizedName] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate(machine):
                waiting.append(canonicalize_name(needed.name))
    return frozenset(found)


def wheels_for(python: str) -> frozenset[NormalizedName]:
    """The packages to collect for a machine with this version of Python."""
    there = requirements_of(THERE, python=python)
    return requirements_of(NEEDED, python=python, without=(there | WITHOUT) - NEWER)


def pinned(constraints: Path) -> dict[NormalizedName, str]:
    """Package → `name==version`, as constraints.txt has it."""
    lines = [line.strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    return {canonicalize_name(line.partition("==")[0]): line for line in lines if "==" in line}


def download(wanted: Iterable[str], *, python: str, to: Path) -> list[Path]:
    """Downloads wheels for CPython on Linux with x86-64.

    Raises:
        subprocess.CalledProcessError: one of them has no wheel.
    """
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in _GLIBC_MINORS]
    kinds = ("--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms)
    older = ("--platform=manylinux2014_x86_64", "--platform=manylinux2010_x86_64", "--platform=manylinux1_x86_64")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, *kinds, *older, f"--dest={to}", *wanted], check=True)  # noqa: S603  (names of constraints.txt)
    return sorted(to.glob("*.whl"))


def store_members(wheel: Path, folder: Path) -> Path:
    """Writes a wheel again, with its members uncompressed."""
    path = folder / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for member in source.infolist():
            stored = zipfile.ZipInfo(member.filename, member.date_time)
            stored.external_attr = member.external_attr
            target.writestr(stored, source.read(member))
    return path


def main() -> None:
    """Writes the archive and says what is in it and how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("build/gpu-wheels.tar.xz"))
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python")
    asked = parser.parse_args()
    names = wheels_for(asked.python)
    versions = pinned(Path("constraints.txt"))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-wheels-", dir=asked.out.parent) as folder:
        scratch = Path(folder)
        wheels = download([versions[name] for name in sorted(names)], python=asked.python, to=scratch / "downloaded")
        (scratch / "gpu-wheels").mkdir()
        # Largest first, so that libraries which several packages bring lie near each other.
        stored = [store_members(w, scratch / "gpu-wheels") for w in sorted(wheels, key=lambda w: -w.stat().st_size)]
        with (
            lzma.open(asked.out, "wb", filters=_FILTERS) as compressed,
            tarfile.open(fileobj=compressed, mode="w") as tar,
        ):
            for wheel in stored:
                tar.add(wheel, f"gpu-wheels/{wheel.name}")
    archive = subprocess.run(["git", "archive", "--format=tar", "HEAD"], check=True, capture_output=True)  # noqa: S607  (the developer's git)
    own, size = len(lzma.compress(archive.stdout)), asked.out.stat().st_size
    print(f"{asked.out}: {len(wheels)} wheels, {size / 2**20:.1f} MiB; the checkout adds {own / 2**20:.1f} MiB")  # noqa: T201
    if size + own > MOST_BYTES:
        sys.exit(f"together they exceed {MOST_BYTES / 2**20:.0f} MiB: leave something out of NEEDED")


if __name__ == "__main__":
    main()

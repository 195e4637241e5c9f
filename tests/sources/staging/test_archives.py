"""Archives are unpacked byte for byte below one folder, once, and bad archives are refused with the cause."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import py7zr
import pytest

from pipeline.domain import Domain
from pipeline.errors import DeliveryError, LandcoverError, LockError, StorageError
from pipeline.progress import SILENT
from pipeline.sources.staging.archives import check_md5, find_archives
from pipeline.sources.staging.sevenzip import read_contents
from pipeline.sources.staging.unpack import (
    UnpackReport,
    check_members,
    check_room,
    locked_work_folder,
    missing_members,
    unpack,
)
from tests.support.archives import BZIP2, LZMA, LZMA2, STORED, files_of, noise_bytes, pack
from tests.support.disk import files_of_at_most

DOMAIN = Domain("D034_2021")
PAYLOAD = {f"DELIVERY/1_DONNEES/tuile {n}é.bin": noise_bytes(20_000 + n, n) for n in range(12)} | {
    "DELIVERY/empty.txt": b"",
    "DELIVERY/zeros.bin": bytes(3_000_000),
}


def stage_archives(paths: list[Path], out: Path) -> tuple[list[UnpackReport], list[str]]:
    """Runs the steps of `stage` for archives."""
    archives, _ = find_archives(paths)
    notes = check_md5(archives)
    contents = [(a, read_contents(a)) for a in archives]
    check_members(contents, DOMAIN)
    done = []
    with locked_work_folder(out) as work:
        for archive, inside in contents:
            wanted = missing_members(inside, out, removed={}, progress=SILENT)
            check_room([m for m in inside.members if m.name in wanted], out)
            done.append(unpack(archive, inside, out, wanted=wanted, work=work, progress=SILENT))
    return done, notes


@pytest.mark.parametrize("filters", [STORED, LZMA, LZMA2, BZIP2], ids=["stored", "lzma", "lzma2", "bzip2"])
@pytest.mark.parametrize("volume", [None, 37_123], ids=["one file", "volumes"])
def test_packed_files_are_unpacked(tmp_path: Path, filters: list[dict[str, int]], volume: int | None) -> None:
    volumes = pack(tmp_path / "a.7z", PAYLOAD, filters=filters, volume=volume)
    done, notes = stage_archives([volumes[-1]], tmp_path / "out")
    assert files_of(tmp_path / "out") == PAYLOAD
    assert notes == []
    assert done[0].written == len(PAYLOAD)


@pytest.mark.parametrize("filters", [LZMA, LZMA2], ids=["lzma", "lzma2"])
def test_a_large_dictionary_or_ratio_is_refused_before_unpacking(
    tmp_path: Path, filters: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    archives, _ = find_archives(pack(tmp_path / "a.7z", {"zeros.bin": bytes(20_000_000)}, filters=filters))
    read_contents(archives[0])
    monkeypatch.setenv("LANDCOVER_MAX_ARCHIVE_DICTIONARY_BYTES", "100000")
    with pytest.raises(DeliveryError, match="declares 262,144 bytes in a dictionary, more than the limit archive_dict"):
        read_contents(archives[0])
    monkeypatch.delenv("LANDCOVER_MAX_ARCHIVE_DICTIONARY_BYTES")
    monkeypatch.setattr("pipeline.sources.staging.sevenzip._FREE_BYTES", 0)
    with pytest.raises(DeliveryError, match="bytes unpacked for one packed, more than the limit archive_ratio = 250"):
        read_contents(archives[0])


def test_archives_of_7_zip_are_unpacked_too(tmp_path: Path) -> None:
    program = next((p for n in ("7z", "7za", "7zr", "7zz") if (p := shutil.which(n))), None)
    if program is None:
        pytest.skip("no 7-Zip on this machine; py7zr's archives are tested")
    for name, content in PAYLOAD.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    subprocess.run(
        [program, "a", "-v50k", tmp_path / "a.7z", "."], cwd=tmp_path / "in", check=True, capture_output=True
    )
    stage_archives([tmp_path / "a.7z.001"], tmp_path / "out")
    assert files_of(tmp_path / "out") == PAYLOAD


def test_all_volumes_and_their_md5_file_are_one_archive(tmp_path: Path) -> None:
    pack(tmp_path / "a.7z", PAYLOAD, volume=50_000)
    archives, folders = find_archives([*tmp_path.glob("a.7z*"), tmp_path])
    assert [a.path.name for a in archives] == ["a.7z"]
    assert folders == (tmp_path,)


def test_surface_models_of_a_neighbour_and_of_another_year_are_unpacked(tmp_path: Path) -> None:
    member = "MNS/30-2018-0770-6278-LA93-0M50.tif"
    stage_archives(pack(tmp_path / "a.7z", {member: b"x"}), tmp_path / "out")
    assert files_of(tmp_path / "out") == {member: b"x"}


def test_only_missing_and_damaged_files_are_unpacked_again(tmp_path: Path) -> None:
    volumes = pack(tmp_path / "a.7z", PAYLOAD)
    stage_archives(volumes, tmp_path / "out")
    again, _ = stage_archives(volumes, tmp_path / "out")
    assert (again[0].written, again[0].kept) == (0, len(PAYLOAD))
    changed = tmp_path / "out" / "DELIVERY/zeros.bin"
    changed.write_bytes(b"\x01" + bytes(2_999_999))
    (tmp_path / "out" / "DELIVERY/1_DONNEES/tuile 3é.bin").unlink()
    repaired, _ = stage_archives(volumes, tmp_path / "out")
    assert repaired[0].written == 2
    assert files_of(tmp_path / "out") == PAYLOAD


def test_a_missing_md5_is_noted_and_not_fatal(tmp_path: Path) -> None:
    volumes = pack(tmp_path / "a.7z", PAYLOAD, volume=100_000)
    sums = (tmp_path / "a.7z.md5").read_text().splitlines()
    (tmp_path / "a.7z.md5").write_text("\n".join(s for s in sums if "001" not in s))
    _, notes = stage_archives(volumes, tmp_path / "out")
    assert len(notes) == 1
    assert "no md5 for a.7z.001" in notes[0]


@pytest.mark.parametrize(
    "line", ["{sum}", "{sum}  a.7z", "{upper} *.\\a.7z", "MD5 (a.7z) = {sum}", "\ufeff{sum}\t./a.7z\r"]
)
def test_md5_files_of_all_formats_are_read(tmp_path: Path, line: str) -> None:
    (path,) = pack(tmp_path / "a.7z", PAYLOAD, md5=False)
    good = hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324
    archives, _ = find_archives([path])
    for sum_, correct in ((good, True), ("0" * 32, False)):
        (tmp_path / "a.7z.md5").write_text(line.format(sum=sum_, upper=sum_.upper()), encoding="utf-8")
        if correct:
            assert check_md5(archives) == []
        else:
            with pytest.raises(DeliveryError, match="md5"):
                check_md5(archives)


def one(folder: Path, members: dict[str, bytes | Path] | None = None, **how: object) -> list[Path]:
    return pack(folder / "a.7z", members or dict(PAYLOAD), **how)  # type: ignore[arg-type]


def without_volume(folder: Path, number: int) -> list[Path]:
    volumes = one(folder, volume=60_000, md5=False)
    volumes.pop(number).unlink()
    return volumes


def cut(folder: Path, number: int, **how: object) -> list[Path]:
    volumes = one(folder, md5=False, **how)
    os.truncate(volumes[number], volumes[number].stat().st_size - 9)
    return volumes


def wrong_md5(folder: Path) -> list[Path]:
    volumes = one(folder, volume=60_000)
    content = bytearray(volumes[1].read_bytes())
    content[500] ^= 1
    volumes[1].write_bytes(content)
    return volumes


def wrong_byte(folder: Path, at: int) -> list[Path]:
    (path,) = one(folder, md5=False)
    content = bytearray(path.read_bytes())
    content[at] ^= 0x55
    path.write_bytes(content)
    return [path]


def listed_volume_gone(folder: Path) -> list[Path]:
    volumes = one(folder, volume=60_000)
    volumes[-1].unlink()
    return volumes[:-1]


def link(folder: Path) -> list[Path]:
    (folder / "outside").symlink_to("/etc/hostname")
    return one(folder, {"DELIVERY/link": folder / "outside"})


def text(folder: Path, name: str, content: bytes) -> list[Path]:
    (folder / name).write_bytes(content)
    return [folder / name]


def clash(folder: Path) -> list[Path]:
    first = pack(folder / "a.7z", {"DELIVERY/x.bin": b"one"})
    return first + pack(folder / "b.7z", {"DELIVERY/./x.bin": b"two"})


def linked_folder(folder: Path) -> list[Path]:
    (folder / "elsewhere").mkdir()
    (folder / "out").mkdir()
    (folder / "out" / "DELIVERY").symlink_to(folder / "elsewhere")
    return one(folder)


BAD: list[tuple[str, Callable[[Path], list[Path]], type[LandcoverError], str]] = [
    ("missing first volume", lambda f: without_volume(f, 0), DeliveryError, "missing a.7z.001"),
    ("missing middle volume", lambda f: without_volume(f, 2), DeliveryError, "missing a.7z.003"),
    ("missing last volume", listed_volume_gone, DeliveryError, "missing a.7z.0"),
    ("missing last volume, no list", lambda f: without_volume(f, -1), DeliveryError, "missing a.7z.0"),
    ("no such file", lambda f: [f / "b.7z"], DeliveryError, "no such file"),
    ("wrong md5", wrong_md5, DeliveryError, "a.7z.002: checksum mismatch: md5"),
    ("truncated archive", lambda f: cut(f, 0), DeliveryError, "is truncated"),
    ("truncated volume", lambda f: cut(f, 1, volume=60_000), DeliveryError, "a.7z.002: is truncated"),
    ("truncated last volume", lambda f: cut(f, -1, volume=60_000), DeliveryError, "is truncated"),
    ("empty file", lambda f: text(f, "a.7z", b""), DeliveryError, "not a 7z archive"),
    ("a zip", lambda f: text(f, "a.7z", b"PK\x03\x04" + bytes(99)), DeliveryError, "not a 7z archive"),
    ("a few bytes", lambda f: text(f, "a.7z", b"7z\xbc\xaf\x27\x1c\x00\x04"), DeliveryError, "is truncated"),
    ("another suffix", lambda f: text(f, "a.tar", b"x"), DeliveryError, "neither an archive nor a folder"),
    ("damaged start header", lambda f: wrong_byte(f, 9), DeliveryError, "is damaged"),
    ("damaged header", lambda f: wrong_byte(f, -8), DeliveryError, "is damaged"),
    ("damaged stream", lambda f: wrong_byte(f, 90_000), DeliveryError, "is damaged"),
    ("password", lambda f: one(f, password="x"), DeliveryError, "protected by a password"),  # noqa: S106
    (
        "password on names",
        lambda f: one(f, password="x", header_encryption=True),  # noqa: S106
        DeliveryError,
        "protected by a password",
    ),
    ("parent path", lambda f: one(f, {"../evil.txt": b"x"}), DeliveryError, "leaves the archive's folder"),
    ("inner parent path", lambda f: one(f, {"a/../../evil": b"x"}), DeliveryError, "leaves the archive's folder"),
    ("backslashes", lambda f: one(f, {"a\\..\\..\\evil": b"x"}), DeliveryError, "leaves the archive's folder"),
    ("absolute path", lambda f: one(f, {"/tmp/evil": b"x"}), DeliveryError, "absolute path"),  # noqa: S108
    ("drive", lambda f: one(f, {"C:/evil": b"x"}), DeliveryError, "absolute path"),
    ("control character", lambda f: one(f, {"a/ev\nil": b"x"}), DeliveryError, "control characters"),
    ("stage's own folder", lambda f: one(f, {".stage/member": b"x"}), DeliveryError, "stage's own folder"),
    ("symbolic link", link, DeliveryError, "is a link"),
    ("two contents of one path", clash, DeliveryError, "is also in a.7z"),
    ("a link in the staging folder", linked_folder, DeliveryError, "is a link to outside of"),
    (
        "another domain",
        lambda f: one(f, {"x/38-2024-0595-6890-LA93-0M20-E080.jp2": b"x"}),
        DeliveryError,
        "its name has département 38",
    ),
    ("unknown method", lambda f: one(f, filters=[{"id": py7zr.FILTER_ZSTD, "level": 3}]), DeliveryError, "method"),
    ("a name too long", lambda f: one(f, {"x" * 300: b"x"}), StorageError, "cannot be"),
]


@pytest.mark.parametrize(("make", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_archives_are_refused_with_the_cause(
    tmp_path: Path, make: Callable[[Path], list[Path]], error: type[LandcoverError], message: str
) -> None:
    given = make(tmp_path)
    before = {p for p in tmp_path.rglob("*") if "out" not in p.relative_to(tmp_path).parts[:1]}
    with pytest.raises(error) as caught:
        stage_archives(given, tmp_path / "out")
    assert message in str(caught.value)
    left = files_of(tmp_path / "out")
    assert {n: c for n, c in left.items() if PAYLOAD.get(n) != c} == {}, "no half-written file"
    after = {p for p in tmp_path.rglob("*") if "out" not in p.relative_to(tmp_path).parts[:1]}
    assert after == before, "no file beside the staging folder"


def test_archives_that_do_not_fit_on_the_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = one(tmp_path)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=2_000_000))
    with pytest.raises(StorageError, match=r"unpacking needs 0\.003 GB and 0\.002 GB are free"):
        stage_archives(volumes, tmp_path / "out")
    assert files_of(tmp_path / "out") == {}


def test_a_full_disk_leaves_complete_files_and_the_next_run_resumes(tmp_path: Path) -> None:
    volumes = one(tmp_path)
    with files_of_at_most(1_000_000), pytest.raises(StorageError, match="free space"):
        stage_archives(volumes, tmp_path / "out")
    left = files_of(tmp_path / "out")
    assert left == {n: c for n, c in PAYLOAD.items() if n in left}
    done, _ = stage_archives(volumes, tmp_path / "out")
    assert done[0].kept == len(left)
    assert files_of(tmp_path / "out") == PAYLOAD


def test_two_stages_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        locked_work_folder(tmp_path / "out"),
        pytest.raises(LockError, match=r"the staging folder .* is locked by process"),
        locked_work_folder(tmp_path / "out"),
    ):
        pass

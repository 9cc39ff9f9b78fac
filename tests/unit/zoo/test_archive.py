from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_zoo.archive import Extracted, Limits, extract_archive
from ridgeline_zoo.errors import UnsafeArchive

Entry = tuple[str, bytes, str, str]  # tar type, content, name, link target


def tar_of(path: Path, *entries: Entry, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for kind, content, name, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind.encode(), target
            info.size = len(content) if kind == "0" else 0
            info.mode = 0o755 if name.endswith(".sh") else 0o4666
            tar.addfile(info, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"x") -> Entry:
    return ("0", content, name, "")


def symlink(name: str, target: str) -> Entry:
    return ("2", b"", name, target)


def hardlink(name: str, target: str) -> Entry:
    return ("1", b"", name, target)


def zip_of(path: Path, files: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_plain_tar_is_unpacked(tmp_path: Path, mode: str) -> None:
    archive = tar_of(
        tmp_path / "m", ("5", b"", "./", ""), file("./a/b.json", b"{}"), file("run.sh"), mode=mode
    )
    assert extract_archive(archive, tmp_path / "out") == Extracted(("a/b.json", "run.sh"), 3)
    assert tree(tmp_path / "out") == {"a/b.json": b"{}", "run.sh": b"x"}
    assert stat.S_IMODE((tmp_path / "out/a/b.json").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "out/run.sh").stat().st_mode) == 0o755


def test_a_plain_zip_is_unpacked(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "m.zip", {"a/b.json": b"{}", "a/c/": b"", "d": b"1"})
    extract_archive(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a/b.json": b"{}", "d": b"1"}


def test_one_file_or_one_folder_may_be_taken_out(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "m.zip", {"p/m/a": b"1", "p/m/s/b": b"2", "p/mx": b"3"})
    extract_archive(archive, tmp_path / "folder", only="p/m/")
    assert tree(tmp_path / "folder") == {"a": b"1", "s/b": b"2"}
    extract_archive(archive, tmp_path / "file", only="p/mx")
    assert tree(tmp_path / "file") == {"mx": b"3"}
    with pytest.raises(UnsafeArchive, match="no entry 'q'"):
        extract_archive(archive, tmp_path / "none", only="q")


def test_links_inside_become_copies(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "m",
        symlink("lib/early", "../data/real"),
        symlink("chain", "lib/early"),
        file("data/real", b"weights"),
        hardlink("hard", "data/real"),
    )
    extract_archive(archive, tmp_path / "out")
    found = tree(tmp_path / "out")
    assert set(found) == {"lib/early", "chain", "data/real", "hard"}
    assert set(found.values()) == {b"weights"}
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


ESCAPES: list[tuple[str, tuple[Entry, ...]]] = [
    ("dotdot", (file("../evil"),)),
    ("dotdot inside", (file("a/../../evil"),)),
    ("absolute", (file("/evil"),)),
    ("backslash", (file("..\\evil"),)),
    ("drive", (file("c:evil"),)),
    ("symlink absolute", (symlink("a", "/etc/passwd"),)),
    ("symlink out", (symlink("d/a", "../../etc/passwd"),)),
    ("symlink to folder", (file("d/x"), symlink("a", "d"))),
    ("through a symlink", (symlink("a", "."), file("a/../evil"))),
    ("two symlinks", (symlink("a", "b/.."), symlink("b", "a/.."), file("a/evil"))),
    ("symlink to itself", (symlink("a", "a"),)),
    ("hardlink out", (hardlink("a", "../../etc/passwd"),)),
    ("hardlink absolute", (hardlink("a", "/etc/passwd"),)),
    ("device", (("3", b"", "null", ""),)),
    ("block device", (("4", b"", "sda", ""),)),
    ("pipe", (("6", b"", "fifo", ""),)),
    ("file over folder", (file("a/b"), file("a"))),
    ("folder over file", (file("a"), file("a/b"))),
    ("long name", (file("n" * 300),)),
]


@pytest.mark.parametrize(("name", "entries"), ESCAPES, ids=[name for name, _ in ESCAPES])
def test_tars_that_reach_out_are_refused(
    tmp_path: Path, name: str, entries: tuple[Entry, ...]
) -> None:
    archive = tar_of(tmp_path / "m.tar.gz", *entries)
    with pytest.raises(UnsafeArchive, match=r"m\.tar\.gz"):
        extract_archive(archive, tmp_path / "box" / "out")
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and "out" not in p.parts]
    assert outside == [archive]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "c:/evil"])
def test_zips_that_reach_out_are_refused(tmp_path: Path, name: str) -> None:
    archive = zip_of(tmp_path / "m.zip", {name: b"x"})
    with pytest.raises(UnsafeArchive):
        extract_archive(archive, tmp_path / "box" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "m.zip", {"a": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    with pytest.raises(UnsafeArchive, match="link"):
        extract_archive(archive, tmp_path / "out")


def test_a_bomb_is_stopped_at_its_real_size(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "m", file("big", bytes(1 << 22)))
    assert archive.stat().st_size < 1 << 15
    with pytest.raises(UnsafeArchive, match="more than 1000000 bytes"):
        extract_archive(archive, tmp_path / "out", limits=Limits(max_bytes=1_000_000))
    copies = tar_of(tmp_path / "n", file("a", bytes(600)), *[hardlink(str(i), "a") for i in "12"])
    with pytest.raises(UnsafeArchive, match="more than 1000 bytes"):
        extract_archive(copies, tmp_path / "out2", limits=Limits(max_bytes=1000))


@pytest.mark.parametrize("zipped", [False, True])
def test_whoever_extracts_can_end_it_before_the_next_piece(tmp_path: Path, zipped: bool) -> None:
    class Enough(Exception):
        pass

    def took(count: int) -> None:
        sizes.append(count)
        if sum(sizes) > 100:
            raise Enough

    sizes: list[int] = []
    if zipped:
        archive = zip_of(tmp_path / "m", {"a": bytes(60), "b": bytes(60)})
    else:
        archive = tar_of(tmp_path / "m", file("a", bytes(60)), file("b", bytes(60)))
    with pytest.raises(Enough):
        extract_archive(archive, tmp_path / "out", took=took)
    assert tree(tmp_path / "out") == {"a": bytes(60), "b": b""}


def test_too_many_entries_are_stopped(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "m.zip", {str(i): b"" for i in range(11)})
    with pytest.raises(UnsafeArchive, match="more than 10 entries"):
        extract_archive(archive, tmp_path / "out", limits=Limits(max_entries=10))


def test_a_header_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    (tmp_path / "m").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UnsafeArchive, match="asks for"):
        extract_archive(tmp_path / "m", tmp_path / "out")


@pytest.mark.parametrize("cut", [0, 1, 3, 40, 100])
def test_damage_is_named(tmp_path: Path, cut: int) -> None:
    whole = tar_of(tmp_path / "w", file("a", os.urandom(5000))).read_bytes()
    (tmp_path / "m").write_bytes(whole[:cut])
    with pytest.raises(UnsafeArchive, match="damaged"):
        extract_archive(tmp_path / "m", tmp_path / "out")


names = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "c:", "\\", "é", "\n"]), min_size=1, max_size=4
).map("/".join)
entries = st.lists(
    st.one_of(
        st.tuples(st.just("0"), st.binary(max_size=20), names, st.just("")),
        st.tuples(st.sampled_from("126345"), st.just(b""), names, names),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(entries, st.booleans())
def test_no_archive_writes_outside_or_leaves_a_link(made: list[Entry], zipped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        archive = root / "m"
        if zipped:
            zip_of(archive, {name: content for _, content, name, _ in made})
        else:
            tar_of(archive, *made)
        try:
            extracted = extract_archive(archive, root / "box" / "out")
        except UnsafeArchive:
            pass
        else:
            assert set(extracted.files) == set(tree(root / "box" / "out"))
            assert all(kind in "0125" for kind, *_ in made if not zipped)
        everything = list(root.rglob("*"))
        assert not any(path.is_symlink() for path in everything)
        inside = (root / "box" / "out").resolve()
        strangers = [p for p in everything if p.is_file() and inside not in p.resolve().parents]
        assert strangers == [archive]


@settings(deadline=None)
@given(st.binary(max_size=2000), st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08\x00"]))
def test_noise_is_refused_or_empty(noise: bytes, magic: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "m").write_bytes(magic + noise)
        with contextlib.suppress(UnsafeArchive):
            extract_archive(Path(folder) / "m", Path(folder) / "out")
        assert not any(path.is_symlink() for path in Path(folder).rglob("*"))

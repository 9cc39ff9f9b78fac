"""Listings against a plain model of what S3 says: sorted by UTF-8 bytes, nothing twice or lost."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.objects.conditions import ALWAYS
from ridgeline_service.objects.index import Index, StoredObject

_keys = st.text(st.sampled_from("ab/-.é\U00010000"), min_size=1, max_size=6)


def expected(keys: set[str], prefix: str, delimiter: str) -> list[str]:
    """Keys and common prefixes, in order."""
    found = set()
    for key in keys:
        if key.startswith(prefix):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            found.add(key if cut < 0 else key[: cut + len(delimiter)])
    return sorted(found, key=str.encode)


@settings(deadline=None)
@given(
    keys=st.sets(_keys, max_size=25),
    prefix=st.text(st.sampled_from("ab/é"), max_size=2),
    delimiter=st.sampled_from(["", "/", "-", "b/"]),
    limit=st.integers(1, 7),
)
def test_pages_make_up_the_listing(keys: set[str], prefix: str, delimiter: str, limit: int) -> None:
    index = Index(Path(":memory:"))
    index.create_bucket("bucket", 0.0)
    for key in keys:
        assert index.put("bucket", StoredObject(key, (), 0, "", 0.0), ALWAYS.check) == []
    seen: list[str] = []
    after: str | None = ""
    pages = 0
    while after is not None:
        page = index.page("bucket", prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        names = [stored.key for stored in page.objects] + list(page.prefixes)
        assert len(names) <= limit
        assert (page.resume is None) or len(names) == limit
        seen += sorted(names, key=str.encode)
        after = page.resume
        pages += 1
    index.close()
    assert seen == expected(keys, prefix, delimiter)
    assert pages == max(1, -(-len(seen) // limit))

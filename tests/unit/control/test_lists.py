"""Lists as AWS's clients page and filter them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ridgeline_service.errors import ValidationException


class TestLists:
    def test_newest_first_ten_a_page(self, world):
        for index in range(12):
            world.now += 1
            world.model(f"m{index:02d}")
        page = world.plane.models.list({})
        assert [item["ModelName"] for item in page["Models"]][:2] == ["m11", "m10"]
        assert len(page["Models"]) == 10
        rest = world.plane.models.list({"NextToken": page["NextToken"]})
        assert [item["ModelName"] for item in rest["Models"]] == ["m01", "m00"]
        assert "NextToken" not in rest

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        same_moment=st.booleans(),
        by=st.sampled_from(["Name", "CreationTime"]),
        order=st.sampled_from(["Ascending", "Descending"]),
        size=st.integers(1, 4),
        between=st.lists(
            st.tuples(st.sampled_from(["add", "delete"]), st.integers(0, 8)), max_size=4
        ),
    )
    def test_pages_show_what_stays_exactly_once(
        self, make_world, same_moment, by, order, size, between
    ):
        """Whatever is created or deleted between two pages."""
        world = make_world()
        names = [f"m{index}" for index in range(9)]
        for name in names:
            world.now += 0 if same_moment else 1
            world.model(name)
        seen, gone, token = [], set(), None
        pending = list(between)
        while True:
            request = {"SortBy": by, "SortOrder": order, "MaxResults": size}
            page = world.plane.models.list(request | ({"NextToken": token} if token else {}))
            seen += [item["ModelName"] for item in page["Models"]]
            token = page.get("NextToken")
            if token is None:
                break
            if pending:
                action, index = pending.pop()
                if action == "add":
                    world.model(f"m{index}-new{len(pending)}")
                elif names[index] not in gone:
                    world.plane.models.delete({"ModelName": names[index]})
                    gone.add(names[index])
        old = [name for name in seen if name in names]
        assert len(seen) == len(set(seen))
        assert set(old) >= set(names) - gone
        assert old == sorted(old, reverse=(order == "Descending"))

    def test_filters(self, world):
        for name in ("Alpha-one", "beta", "alpha_two", "a%b"):
            world.now += 10
            world.model(name.replace("_", "-").replace("%", "-"))
        listed = world.plane.models.list({"NameContains": "ALPHA"})["Models"]
        assert [item["ModelName"] for item in listed] == ["alpha-two", "Alpha-one"]
        assert world.plane.models.list({"NameContains": "%"})["Models"] == []
        second = datetime.fromtimestamp(world.now - 20, UTC)
        after = world.plane.models.list({"CreationTimeAfter": second})["Models"]
        before = world.plane.models.list({"CreationTimeBefore": second})["Models"]
        assert [item["ModelName"] for item in after] == ["a-b", "alpha-two", "beta"]
        assert [item["ModelName"] for item in before] == ["Alpha-one"]

    def test_endpoints_are_filtered_by_status(self, world):
        world.deploy("up")
        world.deploy("down", LOAD="fails")
        failed = world.plane.endpoints.list({"StatusEquals": "Failed"})["Endpoints"]
        assert [item["EndpointName"] for item in failed] == ["down"]
        everything = world.plane.endpoints.list({"SortBy": "Status", "SortOrder": "Ascending"})
        assert [item["EndpointName"] for item in everything["Endpoints"]] == ["down", "up"]

    @pytest.mark.parametrize("token", ["x", "", "bm90IGpzb24", "WzEsMl0"])
    def test_a_token_that_is_not_ours_is_refused(self, world, token):
        with pytest.raises(ValidationException, match="NextToken"):
            world.plane.models.list({"NextToken": token})

    @pytest.mark.parametrize(
        ("by", "value", "arn"),
        [
            ("created_at", True, "x"),
            ("created_at", "abc", "x"),
            ("created_at", 5, "x\0"),
            ("created_at", 10**30, "x"),
            ("created_at", 1.5, "x"),
            ("created_at", 5, "\ud800"),
            ("created_at", 5, 7),
            ("created_at", 5, ["x"]),
            ("name", 5, "x"),
            ("name", "a\0", "x"),
            ("name", "\ud800", "x"),
        ],
    )
    def test_a_forged_token_is_refused(self, world, by, value, arn):
        asked = {"SortBy": {"name": "Name", "created_at": "CreationTime"}[by]}
        for order in ("Ascending", "Descending"):
            raw = json.dumps([by, order == "Descending", value, arn])
            token = base64.urlsafe_b64encode(raw.encode()).decode()
            with pytest.raises(ValidationException, match="NextToken was not given out"):
                world.plane.models.list({**asked, "SortOrder": order, "NextToken": token})

    def test_a_token_of_another_order_is_refused(self, world):
        for name in ("a", "b"):
            world.model(name)
        token = world.plane.models.list({"MaxResults": 1})["NextToken"]
        with pytest.raises(ValidationException, match="another SortBy"):
            world.plane.models.list({"NextToken": token, "SortBy": "Name"})

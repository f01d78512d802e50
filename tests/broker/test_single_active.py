"""Which consumer is active after any sequence of joining, leaving and answering."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowstream.broker.single_active import ALONE, Coordinator, Notice

STREAM, NAME = "s", "group"


class Clients:
    """The notices that the members got, and those that are not answered yet."""

    def __init__(self, coordinator: Coordinator[int]) -> None:
        self.coordinator = coordinator
        self.active: dict[int, bool] = {}
        self.unanswered: list[Notice[int]] = []

    def hear(self, notices: list[Notice[int]] | None) -> None:
        for notice in notices or []:
            assert notice.member in self.active, "a member that has left was told"
            if not notice.active:
                self.unanswered.append(notice)
            else:
                others = [member for member in self.active if member != notice.member]
                assert not any(self.active[other] for other in others), "two are active"
                self.active[notice.member] = True

    def answer(self) -> None:
        notice = self.unanswered.pop(0)
        if notice.member in self.active:
            self.active[notice.member] = False
            self.hear(self.coordinator.stepped_down(STREAM, NAME))

    def leave(self, member: int) -> None:
        del self.active[member]
        self.unanswered = [it for it in self.unanswered if it.member != member]
        self.hear(self.coordinator.unregister(STREAM, NAME, member))


@given(
    partition=st.sampled_from([ALONE, 0, 1, 2, 5]),
    moves=st.lists(st.tuples(st.sampled_from(["join", "leave", "answer"]), st.integers(0, 9))),
)
def test_never_two_are_active_and_finally_the_right_one(partition: int, moves: list[Any]) -> None:
    coordinator: Coordinator[int] = Coordinator()
    clients = Clients(coordinator)
    joined = 0
    for move, which in moves:
        members = list(clients.active)
        if move == "join":
            clients.active[joined] = False
            clients.hear(coordinator.register(STREAM, NAME, partition, joined))
            joined += 1
        elif move == "leave" and members:
            clients.leave(members[which % len(members)])
        elif move == "answer" and clients.unanswered:
            clients.answer()
    while clients.unanswered:
        clients.answer()
    members = list(clients.active)
    active = [member for member in members if clients.active[member]]
    if not members:
        assert coordinator.groups == {}
    elif partition == ALONE:
        assert len(active) == 1
    else:
        assert active == [members[partition % len(members)]]


def test_alone_the_first_stays_until_it_leaves() -> None:
    coordinator: Coordinator[str] = Coordinator()
    assert coordinator.register(STREAM, NAME, ALONE, "a") == [Notice("a", active=True)]
    assert coordinator.register(STREAM, NAME, ALONE, "b") == []
    assert coordinator.unregister(STREAM, NAME, "b") == []
    assert coordinator.register(STREAM, NAME, ALONE, "c") == []
    assert coordinator.unregister(STREAM, NAME, "a") == [Notice("c", active=True)]


def test_in_a_super_stream_the_former_steps_down_first() -> None:
    coordinator: Coordinator[str] = Coordinator()
    assert coordinator.register(STREAM, NAME, 1, "a") == [Notice("a", active=True)]
    stepping_down = [Notice("a", active=False, stepping_down=True)]
    assert coordinator.register(STREAM, NAME, 1, "b") == stepping_down
    assert coordinator.register(STREAM, NAME, 1, "c") == []
    assert coordinator.stepped_down(STREAM, NAME) == [Notice("b", active=True)]


def test_the_one_that_steps_down_leaves_without_an_answer() -> None:
    coordinator: Coordinator[str] = Coordinator()
    coordinator.register(STREAM, NAME, 1, "a")
    coordinator.register(STREAM, NAME, 1, "b")
    assert coordinator.unregister(STREAM, NAME, "a") == [Notice("b", active=True)]
    assert coordinator.stepped_down(STREAM, "unknown") == []


def test_a_group_has_one_partition_index() -> None:
    coordinator: Coordinator[str] = Coordinator()
    coordinator.register(STREAM, NAME, 1, "a")
    assert coordinator.register(STREAM, NAME, 2, "b") is None
    assert coordinator.register(STREAM, "other", 2, "b") == [Notice("b", active=True)]

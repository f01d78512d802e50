"""Turns of workers, and the load that they make even: in virtual time, against a model broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli.workers.balance import (
    LONGEST_PAUSE,
    PATIENCE,
    PAUSE,
    UNEVEN_LASTS,
    Balance,
    Balances,
    is_uneven,
)
from flowstream.cli.workers.decisions import Member

LOOK = 1.0


@dataclass
class Broker:
    """The lists of consumers of all partitions; what the workers hold follows from them."""

    lists: list[list[object]]

    def held(self, members: list[Member]) -> dict[Member, frozenset[str]]:
        return {
            member: frozenset(
                str(index)
                for index, members in enumerate(self.lists)
                if members and members[index % len(members)] is member
            )
            for member in members
        }

    def subscribe(self, member: object) -> None:
        for members in self.lists:
            if member in members:
                members.remove(member)
            members.append(member)


@dataclass
class World:
    """A run of workers whose turns are carried out at once, and a clock."""

    broker: Broker
    members: list[Member]
    balance: Balance = field(default_factory=lambda: Balance("orders"))
    now: float = 0.0
    times: list[float] = field(default_factory=list)

    def turns(self) -> None:
        while due := list(self.balance.act(self.now)):
            (member,) = due
            self.broker.subscribe(member)
            self.balance.subscribed(member)

    def look(self, seconds: float = LOOK, *, calm: bool = True) -> None:
        before = self.balance.rebalances
        self.balance.looked(self.broker.held(self.members), calm=calm, now=self.now)
        if self.balance.rebalances > before:
            self.times.append(self.now)
        self.turns()
        self.now += seconds

    def pass_by(self, seconds: float, *, calm: bool = True) -> None:
        end = self.now + seconds
        while self.now < end:
            self.look(calm=calm)

    @property
    def loads(self) -> list[int]:
        return sorted(len(each) for each in self.broker.held(self.members).values())


def workers(count: int) -> list[Member]:
    return [Member(number, 1, 0.0) for number in range(1, count + 1)]


def test_workers_subscribe_one_after_the_other() -> None:
    balance, (one, two, three) = Balance("orders"), workers(3)
    for member in (two, one, three):
        balance.asked(member)
    assert list(balance.act(0.0)) == [two]
    assert list(balance.act(1.0)) == []
    balance.subscribed(three)  # of an earlier turn
    assert list(balance.act(1.0)) == []
    balance.subscribed(two)
    assert list(balance.act(2.0)) == [one]
    balance.left(one)
    assert list(balance.act(3.0)) == [three]


def test_one_that_hangs_does_not_hold_up_the_others() -> None:
    balance, (one, two) = Balance("orders"), workers(2)
    balance.asked(one)
    balance.asked(two)
    assert balance.due() is None
    assert list(balance.act(0.0)) == [one]
    assert balance.due() == PATIENCE
    assert list(balance.act(PATIENCE - 0.1)) == []
    assert list(balance.act(PATIENCE)) == [two]
    balance.subscribed(one)
    assert balance.due() == 2 * PATIENCE


def test_one_that_ended_has_no_turn() -> None:
    balance, (one, two) = Balance("orders"), workers(2)
    balance.asked(one)
    balance.asked(two)
    balance.left(two)
    assert list(balance.act(0.0)) == [one]
    balance.subscribed(one)
    assert list(balance.act(1.0)) == []


def test_what_is_uneven() -> None:
    for loads in ([], [3], [1, 0], [2, 1], [16, 16, 18, 14], [1, 1, 0]):
        assert not is_uneven(loads), loads
    for loads in ([2, 0], [3, 0], [3, 2, 2, 1], [9, 9, 9, 9, 9, 9, 10, 0], [21, 15, 14, 14]):
        assert is_uneven(loads), loads


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Workers whose consumers overtook each other, beside those of other processes."""
    members = workers(draw(st.integers(2, 8)))
    others = [f"elsewhere {number}" for number in range(draw(st.integers(0, 3)))]
    partitions = draw(st.integers(1, 24))
    lists = [draw(st.permutations([*members, *others])) for _ in range(partitions)]
    return World(Broker(lists), members)


@given(worlds())
def test_uneven_load_becomes_even_by_one_rebalance_and_stays(world: World) -> None:
    uneven = is_uneven(world.loads)
    world.pass_by(2 * UNEVEN_LASTS)
    assert world.balance.rebalances == int(uneven)
    assert not is_uneven(world.loads)
    if uneven:
        assert world.loads[-1] - world.loads[0] <= 1
        order = [it for it in world.broker.lists[0] if it in world.members]
        for each in world.broker.lists:
            assert [it for it in each if it in world.members] == order
    world.pass_by(3 * PAUSE)
    assert world.balance.rebalances == int(uneven)


@given(worlds(), st.lists(st.tuples(st.integers(1, 40), st.randoms()), max_size=30))
def test_it_never_flaps_whatever_the_broker_does(world: World, events: list) -> None:  # type: ignore[type-arg]
    for seconds, random in events:
        for each in world.broker.lists:
            random.shuffle(each)
        world.pass_by(seconds)
    for before, after in zip(world.times, world.times[1:], strict=False):
        assert after - before >= 2 * PAUSE


def skewed() -> World:
    """One worker has everything, and again after each rebalance."""
    members = workers(2)
    return World(Broker([[members[index % 2], members[1 - index % 2]] for index in (0, 1) * 2]),
                 members)  # fmt: skip


def skew(world: World) -> None:
    one, two = world.members
    world.broker.lists = [[one, two] if index % 2 == 0 else [two, one] for index in range(4)]


def test_what_does_not_last_is_repeated_more_and_more_rarely() -> None:
    world = skewed()
    while world.now < 8 * LONGEST_PAUSE:
        skew(world)
        world.look()
    gaps = [after - before for before, after in zip(world.times, world.times[1:], strict=False)]
    assert gaps == sorted(gaps)
    assert 2 * PAUSE <= gaps[0] < 3 * PAUSE
    assert LONGEST_PAUSE <= gaps[-1] < LONGEST_PAUSE + 60
    world.pass_by(2 * LONGEST_PAUSE + 60)  # even for that long, after the last one
    rebalances = world.balance.rebalances
    skew(world)
    world.pass_by(3 * UNEVEN_LASTS)
    assert world.balance.rebalances == rebalances + 1


def test_nothing_is_done_while_a_worker_is_away_or_replaced() -> None:
    world = skewed()
    skew(world)
    world.pass_by(10 * UNEVEN_LASTS, calm=False)
    assert world.balance.uneven
    assert world.balance.rebalances == 0
    world.pass_by(UNEVEN_LASTS)
    assert world.balance.rebalances == 0  # it begins to count now
    world.pass_by(2 * UNEVEN_LASTS)
    assert world.balance.rebalances == 1
    assert not world.balance.uneven


def test_a_rebalance_ends_when_a_worker_goes_away() -> None:
    members = workers(3)
    balance = Balance("orders")
    held = {member: frozenset("abc" if member.number == 1 else "") for member in members}
    for now in range(20):
        balance.looked(held, calm=True, now=float(now))
    assert balance.rebalances == 1
    (first,) = balance.act(20.0)
    balance.looked(held, calm=False, now=21.0)
    balance.subscribed(first)
    assert list(balance.act(22.0)) == []


def test_it_is_told_in_one_line() -> None:
    world = skewed()
    skew(world)
    world.pass_by(3 * UNEVEN_LASTS)
    assert world.balance.news == [
        "the load of 'orders' is uneven (worker 1 reads 4 partitions, worker 2 reads 0): the 2 "
        "workers subscribe again, one after the other"
    ]


def test_pipelines_take_turns_and_are_even_each_by_itself() -> None:
    balances, (one, two) = Balances(lambda: 0.0), workers(2)
    for pipeline in ("orders", "bills"):
        balances.of(pipeline).asked(one)
        balances.of(pipeline).asked(two)
    assert set(balances.act(0.0)) == {("orders", one), ("bills", one)}
    balances.of("bills").subscribed(one)
    assert set(balances.act(0.0)) == {("bills", two)}
    balances.left(one)
    assert set(balances.act(0.0)) == {("orders", two)}
    assert balances.due() == PATIENCE
    for pipeline in ("orders", "bills"):
        balances.of(pipeline).subscribed(two)
    held = {
        one: {"orders": frozenset("abc"), "bills": frozenset("a")},
        two: {"orders": frozenset[str](), "bills": frozenset("b")},
    }
    for now in range(20):
        balances.looked(held, calm=True, now=float(now))
        list(balances.act(float(now)))
    assert balances.of("orders").rebalances == 1
    assert balances.of("bills").rebalances == 0
    assert [text[:23] for text in balances.take_news()] == ["the load of 'orders' is"]
    assert balances.take_news() == []
    del held[two]["bills"]  # it is not running in every worker
    assert not balances.of("bills").uneven

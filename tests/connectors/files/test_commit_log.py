"""The guarantee of files: whoever dies or acts at any effect, each offset is in one complete file.

The model is small: a stream of offsets, of which some are dropped, is written in batches. A run
ends at an effect, and the next one gets everything again in other batches. At the end the complete
files hold what a run without a crash writes, each row once, and there is nothing beside them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream.connectors.commit_gate import CommitGate
from flowstream.connectors.files.commit_log import CommitLog, Incoming, Part
from flowstream.connectors.files.manifest import Entry, Layout
from flowstream.errors import OutcomeUnknown, SinkFailed, StreamReplaced
from tests.support.stores import Crash, MemoryStore, complete, litter, rows

STREAM, REFERENCE = "orders", "files"


def parts_of(offsets: Sequence[int]) -> Callable[[list[int]], list[Part]]:
    """Two files: one for even offsets and one for odd ones."""

    def encode(wanted: list[int]) -> list[Part]:
        parts = []
        for remainder in (0, 1):
            held = [offsets[index] for index in wanted if offsets[index] % 2 == remainder]
            if held:
                lines = b"".join(b"%d\n" % offset for offset in held)
                parts.append(Part(f"odd={remainder}", held, lines, "txt"))
        return parts

    return encode


def write(log: CommitLog, batch: Sequence[int], settled: tuple[int, int] | None = None) -> int:
    return log.commit(Incoming(batch, [1] * len(batch), settled), parts_of(batch), CommitGate())


def cut(offsets: Iterable[int], sizes: Iterable[int]) -> list[list[int]]:
    left, batches = [*offsets], []
    for size in sizes:
        if left:
            batches.append(left[:size])
            del left[:size]
    return [*batches, left] if left else batches


def run(store: MemoryStore, batches: Iterable[Sequence[int]]) -> None:
    log = CommitLog(store, REFERENCE, STREAM)
    for batch in batches:
        write(log, batch)


def effects_of(batches: Sequence[Sequence[int]], files: dict[str, bytes] | None = None) -> int:
    store = MemoryStore(dict(files or {}))
    run(store, batches)
    return store.effects


def crashing(at: int, *, after: bool) -> Callable[[int, bool], None]:
    """End the process at the effect `at`: before it, or after it."""

    def on_effect(number: int, done: bool) -> None:
        if number >= at and (number > at or done == after):
            raise Crash

    return on_effect


FIRST = [[0, 1, 2], [3, 5, 8], [9, 10]]
SECOND = [[0, 1], [2, 3, 5], [8, 9, 10, 11]]
ALL = [0, 1, 2, 3, 5, 8, 9, 10, 11]


def check_whole(files: dict[str, bytes], offsets: Sequence[int]) -> None:
    assert sorted(rows(files)) == sorted(offsets)
    assert litter(files) == set()


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_effect_loses_and_doubles_nothing(after: bool) -> None:
    total = effects_of(FIRST)
    assert total > 15
    for at in range(total):
        store = MemoryStore()
        store.on_effect = crashing(at, after=after)
        with suppress(Crash):
            run(store, FIRST)
        written = rows(store.files)
        assert len(written) == len({*written})
        run(MemoryStore(store.files), SECOND)
        check_whole(store.files, ALL)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.slow
def test_a_crash_while_another_crash_is_cleared_up_is_no_different(after: bool) -> None:
    for first in range(effects_of(FIRST)):
        store = MemoryStore()
        store.on_effect = crashing(first, after=True)
        with suppress(Crash):
            run(store, FIRST)
        for second in range(effects_of(SECOND, store.files)):
            again = MemoryStore(dict(store.files))
            again.on_effect = crashing(second, after=after)
            with suppress(Crash):
                run(again, SECOND)
            run(MemoryStore(again.files), [ALL[4:], ALL[:4]])
            check_whole(again.files, ALL)


@pytest.mark.medium
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("lasting", [1, 3, 10**6])
def test_what_fails_is_in_no_file_unless_nobody_knows(
    late: bool, after: bool, lasting: int
) -> None:
    """The messages of a batch that fails may become dead letters, so no file may have them."""
    for at in range(effects_of(FIRST)):
        store = MemoryStore()
        store.late = late

        def fail(number: int, done: bool, at: int = at) -> None:
            if done == after and at <= number < at + lasting:
                raise OSError("no answer")

        store.on_effect = fail
        log = CommitLog(store, REFERENCE, STREAM)
        given_up: set[int] = set()
        for batch in FIRST:
            try:
                write(log, batch)
            except OutcomeUnknown:
                continue
            except OSError:
                given_up.update(batch)
        store.on_effect = lambda number, done: None
        assert given_up.isdisjoint(rows(store.files))
        write(log, ALL[:5])
        write(CommitLog(store, REFERENCE, STREAM), ALL)
        check_whole(store.files, ALL)


def test_a_create_that_comes_late_is_kept_out_by_another_entry() -> None:
    """A server may carry out a request after its client has given it up."""
    store = MemoryStore()
    store.late = True
    requests: list[tuple[str, bytes]] = []

    class Slow(MemoryStore):
        late = True

        def create(self, path: str, data: bytes, temporary: str) -> None:
            if not requests:
                requests.append((path, data))
                raise TimeoutError("no answer")
            super().create(path, data, temporary)

    slow = Slow(store.files)
    log = CommitLog(slow, REFERENCE, STREAM)
    with pytest.raises(TimeoutError):
        write(log, [0, 1])
    ((path, data),) = requests
    with pytest.raises(FileExistsError):
        store.create(path, data, "late.tmp")
    write(log, [0, 1, 2])
    check_whole(store.files, [0, 1, 2])


@pytest.mark.medium
def test_another_process_that_writes_the_same_at_any_effect_doubles_nothing() -> None:
    """Such as the new owner of a partition, beside one that does not know yet that it lost it."""
    for at in range(effects_of(FIRST)):
        for there in ([SECOND[0]], SECOND, [ALL]):
            store = MemoryStore()

            def act(number: int, done: bool, at: int = at, there=there, store=store) -> None:
                if number == at and not done:
                    run(MemoryStore(store.files), there)

            store.on_effect = act
            run(store, FIRST)
            run(MemoryStore(store.files), SECOND)
            check_whole(store.files, ALL)


@pytest.mark.slow
def test_another_process_that_dies_at_any_effect_doubles_nothing() -> None:
    theirs = effects_of(SECOND)
    for at in range(0, effects_of(FIRST), 2):
        for there in range(theirs):
            store = MemoryStore()

            def act(number: int, done: bool, at: int = at, there=there, store=store) -> None:
                if number == at and not done:
                    other = MemoryStore(store.files)
                    other.on_effect = crashing(there, after=False)
                    with suppress(Crash):
                        run(other, SECOND)

            store.on_effect = act
            run(store, FIRST)
            run(MemoryStore(store.files), SECOND)
            check_whole(store.files, ALL)


@pytest.mark.slow
def test_a_process_that_dies_when_another_has_gone_on_doubles_nothing() -> None:
    """It may leave a file, which no reader is told of."""
    total = effects_of(FIRST)
    for at in range(total):
        for dies in range(at, total):
            store = MemoryStore()

            def act(number: int, done: bool, at=at, dies=dies, store=store) -> None:
                if number == at and not done:
                    run(MemoryStore(store.files), SECOND)
                if number == dies and done:
                    raise Crash

            store.on_effect = act
            with suppress(Crash):
                run(store, FIRST)
            run(MemoryStore(store.files), SECOND)
            assert sorted(rows(store.files)) == ALL


@pytest.mark.parametrize("seed", range(12))
def test_processes_in_any_order_of_effects_double_nothing(seed: int) -> None:
    """Three at once, in threads that take turns at each effect as a seed says."""
    chance, turns = random.Random(seed), threading.Condition()
    files: dict[str, bytes] = {}
    waiting: dict[int, bool] = {}

    def take_turns(who: int) -> Callable[[int, bool], None]:
        def on_effect(number: int, done: bool) -> None:
            with turns:
                waiting[who] = True
                while waiting.get(who):
                    if len(waiting) == len(alive) and all(waiting.values()):
                        waiting[chance.choice(sorted(alive))] = False
                        turns.notify_all()
                    else:
                        turns.wait(5)

        return on_effect  # fmt: skip

    batches = [cut(range(30), sizes) for sizes in ([7] * 5, [4] * 8, [11] * 3)]
    alive = set(range(len(batches)))
    errors: list[BaseException] = []

    def work(who: int) -> None:
        store = MemoryStore(files)
        store.on_effect = take_turns(who)
        try:
            run(store, batches[who])
        except BaseException as error:
            errors.append(error)
        finally:
            with turns:
                alive.discard(who)
                waiting.pop(who, None)
                if alive and waiting and all(waiting.values()):
                    waiting[chance.choice(sorted(waiting))] = False
                turns.notify_all()

    threads = [threading.Thread(target=work, args=(who,), daemon=True) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    run(MemoryStore(files), [range(30)])
    check_whole(files, range(30))


SIZES = st.lists(st.integers(1, 7), max_size=8)


@given(
    st.sets(st.integers(0, 30)),
    st.lists(
        st.tuples(SIZES, st.randoms(use_true_random=False), st.integers(0, 60), st.booleans())
    ),
)
@settings(deadline=None)
def test_any_batches_crashes_and_orders_write_each_message_once(
    dropped: set[int], runs: list[tuple[list[int], random.Random, int, bool]]
) -> None:
    """Each run begins behind what the one before had settled without a gap, as a pipeline does."""
    wanted = [offset for offset in range(31) if offset not in dropped]
    files: dict[str, bytes] = {}
    committed = 0
    for sizes, chance, at, after in [*runs, ([], random.Random(0), 10**6, True)]:
        store = MemoryStore(files)
        store.on_effect = crashing(at, after=after)
        batches = cut([offset for offset in wanted if offset >= committed], sizes)
        chance.shuffle(batches)
        log, begin, done = CommitLog(store, REFERENCE, STREAM), committed, {*dropped}
        with suppress(Crash):
            for batch in batches:
                write(log, batch, (begin, committed - 1) if committed > begin else None)
                done |= {*batch}
                while committed <= 30 and committed in done:
                    committed += 1
        assert len({*rows(files)}) == len(rows(files))
    assert sorted(rows(files)) == wanted
    run(MemoryStore(files), [])


def test_a_lost_answer_is_no_second_commit() -> None:
    """The client of a store tries again, and finds that its own first try was stored."""
    store = MemoryStore()
    create = store.create

    def twice(path: str, data: bytes, temporary: str) -> None:
        create(path, data, temporary)
        raise FileExistsError(path)

    store.create = twice  # type: ignore[method-assign]
    run(store, FIRST)
    check_whole(store.files, [0, 1, 2, 3, 5, 8, 9, 10])


@pytest.mark.parametrize("stored", [True, False])
def test_after_an_error_the_same_log_finds_out_what_was_stored(stored: bool) -> None:
    for at in range(effects_of([FIRST[0]])):
        store = MemoryStore()

        def fail_once(number: int, done: bool, at: int = at) -> None:
            if number == at and done is stored:
                raise OSError("the network is gone")

        store.on_effect = fail_once
        log = CommitLog(store, REFERENCE, STREAM)
        with suppress(OSError):
            write(log, FIRST[0])
        write(log, FIRST[0])
        write(log, FIRST[1])
        run(MemoryStore(store.files), [])
        write(CommitLog(store, REFERENCE, STREAM), [3])
        check_whole(store.files, [*FIRST[0], *FIRST[1]])


def test_what_is_settled_without_a_gap_needs_one_range() -> None:
    store = MemoryStore()
    log = CommitLog(store, REFERENCE, STREAM)
    for first in range(0, 1000, 10):
        settled = (0, first - 1) if first else None
        write(log, range(first, first + 10, 2), settled)
    assert len(log.done) == 5
    last = sorted(path for path in store.files if "/log/" in path)[-1]
    assert len(Entry.decoded(last, store.files[last]).done) == 5


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_gaps_are_closed_closes_all_or_none(after: bool) -> None:
    gaps, closed = [(1, 1), (4, 4), (7, 7)], [(1, 5), (7, 7)]
    for at in range(9):
        store = MemoryStore()
        log = CommitLog(store, "r", "s")
        write(log, [1, 4, 7])
        store.on_effect = crashing(store.effects + at, after=after)
        crashed = False
        try:
            log.close_gaps(range(2, 6))
        except Crash:
            crashed = True
        again = CommitLog(MemoryStore(store.files), "r", "s")
        assert write(again, [1, 4, 7]) == 3
        assert list(again.done) in ((gaps, closed) if crashed else (closed,))
        if not crashed:
            break
    assert at > 0


def test_gaps_are_not_closed_where_another_process_commits() -> None:
    store = MemoryStore()
    log, other = CommitLog(store, "r", "s"), CommitLog(store, "r", "s")
    write(log, [1, 4, 7])
    write(other, [9])
    log.close_gaps(range(8))
    write(other, [11])
    again = CommitLog(store, "r", "s")
    assert write(again, [1, 4, 7, 9, 11]) == 5


def test_a_message_that_was_settled_early_is_written_though_the_watermark_passed_it() -> None:
    log = CommitLog(MemoryStore(), REFERENCE, STREAM)
    write(log, [5], (0, 4))
    early = Incoming([3, 5], [1, 1], (0, 4), early=frozenset({0}))
    assert log.commit(early, parts_of([3, 5]), CommitGate()) == 1
    assert sorted(rows(log.store.files)) == [3, 5]  # type: ignore[attr-defined]


def test_a_message_that_comes_twice_to_a_run_is_written_once() -> None:
    """Such as one of a partition that the process lost with a batch in flight, and got again."""
    log = CommitLog(MemoryStore(), REFERENCE, STREAM)
    write(log, range(6))
    assert write(log, range(3, 9), (0, 5)) == 3
    assert sorted(rows(log.store.files)) == [*range(9)]  # type: ignore[attr-defined]


def test_of_a_source_without_stored_offsets_each_run_is_written_anew() -> None:
    store = MemoryStore()
    for _ in range(2):
        log = CommitLog(store, REFERENCE, STREAM, resumes=False)
        assert write(log, [0, 1, 2]) == 0
        assert write(log, [0, 1, 2]) == 3  # the same run tries a batch again
    assert sorted(rows(store.files)) == [0, 0, 1, 1, 2, 2]
    assert litter(store.files) == set()


def test_a_stream_that_was_created_again_is_noticed() -> None:
    log = CommitLog(MemoryStore(), REFERENCE, STREAM)
    log.commit(Incoming([0, 1], [1000, 2000]), parts_of([0, 1]), CommitGate())
    assert log.commit(Incoming([1, 0], [2000, 1000]), parts_of([1, 0]), CommitGate()) == 2
    again = CommitLog(log.store, REFERENCE, STREAM)
    with pytest.raises(StreamReplaced, match="deleted and created again"):
        again.commit(Incoming([0], [2001]), parts_of([0]), CommitGate())


def test_a_stream_that_was_created_again_is_noticed_after_its_later_messages_are_written() -> None:
    log = CommitLog(MemoryStore(), REFERENCE, STREAM)
    log.commit(Incoming([0, 1], [1000, 2000]), parts_of([0, 1]), CommitGate())
    log.commit(Incoming([2, 3], [3000, 3000]), parts_of([2, 3]), CommitGate())
    again = CommitLog(log.store, REFERENCE, STREAM)
    with pytest.raises(StreamReplaced, match="deleted and created again"):
        again.commit(Incoming([0, 1], [2500, 2500]), parts_of([0, 1]), CommitGate())


def test_names_that_a_file_system_does_not_tell_apart_are_noticed() -> None:
    store = MemoryStore()
    write(CommitLog(store, REFERENCE, STREAM), [0])
    moved = {path.replace("/orders/", "/ORDERS/"): data for path, data in store.files.items()}
    with pytest.raises(SinkFailed, match="does not distinguish these names"):
        write(CommitLog(MemoryStore(moved), REFERENCE, "ORDERS"), [0])


def test_an_intent_that_names_files_of_others_removes_none() -> None:
    store = MemoryStore()
    write(CommitLog(store, REFERENCE, STREAM), [0])
    intent = Layout(REFERENCE, STREAM).intent(1, "abc")
    (theirs,) = complete(store.files)
    store.files[intent] = f'["{theirs}", "../x-000000001-abc"]'.encode()
    store.files["../x-000000001-abc"] = b""
    write(CommitLog(store, REFERENCE, STREAM), [1])
    assert sorted(rows(store.files)) == [0, 1]
    assert litter(store.files) == {"../x-000000001-abc"}


def test_entries_go_on_in_other_folders() -> None:
    store = MemoryStore()
    log = CommitLog(store, REFERENCE, STREAM)
    write(log, [0])
    log._last = 998
    write(log, [1])
    write(log, [2])
    assert write(CommitLog(store, REFERENCE, STREAM), [0, 1, 2, 3]) == 3
    folders = {path.split("/log/")[1] for path in store.files if "/log/" in path}
    assert {"000000000/000000999.json", "000000001/000001001.json"} <= folders

"""Hash routing."""

from __future__ import annotations

from flowstream.client import hash_index, hash_route


def test_hash_routing_is_that_of_all_other_clients() -> None:
    """The vectors are those of the clients in other languages."""
    found = [hash_index(f"hello{n}", 3) + 1 for n in range(1, 11)]
    assert found == [2, 1, 2, 3, 1, 3, 1, 2, 1, 3]
    hashes = {
        "hello": 1321743225,
        "brave": 3825276426,
        "new": 2970740106,
        "world": 2453398188,
        "rabbit": 3591948756,
        "coders51": 1856831182,
        "": 3329588566,
        "é": 2922484690,
        "日本": 2230178032,
    }
    for key, value in hashes.items():
        for partitions in (1, 3, 7, 1000):
            assert hash_index(key, partitions) == value % partitions
    assert hash_route("hello1", ["a", "b", "c"]) == "b"

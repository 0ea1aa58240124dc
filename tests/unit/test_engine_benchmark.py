"""Both sides of the engine's benchmark are timed alike."""

from benchmarks.engine import best_of_two


def test_the_first_call_warms_up_and_does_not_count():
    calls = iter([(0.1, "cold"), (3.0, "slow"), (2.0, "fast")])
    assert best_of_two(lambda: next(calls)) == (2.0, "fast")
    assert next(calls, None) is None

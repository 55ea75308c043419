import threading

from imgdl_pipeline.core.jpeg.memory_budget import LARGE_BYTES, MemoryBudget


def test_large_things_take_turns_and_small_ones_do_not():
    budget = MemoryBudget()
    with budget.reserve(LARGE_BYTES + 1), budget.reserve(LARGE_BYTES + 1):  # to read a file, and to decode it
        others = []

        def try_small():
            with budget.reserve(LARGE_BYTES):
                others.append("small")

        def try_large():
            with budget.reserve(LARGE_BYTES + 1):
                others.append("large")

        small, large = threading.Thread(target=try_small), threading.Thread(target=try_large)
        large.start()
        small.start()
        small.join(10)
        assert others == ["small"]
    large.join(10)
    assert others == ["small", "large"]

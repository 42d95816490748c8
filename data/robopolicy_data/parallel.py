"""The same job many times over, in threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_parallel(
    job: Callable[[int], None],
    count: int,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> None:
    """Call ``job(0)`` .. ``job(count - 1)`` in threads (decoders let go of the interpreter lock), telling progress.

    Args:
        job: what to do; an error of one of them is raised here, the rest is given up.
        count: how often.
        progress: called with (done, count), from this thread.
        threads: how many at once; None is one a core, 1 does it in this one.
    """
    if threads == 1:
        for i in range(count):
            job(i)
            if progress is not None:
                progress(i + 1, count)
        return
    with ThreadPoolExecutor(threads or cores()) as pool:
        jobs = [pool.submit(job, i) for i in range(count)]
        try:
            for done, one in enumerate(jobs, 1):
                one.result()
                if progress is not None:
                    progress(done, count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def stages(
    progress: Callable[[int, int], None] | None, sizes: Sequence[int]
) -> list[Callable[[int, int], None] | None]:
    """Return a progress callback for each of several stages, which together count to the sum of their sizes."""
    if progress is None:
        return [None] * len(sizes)
    total, before = sum(sizes), [sum(sizes[:i]) for i in range(len(sizes))]
    return [lambda done, _, start=start: progress(start + done, total) for start in before]  # type: ignore[misc]

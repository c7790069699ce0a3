"""The lessons, as data; what an answer says in numbers is measured (`dlsim.show.lesson`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from dlsim.scenario import (
    Constant,
    Consumer,
    Costs,
    Differs,
    DlsimError,
    IterableDataset,
    Job,
    Loader,
    MapDataset,
    Recorded,
    Scenario,
    Stage,
)
from dlsim.show.lesson import Lesson, Question


def _rows(seconds: float = 1.0) -> tuple[Stage]:
    return (Stage("row", wait=Constant(seconds)),)


def _two_workers(step: float = 4.0, row: float = 1.0, prefetch: int = 2) -> Scenario:
    return Scenario(
        loader=Loader(batch_size=3, num_workers=2, prefetch_factor=prefetch),
        dataset=MapDataset(24, _rows(row)),
        consumer=Consumer(step=Constant(step)),
    )


def _rows_24() -> Lesson:
    return Lesson(
        "rows",
        "Who sends what, and when",
        "A dataset of 24 rows, each of which takes 1 s to fetch; batches of 3 rows; 2 workers; "
        "prefetch_factor=2; 4 s to train on a batch. Watch who sends for a batch, and what makes "
        "them do it.",
        {"24 rows": _two_workers()},
        (
            Question(
                "How many messages does the main process send to get a batch of 3 rows?",
                "One. It holds the indices of all 3 rows, and the worker fetches them one after "
                "another without asking again. (A popular picture has it that rows are sent for "
                "one at a time, the next when the last one is back. They are not.)",
            ),
            Question(
                "Batch 2 arrives at 6 s. What is sent because of that?",
                "Nothing. Only a next() that is about to return a batch sends one more. The next "
                "one is called at 7 s, when training on batch 0 ends; so at most 2 x 2 = 4 batches "
                "are ever sent and not returned, and the workers fall idle.",
                (0, 4),
            ),
            Question(
                "How long does training wait, of {0.end} in all, and for what?",
                "{0.wait}, all of it for batch 0: nothing can be trained on before the first batch "
                "is there. From then on two workers fetch a batch every 1.5 s, and a step "
                "takes 4 s.",
            ),
        ),
    )


def _prefetch() -> Lesson:
    return Lesson(
        "prefetch",
        "Why prefetching does not help a slow loader",
        "The same rows and workers, but a step takes only 0.5 s. Two workers need 1.5 s for a "
        "batch between them. Three films: prefetch_factor 1, 2 and 4.",
        {
            f"prefetch_factor={factor}": _two_workers(step=0.5, prefetch=factor)
            for factor in (1, 2, 4)
        },
        (
            Question(
                "How long does it take with a prefetch_factor of 1, of 2, and of 4?",
                "{0.end}, {1.end} and {2.end}. A larger window sends for batches sooner. Two "
                "workers fetch no faster because of that: each is busy with one batch all the "
                "time, and what they make is trained on at once.",
            ),
            Question(
                "With prefetch_factor=4, where do the batches of the window spend their time?",
                "In the index queues: sent, and not begun. A batch that nobody works on is not "
                "loaded any sooner. Prefetching evens out what comes unevenly; it makes nothing "
                "faster.",
                (2, 0),
            ),
            Question(
                "What would help, then?",
                "More workers, or cheaper rows: a batch comes every 3 s / num_workers, and with 6 "
                "workers that is the 0.5 s that a step takes.",
            ),
        ),
    )


def _head_of_line() -> Lesson:
    slow, count = 10.0, 12
    data = IterableDataset(
        4 * count,
        sharding="split",
        fetch=(Stage("read", wait=Recorded((slow,) * count + (1.0,) * count * 3)),),
    )

    def of(torch: str, in_order: bool) -> Scenario:
        return Scenario(
            loader=Loader(num_workers=4, in_order=in_order),
            dataset=data,
            consumer=Consumer(step=Constant(0.25), stop_after=24),
            torch=torch,
        )

    return Lesson(
        "order",
        "One slow worker: order, and the release of torch",
        "Four workers read streams of their own. Worker 0's lies on a slow disk: 10 s a batch, "
        "where the others need 1 s. A step takes 0.25 s. Three films: in order; in any "
        "order by the rule of torch 2.6; in any order by the rule since 2.7.",
        {
            "in_order=True": of("2.13", True),
            "in_order=False, torch 2.6": of("2.6", False),
            "in_order=False, torch 2.7 on": of("2.7", False),
        },
        (
            Question(
                "In order, what are workers 1 to 3 doing while batch 0 is fetched?",
                "They fetch the two batches each that the window gives them, and then nothing. "
                "What they have made is kept, because batch 0 must be returned first: head-of-line "
                "blocking. 24 batches take {0.last}.",
                (0, 0),
            ),
            Question(
                "In torch 2.6, in_order=False returns whatever comes first. What still goes wrong?",
                "Whose turn it is does not look at who has room. Every fourth batch goes to worker "
                "0, whose queue fills up with the window, until the others are sent nothing. From "
                "2.7 on a worker that has its share of the window is passed over: 24 batches take "
                "{2.last} instead of {1.last}.",
                (1, 16),
            ),
            Question(
                "How many batches does each worker deliver in the three films?",
                "{0.shares}; {1.shares}; {2.shares}. In any order, the fast ones deliver more: the "
                "mix of data changes, which is what in_order=True is there to prevent.",
                (2, 0),
            ),
        ),
    )


def _edge() -> Lesson:
    def of(persistent: bool) -> Scenario:
        return Scenario(
            loader=Loader(batch_size=2, num_workers=2, persistent_workers=persistent),
            dataset=MapDataset(12, _rows(0.5)),
            consumer=Consumer(step=Constant(1.0)),
            costs=Costs(worker_start=0.1, worker_ready=2.0),
            epochs=2,
        )

    return Lesson(
        "epoch",
        "The start of an epoch, and what persistence saves",
        "Two epochs of 6 batches. A worker takes 0.1 s to be started, and 2 s to get ready: "
        "imports, unpickling the dataset, opening files. A step takes 1 s. Two films: without and "
        "with persistent_workers.",
        {"persistent_workers=False": of(False), "persistent_workers=True": of(True)},
        (
            Question(
                "How long is it from the start of the second epoch to its first batch, without "
                "and with?",
                "{0.edge} and {1.edge}. New workers have to be started and to get ready; "
                "persistent ones only hear that an epoch begins, and say so.",
                (0, 6),
            ),
            Question(
                "With persistent workers, why is the first batch of the second epoch waited for at "
                "all?",
                "Nothing of it is sent before iter(loader) is called again: the workers are there, "
                "but they have no work. So at every epoch's start the buffer is empty.",
                (1, 6),
            ),
            Question(
                "What does it save, of {0.end} in all?",
                "Both epochs take {1.end} with persistent workers. The saving is the same for each "
                "epoch after the first, however long it is: it counts where epochs are short.",
            ),
        ),
    )


def _duplicates() -> Lesson:
    def of(sharding: str) -> Scenario:
        return Scenario(
            loader=Loader(batch_size=3, num_workers=2),
            dataset=IterableDataset(12, sharding, _rows()),  # type: ignore[arg-type]
            consumer=Consumer(step=Constant(1.0)),
        )

    return Lesson(
        "duplicates",
        "Everything twice: iterable-style datasets",
        "A dataset that is iterated over: 12 rows, 2 workers. Each worker has a copy of the "
        "dataset. Two films: as it is, and sharded by worker, as get_worker_info() lets one do it.",
        {"every worker yields all": of("none"), "sharded": of("split")},
        (
            Question(
                "How many rows come of a dataset of 12?",
                "{0.rows}: each of them {0.most} times. There are no indices that the main process "
                "could share out; a message says only how many rows are wanted, and each worker "
                "goes through its own copy. Sharded, {1.rows} rows come.",
            ),
            Question(
                "How does the main process find out that a worker has nothing more?",
                "It is told so, in the place of a batch. The worker then leaves the cycle, what "
                "else was sent to it is skipped, and its credit goes to the others.",
                (1, 2),
            ),
            Question(
                "What is the cure?",
                "In __iter__, ask get_worker_info() for id and num_workers, and yield only this "
                'worker\'s share, as sharding = "split" does here; or do the same in a '
                "worker_init_fn.",
                (1, 0),
            ),
        ),
    )


def _barrier() -> Lesson:
    job = Scenario(
        loader=Loader(batch_size=2, num_workers=1),
        dataset=MapDataset(24, _rows(0.5)),
        consumer=Consumer(step=Constant(1.0)),
        job=Job(ranks=2, differs=(Differs(rank=1, loader=3.0),)),
    )
    return Lesson(
        "barrier",
        "Two ranks, and where they meet",
        "Two training processes, each with a loader, a worker and an accelerator of its own, share "
        "24 rows, batches of 2. A step takes 1 s, a row 0.5 s on rank 0 and 1.5 s on rank 1, whose "
        "disk is slow. After each step they exchange gradients. Two films of the same run.",
        {"rank 0, fast": job, "rank 1, slow": job},
        (
            Question(
                "Rank 0 has its next batch early. Why does it not train faster?",
                "Its step on batch 0 is computed at 2 s, and waits until rank 1 has come: "
                "gradients are exchanged by all ranks together. Both are done after {0.end} and "
                "{1.end}.",
                (0, 0),
            ),
            Question(
                "How long does each rank wait in next()?",
                "Rank 0 {0.wait}, rank 1 {1.wait}. Who looks at rank 0 alone finds its loader fast "
                "enough, and its accelerator idle all the same: the cause is on the other rank.",
                (1, 1),
            ),
            Question(
                "Would more workers on rank 0 help?",
                "No. A job is as fast as its slowest rank: a batch comes every 3 s there, with one "
                "worker. It is rank 1 that needs more workers, or its disk mended.",
                (1, 2),
            ),
        ),
    )


_ALL: tuple[Callable[[], Lesson], ...] = (
    _rows_24,
    _prefetch,
    _head_of_line,
    _edge,
    _duplicates,
    _barrier,
)


@cache
def lessons() -> dict[str, Lesson]:
    """All lessons by their names, in the order in which they are to be taken."""
    return {lesson.name: lesson for lesson in (make() for make in _ALL)}


def lesson(name: str) -> Lesson:
    """The lesson of this name. Raises `DlsimError` for a name that none has."""
    known = lessons()
    if name not in known:
        raise DlsimError(f"lesson: expected one of {', '.join(known)}, got {name!r}")
    return known[name]

"""Which stage runs beside the one that feeds it: a CRF, on the cores that a network leaves idle."""
import argparse
import dataclasses
import functools
from collections.abc import Sequence

from misc.contract.settings import AUTO
from misc.contract.stages import Follower, Job, Stage
from misc.pyutils import log


def follower_of(args: argparse.Namespace, job: Job, chosen: Sequence[Stage],
                stage: Stage) -> Follower | None:
    """Return the chosen stage that runs beside `stage`; the log says which, or why it does not."""
    if args.crf_beside is False or (args.crf_beside == AUTO and job.device.type == 'cpu'):
        return None
    fed = next((other for other in chosen if other.making is not None
                and _makers(args, chosen, other) == [stage]), None)
    if fed is None:
        return None
    its = fed.settings_of(args)
    why_not = (fed.needs_all(*its) if fed.needs_all is not None else '') or (
        '' if job.run.workers else '--num_workers is 0')
    if why_not:
        log.info('%s runs after it, not beside: %s', fed.name, why_not)
        return None
    log.info('beside it, on the cores that it leaves idle: %s', fed.name)
    return Follower(fed.name, stage.name, functools.partial(fed.making, job, *its),
                    job.run.workers)


def _makers(args: argparse.Namespace, chosen: Sequence[Stage], stage: Stage) -> list[Stage]:
    """Return the chosen stages that write what `stage` needs."""
    needed = set(stage.inputs(args))
    return [other for other in chosen if needed & set(other.outputs(args))]


def job_of(job: Job, beside: Follower | None, itself: Follower | None) -> Job:
    """Return what a stage is given.

    beside: what runs beside it; itself: how it ran beside another stage: then its folder was begun
    in this run, and --overwrite has been obeyed.
    """
    run = job.run
    if itself is not None:
        run = dataclasses.replace(run, overwrite=False)
    return dataclasses.replace(job, run=run, follower=beside)

"""Scores of what stages left in a folder: activations, refined seeds, label maps."""
import functools
import os
from typing import Any

import numpy as np

from misc.contract.settings import Seeds
from misc.contract.stages import Job
from misc.files import activations, label_maps, records
from misc.pyutils import UserError
from misc.score import auto_threshold, results, scores
from misc.score.auto_threshold import AUTO


def score_activations(job: Job, stage: str, flag: str, threshold: float | str) -> None:
    """Score the activations of a flag's folder. threshold: a number or 'auto'."""
    folder, ids, remedy, details = job.files[flag], job.ids('eval_set'), job.remedy(flag), {}
    if threshold == AUTO:
        threshold = auto_threshold.threshold_of(folder, ids, remedy, job.run.workers)
        details['threshold_from'] = AUTO
    results.tell_changes(job, folder, ids)
    load = functools.partial(activations.class_planes, folder, remedy=remedy)
    result = scores.score_activations(job.source, ids, load, threshold, job.run.workers)
    best, best_miou = result.best()
    results.report(job, stage, result.at(threshold), threshold=threshold, best_threshold=best,
                   best_miou=best_miou, within_3_points=result.within(0.03), **details)


def score_seeds(job: Job, stage: str, flag: str, thresholds: Seeds) -> None:
    """Score the refined seeds of a flag's folder.

    thresholds: logged where the folder has no record of its own.
    """
    folder, ids = job.files[flag], job.ids('eval_set')
    fields = 'fg_thres', 'bg_thres'
    made_with = tuple(records.recorded(folder, name, getattr(thresholds, name))
                      for name in fields)
    if AUTO in made_with:
        raise UserError(f'{folder} has no record of its thresholds, and {AUTO} does not tell them: '
                        f'give --{" and --".join(thresholds.flags()[name] for name in fields)}')
    origin = {f'{kind}_threshold_from': AUTO for kind in ('fg', 'bg')
              if records.recorded(folder, f'{kind}_thres_from', None) == AUTO}
    counts = _counts(job, folder, ids, job.remedy(flag))
    results.report_seeds(job, stage, scores.score_seeds(counts, len(ids)), made_with, **origin)


def score_label_maps(job: Job, stage: str, folder: str | os.PathLike, remedy: str,
                     split: str = 'eval_set', **details: Any) -> None:
    """Score the label maps of a folder on the list of the flag `split`."""
    ids = job.ids(split)
    counts = _counts(job, folder, ids, remedy)
    results.report(job, stage, scores.score(scores.ignored_as_background(counts), len(ids)), split,
                   **details)


def _counts(job: Job, folder: str | os.PathLike, ids: list[str], remedy: str) -> np.ndarray:
    results.tell_changes(job, folder, ids)

    def load(image_id: str) -> np.ndarray:
        return label_maps.load(label_maps.label_path(folder, image_id), remedy)

    return scores.count_label_maps(job.source, ids, load, job.run.workers)

"""What can be known to be wrong before the first stage runs.

Each check raises UserError for the first thing it finds.
"""
import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from misc import networks, training
from misc.contract import settings
from misc.contract.stages import Job, Stage, Stages
from misc.files import records, weights
from misc.pyutils import UserError


def check(args: argparse.Namespace, job: Job, chosen: Sequence[Stage]) -> None:
    """Check lists, labels, networks, and inputs that no stage will make.

    Raises UserError for the first thing that is wrong.
    """
    if args.repeat > 1 and not trainings_of(chosen):
        raise UserError(f'--repeat {args.repeat}: none of the chosen stages depends on the seed; '
                        f'name a training with them, '
                        'whose runs differ')
    check_extra_folders(args, job.stages)
    for flag, wanted in module_flags(job.stages).items():
        if getattr(args, flag) is not None:
            networks.module_of(getattr(args, flag), flag, wanted)
    check_lists(args, job, chosen)
    trainings = trainings_of(chosen)
    for stage in trainings:
        training.steps_of(len(job.ids('train_list')), stage.settings[0].of(args).batch_size, 1,
                          stage.name)
    for choice in {stage.settings[0].of(args).pretrained for stage in trainings}:
        weights.check_pretrained(choice)
    check_one_backbone(args, trainings)
    if trainings and args.tensorboard is not None:
        training.summary_writer()
    for stage in chosen:
        if stage.check is not None:
            stage.check(job, [each.name for each in chosen], *stage.settings_of(args))
    check_inputs(args, job, chosen)


def scores(stage: Stage) -> bool:
    """Return whether a stage needs masks to score against."""
    return stage.masks or bool(stage.rows)


def has_masks(job: Job, stage: Stage) -> bool:
    """Return whether an image that the stage scores has a mask."""
    flag = 'eval_set' if 'eval_set' in stage.lists else stage.lists[0]
    return any(job.source.mask_path(image_id).is_file() for image_id in job.ids(flag))


def without_scores(args: argparse.Namespace, job: Job,
                   chosen: Sequence[Stage]) -> tuple[list[Stage], str]:
    """Return the chosen stages without the scores that there are no masks for, and a line on it.

    Only those that a range took in (`args.ranged`) are left out, and not all that is chosen.
    """
    left = [stage for stage in chosen if stage.name in args.ranged and scores(stage)
            and not has_masks(job, stage)]
    kept = [stage for stage in chosen if stage not in left]
    if not left or not kept:
        return list(chosen), ''
    return kept, f'left out, because there are no masks: {", ".join(each.name for each in left)}'


def is_there(path: str | None) -> bool:
    """Return whether weights, or a folder, are there."""
    return path is not None and (weights.existing(path) is not None or Path(path).is_dir())


def trainings_of(chosen: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in chosen if stage.trains]


def module_flags(stages: Stages) -> dict[str, str]:
    """Return flag -> the class that its module must have: network, backbone or loss."""
    wanted = {'network': 'Net', 'backbone': 'Backbone', 'loss': 'Objective'}
    return {settings.flag_of(cls, field): wanted[field.name] for cls in stages.settings()
            for field in dataclasses.fields(cls)
            if field.metadata.get('module') and field.name in wanted}


def check_lists(args: argparse.Namespace, job: Job, chosen: Sequence[Stage]) -> None:
    """Raise UserError where images, labels or masks of the lists in use are missing or faulty."""
    wrong = job.source.check(()).wrong
    if wrong:
        raise UserError(f'{args.data_root}: {wrong[0]}'
                        + (f' (and {len(wrong) - 1} more, which --check_data lists)' if wrong[1:]
                           else ''))
    labelled = {name for stage in chosen if stage.labelled for name in stage.lists}
    scored = {name for stage in chosen if stage.masks for name in stage.lists}
    # one that makes and scores
    scored |= {'eval_set' for stage in chosen if stage.rows and 'eval_set' in stage.lists}
    needed = {name for stage in chosen if not stage.may_be_empty for name in stage.lists}
    for name in dict.fromkeys(name for stage in chosen for name in stage.lists):
        ids = job.ids(name)
        if not ids and name in needed:
            raise UserError(f'--{name} {job.lists[name]}: no such image in {args.data_root}'
                            + ('; a score needs masks, every other stage goes without: leave out '
                               + ', '.join(stage.name for stage in chosen if stage.masks
                                           and name in stage.lists)
                               if name in scored else ''))
        if name in scored:
            missing = [image_id for image_id in ids if not job.source.mask_path(image_id).is_file()]
            if missing:
                raise UserError(f'{job.source.mask_path(missing[0])}: {len(missing)} of the '
                                f'{len(ids)} masks of '
                                f'{job.lists[name]} are missing; a score needs the mask of every '
                                f'image of --{name}')
        elif name in labelled:
            for image_id in ids:
                job.source.labels(image_id)


def check_one_backbone(args: argparse.Namespace, trainings: Sequence[Stage]) -> None:
    """Raise UserError where one file of weights is to start a network of timm and a ResNet-50."""
    name = args.backbone or ''
    if not name.startswith('timm:') or args.pretrained == 'none':
        return
    each = {stage.name: stage.settings[0].of(args) for stage in trainings}
    own = [stage for stage, told in each.items()
           if not hasattr(told, 'backbone') and told.pretrained == args.pretrained]
    if own and len(own) < len(trainings):
        raise UserError(f'--pretrained {args.pretrained} starts --backbone {name}, and '
                        f'{" and ".join(own)} another network: name them in a second command, '
                        f'with the weights of that')


def check_inputs(args: argparse.Namespace, job: Job, chosen: Sequence[Stage]) -> None:
    """Raise UserError for an input that is missing, and that no chosen stage will make.

    So for one that was made for other classes.
    """
    made: set[str] = set()
    for stage in chosen:
        for flag in stage.inputs(args, needed=False):
            path = getattr(args, flag)
            if flag not in made and path is not None and Path(path).is_dir():
                records.check_classes(path, job.source.classes)
        needed = stage.inputs(args)
        for flag in needed:
            path = getattr(args, flag)
            if flag not in made and not is_there(path):
                raise UserError(f'{stage.name} needs {path}: {job.remedy(flag)}, or name another '
                                f'--{flag}')
            if flag not in made:
                records.check_classes(path, job.source.classes)
        for maker in (other for other in chosen if not other.trains
                      and set(other.outputs(args)) & set(needed)):
            lacking = sorted(set(job.ids(stage.lists[0])) - set(job.ids(maker.lists[0])))
            if lacking:
                raise UserError(f'{stage.name} goes over {len(lacking)} images of '
                                f'--{stage.lists[0]} (first {lacking[0]}) '
                                f'that {maker.name} will not make: they are not in '
                                f'--{maker.lists[0]}')
        if stage.rows and stage.writes and 'eval_set' in stage.lists[1:]:
            lacking = sorted(set(job.ids('eval_set')) - set(job.ids(stage.lists[0])))
            if lacking:
                raise UserError(f'{stage.name} scores {len(lacking)} images of --eval_set (first '
                                f'{lacking[0]}) that it will '
                                f'not make: they are not in --{stage.lists[0]}')
        made.update(stage.outputs(args))


def check_extra_folders(args: argparse.Namespace, stages: Stages) -> None:
    """Raise UserError where an output that is kept only when named shares another's folder."""
    usual = {f'--{flag}': getattr(args, flag) for flag in stages.files()}
    usual |= {f'--analyze_dirs {name}': folder for name, folder in args.analyze_dirs}
    for flag, (_, output) in stages.outputs().items():
        path = getattr(args, flag)
        for other, folder in usual.items():
            if not output.kept and path is not None and Path(
                path).resolve() == Path(folder).resolve():
                raise UserError(f'--{flag} {path} is {other}, too: {output.holds} needs a folder '
                                f'of its own')


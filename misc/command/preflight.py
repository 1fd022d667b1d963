"""What can be known to be wrong before the first stage runs: lists, labels, masks, networks, inputs. Each check raises
UserError for the first thing it finds."""
import argparse
import importlib
from pathlib import Path

import torch

from misc import training
from misc.command.options import FILES, NETWORKS, STAGES, Stage
from misc.files import labels, records, weights
from misc.pyutils import UserError

IF_THERE = {'analyze_threshold': ('cam_out_dir', 'amn_cam_out_dir'),  # what a stage reads of what it finds
            'report': ('cam_out_dir', 'ir_label_out_dir', 'amn_cam_out_dir', 'amn_ir_label_out_dir', 'sem_seg_out_dir')}


def check(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """Everything that can be known before the first stage: lists, labels, networks, and inputs that no stage will make.

    Raises UserError for the first thing that is wrong.
    """
    if args.cam_resize_long[0] > args.cam_resize_long[1]:
        raise UserError(f'--cam_resize_long {args.cam_resize_long[0]} {args.cam_resize_long[1]}: LOW is above HIGH')
    if args.repeat > 1 and not trainings_of(chosen):
        raise UserError(f'--repeat {args.repeat}: none of the chosen stages depends on the seed; name a training with them, '
                        'whose runs differ')
    check_analysis(args, chosen)
    check_networks(args)
    check_lists(args, chosen)
    if any(stage.name == 'eval_ins_seg' for stage in chosen):
        check_objects(args)
    trainings = trainings_of(chosen)
    for stage in trainings:
        training.steps_of(len(args.source.names(args.train_list)),
                          getattr(args, stage.name.removeprefix('train_') + '_batch_size'), 1, stage.name)
    for choice in {args.seg_pretrained if stage.name == 'train_seg' else args.pretrained for stage in trainings}:
        weights.check_pretrained(choice)
    if any(stage.name == 'train_seg' for stage in chosen) and args.seg_pretrained not in ('imagenet', 'none'):
        with torch.device('meta'):  # a ResNet-50's file is not noticed hours later to be of the wrong depth
            backbone = importlib.import_module(args.seg_network).Net(args.source.n_classes).backbone
        weights.pretrained_state(backbone, args.seg_pretrained)
    if trainings and args.tensorboard is not None:
        training.summary_writer()
    check_inputs(args, chosen)


def trainings_of(chosen: list[Stage]) -> list[Stage]:
    return [stage for stage in chosen if stage.name.startswith('train_')]


def check_networks(args: argparse.Namespace) -> None:
    """Raises UserError where a network's module cannot be imported."""
    for name in (f'{name}_network' for name in (*NETWORKS, 'seg')):
        try:
            found = hasattr(importlib.import_module(getattr(args, name)), 'Net')
        except (ImportError, ValueError) as error:
            raise UserError(f'--{name} {getattr(args, name)}: cannot be imported ({error})') from error
        if not found:
            raise UserError(f'--{name} {getattr(args, name)}: a module without a class Net')


def check_lists(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """Raises UserError where the data set has faults, or images, labels or masks of the lists in use are missing."""
    wrong = args.source.check(()).wrong
    if wrong:
        raise UserError(f'{args.data_root}: {wrong[0]}'
                        + (f' (and {len(wrong) - 1} more, which --check_data lists)' if wrong[1:] else ''))
    trains_by_labels = any(stage.labelled for stage in trainings_of(chosen))
    labelled = {name for stage in chosen if stage.labelled for name in stage.lists}
    scored = {name for stage in chosen if stage.name.startswith(('eval_', 'analyze_')) for name in stage.lists}
    needed = {name for stage in chosen if stage.name != 'report' for name in stage.lists}  # it takes another list then
    for name in dict.fromkeys(name for stage in chosen for name in stage.lists):
        ids = args.source.names(getattr(args, name))
        if not ids and name in needed:
            raise UserError(f'--{name} {getattr(args, name)}: no such image in {args.data_root}'
                            + ('; a score needs masks, every other stage goes without' if name in scored else ''))
        if name in scored:
            missing = [image_id for image_id in ids if not args.source.mask_path(image_id).is_file()]
            if missing:
                raise UserError(f'{args.source.mask_path(missing[0])}: {len(missing)} of the {len(ids)} masks of '
                                f'{getattr(args, name)} are missing; a score needs the mask of every image of --{name}')
        elif name in labelled and (name != 'infer_list' or trains_by_labels):  # its masks are made without its labels
            for image_id in ids:
                args.source.labels(image_id)


def check_inputs(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """Raises UserError for an input that is not there and that no chosen stage will make, or was made for other classes."""
    if any(stage.name == 'train_seg' for stage in chosen):
        check_label_dir(args, chosen)
    made: set[str] = set()
    for stage in chosen:
        for name in inputs(stage, args):
            path = getattr(args, name)
            if name not in made and not (weights.existing(path) or Path(path).is_dir()):
                maker = next(other.name for other in STAGES if name in outputs(other, args))
                raise UserError(f'{stage.name} needs {path}: run --{maker}_pass True first, or name another --{name}')
            if name not in made:
                records.check_classes(path, args.source.classes)
        for maker in (other for other in chosen if other.writes in inputs(stage, args)):
            lacking = sorted(set(args.source.names(getattr(args, stage.lists[0])))
                             - set(args.source.names(getattr(args, maker.lists[0]))))
            if lacking and not maker.name.startswith('train'):
                raise UserError(f'{stage.name} goes over {len(lacking)} images of --{stage.lists[0]} (first {lacking[0]}) '
                                f'that {maker.name} will not make: they are not in --{maker.lists[0]}')
        made |= outputs(stage, args)


def check_objects(args: argparse.Namespace) -> None:
    """Raises UserError where masks of single objects are missing that a score of instance masks needs."""
    where = getattr(args.source, 'object_mask_path', None)
    if where is None:
        raise UserError(f'eval_ins_seg: {args.source.name} has no masks of single objects to score against')
    paths = [where(image_id) for image_id in args.source.names(args.eval_set)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f'{missing[0]}: {len(missing)} of the {len(paths)} object masks of {args.eval_set} are missing; '
                        'eval_ins_seg needs that of every image of --eval_set')


def check_analysis(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """What analysis and report read, --analyze_dirs and --walked_out_dir. Raises UserError where names or folders are taken, a
    folder is missing, or was made for other classes."""
    taken = {'cam', 'amn_cam', 'sem_seg'}
    for name, folder in args.analyze_dirs:
        if name in taken:
            raise UserError(f'--analyze_dirs {name}={folder}: the name {name} is taken; give another one')
        if not Path(folder).is_dir():
            raise UserError(f'--analyze_dirs {name}={folder}: no such folder')
        taken.add(name)
    if args.walked_out_dir is not None:
        others = {f'--{name}': getattr(args, name) for name in FILES}
        for flag, folder in (others | {f'--analyze_dirs {name}': folder for name, folder in args.analyze_dirs}).items():
            if Path(args.walked_out_dir).resolve() == Path(folder).resolve():
                raise UserError(f'--walked_out_dir {args.walked_out_dir} is {flag}, too: the walk needs a folder of its own')
    running, made = {stage.name for stage in chosen}, {stage.writes for stage in chosen}
    if 'analyze_threshold' in running and 'make_sem_seg' not in running and args.walked_out_dir is not None \
            and not Path(args.walked_out_dir).is_dir():
        raise UserError(f'--walked_out_dir {args.walked_out_dir}: no such folder; run --make_sem_seg_pass True with it, too')
    read = [getattr(args, name) for stage, names in IF_THERE.items() if stage in running for name in names if name not in made]
    if 'analyze_threshold' in running:
        read += [folder for _, folder in args.analyze_dirs]
    for folder in read:
        if Path(folder).is_dir():
            records.check_classes(folder, args.source.classes)


def inputs(stage: Stage, args: argparse.Namespace) -> list[str]:
    """The arguments that name what `stage` reads; --seg_label_dir is --sem_seg_out_dir unless it is another folder."""
    pseudo_masks = ['sem_seg_out_dir'] if args.seg_label_dir == args.sem_seg_out_dir else []
    refined = ['seg_crf_out_dir'] if stage.name == 'eval_seg' and args.seg_crf else []
    return [other for name in stage.reads for other in (pseudo_masks if name == 'seg_label_dir' else [name])] + refined


def outputs(stage: Stage, args: argparse.Namespace) -> set[str]:
    """The arguments that name what `stage` writes."""
    refined = {'seg_crf_out_dir'} if stage.name == 'make_seg' and args.seg_crf else set()
    return ({stage.writes} if stage.writes else set()) | refined


def check_label_dir(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """Raises UserError where label maps of the train list are missing that no chosen stage will make."""
    by_default = args.seg_label_dir == args.sem_seg_out_dir
    if by_default and (any(stage.name == 'make_sem_seg' for stage in chosen) or not Path(args.seg_label_dir).is_dir()):
        return  # the checks of every stage's inputs tell of these
    ids = args.source.names(args.train_list)
    missing = [image_id for image_id in ids if not labels.exists(args.seg_label_dir, image_id)]
    if missing:
        raise UserError(f'{args.seg_label_dir}: label maps of {len(missing)} of the {len(ids)} images of {args.train_list} are '
                        f'missing (first {missing[0]}); ' + (
                            f'run --make_sem_seg_pass True --infer_list {args.train_list} first' if by_default else
                            'train_seg needs one for each image of --train_list'))

"""The command line: `python run_sample.py --voc12_root ROOT --train_cam_pass True --make_cam_pass True ...`

Checks everything that can be checked, then runs the chosen stages in pipeline order, whatever order they were named in.
Every default stands here, with its effect and where it comes from ("authors": the published script; "ours").
"""
import argparse
import dataclasses
import importlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import torch

from misc import imutils, labels, torchutils, training, weights
from misc.pyutils import UserError, elapsed, log, start_log, stop_log, unlock
from voc12.dataloader import VOC12

VERSION = '0.1.0'


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage: what it is for, the argument that names its output, those that name its inputs, the lists it goes over,
    whether it needs the images' labels."""

    name: str
    help: str
    writes: str | None
    reads: tuple[str, ...] = ()
    lists: tuple[str, ...] = ('train_list',)
    labelled: bool = True


STAGES = (  # in pipeline order
    Stage('train_cam', 'train the classifier whose activations are CAM', 'cam_weights_name', (),
          ('train_list', 'val_list')),
    Stage('make_cam', "CAM's activations", 'cam_out_dir', ('cam_weights_name',)),
    Stage('eval_cam', "score CAM's activations", None, ('cam_out_dir',), ('eval_set',)),
    Stage('cam_to_ir_label', "refine CAM's seeds by CRF", 'ir_label_out_dir', ('cam_out_dir',)),
    Stage('eval_ir_label', "score CAM's refined seeds", None, ('ir_label_out_dir',), ('eval_set',)),
    Stage('train_amn', "train AMN on CAM's refined seeds", 'amn_weights_name', ('ir_label_out_dir',),
          ('train_list', 'infer_list')),
    Stage('make_amn_cam', "AMN's activations", 'amn_cam_out_dir', ('amn_weights_name', 'ir_label_out_dir')),
    Stage('eval_amn_cam', "score AMN's activations", None, ('amn_cam_out_dir',), ('eval_set',)),
    Stage('amn_cam_to_ir_label', "refine AMN's seeds by CRF", 'amn_ir_label_out_dir', ('amn_cam_out_dir',)),
    Stage('eval_amn_ir_label', "score AMN's refined seeds", None, ('amn_ir_label_out_dir',), ('eval_set',)),
    Stage('train_irn', "train IRN on AMN's refined seeds", 'irn_weights_name', ('amn_ir_label_out_dir',),
          ('train_list', 'infer_list')),
    Stage('make_sem_seg', "pseudo-masks: random walk over AMN's activations", 'sem_seg_out_dir',
          ('irn_weights_name', 'amn_cam_out_dir'), ('infer_list',)),
    Stage('eval_sem_seg', 'score the pseudo-masks', None, ('sem_seg_out_dir',), ('eval_set',)),
    Stage('train_seg', 'train the segmentation network on the pseudo-masks', 'seg_weights_name', ('seg_label_dir',),
          labelled=False),
    Stage('make_seg', "the segmentation network's label maps", 'seg_out_dir', ('seg_weights_name',), ('seg_list',),
          labelled=False),
    Stage('eval_seg', 'score them', None, ('seg_out_dir',), ('seg_list',), labelled=False),
)

# thresholds of each stage: (its own flag, the authors' shared flag, the published value)
THRESHOLDS = (
    ('eval_cam_thres', 'cam_eval_thres', 0.15), ('eval_amn_cam_thres', 'cam_eval_thres', 0.25),
    ('cam_conf_fg_thres', 'conf_fg_thres', 0.30), ('cam_conf_bg_thres', 'conf_bg_thres', 0.05),
    ('amn_conf_fg_thres', 'conf_fg_thres', 0.45), ('amn_conf_bg_thres', 'conf_bg_thres', 0.15))

# the segmentation network: (flag, as AMN's authors trained it (AdvCAM#9), as kazuto1011/deeplab-pytorch does)
SEG_RECIPES = (
    ('seg_input', 'torchvision', 'caffe'), ('seg_stride', '3x3', '1x1'), ('seg_ceil_mode', False, True),
    ('seg_steps', 30_000, 20_000), ('seg_loss', 'balanced', 'ce'),
    ('seg_resize', [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0], [0.5, 0.75, 1.0, 1.25, 1.5]))

# what the stages write, below --work_dir (authors)
FILES = {'cam_weights_name': 'sess/res50_cam.pth', 'amn_weights_name': 'sess/res50_amn.pth',
         'irn_weights_name': 'sess/res50_irn.pth', 'cam_out_dir': 'result/cam', 'ir_label_out_dir': 'result/ir_label',
         'amn_cam_out_dir': 'result/amn_cam', 'amn_ir_label_out_dir': 'result/amn_ir_label',
         'sem_seg_out_dir': 'result/sem_seg', 'ins_seg_out_dir': 'result/ins_seg'}
SEG_FILES = {'seg_weights_name': 'sess/seg.pth', 'seg_out_dir': 'result/seg', 'seg_crf_out_dir': 'result/seg_crf'}  # (ours)
SCORES = 'result/scores.jsonl'


def boolean(text: str) -> bool:
    """True or False in the usual spellings."""
    if text.lower() in ('true', 't', 'yes', 'y', 'on', '1'):
        return True
    if text.lower() in ('false', 'f', 'no', 'n', 'off', '0'):
        return False
    raise argparse.ArgumentTypeError(f'{text!r} is neither True nor False')


def number(kind: type, low: float, high: float = float('inf'), above: bool = False):
    """An argparse type: an int or float from `low` (above=True: greater than it) to `high`."""
    def parse(text: str) -> float:
        value = kind(text)
        if not (low < value if above else low <= value) or not value <= high or value == float('inf'):
            raise argparse.ArgumentTypeError(f'{text} is not {"above" if above else "at least"} {low}'
                                             + (f' and at most {high}' if high < float('inf') else ''))
        return value
    parse.__name__ = kind.__name__  # argparse's "invalid int value"
    return parse


COUNT, WHOLE, POSITIVE, RATE, SHARE = (number(int, 1), number(int, 0), number(float, 0, above=True), number(float, 0),
                                       number(float, 0, 1))


def build_parser() -> argparse.ArgumentParser:
    """All flags, grouped by stage."""
    parser = _Parser(
        description='AMN: pseudo-masks from image-level labels. Name at least one stage.', allow_abbrev=False,
        usage='python run_sample.py --voc12_root ROOT --STAGE_pass True ... [flags]',
        formatter_class=_Help, epilog='stages, in pipeline order:\n' + stage_list())
    group = parser.add_argument_group('stages', 'each False unless named; they run in this order').add_argument
    for stage in STAGES:
        group(f'--{stage.name}_pass', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
              help=stage.help)
    for name in ('make_ins_seg', 'eval_ins_seg'):
        group(f'--{name}_pass', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
              help='instance masks; accepted for old scripts, refused until they are built')

    group = parser.add_argument_group('data').add_argument
    group('--voc12_root', help='the folder VOC2012 that holds JPEGImages (default: VOC12_ROOT of the environment, else '
          './VOCdevkit/VOC2012)')
    group('--train_list', default='voc12/train_aug.txt',
          help='images to train on and to make activations for: a list file or a split of the root (authors)')
    group('--val_list', default='voc12/val.txt', help='images whose loss is printed while CAM is trained (authors)')
    group('--infer_list', default='voc12/train.txt', help='images to make pseudo-masks for, within the train list; '
          'voc12/train_aug.txt for masks to train a segmentation network on (authors)')
    group('--eval_set', '--chainer_eval_set', dest='eval_set', default='train',
          help='the split to score on: a split of the root or a list file; its masks are needed (authors)')
    group('--check_data', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='say what is there, what is missing, how many images show each class; then stop')

    group = parser.add_argument_group('machine and run').add_argument
    group('--device', default='auto', help='auto (the first GPU, else the CPU), cpu, cuda or cuda:N')
    cores = torchutils.cores() // int(os.environ.get('LOCAL_WORLD_SIZE', '1'))  # torchrun tells how many share them
    group('--num_workers', type=WHOLE, default=max(1, cores // 2),
          help='processes that decode, refine and score, beside each one of torchrun; no result depends on it (authors: half '
          'the cores)')
    group('--precision', choices=tuple(torchutils.PRECISIONS), default='fp32',
          help='of the networks; bf16 takes about half the time where the machine has it; fp16 on GPUs only (ours; '
          'published: fp32)')
    group('--seed', type=number(int, 0, 2 ** 63 - 1), default=0,
          help='the same seed gives the same files, for any --num_workers (ours)')
    group('--accumulate', type=COUNT, default=1, help='parts that a training batch is cut into, one after the other: the '
          'same gradient in less memory; no result depends on it but by rounding (ours)')
    group('--save_every', type=POSITIVE, default=30.0, help='minutes between checkpoints of a training; one is written '
          'after every epoch too (ours)')
    group('--tensorboard', metavar='DIR', help='write losses, learning rate and a few pictures an epoch there, for '
          'TensorBoard (needs the package tensorboard; ours)')
    group('--resume', type=boolean, nargs='?', const=True, default=True, metavar='True|False',
          help='go on with a training whose checkpoint is there; False starts it anew (ours)')
    group('--overwrite', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='make what the chosen stages write anew; without it what is there is kept, and a stage goes on (ours)')
    group('--log_name', default='sample_train_eval', help='the log goes to sess/NAME.log, or to NAME.log where the '
          'name has a folder (authors)')
    group('--scores_file', default=SCORES, help='each score is added to it as a line of JSON (ours)')
    group('--pretrained', default='imagenet', metavar='imagenet|none|FILE', help="where the backbones start: "
          "torchvision's ImageNet weights, random, or a file with torchvision's names (published: imagenet)")
    group('--momentum', type=RATE, default=1e-4, help="of CAM's and IRN's SGD; 1e-4 is what the published figures were "
          'made with, by a slip of the authors: their weight decay lands here')

    group = parser.add_argument_group('CAM').add_argument
    group('--cam_network', default='net.resnet50_cam', help='module with class Net (authors)')
    group('--cam_crop_size', type=COUNT, default=512, help='side of the training crops, pixels (authors)')
    group('--cam_resize_long', type=COUNT, nargs=2, default=[320, 640], metavar=('LOW', 'HIGH'),
          help='long side of a training image, drawn evenly, pixels (authors, fixed there)')
    group('--cam_batch_size', type=COUNT, default=16, help='images a step (authors)')
    group('--cam_num_epoches', type=COUNT, default=5, help='passes over the train list (authors)')
    group('--cam_learning_rate', type=RATE, default=0.1, help='of the backbone; ten times that for the classifier '
          '(authors)')
    group('--cam_weight_decay', type=RATE, default=1e-4, help='authors')
    group('--cam_scales', type=POSITIVE, nargs='+', default=[1.0, 0.5, 1.5, 2.0],
          help='scales whose activations are added up, for CAM and AMN; fewer is faster and coarser (authors)')
    group('--cam_dtype', choices=('float32', 'float16'), default='float32', help="of CAM's and AMN's stored activations; "
          'float16 takes half the disk (ours; published: float32)')
    group('--cam_eval_thres', type=SHARE, help='threshold of both activation scores, where a stage has none of its own; '
          'raise for smaller objects (published: CAM 0.15, AMN 0.25)')
    group('--eval_cam_thres', type=SHARE, help="threshold of CAM's score (0.15, published)")

    group = parser.add_argument_group('refined seeds').add_argument
    group('--conf_fg_thres', type=SHARE, help='above it a pixel is sure foreground, for both seed stages, where a stage '
          'has none of its own; raise for cleaner, sparser seeds (published: CAM 0.30, AMN 0.45)')
    group('--conf_bg_thres', type=SHARE, help='below it a pixel is sure background, likewise; lower for cleaner, sparser '
          'background (published: CAM 0.05, AMN 0.15)')
    for name, shown in (('cam', 'CAM'), ('amn', 'AMN')):
        for kind in ('fg', 'bg'):
            published = dict((row[0], row[2]) for row in THRESHOLDS)[f'{name}_conf_{kind}_thres']
            group(f'--{name}_conf_{kind}_thres', type=SHARE, help=f"the same for {shown}'s seeds alone ({published:.2f}, "
                  'published)')

    group = parser.add_argument_group('AMN').add_argument
    group('--amn_network', default='net.resnet50_amn', help='module with class Net (authors)')
    group('--amn_crop_size', type=COUNT, default=512, help='side of the training crops, pixels (authors)')
    group('--amn_batch_size', type=COUNT, default=16, help='images a step (authors)')
    group('--amn_num_epoches', type=COUNT, default=5, help='passes over the train list (authors)')
    group('--amn_learning_rate', type=RATE, nargs=2, default=[5e-6, 1e-4], metavar=('BACKBONE', 'HEAD'),
          help='of Adam (authors)')
    group('--amn_weight_decay', type=RATE, default=1e-4, help='of Adam, added to the gradient (authors)')
    group('--eps', type=SHARE, default=0.4, help='label smoothing of the per-pixel loss; raise for flatter activations, '
          '0 for none (authors)')
    group('--eval_amn_cam_thres', type=SHARE, help="threshold of AMN's score (0.25, published)")

    group = parser.add_argument_group('IRN').add_argument
    group('--irn_network', default='net.resnet50_irn', help='module with class Net (authors)')
    group('--irn_crop_size', type=number(int, 73), default=512, help='side of the training crops, pixels; pairs of radius 10 '
          'need 73 (authors)')
    group('--irn_batch_size', type=COUNT, default=32, help='images a step (authors)')
    group('--irn_num_epoches', type=COUNT, default=3, help='passes over the train list (authors)')
    group('--irn_learning_rate', type=RATE, default=0.1, help='of the edge head; ten times that for the displacement '
          'head (authors)')
    group('--irn_weight_decay', type=RATE, default=1e-4, help='authors')

    group = parser.add_argument_group('random walk').add_argument
    group('--beta', type=POSITIVE, default=10.0, help='power of the affinities; raise to spread less (authors)')
    group('--exp_times', type=number(int, 0, 20), default=8, help='the walk has 2^this steps (authors)')
    group('--sem_seg_bg_thres', type=SHARE, default=0.25, help='below it a pixel is background; raise for smaller '
          'objects (authors)')
    group('--sem_seg_power', type=POSITIVE, default=1.3, help='power of the activations before the walk; raise for '
          'smaller objects (authors, fixed there)')
    group('--sem_seg_canvas', type=WHOLE, default=512, help="side that IRN's images are padded to where they are smaller, "
          'pixels; 0 for none; near --irn_crop_size, where that is small, the boundaries are better (authors, fixed there)')
    group('--ins_seg_bg_thres', type=SHARE, default=0.25, help='of the instance masks that are not built yet (authors)')

    group = parser.add_argument_group(
        'segmentation network', "trained on the pseudo-masks. Where no default is shown it is the recipe's: 'advcam', as AMN's "
        "authors trained it (AdvCAM#9), or 'deeplab', kazuto1011/deeplab-pytorch").add_argument
    group('--seg_recipe', choices=('advcam', 'deeplab'), default='advcam', help='which settings the flags below start from; '
          "deeplab wants Caffe's weights; for torchvision's add --seg_input torchvision --seg_stride 3x3 --seg_ceil_mode False")
    group('--seg_network', default='net.resnet101_deeplab', help='module with class Net: net.resnet101_deeplab (published), or '
          'net.resnet50_deeplab for half the time and memory (ours)')
    group('--seg_label_dir', metavar='DIR', help='label maps to train on, one for each image of the train list: '
          '--sem_seg_out_dir unless given; SegmentationClassAug for full supervision')
    group('--seg_pretrained', metavar='imagenet|none|FILE', help='where its backbone starts: as --pretrained unless given '
          "(published: imagenet, and COCO's for the recipe deeplab)")
    for name, help_text, options in (
            ('input', 'pixels: torchvision (RGB, mean, std) or caffe (BGR minus mean), as the weights to start from were made',
             {'choices': tuple(imutils.INPUTS)}),
            ('stride', "a block's stride is in its 3x3 (torchvision's weights) or in its first 1x1 (Caffe's)",
             {'choices': ('3x3', '1x1')}),
            ('ceil_mode', "the pooling rounds up (Caffe's weights)",
             {'type': boolean, 'nargs': '?', 'const': True, 'metavar': 'True|False'}),
            ('steps', 'updates in all', {'type': COUNT}),
            ('loss', 'ce, or balanced: half of it from background, half from foreground, which users found necessary on '
             'pseudo-masks', {'choices': ('ce', 'balanced')}),
            ('resize', 'factors by one of which a training image is resized', {'type': POSITIVE, 'nargs': '+'})):
        group(f'--seg_{name}', help=f'{help_text} (advcam: {_recipe(name, 1)}; deeplab: {_recipe(name, 2)})', **options)
    group('--seg_crop_size', type=COUNT, default=321, help='side of the training crops, pixels (published)')
    group('--seg_batch_size', type=COUNT, default=10, help='images a step; --accumulate 2 as published, in less memory')
    group('--seg_learning_rate', type=RATE, default=2.5e-4, help="of the backbone's convolutions; ten times that for the "
          "head's weights, twenty times for its biases (published)")
    group('--seg_weight_decay', type=RATE, default=5e-4, help="of all but the head's biases (published)")
    group('--seg_momentum', type=RATE, default=0.9, help='published')
    group('--seg_train_scales', type=POSITIVE, nargs='+', default=[1.0, 0.75, 0.5], help='scales of a crop that the loss is '
          'taken at, and at their maximum (published)')
    group('--seg_list', default='voc12/val.txt', help='images to segment and score: a list file or a split of the root; '
          "test for the evaluation server, in the layout that it wants")
    group('--seg_scales', type=POSITIVE, nargs='+', default=[1.0, 0.75, 0.5], help='scales whose maximum makes the label maps '
          '(published); 1 alone is a third faster')
    group('--seg_flip', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='take the mean with the mirror; twice the time (ours)')
    group('--seg_crf', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help="refine by CRF too, into --seg_crf_out_dir; both are scored (published figures are given with and without)")

    group = parser.add_argument_group('files').add_argument
    group('--work_dir', default='.', help='the folder that holds sess/ and result/: every file below that is not named '
          'otherwise, the log and the scores lie in it (ours)')
    for name, path in FILES.items():
        written_by = next((stage.name for stage in STAGES if stage.writes == name), 'make_ins_seg')
        group(f'--{name}', default=path, help=f'what {written_by} writes (authors)')
    for name, path in SEG_FILES.items():
        group(f'--{name}', default=path, help=f'what {"train_seg" if name == "seg_weights_name" else "make_seg"} writes (ours)')
    return parser


def _recipe(name: str, column: int) -> str:
    value = next(row[column] for row in SEG_RECIPES if row[0] == f'seg_{name}')
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value)


class _Parser(argparse.ArgumentParser):
    """Tells of a wrong flag as every error is told: in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message} (--help lists the flags)\n')


class _Help(argparse.RawDescriptionHelpFormatter):
    """Adds each default that the help does not already tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        shown = ' '.join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f'{action.help} [{shown}]'.replace('%', '%%')


def stage_list() -> str:
    return '\n'.join(f'  --{stage.name}_pass'.ljust(31) + stage.help for stage in STAGES)


def resolve_thresholds(args: argparse.Namespace) -> None:
    """A stage's own flag; else the shared flag, if given; else the value published for that stage."""
    for own, shared, published in THRESHOLDS:
        if getattr(args, own) is None:
            given = getattr(args, shared)
            setattr(args, own, published if given is None else given)
    for name in ('cam', 'amn'):
        low, high = getattr(args, f'{name}_conf_bg_thres'), getattr(args, f'{name}_conf_fg_thres')
        if low > high:
            raise UserError(f'{name.upper()} seeds: the background threshold {low} is above the foreground threshold '
                            f'{high}; give --{name}_conf_bg_thres and --{name}_conf_fg_thres')


def resolve_recipe(args: argparse.Namespace) -> None:
    """What is not given of the segmentation network is what --seg_recipe says."""
    for name, advcam, deeplab in SEG_RECIPES:
        if getattr(args, name) is None:
            setattr(args, name, advcam if args.seg_recipe == 'advcam' else deeplab)
    args.seg_label_dir = args.seg_label_dir or args.sem_seg_out_dir
    args.seg_pretrained = args.seg_pretrained or args.pretrained
    if args.seg_pretrained == 'imagenet' and (args.seg_input, args.seg_stride, args.seg_ceil_mode) != (
            'torchvision', '3x3', False) and args.train_seg_pass:
        raise UserError("train_seg: torchvision's ImageNet weights need --seg_input torchvision --seg_stride 3x3 "
                        "--seg_ceil_mode False; for Caffe's form give a file with its weights: --seg_pretrained FILE")


def resolve_files(args: argparse.Namespace) -> None:
    """What keeps its default name lies in --work_dir."""
    for name, default in (FILES | SEG_FILES | {'scores_file': SCORES}).items():
        if getattr(args, name) == default:
            setattr(args, name, str(Path(args.work_dir) / default))


def find_root(given: str | None) -> str:
    """--voc12_root, else VOC12_ROOT, else ./VOCdevkit/VOC2012."""
    root = given or os.environ.get('VOC12_ROOT') or ('VOCdevkit/VOC2012' if Path('VOCdevkit/VOC2012').is_dir() else None)
    if root is None:
        raise UserError('where is VOC 2012? Give --voc12_root FOLDER (the folder VOC2012 that holds JPEGImages), or set '
                        'VOC12_ROOT')
    return root


def check(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """Everything that can be known before the first stage: lists, labels, networks, and inputs that no stage will make.

    Raises UserError for the first thing that is wrong.
    """
    if args.cam_resize_long[0] > args.cam_resize_long[1]:
        raise UserError(f'--cam_resize_long {args.cam_resize_long[0]} {args.cam_resize_long[1]}: LOW is above HIGH')
    for name in ('cam_network', 'amn_network', 'irn_network', 'seg_network'):
        try:
            found = hasattr(importlib.import_module(getattr(args, name)), 'Net')
        except (ImportError, ValueError) as error:
            raise UserError(f'--{name} {getattr(args, name)}: cannot be imported ({error})') from error
        if not found:
            raise UserError(f'--{name} {getattr(args, name)}: a module without a class Net')
    trainings = [stage for stage in chosen if stage.name.startswith('train_')]
    labelled = {name for stage in chosen if stage.labelled for name in stage.lists}
    scored = {name for stage in chosen if stage.name.startswith('eval_') for name in stage.lists}
    for name in dict.fromkeys(name for stage in chosen for name in stage.lists):
        ids = args.source.names(getattr(args, name))
        if name in scored:
            missing = [image_id for image_id in ids if not args.source.mask_path(image_id).is_file()]
            if missing:
                raise UserError(f'{args.source.mask_path(missing[0])}: {len(missing)} of the {len(ids)} masks of '
                                f'{getattr(args, name)} are missing; a score needs the mask of every image of --{name}')
        elif name in labelled and (name != 'infer_list' or trainings):  # masks of the infer list are made without its labels
            for image_id in ids:
                args.source.labels(image_id)
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
    made: set[str | None] = set()
    if any(stage.name == 'train_seg' for stage in chosen):
        check_label_dir(args, chosen)
    for stage in chosen:
        for name in inputs(stage, args):
            path = getattr(args, name)
            if name not in made and not (weights.existing(path) or Path(path).is_dir()):
                maker = next(other.name for other in STAGES if other.writes == name)
                raise UserError(f'{stage.name} needs {path}: run --{maker}_pass True first, or name another --{name}')
        for maker in (other for other in chosen if other.writes in inputs(stage, args)):
            lacking = sorted(set(args.source.names(getattr(args, stage.lists[0])))
                             - set(args.source.names(getattr(args, maker.lists[0]))))
            if lacking and not maker.name.startswith('train'):
                raise UserError(f'{stage.name} goes over {len(lacking)} images of --{stage.lists[0]} (first {lacking[0]}) '
                                f'that {maker.name} will not make: they are not in --{maker.lists[0]}')
        made.add(stage.writes)


def inputs(stage: Stage, args: argparse.Namespace) -> list[str]:
    """The arguments that name what `stage` reads; --seg_label_dir is --sem_seg_out_dir unless it is another folder."""
    pseudo_masks = ['sem_seg_out_dir'] if args.seg_label_dir == args.sem_seg_out_dir else []
    return [other for name in stage.reads for other in (pseudo_masks if name == 'seg_label_dir' else [name])]


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


def check_data(args: argparse.Namespace) -> int:
    """Print what is there and what is missing for the lists. Returns the exit code: 1 where something is missing."""
    from misc.scores import table
    found, rows, code = {}, [], 0
    for name in ('train_list', 'val_list', 'infer_list', 'eval_set'):
        try:
            found[name] = args.source.check(args.source.names(getattr(args, name)))
        except UserError as error:
            print(f'--{name}: {error}')
            code = 1
    for name, result in found.items():
        rows.append((f'--{name} {getattr(args, name)}', result.images, len(result.missing_annotation),
                     len(result.no_class), len(result.missing_mask)))
        problem = result.missing_annotation or (name == 'eval_set' and result.missing_mask)
        code = 1 if problem else code
    if found:
        print(table(('list', 'images', 'without XML', 'without class', 'without mask'), rows) + '\n')
        print(table(('images that show', *found), [
            (class_name, *(int(result.per_class[number]) for result in found.values()))
            for number, class_name in enumerate(args.source.classes)]))
    print('\nTraining needs images and XML; only the images of --eval_set need masks.')
    return code


def git_commit() -> str:
    """Commit of this checkout, with '+' where files differ from it; 'unknown' outside git."""
    def git(*command: str) -> str:
        return subprocess.run(('git', *command), cwd=Path(__file__).parent, capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def log_provenance(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """Version, commit, machine and settings: the first lines of every log."""
    device = torch.cuda.get_device_name(args.device) if args.device.type == 'cuda' else f'cpu, {torchutils.cores()} cores'
    log.info('AMN %s, commit %s, Python %s, torch %s, %s, %d process(es), seed %d', args.version, args.commit,
             platform.python_version(), torch.__version__, device, torchutils.world()[1], args.seed)
    settings = {key: value for key, value in sorted(vars(args).items()) if not key.endswith('_pass')
                and key not in ('source', 'version', 'commit', 'check_data', 'running')}
    log.info('settings: %s', ' '.join(f'{key}={value}' for key, value in settings.items()))
    log.info('stages: %s', ', '.join(stage.name for stage in chosen))


def run(args: argparse.Namespace) -> int:
    """Run the chosen stages. Returns the exit code; raises UserError for what the user can mend."""
    if args.make_ins_seg_pass or args.eval_ins_seg_pass:
        raise UserError('--make_ins_seg_pass, --eval_ins_seg_pass: instance masks are not built yet; leave them False')
    chosen = [stage for stage in STAGES if getattr(args, f'{stage.name}_pass')]
    if not chosen and not args.check_data:
        print(f'error: no stage is named; give at least one of\n{stage_list()}', file=sys.stderr)
        return 2
    resolve_thresholds(args)
    resolve_files(args)
    resolve_recipe(args)
    args.device = torchutils.join_processes(torchutils.choose_device(args.device))
    torchutils.check_precision(args.precision, args.device)
    args.voc12_root = find_root(args.voc12_root)
    args.source = VOC12(args.voc12_root)
    args.version, args.commit = VERSION, git_commit()
    if args.check_data:
        return check_data(args)
    check(args, chosen)
    name = Path(args.log_name)
    if torchutils.is_main():
        start_log(f'{name if name.parent != Path(".") else Path(args.work_dir) / "sess" / name}.log')
    log_provenance(args, chosen)
    args.running = True
    begun = time.monotonic()
    for stage in chosen:
        since = time.monotonic()
        log.info('=== %s: %s', stage.name, stage.help)
        importlib.import_module(f'step.{stage.name}').run(args)
        torchutils.wait_for_all()
        log.info('=== %s took %s', stage.name, elapsed(since))
    if len(chosen) > 1:
        log.info('=== all %d stages took %s', len(chosen), elapsed(begun))
    torchutils.leave_processes()
    return 0


def main(arguments: list[str] | None = None) -> int:
    args, reason = build_parser().parse_args(arguments), None
    args.running = False
    try:
        return run(args)
    except UserError as error:
        reason = f'error: {error}'
    except torch.OutOfMemoryError:
        reason = ("error: the GPU's memory is not enough: --precision bf16 halves the need; a training takes --accumulate "
                  'or a smaller crop size, other stages smaller --cam_scales')
    except RuntimeError as error:
        if torchutils.world()[1] == 1 or 'onnection' not in str(error):
            raise
        reason = f'process {torchutils.world()[0]} ends, because another one did'
    except KeyboardInterrupt:
        reason = 'stopped by Ctrl-C; the same command goes on'
    finally:
        if reason is not None:
            log.info('%s', reason, extra={'file_only': True})  # the screen has it on stderr
        stop_log()
        unlock()
    stopped = reason.startswith('stopped')
    if os.environ.get('LOCAL_RANK', '0') == '0' or (args.running and not stopped):  # else all processes say the same
        print(reason, file=sys.stderr)
    return 130 if stopped else 1


if __name__ == '__main__':
    sys.exit(main())

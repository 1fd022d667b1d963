"""Pascal VOC 2012 as a source: names and colours of the classes, where files lie, labels from the XML, lists.

Nothing outside voc12/ knows the number of classes or the name of a folder.
"""
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from misc.contract.sources import Check, Source, some
from misc.files.labels import PALETTE
from misc.pyutils import UserError

CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
           'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
FOLDERS = ('JPEGImages', 'Annotations', 'ImageSets/Segmentation')


def _is_root(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS)


def read_list(path: str | os.PathLike) -> list[str]:
    """The ids of a list file: the first word of each line, without folder and extension (so '2007_000032' and the
    authors' '/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png' both work).

    Raises UserError for an empty list and for an id that occurs twice.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read as a list of image ids: {error}') from error
    ids = [os.path.splitext(os.path.basename(line.split()[0]))[0] for line in lines if line.strip()]
    if not ids:
        raise UserError(f'{path}: an empty list; write one image id a line')
    if len(set(ids)) < len(ids):
        twice = next(name for name, times in Counter(ids).items() if times > 1)
        raise UserError(f'{path}: {twice} is listed twice')
    return ids


class VOC12(Source):
    """The devkit's folder VOCdevkit/VOC2012.

    Raises UserError where `root` is not such a folder.
    """

    name = 'voc12'
    root_is = 'the folder VOC2012 that holds JPEGImages'
    lists = {'train_list': 'voc12/train_aug.txt', 'val_list': 'voc12/val.txt', 'infer_list': 'voc12/train.txt',
             'eval_set': 'train', 'seg_list': 'voc12/val.txt'}  # as the authors' script has them
    environment, usual = 'VOC12_ROOT', 'VOCdevkit/VOC2012'
    classes = CLASSES
    palette = PALETTE
    server_layout = {'test': 'results/VOC2012/Segmentation/comp6_test_cls'}  # split -> where the evaluation server wants it

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self._images: set[str] | None = None
        if _is_root(self.root):
            return
        if not self.root.is_dir():
            raise UserError(f'{root}: no such folder; --voc12_root is the folder VOC2012 that holds JPEGImages')
        for below in (self.root / 'VOC2012', self.root / 'VOCdevkit' / 'VOC2012'):
            if _is_root(below):
                raise UserError(f'{root} is too high a level: give --voc12_root {below}')
        for above in (self.root.resolve().parent, self.root.resolve().parent.parent):
            if _is_root(above):
                raise UserError(f'{root} is too low a level: give --voc12_root {above}')
        missing = ', '.join(name for name in FOLDERS if not (self.root / name).is_dir())
        raise UserError(f'{root} is not a VOC 2012 folder: it has no {missing}')

    def image_path(self, image_id: str) -> Path:
        return self.root / 'JPEGImages' / f'{image_id}.jpg'

    def xml_path(self, image_id: str) -> Path:
        return self.root / 'Annotations' / f'{image_id}.xml'

    def mask_path(self, image_id: str) -> Path:
        """The true label map (object borders 255); may be missing: only scores need it."""
        return self.root / 'SegmentationClass' / f'{image_id}.png'

    def object_mask_path(self, image_id: str) -> Path:
        """The true instances, numbered from 1 (borders 255); may be missing."""
        return self.root / 'SegmentationObject' / f'{image_id}.png'

    def names(self, list_or_split: str | os.PathLike) -> list[str]:
        """The ids of a list file, or of a split under ImageSets/Segmentation.

        Raises UserError where there is neither, and where images are missing, with their number.
        """
        split = self.root / 'ImageSets' / 'Segmentation' / f'{list_or_split}.txt'
        path = Path(list_or_split)
        if not path.is_file():
            if not split.is_file():
                raise UserError(f'{list_or_split}: neither a list file nor a split (there is no {split})')
            path = split
        ids = read_list(path)
        missing = self._without_image(ids)
        if missing:
            raise UserError(f'{path}: {len(missing)} of its {len(ids)} images are not in {self.root}/JPEGImages: '
                            f'{some(missing)}; give a list that fits, or the name of a split of that folder')
        return ids

    def labels(self, image_id: str) -> np.ndarray:
        """Image-level labels, bool (C,), from the XML's object/name; difficult objects count.

        Raises UserError for a missing or unreadable XML and for a name that is not among the classes.
        """
        path = self.xml_path(image_id)
        try:
            objects = ElementTree.parse(path).getroot().findall('object')
        except FileNotFoundError as error:
            raise UserError(f'{path}: missing; image-level labels are read from it') from error
        except (ElementTree.ParseError, OSError) as error:
            raise UserError(f'{path}: not readable as XML: {error}') from error
        present = np.zeros(self.n_classes, bool)
        for name in (element.findtext('name', '').strip() for element in objects):
            if name not in self.classes:
                raise UserError(f'{path}: {name!r} is not one of the {self.n_classes} classes')
            present[self.classes.index(name)] = True
        return present

    def check(self, ids: Iterable[str]) -> Check:
        """What is there and what is missing for `ids`. An XML that cannot be read counts as missing."""
        ids = list(ids)
        result = Check(len(ids), self._without_image(ids), [], [], [], np.zeros(self.n_classes, np.int64))
        for image_id in ids:
            if not self.mask_path(image_id).is_file():
                result.missing_mask.append(image_id)
            try:
                present = self.labels(image_id)
            except UserError:
                result.missing_annotation.append(image_id)
                continue
            result.per_class += present
            if not present.any():
                result.no_class.append(image_id)
        return result

    def _without_image(self, ids: list[str]) -> list[str]:
        if self._images is None:  # one look at the folder instead of one at each of thousands of files
            self._images = {name for name in os.listdir(self.root / 'JPEGImages') if name.endswith('.jpg')}
        return [image_id for image_id in ids if f'{image_id}.jpg' not in self._images]

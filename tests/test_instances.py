"""Instance masks: golden centres, clusters and masks, drawn displacements, AP by hand, both stages
through the command.
"""
import contextlib
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from misc import indexing, networks
from misc.files import label_maps
from misc.method import instances, maps, seeds
from misc.method.instances import Instances
from misc.method.walking import edge_and_displacement, edge_of
from misc.pyutils import UserError
from misc.score import average_precision
from net import resnet50_irn
from tests.conftest import GOLDEN, Command, formula_state
from tests.tiny import QUICK
from voc12.dataloader import VOC12

IDS = [f'2007_00000{number}' for number in range(1, 5)]


def golden():
    return dict(np.load(GOLDEN / 'instances.npz'))


def instances_of(text, classes, scores=None):
    """Instances from a drawing of digits, one row a word; '.' is none."""
    drawn = np.array([[0 if mark == '.' else int(mark) for mark in row] for row in text.split()],
                     np.int32)
    return Instances(np.array(classes, np.int64),
                     np.array(scores or [1.0] * len(classes), np.float32), drawn)


# centres and clusters

@pytest.mark.golden
def test_centroids_and_clusters_are_the_authors():
    g = golden()
    displacement = torch.from_numpy(g['displacement'])
    centres = instances.centroids(displacement)
    assert np.array_equal(centres.numpy(), g['centroids'])
    assert np.array_equal(instances.clusters(displacement, centres).numpy(),
                          g['clusters'].argmax(0))


def plain_centroids(displacement, rounds):
    """Section 5 of IRN, position by position, in float32."""
    one = np.float32(1)
    _, h, w = displacement.shape
    result = np.zeros((2, h, w), np.int64)
    for row in range(h):
        for column in range(w):
            y, x = np.float32(row), np.float32(column)
            for _ in range(rounds):
                top, left = int(np.floor(y)), int(np.floor(x))
                bottom, right = int(np.ceil(y)), int(np.ceil(x))
                dy, dx = y - np.float32(top), x - np.float32(left)
                step = [plane[bottom, right] * dy * dx + plane[bottom, left] * dy * (one - dx)
                        + plane[top, right] * (one - dy) * dx + plane[top, left] * (one - dy) *
                        (one - dx)
                        for plane in displacement]
                y, x = np.clip(y + step[0], 0,
                               np.float32(h - 1)), np.clip(x + step[1], 0, np.float32(w - 1))
            result[:, row, column] = np.round(y), np.round(x)
    return result


@pytest.mark.parametrize('hw', [(6, 9), (1, 5), (7, 1), (1, 1)])
def test_centroids_against_a_plain_version(hw):
    displacement = (np.random.default_rng(0).standard_normal((2, *hw)) * 2).astype(np.float32)
    ours = instances.centroids(torch.from_numpy(displacement), rounds=25)
    assert np.array_equal(ours.numpy(), plain_centroids(displacement, 25))


def drawn_discs(hw, discs):
    """Displacements that point to the centre within each disc (y, x, radius), 0 elsewhere; and the
    discs' masks.
    """
    grid = torch.stack(torch.meshgrid(torch.arange(hw[0]), torch.arange(hw[1]),
                                      indexing='ij')).float()
    displacement, masks = torch.zeros(2, *hw), []
    for y, x, radius in discs:
        to_centre = torch.tensor([y, x])[:, None, None] - grid
        masks.append(to_centre.norm(dim=0) <= radius)
        displacement[:, masks[-1]] = to_centre[:, masks[-1]]
    return displacement, masks


def test_two_discs_are_two_clusters():
    displacement, (first, second) = drawn_discs((40, 60), [(12, 14, 8), (20, 40, 10)])
    centres = instances.centroids(displacement)
    assert centres[:, first].T.unique(dim=0).tolist() == [[12, 14]]
    assert centres[:, second].T.unique(dim=0).tolist() == [[20, 40]]
    cluster_map = instances.clusters(displacement, centres)
    # what lies outside is a cluster, too: it is weak, and in one piece
    assert cluster_map.unique().tolist() == [0, 1, 2]
    assert [cluster_map[mask].unique().numel()
            for mask in (first, second, ~(first | second))] == [1, 1, 1]


def test_weak_regions_that_touch_are_one_cluster():
    """Displacements shorter than 2.5 hold centres; here all are, so all positions belong together.
    """
    displacement, _ = drawn_discs((10, 10), [(5, 5, 2)])
    assert instances.clusters(displacement,
                              instances.centroids(displacement)).unique().tolist() == [0]


def test_centroids_outside_of_weak_regions_are_a_cluster():
    """Everything is pushed to the last row, where the displacement is as strong as anywhere; the
    first column rests.
    """
    displacement = torch.tensor([5.0, 0.0])[:, None, None].repeat(1, 8, 6)
    displacement[:, :, 0] = 0
    centres = instances.centroids(displacement)
    assert centres[0, :, 1:].unique().tolist() == [7]
    cluster_map = instances.clusters(displacement, centres)
    assert cluster_map[:, 1:].unique().tolist() == [0]
    assert cluster_map[:, 0].unique().tolist() == [1]


def test_a_displacement_of_exactly_two_and_a_half_is_not_weak():
    displacement = torch.zeros(2, 1, 7)
    displacement[1, 0] = torch.tensor([1, 0, 0, 2.5, 0, 0, 0])
    # position 3 goes to 5.5 and stays there, which is rounded to 6; 0 goes to 1
    centres = instances.centroids(displacement)
    assert centres[1, 0].tolist() == [1, 1, 2, 6, 4, 5, 6]
    assert instances.clusters(displacement, centres)[0].tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_components_are_numbered_by_their_first_pixels():
    """On a map large enough for cv2 to share it among threads."""
    mask = np.random.default_rng(0).random((700, 900)) < 0.55
    components = instances._components(mask)
    assert np.array_equal(components > 0, mask)
    numbers, first = np.unique(components[mask], return_index=True)
    assert (np.diff(first) > 0).all() and numbers.tolist() == list(range(1, len(numbers) + 1))
    beside, below = mask[:, 1:] & mask[:, :-1], mask[1:] & mask[:-1]
    assert (components[:, 1:] == components[:,
                                            :-1])[beside].all() and (
                                                components[1:] == components[:-1])[below].all()


# instances

@pytest.mark.golden
def test_instances_are_the_authors():
    g = golden()
    found = instances.find(g['keys'],
                           *(torch.from_numpy(g[name]) for name in ('cam', 'edge', 'displacement')),
                           0.25, 10, 8, tuple(g['size']))
    masks = (
        np.unpackbits(g['masks'])[:np.prod(g['mask_shape'])].reshape(g['mask_shape']).astype(bool))
    assert found.classes.tolist() == g['classes'].tolist()
    assert found.scores == pytest.approx(g['scores'], abs=1e-4)
    assert ((found.scores == 0) == (g['scores'] == 0)).all()
    drawn = np.arange(1, len(masks) + 1)[:, None, None] == found.instance_map
    assert (drawn != masks).mean() <= 1e-5


@pytest.mark.parametrize('threshold', [0.0, 0.25, 0.9, 1.0])
def test_planes_given_up_early_would_have_won_nothing(threshold):
    """Against all K * M planes at once, none given up."""
    generator, m, hw = torch.Generator().manual_seed(0), 12, (85, 118)
    strided = torch.rand(2, 22, 30, generator=generator) ** 2
    strided[1, :, 10:] = 0  # most of these planes are empty
    edge = torch.rand(1, 22, 30, generator=generator) ** 0.3
    cluster_map = (torch.arange(22)[:, None] // 8 * 4 + torch.arange(30) // 8) % m
    planes = (strided[:, None] * (torch.arange(m)[:, None, None] == cluster_map)).flatten(0, 1)
    walked = maps.resize(indexing.propagate_to_edge(planes, edge, beta=10, exp_times=4)[:, 0],
                         (88, 120))[:, :85, :118]
    walked = (walked / walked.max()).numpy()
    winner, value = instances._winners(strided, cluster_map, indexing.RandomWalk(edge, exp_times=4),
                                       threshold, hw)
    assert np.array_equal(winner.numpy(), seeds.arg_max(walked, threshold) - 1)
    assert len(winner.unique()) > (5 if threshold < 0.5 else 0)
    won = winner.numpy() >= 0
    assert value.numpy()[won] == pytest.approx(walked.max(0)[won], rel=1e-5)


def test_pieces_of_a_plane_are_instances_of_their_own():
    winner = np.full((10, 20), -1)
    winner[0:4, 0:5] = 3  # class 1, cluster 1 of 2
    winner[6, 6] = 3  # a fragment: half a percent
    winner[8, 10:12] = 0  # class 0, cluster 0: exactly one percent
    winner[4, 5] = 3  # touches the first at a corner only
    value = np.where(winner == 3, 0.5, 0.75).astype(np.float32)
    value[2, 2] = 0.9
    found = instances._separate(np.array([4, 7]), winner, value, 2)
    assert found.classes.tolist() == [4, 7, 7, 7]
    assert found.scores.tolist() == [np.float32(0.75), np.float32(0.9), 0, 0]
    assert [(found.instance_map == number).sum() for number in range(5)] == [200 - 24, 2, 20, 1, 1]
    assert found.instance_map[8,
                              10] == 1 and found.instance_map[
                                  4, 5] == 3 and found.instance_map[6, 6] == 4


@pytest.mark.parametrize('strided', [torch.zeros(2, 5, 6), torch.zeros(0, 5, 6)])
def test_nothing_found_is_empty(strided):
    found = instances.find(np.arange(len(strided)), strided, torch.zeros(1, 5, 6),
                           torch.zeros(2, 5, 6), 0.25, 10, 2, (19, 23))
    assert found.classes.shape == found.scores.shape == (0,)
    assert found.instance_map.shape == (19, 23) and not found.instance_map.any()


def test_displacements_part_what_touches():
    """Two discs of one class, side by side: two instances along their displacements, one without.
    """
    displacement, masks = drawn_discs((40, 60), [(20, 14, 9), (20, 33, 9)])
    hw, both = (157, 239), masks[0] | masks[1]
    truth = sum(number * np.kron(mask, np.ones((4, 4), np.int32))[:157, :239]
                for number, mask in enumerate(masks, start=1))
    truth = Instances(np.array([6, 6]), np.ones(2, np.float32), truth)

    def find(displacement):
        return instances.find(np.array([6]), both[None].float(), torch.zeros(1, 40, 60),
                              displacement, 0.5, 10, 0, hw)

    found = find(displacement)
    assert found.classes.tolist() == [6, 6]
    assert average_precision.matches(found, truth).tolist() == [True, True]
    assert find(torch.zeros_like(displacement)).classes.tolist() == [6]


# one pass of the network

def test_edge_and_displacement_are_the_authors():
    g = np.load(GOLDEN / 'forward.npz')
    net = resnet50_irn.Net()
    net.load_state_dict(formula_state(net))
    networks.prepare(net, torch.device('cpu'), 'fp32')
    edge, displacement = edge_and_displacement(net, torch.from_numpy(g['x'][:1]), 'fp32', 128)
    for ours, name in ((edge, 'irn_pair_edge'), (displacement, 'irn_pair_displacement')):
        theirs = g[name].reshape(ours.shape)
        assert np.abs(ours.numpy() - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize('mirrored_apart', [10 ** 9, 0])
def test_the_displacement_is_that_of_the_image_alone(monkeypatch, mirrored_apart):
    from tests.tiny.irn import Net
    torch.manual_seed(0)
    net = Net().eval()
    net.mean_shift.running_mean.copy_(torch.tensor([3.0, -1.0]))
    monkeypatch.setattr(maps, 'MIRRORED_APART', mirrored_apart)
    image = torch.randn(1, 3, 33, 49)
    edge, displacement = edge_and_displacement(net, image, 'fp32', 0)
    with torch.no_grad():
        assert torch.allclose(displacement, net(image)[1][0], atol=1e-6)
    assert torch.equal(edge, edge_of(net, image, 'fp32', 0))
    assert displacement.shape == (2, 9, 13)


# files

def test_files_come_back_as_they_were(tmp_path):
    for found in (instances_of('11.. .122', [3, 0], [0.5, 0.0]), instances.nothing((1, 1))):
        instances.save(tmp_path, 'a', found)
        back = instances.load(tmp_path, 'a')
        for ours, theirs in zip(found, back, strict=True):
            assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    assert [path.name for path in tmp_path.iterdir()] == ['a.npz']


def test_the_keys_of_a_file(tmp_path):
    instances.save(tmp_path, 'a', instances_of('11.. .122', [3, 0], [0.5, 0.0]))
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as stored:
        assert {name: (str(stored[name].dtype), stored[name].tolist()) for name in stored} == {
            'class': ('int64', [3, 0]), 'score': ('float32', [0.5, 0]),
            'instances': ('int32', [[1, 1, 0, 0], [0, 1, 2, 2]])}


def test_broken_files_are_told_of(tmp_path):
    with pytest.raises(UserError, match=r'a\.npz: no such instance masks; make them'):
        instances.load(tmp_path, 'a', 'make them')
    (tmp_path / 'a.npz').write_bytes(b'nothing')
    with pytest.raises(UserError, match='not a whole file of instance masks .*delete it'):
        instances.load(tmp_path, 'a')
    np.savez(tmp_path / 'a.npz', **{'class': np.array([{}]), 'score': np.ones(1),
                                    'instances': np.ones((1, 1), int)})
    with pytest.raises(UserError, match='not a whole file'):  # no pickle is opened
        instances.load(tmp_path, 'a')
    instances.save(tmp_path, 'a', instances_of('112', [3]))
    with pytest.raises(UserError, match='do not fit together'):
        instances.load(tmp_path, 'a')


# average precision

def test_matches_by_hand():
    truth = instances_of('1111.22.. 1111.22.. 1111.22.3', [5, 5, 7])
    found = instances_of('11122.44. 11122.4.. 333.2...5', [5, 5, 5, 5, 5],
                         [0.4, 0.9, 0.8, 0.7, 0.6])
    # with objects 1 and 2: IoU 6 / 12, which is enough; 2 / 15; 3 / 12; 2 / 7; object 3, under
    # instance 5, is of class 7
    assert average_precision.matches(found, truth).tolist() == [True, False, False, False, False]
    assert average_precision.matches(found._replace(classes=np.full(5, 7)),
                                     truth).tolist() == [False] * 4 + [True]


def test_an_object_is_taken_once_by_the_highest_score():
    """Of two halves of an object, each with an IoU of 0.5, the second in order has the higher
    score.
    """
    truth, found = instances_of('1111', [2]), instances_of('1122', [2, 2], [0.3, 0.6])
    assert average_precision.matches(found, truth).tolist() == [False, True]
    assert average_precision.matches(found._replace(scores=np.array([0.6, 0.6])),
                                     truth).tolist() == [True, False]


def test_matches_without_objects_or_instances():
    one, none = instances_of('11.', [2]), instances.nothing((1, 3))
    assert average_precision.matches(one, none).tolist() == [False]
    assert average_precision.matches(none, one).tolist() == []


def test_average_precision_by_hand():
    # in order of score: right, wrong, right, wrong, right; 4 objects
    scores, matched = np.array([0.5, 0.9, 0.8, 0.6,
                                0.7]), np.array([True, True, False, False, True])
    # precisions 1, 1/2, 2/3, 2/4, 3/5; their envelope at recalls 1/4, 2/4, 3/4: 1, 2/3, 3/5;
    # nothing at 4/4
    assert average_precision.average_precision(scores, matched,
                                               4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # equal scores keep their order
    assert average_precision.average_precision(np.zeros(2), np.array([False, True]), 1) == 0.5
    assert average_precision.average_precision(np.zeros(2), np.array([True, False]), 1) == 1
    assert average_precision.average_precision(np.empty(0), np.empty(0, bool), 3) == 0
    assert np.isnan(average_precision.average_precision(np.ones(1), np.zeros(1, bool), 0))


def random_scene(rng, source_classes):
    """Objects in a row, and instances that cover some share of each, some twice, some of another
    class.
    """
    truth_map, found_map = np.zeros((8, 90), np.int32), np.zeros((8, 90), np.int32)
    classes = rng.integers(0, source_classes, 9)
    found_classes = np.where(rng.random(9) < 0.8, classes, rng.integers(0, source_classes, 9))
    for number in range(9):
        truth_map[:, 10 * number:10 * number + 8] = number + 1
        start = 10 * number + int(rng.integers(0, 5))
        found_map[:, start:start + int(rng.integers(3, 9))] = number + 1
    return (Instances(classes, np.ones(9, np.float32), truth_map),
            Instances(found_classes, rng.random(9).astype(np.float32), found_map))


def to_source(tmp_path, scenes):
    """A source whose masks are the scenes' objects."""
    source = SimpleNamespace(n_classes=3, classes=('a', 'b', 'c'),
                             image_path=lambda name: f'{name}.jpg',
                             mask_path=lambda name: tmp_path / f'{name}_class.png',
                             object_mask_path=lambda name: tmp_path / f'{name}_object.png')
    for name, truth in scenes.items():
        label_maps.save(source.object_mask_path(name), truth.instance_map, VOC12.palette)
        label_maps.save(source.mask_path(name), np.append(0, truth.classes + 1)[truth.instance_map],
                        VOC12.palette)
    return source


def test_against_pycocotools_at_many_recalls(tmp_path):
    """COCO's definition is an average over given recalls; over very many of them it is the area."""
    rng = np.random.default_rng(0)
    scenes = {str(number): random_scene(rng, 3) for number in range(6)}
    source = to_source(tmp_path, {name: truth for name, (truth, _) in scenes.items()})
    ours = average_precision.score(source, list(scenes), lambda name: scenes[name][1], 0)
    truth, found = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        for coco, which in ((truth, 0), (found, 1)):
            coco.dataset = instances.to_coco(source, scenes, lambda name,
                                             which=which: scenes[name][which])
            coco.createIndex()
        evaluation = COCOeval(truth, found, 'segm')
        evaluation.params.iouThrs, evaluation.params.maxDets = np.array([0.5]), [1000]
        evaluation.params.recThrs = (np.arange(10000) + 0.5) / 10000
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluation.evaluate()
        evaluation.accumulate()
    theirs = evaluation.eval['precision'][0, :, :, 0, 0].mean(0)
    assert ours.ap == pytest.approx(theirs, abs=1e-3)
    assert ours.mean == pytest.approx(theirs.mean(), abs=1e-3)
    assert 0.2 < ours.ap.min() < ours.ap.max() < 0.9  # a case that can tell definitions apart
    assert ours.objects.sum() == 6 * 9


def test_classes_without_an_object_do_not_count(tmp_path):
    truth = instances_of('11.22', [2, 2])
    source = to_source(tmp_path, {'x': truth})
    score = average_precision.score(source, ['x'], lambda name: instances_of('11.33', [2, 0, 1]), 0)
    assert np.isnan(score.ap[:2]).all() and score.ap[2] == score.mean == 0.5
    assert score.objects.tolist() == [0, 0, 2]


def test_objects_are_read_with_their_class(tmp_path):
    truth = instances_of('11.22.33', [0, 2, 0])
    source = to_source(tmp_path, {'x': truth})
    # any numbers; 255 belongs to none
    borders = np.array([[9, 9, 255, 4, 4, 255, 12, 12]], np.uint8)
    label_maps.save(source.object_mask_path('x'), borders, VOC12.palette)
    read = average_precision.read_objects(source, 'x', (1, 8))
    assert read.classes.tolist() == [2, 0, 0]
    assert read.instance_map.tolist() == [[2, 2, 0, 1, 1, 0, 3, 3]]
    # what is found on a border counts: IoU 2 / 4
    found = instances_of('1111....', [0])
    assert average_precision.matches(found, read).tolist() == [True]
    assert average_precision.matches(instances_of('11111...', [0]), read).tolist() == [False]


@pytest.mark.parametrize(('objects', 'message'), [
    (np.array([[1, 1, 0, 0]], np.uint8), r'object 1 has no class in .*x_class\.png'),
    (np.array([[0, 0, 0]], np.uint8), r'\(1, 3\), the label map of x is \(1, 4\)')])
def test_masks_that_do_not_fit_are_told_of(tmp_path, objects, message):
    source = to_source(tmp_path, {'x': instances_of('..11', [2])})
    label_maps.save(source.object_mask_path('x'), objects, VOC12.palette)
    with pytest.raises(UserError, match=message):
        average_precision.read_objects(source, 'x', (1, 4))


def test_nothing_to_score_and_unknown_classes_are_told_of(tmp_path):
    source = to_source(tmp_path, {'x': instances.nothing((1, 4)), 'y': instances_of('1111', [1])})
    with pytest.raises(UserError, match='1 images hold no object'):
        average_precision.score(source, ['x'], lambda name: instances.nothing((1, 4)), 0)
    with pytest.raises(UserError, match='of y hold classes above 3'):
        average_precision.score(source, ['y'], lambda name: instances_of('1111', [3]), 0)


# COCO's format

def test_coco_file_is_read_by_pycocotools(tmp_path):
    found = {'a': instances_of('11.. .1.2 .333', [2, 0, 1], [0.5, 0.0, 0.25]),
             'b': instances.nothing((4, 5))}
    source = to_source(tmp_path, {})
    (tmp_path / 'coco.json').write_text(json.dumps(instances.to_coco(source, found,
                                                                     found.__getitem__)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / 'coco.json'))
    assert [{name: coco.imgs[number][name] for name in ('id', 'file_name', 'height', 'width')}
            for number in (1, 2)] == [
        {'id': 1, 'file_name': 'a.jpg', 'height': 3, 'width': 4},
        {'id': 2, 'file_name': 'b.jpg', 'height': 4, 'width': 5}]
    assert [category['name'] for category in coco.loadCats([1, 2, 3])] == ['a', 'b', 'c']
    annotations = coco.loadAnns(coco.getAnnIds())  # without the fragment, whose score is 0
    assert [{name: one[name] for name in ('image_id', 'category_id', 'score', 'area', 'bbox',
                                          'iscrowd')}
            for one in annotations] == [
        {'image_id': 1, 'category_id': 3, 'score': 0.5, 'area': 3, 'bbox': [0, 0, 2, 2],
         'iscrowd': 0},
        {'image_id': 1, 'category_id': 2, 'score': 0.25, 'area': 3, 'bbox': [1, 2, 3, 1],
         'iscrowd': 0}]
    for number, annotation in zip((1, 3), annotations, strict=True):
        assert np.array_equal(coco.annToMask(annotation), found['a'].instance_map == number)
        assert coco_mask.area(annotation['segmentation']) == 3


# the stages

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Both stages through the command after a short training of small networks."""
    command = Command(GOLDEN / 'tree', tmp_path_factory.mktemp('made'))
    shutil.copytree(GOLDEN / 'expected' / 'amn_ir_label', command.folder / 'amn_ir_label')
    assert command('train_cam', 'make_cam', 'train_irn', 'make_ins_seg', 'eval_ins_seg',
                   ins_seg_coco_json=command.folder / 'coco.json', **QUICK) == 0
    return command


def test_the_stages_leave_masks_a_score_and_a_coco_file(made):
    assert sorted(path.name for path in (made.folder / 'ins_seg').iterdir()) == [
        *(f'{image_id}.npz' for image_id in IDS), '_inputs.jsonl', '_settings.json', 'classes.txt']
    legend = (made.folder / 'ins_seg' / 'classes.txt').read_text().splitlines()
    assert (legend[0], legend[-1]) == ('0 aeroplane', '19 tvmonitor')  # `class` is from 0
    source, total = VOC12(made.tree), 0
    for image_id in IDS:
        found = instances.load(made.folder / 'ins_seg', image_id)
        assert found.instance_map.shape == label_maps.load(source.mask_path(image_id)).shape
        assert set(found.classes) <= set(np.flatnonzero(source.labels(image_id)))
        total += int((found.scores > 0).sum())
    assert total > 0
    content = json.loads((made.folder / 'coco.json').read_text())
    assert len(content['annotations']) == total and len(content['images']) == len(IDS)
    score = made.scores()['eval_ins_seg']
    assert (score['split'], score['images'], score['threshold'],
            score['iou_threshold']) == ('train', 4, 0.25, 0.5)
    assert sum(score['objects'].values()) == 11
    known = [value for value in score['ap'].values() if value is not None]
    assert score['map'] == pytest.approx(np.mean(known), abs=1e-6)


def test_the_true_objects_score_one(made, tmp_path):
    source = VOC12(made.tree)
    for image_id in IDS:
        hw = label_maps.load(source.mask_path(image_id)).shape
        instances.save(tmp_path / 'ins_seg', image_id,
                       average_precision.read_objects(source, image_id, hw))
    command = Command(made.tree, tmp_path)
    assert command('eval_ins_seg', num_workers=2) == 0
    score = command.scores()['eval_ins_seg']
    assert score['map'] == 1
    assert score['ap']['aeroplane'] is None


def copy_of(made, folder, tree=None):
    return Command(tree or made.tree, Path(shutil.copytree(made.folder, folder)))


@pytest.mark.parametrize('workers', [0, 2])
def test_the_same_files_again(made, tmp_path, workers):
    command = copy_of(made, tmp_path / 'copy')
    shutil.rmtree(command.folder / 'ins_seg')
    assert command('make_ins_seg', num_workers=workers, **QUICK) == 0
    for path in (made.folder / 'ins_seg').iterdir():
        assert path.read_bytes() == (command.folder / 'ins_seg' / path.name).read_bytes()


@pytest.mark.parametrize(('flags', 'told'), [({'beta': 3}, 'beta: was 10.0, now 3.0'),
                                             ({'ins_seg_bg_thres': 0.5}, 'bg_thres: was 0.25, now '
                                                                         '0.5'),
                                             ({'sem_seg_canvas': 64}, 'canvas: was 512, now 64')])
def test_other_settings_are_refused(made, tmp_path, capsys, flags, told):
    command = copy_of(made, tmp_path / 'copy')
    assert command('make_ins_seg', **{**QUICK, **flags}) == 1
    assert told in capsys.readouterr().err
    assert command('make_ins_seg', overwrite=True, **{**QUICK, **flags}) == 0


@pytest.mark.parametrize('hw', [(1, 1), (3, 70)])
def test_odd_images(made, tmp_path, tree, hw):
    """One of a few pixels, and one without a class."""
    from tests.test_pipeline import add_image
    add_image(tree, 'odd', hw, ['cat'])
    add_image(tree, 'none', (33, 47), [])
    split = tree / 'ImageSets' / 'Segmentation' / 'odd.txt'
    split.write_text('odd\nnone')
    command = copy_of(made, tmp_path / 'copy', tree)
    assert command('make_cam', 'make_ins_seg', 'eval_ins_seg', train_list='odd', infer_list='odd',
                   eval_set='odd', **QUICK) == 0
    assert instances.load(command.folder / 'ins_seg', 'odd').instance_map.shape == hw
    empty = instances.load(command.folder / 'ins_seg', 'none')
    assert not len(empty.classes) and empty.instance_map.shape == (33, 47)
    assert command.scores()['eval_ins_seg']['objects']['cat'] == 1


# what the user can mend

def error_of(capsys):
    text = capsys.readouterr().err
    assert 'Traceback' not in text
    return text.splitlines()[-1]


def test_missing_object_masks_are_told_of_before_the_first_stage(tree, tmp_path, capsys):
    (tree / 'SegmentationObject' / '2007_000002.png').unlink()
    command = Command(tree, tmp_path / 'out')
    assert command('train_cam', 'make_cam', 'make_ins_seg', 'eval_ins_seg', **QUICK) == 1
    assert '2007_000002.png: 1 of the 4 object masks of train are missing' in error_of(capsys)
    assert not command.folder.exists()


def test_a_source_without_objects_is_told_of(tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(VOC12, 'object_mask_path', None)
    (tmp_path / 'out' / 'ins_seg').mkdir(parents=True)
    assert Command(tree, tmp_path / 'out')('eval_ins_seg') == 1
    assert 'eval_ins_seg: voc12 has no masks of single objects' in error_of(capsys)


def test_what_is_missing_is_named(made, tree, tmp_path, capsys):
    assert Command(tree, tmp_path / 'out')('eval_ins_seg') == 1
    assert 'run --make_ins_seg_pass True first' in error_of(capsys)
    command = copy_of(made, tmp_path / 'copy')
    shutil.copy(command.folder / 'cam' / '2007_000001.npz',
                command.folder / 'cam' / '2007_000002.npz')
    assert command('make_ins_seg', overwrite=True, **QUICK) == 1
    assert ('1 of 4 images failed' in (line := error_of(capsys))
            and '2007_000002 has another size than its image' in line)


def test_a_network_without_displacement_is_told_of(made, tmp_path, capsys, monkeypatch):
    from tests.tiny import irn
    monkeypatch.delattr(irn.Net, 'displacement')
    assert copy_of(made, tmp_path / 'copy')('make_ins_seg', **QUICK) == 1
    assert ('--irn_network tests.tiny.irn: instance masks need its method displacement'
            in error_of(capsys))


def test_coco_json_holds_what_pycocotools_and_trainers_read(tmp_path):
    """COCO.info(), and loadRes of 2.0.9 and 2.0.10, read `info` and `licenses`."""
    scenes = {name: random_scene(np.random.default_rng(1), 3)[1] for name in ('cat/1', 'dog/1')}
    source = to_source(tmp_path, {})
    content = json.loads(json.dumps(instances.to_coco(source, scenes, scenes.get)))
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        coco.info()
        found = coco.loadRes([{key: one[key] for key in ('image_id', 'category_id', 'segmentation',
                                                         'score')}
                              for one in content['annotations']])
    assert len(found.anns) == len(content['annotations']) > 0
    assert [image['file_name'] for image in content['images']] == ['cat/1.jpg', 'dog/1.jpg']
    assert content['categories'][0] == {'id': 1, 'name': 'a', 'supercategory': 'object'}
    assert {image['license'] for image
            in content['images']} == {one['id'] for one in content['licenses']}
    assert content['annotations'][0].keys() == {'id', 'image_id', 'category_id', 'iscrowd', 'score',
                                                'area', 'bbox',
                                               'segmentation'}
    assert instances.to_coco(source, {'a': scenes['cat/1']},
                             lambda name: scenes['cat/1'])['images'][0]['file_name'] == 'a.jpg'

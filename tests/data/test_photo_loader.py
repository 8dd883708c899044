"""Views of photos are the same if loaded ahead or on demand, in one process or several."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as vision

from skd.data import make_test_images, make_views, strong_views, training_views
from skd.data.augmentation.policies import TRIVIALAUGMENT
from skd.data.images import DataError, Images
from skd.data.photos.decoding import decode_photo
from skd.data.photos.random_resized_crop import evaluation_view, training_view
from skd.data.photos.views import PhotoViews, TestPhotos
from skd.data.views import PixelViews, TestPixels, epoch_order
from skd.study.spec import Recipe
from tests.builders.photos import SIZE, dataset, load_photos, make_folder

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    root = tmp_path_factory.mktemp("photos")
    make_folder(root / "few")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKD_DATA", str(root))
        return load_photos(dataset("few"))


@pytest.fixture(scope="module")
def views(images: Images) -> PhotoViews:
    return make_views(images, CPU)


@pytest.fixture(scope="module")
def helped(images: Images) -> Iterator[PhotoViews]:
    """Return two loader processes; they take seconds to start, so tests share them."""
    loader = make_views(images, CPU, workers=2)
    yield loader
    loader.close()


def photos_of(views: PhotoViews, size: int = 5, epoch: int = 1) -> list[tuple[Tensor, Tensor]]:
    order, numbers = epoch_order(0, epoch, 12), views.draw_epoch(0, epoch)
    return [(part, numbers[part]) for part in order.split(size)]


def all_of(views: PhotoViews, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    views.schedule_batches(iter(batches))
    outputs = []
    for indices, numbers in batches:
        views.load_next_batch()
        outputs.append(views.batch(indices, numbers))
    return torch.cat(outputs)


def test_batches_are_the_laws_views_normalised_as_torchvision_does(images, views):
    batches = photos_of(views)
    photos = all_of(views, batches)
    assert photos.shape == (12, 3, SIZE, SIZE)
    assert photos.dtype == torch.float32
    assert photos.is_contiguous(memory_format=torch.channels_last)
    indices, numbers = map(torch.cat, zip(*batches, strict=True))
    for row, index, number in zip(photos, indices.tolist(), numbers.tolist(), strict=True):
        view = training_view(decode_photo(images.train_images.path(index)), number, SIZE)
        scaled = view.float() / 255
        assert torch.equal(row, vision.normalize(scaled, images.mean, images.std))


def test_a_view_depends_neither_on_the_batch_nor_on_what_came_before(views):
    whole = all_of(views, photos_of(views))
    assert torch.equal(all_of(views, photos_of(views, size=1)), whole)
    assert torch.equal(all_of(views, photos_of(views)[1:]), whole[5:])  # resumed within an epoch
    assert not torch.equal(all_of(views, photos_of(views, epoch=2)), whole)


def test_the_face_is_that_of_other_data_sets(images, views):
    assert views.views_per_image == 0
    assert views.size == SIZE
    assert torch.equal(views.labels, images.train_labels)
    numbers = views.draw_epoch(3, 4)
    assert numbers.shape == (12,)
    assert numbers.dtype == torch.int64
    other = views.for_training()
    assert isinstance(other, PhotoViews)
    assert other is not views
    first = torch.arange(2)
    views.schedule_batches(photos_of(views))
    views.load_next_batch()
    # Batches prepared for one training do not affect the other's.
    assert other.batch(first, numbers[:2]).shape == (2, 3, SIZE, SIZE)


def test_without_a_next_batches_are_decoded_at_once(views):
    indices, numbers = photos_of(views)[0]
    views.schedule_batches([])
    at_once = views.batch(indices, numbers)
    assert torch.equal(at_once, all_of(views, photos_of(views)[:1]))
    views.schedule_batches(photos_of(views))
    assert torch.equal(views.batch(indices, numbers), at_once)


def test_a_ready_batch_keeps_its_place_and_may_be_taken_in_rows(views):
    first, second = photos_of(views)[:2]
    views.schedule_batches([first, second])
    views.load_next_batch()
    place = views._pixels.data_ptr()
    whole = views.batch(*first)
    assert torch.equal(views.batch(first[0][:3], first[1][:3]), whole[:3])
    views.load_next_batch()
    assert views._pixels.data_ptr() == place
    views.schedule_batches([first])
    views.load_next_batch()
    assert views._pixels.data_ptr() == place
    assert torch.equal(views.batch(*first), whole)


def test_pixels_keep_their_place_where_a_small_batch_comes_first(images: Images):
    """A step recorded on an epoch's last batch reads from the same memory in all replays."""
    views = make_views(images, CPU)
    small, whole = photos_of(views)[-1], photos_of(views)[0]
    views.schedule_batches([tuple(part[:1] for part in small)], largest=len(whole[0]))
    place = views._pixels.data_ptr()
    views.schedule_batches([whole], largest=len(whole[0]))
    assert views._pixels.data_ptr() == place


def test_other_images_than_the_ready_ones_are_refused(views):
    first, second = photos_of(views)[:2]
    views.schedule_batches([first, second])
    views.load_next_batch()
    with pytest.raises(ValueError, match="not those"):
        views.batch(*second)
    views.load_next_batch()
    with pytest.raises(ValueError, match="schedule_batches"):
        views.load_next_batch()


def test_processes_give_the_same_bits_in_the_same_order(views, helped):
    for epoch in (1, 2):
        expected = all_of(views, photos_of(views, size=2, epoch=epoch))
        assert torch.equal(all_of(helped, photos_of(views, size=2, epoch=epoch)), expected)
    assert torch.equal(
        all_of(helped, photos_of(views, size=2)[3:]), all_of(views, photos_of(views)[1:])[1:]
    )


def test_processes_forget_earlier_messages(views, helped):
    helped.schedule_batches(photos_of(views, size=1, epoch=3))
    helped.load_next_batch()
    assert torch.equal(all_of(helped, photos_of(views)), all_of(views, photos_of(views)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_photo_is_named(images, views, helped, workers):
    path = images.train_images.path(7)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(DataError) as caught:
            all_of(helped if workers else views, photos_of(views))
    finally:
        path.write_bytes(whole)
    assert str(path) in str(caught.value)
    assert "truncated" in str(caught.value).lower()
    assert "Traceback" not in str(caught.value)
    assert torch.equal(
        all_of(helped, photos_of(views)), all_of(views, photos_of(views))
    )  # it continues


def test_the_global_generators_are_left_alone(views, helped):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    all_of(views, photos_of(views))
    all_of(helped, photos_of(views))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dead_process_is_reported(views):
    # Emulates torch's report: a real dead worker would disturb other tests.
    def die() -> Iterator[Tensor]:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nMore of it")
        yield

    views.schedule_batches(photos_of(views))
    views._loader._batches = die()
    with pytest.raises(DataError, match=r"died \(DataLoader .* Killed\.\); .* fewer workers"):
        views.load_next_batch()


def test_closing_ends_the_processes(views, helped):
    # The last test of the shared processes. Despite a signal they work until the loader is closed.
    processes = list(helped._loader._batches._workers)
    helped.schedule_batches(photos_of(views, size=1))
    os.kill(processes[0].pid, signal.SIGTERM)
    os.kill(processes[1].pid, signal.SIGINT)
    assert torch.equal(all_of(helped, photos_of(views, size=1)), all_of(views, photos_of(views)))
    assert all(process.is_alive() for process in processes)
    helped.close()
    for process in processes:
        process.join(timeout=60)
        assert not process.is_alive()
    with pytest.raises(ValueError, match="closed"):
        helped.schedule_batches(photos_of(views))


# Test images.


def test_test_photos_come_in_order_as_an_evaluation_sees_them(images, monkeypatch):
    monkeypatch.setattr("skd.data.photos.views.TEST_BATCH", {"cpu": 4})
    tests = make_test_images(images, CPU)
    assert isinstance(tests, TestPhotos)
    assert not tests.on_device
    batches = list(tests.batches(0, 6))
    assert [len(batch) for batch in batches] == [4, 2]
    for place, loaded in enumerate(torch.cat(batches)):
        photo = decode_photo(images.test_images.path(place))
        assert torch.equal(loaded, evaluation_view(photo, SIZE))
    assert torch.equal(torch.cat(list(tests.batches(1, 6))), torch.cat(batches)[1:])
    assert list(tests.batches(3, 3)) == []
    # Two parallel evaluations do not disturb each other.
    for one, other in zip(tests.batches(0, 6), tests.batches(0, 6), strict=True):
        assert torch.equal(one, other)
    tests.close()


def test_a_damaged_test_photo_is_named(images):
    path = images.test_images.path(5)
    whole = path.read_bytes()
    path.write_bytes(b"")
    try:
        with pytest.raises(DataError, match=f"{path.name} .*it is empty"):
            list(make_test_images(images, CPU).batches(0, 6))
    finally:
        path.write_bytes(whole)


def test_images_in_memory_have_the_same_face():
    pixels = torch.randint(0, 256, (250, 3, 8, 8), dtype=torch.uint8)
    labels = torch.zeros(250, dtype=torch.int64)
    images = Images(pixels, labels, pixels, labels, ("a",), (0.5,) * 3, (0.5,) * 3)
    views, tests = make_views(images, CPU), make_test_images(images, CPU)
    assert isinstance(views, PixelViews)
    assert isinstance(tests, TestPixels)
    assert tests.on_device
    assert [len(batch) for batch in tests.batches(0, 250)] == [100, 100, 50]
    assert torch.equal(torch.cat(list(tests.batches(30, 170))), pixels[30:170])
    assert list(tests.batches(9, 9)) == []
    indices, numbers = torch.arange(3), views.draw_epoch(0, 1)[:3]
    before = views.batch(indices, numbers)
    views.schedule_batches([(indices, numbers)])
    views.load_next_batch()
    assert torch.equal(views.batch(indices, numbers), before)
    assert views.for_training() is views
    views.close()
    tests.close()


def test_photos_are_augmented_by_the_loader_processes(images: Images, views: PhotoViews) -> None:
    recipe = Recipe(augmentation="trivialaugment")
    alone, strong = training_views(views, recipe), strong_views(views)
    batches = photos_of(views)
    plain, augmented = all_of(views, batches), all_of(alone, batches)
    assert not torch.equal(plain, augmented)
    for place, (indices, numbers) in enumerate(batches):
        pixels = views.make(indices, numbers).permute(0, 3, 1, 2)
        expected = views.normalise(TRIVIALAUGMENT(pixels, numbers.numpy()))
        assert torch.equal(augmented[5 * place : 5 * place + 5], expected)
    helped = training_views(make_views(images, CPU, workers=1), recipe)
    assert torch.equal(all_of(helped, batches), augmented)
    helped.close()
    assert not (strong.draw_epoch(0, 1) == views.draw_epoch(0, 1)).any()
    assert all_of(strong, photos_of(strong)).shape == plain.shape

"""Studies made by hand for planning: no network is built, nothing is expanded."""

from typing import Any

from skd.common.files import write_json
from skd.planning.devices import DEVICE_MODELS, PlannedDevice
from skd.planning.estimates import Estimate
from skd.planning.timings import Timing, Timings, method_digest
from skd.store.teacher_view_files import ViewsCard, ViewsFile
from skd.study.expansion import (
    Cell,
    Expansion,
    ImageInfo,
    NetworkProfile,
    ObjectiveProfile,
    TeacherNode,
)
from skd.study.spec import DatasetSpec, ImportedTeacher, MethodSpec, Recipe, RunSpec, TermSpec
from skd.study.spec import TrainedTeacher as Trained

DATASET = DatasetSpec(name="cifar100")
IMAGES = ImageInfo(train_images=50_000, test_images=10_000, size=32, channels=3, classes=100)
GPU = PlannedDevice("a100", DEVICE_MODELS["a100"])
H200 = PlannedDevice("h200", DEVICE_MODELS["h200"])
CPU = PlannedDevice("cpu", DEVICE_MODELS["cpu"])
FACTS = {
    "resnet20": (278_324, 40_818_944, 401_508, 43),
    "resnet56": (861_620, 125_753_600, 1_089_636, 115),
    "resnet8x4": (1_233_540, 177_071_104, 753_764, 21),
    "resnet32x4": (7_433_860, 1_083_040_768, 2_588_772, 69),
    "vgg13": (9_462_180, 284_936_192, 524_388, 21),
    "MobileNetV2": (812_836, 6_523_648, 423_396, 107),
}
CRD = ObjectiveProfile(parameters=16_640, bytes=51_666_568, multiply_adds=12_816_384)


def leave_views_card(file: ViewsFile) -> None:
    """Write the card of stored views, as if the views existed."""
    card = ViewsCard(
        teacher=file.teacher.id,
        teacher_sha256="0" * 64,
        dataset=file.dataset,
        output=file.output,
        precision=file.precision,
        shape=(1, 1, 1),
        sha256="0" * 64,
        seconds=1.0,
        device="a device",
        largest_difference=0.0,
        made_at="2026-01-01T00:00:00+00:00",
    )
    write_json(file.card_path, card.model_dump(mode="json"))


def network(name: str) -> NetworkProfile:
    parameters, multiply_adds, activations, layers = FACTS[name]
    return NetworkProfile(
        parameters=parameters,
        multiply_adds=multiply_adds,
        activations=activations,
        layers=layers,
        family=name[:3],
    )


def method(name: str) -> MethodSpec:
    return MethodSpec(terms=(TermSpec(term=name, version=1, settings={"weight": 1.0}),))


def study(
    pairs: tuple[tuple[str, str], ...] = (("resnet56", "resnet20"),),
    methods: tuple[str, ...] = ("student", "kd", "crd"),
    seeds: int = 3,
    imported: tuple[str, ...] = (),
    **recipe: Any,
) -> Expansion:
    """Return a study; a network's name ends at a dot: 'resnet20.7' is a resnet20 to plan for."""
    recipe = Recipe(**recipe)
    networks = {name: network(name.split(".")[0]) for pair in pairs for name in pair}
    nodes = {}
    for name in dict.fromkeys(teacher for teacher, _ in pairs):
        if name in imported:
            spec = ImportedTeacher(network=name, dataset=DATASET, sha256="0" * 64)
        else:
            run = RunSpec(
                dataset=DATASET, network=name, method=method("student"), recipe=recipe, seed=0
            )
            spec = Trained(run=run)
        nodes[name] = TeacherNode(name=name, id=spec.identity, spec=spec, origin="made up")
    cells: dict[str, Cell] = {}
    for teacher, student in pairs:
        for name in methods:
            taught = name != "student"
            spec = RunSpec(
                dataset=DATASET,
                network=student,
                teacher=nodes[teacher].spec if taught else None,
                method=method(name),
                recipe=recipe,
                seed=0,
            )
            cell = Cell(
                pair=f"{teacher}--{student}" if taught else student,
                method=name,
                teacher=teacher if taught else None,
                student=student,
                spec=spec,
                runs={
                    seed: spec.model_copy(update={"seed": seed}).identity for seed in range(seeds)
                },
                extra=CRD if name == "crd" else ObjectiveProfile(),
            )
            cells.setdefault(cell.key, cell)
    return Expansion(
        study="planned",
        sources="none",
        title="A study to plan",
        description="",
        sheet="title: A study to plan\n",
        dataset=DATASET,
        recipe=recipe,
        methods=methods,
        pairs=pairs,
        seeds=tuple(range(seeds)),
        teachers=tuple(nodes.values()),
        cells=tuple(cells.values()),
        images=IMAGES,
        networks=networks,
    )


def timing(spec: RunSpec, device: str = "NVIDIA A100-SXM4-40GB", **changes: Any) -> Timing:
    """Return a timing of a run: 10,000 images/s, epochs of 6 s, a peak of 10^9 bytes."""
    row = {
        "network": spec.network,
        "teacher": spec.teacher.network if spec.teacher else None,
        "method": method_digest(spec.method),
        "batch_size": spec.recipe.batch_size,
        "dataset": spec.dataset,
        "device": device,
        "seconds_per_epoch": 6.0,
        "images_per_second": 10_000.0,
        "peak_memory_bytes": 10**9,
        "sessions": 1,
    }
    return Timing(**{**row, **changes})


def timings(*rows: Timing) -> Timings:
    return Timings({f"runs/{place}": row for place, row in enumerate(rows)})


def estimate(seconds: float = 3600.0, utilisation: float = 0.25) -> Estimate:
    return Estimate(0.01, seconds, 10**9, 10**9, 10**6, 10**7, utilisation, "model")

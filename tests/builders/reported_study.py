"""A small made-up study with every outcome and verdict, and a store that holds it."""

from pathlib import Path

from skd.code.closure import SourceFile
from skd.store.records import Accuracy, Collapse, Record, TeacherCard
from skd.store.store import Store
from skd.study.code_roots import LOOP_FILE
from skd.study.expansion import Cell, Expansion, ImageInfo, NetworkProfile, TeacherNode
from skd.study.spec import (
    DatasetSpec,
    ImportedTeacher,
    MethodSpec,
    Recipe,
    RunSpec,
    SimplifierSpec,
    TermSpec,
)
from tests.builders import records

EVIL = "<script>alert('x')</script> & \"quoted\" | pipe"
TODAYS = "0123456789abcdef"  # digest of the loop's file
CE = TermSpec(term="cross_entropy", version=1, settings={"weight": 1.0})
KD = TermSpec(term="kd", version=1, settings={"weight": 0.9, "temperature": 4.0})
DKD = TermSpec(term="dkd", version=1, settings={"beta": 2.0, "temperature": 4.0})


def on_simplified(temperature: float) -> MethodSpec:
    settings = {"weight": 0.9, "temperature": temperature, "teacher": "simplified"}
    term = TermSpec(term="kd", version=1, settings=settings)
    simplifier = SimplifierSpec(version=1, settings={"heads": 1, "temperature": temperature})
    return MethodSpec(terms=(CE, term), simplifier=simplifier)


SKD = on_simplified(4.0)
METHODS = {
    "student": MethodSpec(terms=(CE,)),
    "kd": MethodSpec(terms=(CE, KD)),
    "dkd": MethodSpec(terms=(CE, DKD)),
    "skd": SKD,
    "skd+kd": MethodSpec(terms=(CE, KD, SKD.terms[1]), simplifier=SKD.simplifier),
    "T-8": on_simplified(8.0),
}
IMAGES = ImageInfo(train_images=50_000, test_images=10_000, size=32, channels=3, classes=100)
PAIRS = (("resnet56", "resnet20"), ("resnet110", "resnet20"), ("vgg13", "MobileNetV2"))
FIRST, SECOND, THIRD = (f"{teacher}--{student}" for teacher, student in PAIRS)
FAMILIES = {
    "resnet56": "resnet",
    "resnet110": "resnet",
    "resnet20": "resnet",
    "vgg13": "vgg",
    "MobileNetV2": "mobilenetv2",
    "resnet18": "imagenet_resnet",
    "resnet34": "imagenet_resnet",
    "resnet50": "imagenet_resnet",
    "MobileNetV1": "mobilenetv1",
}
# Last-epoch top-1 by (cell's pair, method) and seed; other seeds have no record. Beside the
# published values, at a margin of 0.5: of the third pair the student alone is reproduced (64.60),
# kd lower (67.37), dkd higher (69.71, best of 5 runs); the rest is inconclusive or not run.
ACCURACY = {
    ("resnet20", "student"): {0: 68.0, 1: 69.0, 2: 70.0},
    ("MobileNetV2", "student"): {0: 64.5, 1: 64.6, 2: 64.7},
    (FIRST, "kd"): {0: 70.0, 1: 70.5, 2: 72.0},
    (FIRST, "skd"): {0: 71.0, 1: 60.0, 2: 72.5},  # seed 1 collapsed
    (FIRST, "skd+kd"): {0: 72.0, 1: 72.4, 2: 73.9},
    (FIRST, "T-8"): {0: 70.9, 1: 71.1, 2: 72.6},
    (SECOND, "kd"): {0: 70.2},  # seed 1 failed, seed 2 is missing
    (SECOND, "skd"): {0: 69.0},  # seed 1 is truncated, seed 2 is missing
    (THIRD, "kd"): {0: 66.0, 1: 66.1, 2: 65.9},
    (THIRD, "dkd"): {0: 70.9, 1: 71.0, 2: 71.2},
}


def make_study(
    dataset: DatasetSpec | None = None,
    recipe: Recipe | None = None,
    pairs: tuple[tuple[str, str], ...] = PAIRS,
    of_methods: dict[str, dict] | None = None,
) -> Expansion:
    """Return the expansion; by default of CIFAR-100 by the common recipe."""
    dataset, recipe = dataset or DatasetSpec(name="cifar100"), recipe or Recipe()
    nodes = []
    networks = [network for network, _ in pairs]
    for network in networks:
        place = networks.index(network)
        spec = ImportedTeacher(network=network, dataset=dataset, sha256=str(place) * 64)
        node = TeacherNode(name=network, id=spec.identity, spec=spec, origin=f"{network}.pth")
        nodes.append(node)
    cells: dict[str, Cell] = {}
    for (teacher, student), node in zip(pairs, nodes, strict=True):
        rate = 0.01 if student == "MobileNetV2" else recipe.learning_rate
        own = recipe.model_copy(update={"learning_rate": rate})
        for method, spec in METHODS.items():
            taught = method != "student"
            run = RunSpec(
                dataset=dataset,
                network=student,
                teacher=node.spec if taught else None,
                method=spec,
                recipe=own.model_copy(update=(of_methods or {}).get(method, {})),
                seed=0,
            )
            cell = Cell(
                pair=f"{teacher}--{student}" if taught else student,
                method=method,
                teacher=teacher if taught else None,
                student=student,
                spec=run,
                runs={s: run.model_copy(update={"seed": s}).identity for s in range(3)},
            )
            cells.setdefault(cell.key, cell)
    return Expansion(
        study="small",
        sources="none",
        title="A small study",
        description="Made up.",
        sheet="title: A small study\n",
        dataset=dataset,
        recipe=recipe,
        methods=tuple(METHODS),
        pairs=pairs,
        seeds=(0, 1, 2),
        teachers=tuple({node.name: node for node in nodes}.values()),
        cells=tuple(cells.values()),
        images=IMAGES,
        networks={name: facts(FAMILIES[name]) for pair in pairs for name in pair},
        code={LOOP_FILE: SourceFile(digest=TODAYS, imports=())},
    )


def facts(family: str) -> NetworkProfile:
    return NetworkProfile(
        parameters=10, multiply_adds=1000, activations=100, layers=5, family=family
    )


def make_record(cell: Cell, seed: int, top1: float, **changes: object) -> Record:
    """Return a valid record whose best epoch is the second."""
    last, simplified = cell.spec.recipe.epochs, cell.spec.method.simplifier is not None
    collapsed = simplified and top1 == 60.0
    diagnostics = {
        "entropy_raw": 0.4,
        "entropy_softened": 3.6,
        "entropy_simplified": 4.6 if collapsed else 3.7,
        "top1_raw": 99.0,
        "top1_simplified": 20.0 if collapsed else 98.5,
        "kl_softened_simplified": 0.9 if collapsed else 0.02,
        "kl_simplified_student": 0.3,
    }
    epochs = tuple(
        records.make_epoch(
            epoch,
            accuracy,
            train_losses={"total": 2.0, "cross_entropy": 2.0},
            train_top1=accuracy,
            test_loss=1.5,
            test_top5=accuracy + 20,
            diagnostics=diagnostics if simplified else {},
            seconds=2.0,
            images_per_second=1000.0,
        )
        for epoch, accuracy in enumerate((top1 - 9, top1 + 0.5, *[top1] * (last - 2)), start=1)
    )
    collapse = Collapse(collapsed=collapsed, reason="lost the labels" if collapsed else "")
    values = {
        "environment": {"torch": "2.15.0", "gpu": None, "host": {"cpu": f"cpu {seed}"}},
        "num_classes": 100,
        "epochs": epochs,
        "last": Accuracy(epoch=last, top1=top1, top5=top1 + 20),
        "best": Accuracy(epoch=2, top1=top1 + 0.5, top5=top1 + 20.5),
        "cost": records.make_cost(
            train_seconds=6.0,
            seconds_per_epoch=2.0,
            images_per_second=1000.0,
            peak_memory_bytes=2**20,
            parameters=278324,
            extra_parameters=40000 if simplified else 0,
            multiply_adds=41,
        ),
        "collapse": collapse if simplified else None,
        "code": {LOOP_FILE: TODAYS},
        "finished_at": "2025-01-01T00:00:00Z",
    }
    return records.make_record(cell.run(seed), cell.runs[seed], **{**values, **changes})


def make_card(study: Expansion, name: str, **changes: object) -> TeacherCard:
    node = study.teacher(name)
    values = {
        "kind": "imported",
        "network": node.spec.network,
        "dataset": study.dataset.name,
        "origin": node.origin,
        "test_top1": 72.63,
        "test_top5": 92.0,
        "sha256": "ab" * 32,
        "parameters": 861620,
    }
    return records.make_card(node.id, **{**values, **changes})


def fill(store: Store, study: Expansion) -> None:
    """Write the records, a failure, a truncated record, and the first teacher's card."""
    for cell in study.cells:
        for seed, top1 in ACCURACY.get((cell.pair, cell.method), {}).items():
            store.run(cell.runs[seed]).write(make_record(cell, seed, top1))
    failed = store.run(study.cell(SECOND, "kd").runs[1])
    failed.write(
        records.make_failure(
            failed.id,
            EVIL,
            kind="FloatingPointError",
            details="",
            epoch=1,
            failed_at="2025-01-01T00:00:00Z",
        )
    )
    truncated = store.run(study.cell(SECOND, "skd").runs[1])
    truncated.folder.mkdir(parents=True)
    truncated.record_path.write_text('{"schema_version": 1, "id": "')
    card = make_card(study, "resnet56")
    store.teacher(card.id).write(card)


def filled(folder: Path) -> Expansion:
    """Fill a results folder, and return the study."""
    study = make_study()
    fill(Store(folder), study)
    return study

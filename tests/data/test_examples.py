"""Examples held and streamed, by one set of tests: what holds them must not matter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.data import TensorDataset

from fdfa.data.examples import Examples
from fdfa.data.pixels import Augmentation, Normalization
from fdfa.data.streamed import StreamedExamples
from fdfa.errors import ConfigError, DataError
from tests.data.writers import labels, pictures

INPUTS = torch.from_numpy(pictures(9, side=5))
LABELS = torch.from_numpy(labels(9, classes=4)).long()
BATCHES = torch.tensor([8, 0, 3, 3, 1, 7, 2]).split(3)
Part = Examples | StreamedExamples


def held(**options: object) -> Examples:
    return Examples(INPUTS, LABELS, **options)


def streamed(workers: int) -> Callable[..., StreamedExamples]:
    def make(**options: object) -> StreamedExamples:
        # Among other entries, in another order.
        order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
        inputs = torch.zeros(12, *INPUTS.shape[1:], dtype=torch.uint8)
        targets = torch.full((12,), 99)
        inputs[order[:9]], targets[order[:9]] = INPUTS, LABELS
        source = TensorDataset(inputs, targets)
        return StreamedExamples(source, order[:9], LABELS, workers=workers, **options)

    return make


MAKERS = {"held": held, "streamed here": streamed(0), "streamed by two": streamed(2)}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Part]:
    return MAKERS[request.param]


def drawn(examples: Part, **options: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(examples.batches(BATCHES, **options))


def test_batches_are_rows(make: Callable[..., Part]) -> None:
    examples = make()
    assert len(examples) == 9
    found = drawn(examples)
    assert [len(targets) for _, targets in found] == [3, 3, 1]
    for index, (inputs, targets) in zip(BATCHES, found, strict=True):
        assert torch.equal(inputs, INPUTS[index])
        assert torch.equal(targets, LABELS[index])
        assert targets.dtype == torch.int64


def test_a_batch_is_augmented_then_normalised(make: Callable[..., Part]) -> None:
    augmentation, normalization = Augmentation(padding=1, flip=True), Normalization()
    examples = make(normalization=normalization).augmented(augmentation)
    found = drawn(examples, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    for index, (inputs, _) in zip(BATCHES, found, strict=True):
        assert torch.equal(inputs, normalization(augmentation(INPUTS[index], generator)))


def test_augmentation_may_be_taken_away(make: Callable[..., Part]) -> None:
    examples = make().augmented(Augmentation(flip=True)).augmented(None)
    assert torch.equal(drawn(examples)[0][0], INPUTS[BATCHES[0]])


@pytest.mark.parametrize("augmentation", [None, Augmentation(padding=1, flip=True)])
def test_only_augmentation_draws_random_numbers(
    make: Callable[..., Part], augmentation: Augmentation | None
) -> None:
    generator = torch.Generator().manual_seed(5)
    own, torchs = generator.get_state(), torch.get_rng_state()
    drawn(make().augmented(augmentation), generator=generator)
    assert torch.equal(own, generator.get_state()) == (augmentation is None)
    assert torch.equal(torchs, torch.get_rng_state())


def test_without_a_generator_nothing_but_augmentation_moves_torch_s_own(
    make: Callable[..., Part],
) -> None:
    before = torch.get_rng_state()
    drawn(make())
    make().first(2)
    assert torch.equal(before, torch.get_rng_state())
    drawn(make().augmented(Augmentation(flip=True)))
    assert not torch.equal(before, torch.get_rng_state())


def test_readers_have_no_say_in_the_random_numbers() -> None:
    augmentation = Augmentation(padding=2, flip=True)
    runs = []
    for maker in MAKERS.values():
        torch.manual_seed(11)
        runs.append(torch.cat([inputs for inputs, _ in drawn(maker().augmented(augmentation))]))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("count", [0, 1, 9, 100])
def test_first_is_plain(make: Callable[..., Part], count: int) -> None:
    examples = make(normalization=Normalization()).augmented(Augmentation(padding=2, flip=True))
    inputs, targets = examples.first(count)
    assert torch.equal(inputs, Normalization()(INPUTS[:count]))
    assert torch.equal(targets, LABELS[:count])


def test_no_examples_still_have_a_shape() -> None:
    none = torch.arange(0)
    source = TensorDataset(INPUTS, LABELS)
    for examples in (Examples(INPUTS[:0], LABELS[:0]), StreamedExamples(source, none, none)):
        assert len(examples) == 0
        assert examples.first(5)[0].shape == (0, 3, 5, 5)
        assert list(examples.batches([])) == []


def test_an_epoch_may_be_left(make: Callable[..., Part]) -> None:
    batches = make().batches(BATCHES)
    next(batches)
    batches.close()


class Broken(TensorDataset):
    """Cannot read one of its entries."""

    error: Exception = DataError("picture 3 is damaged. Replace it.")

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == 3:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_our_error_comes_as_it_is_from_every_reader(workers: int) -> None:
    examples = StreamedExamples.of(Broken(INPUTS, LABELS), LABELS, workers=workers)
    with pytest.raises(DataError, match=r"^picture 3 is damaged\. Replace it\.$"):
        list(examples.batches(torch.arange(9).split(2)))


def test_an_error_of_the_user_s_own_dataset_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(Broken, "error", LookupError("mine"))
    examples = StreamedExamples.of(Broken(INPUTS, LABELS), LABELS)
    with pytest.raises(LookupError, match="mine"):
        list(examples.batches(torch.arange(9).split(2)))


def test_of_takes_all_entries() -> None:
    examples = StreamedExamples.of(TensorDataset(INPUTS, LABELS), LABELS)
    assert torch.equal(
        torch.cat([y for _, y in examples.batches(torch.arange(9).split(4))]), LABELS
    )


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [(INPUTS, LABELS[:8]), (INPUTS[0, 0, 0, 0], LABELS), (INPUTS, LABELS[:, None])],
)
def test_inputs_and_labels_that_do_not_belong_together(inputs, targets) -> None:
    with pytest.raises(DataError, match="do not belong together"):
        Examples(inputs, targets)


@pytest.mark.parametrize("indices", [torch.arange(8), torch.arange(9)[:, None]])
def test_indices_and_labels_that_do_not_belong_together(indices: torch.Tensor) -> None:
    with pytest.raises(DataError, match="do not belong together"):
        StreamedExamples(TensorDataset(INPUTS, LABELS), indices, LABELS)


@pytest.mark.parametrize("workers", [-1, True])
def test_impossible_workers(workers: int) -> None:
    with pytest.raises(ConfigError, match="workers="):
        StreamedExamples.of(TensorDataset(INPUTS, LABELS), LABELS, workers=workers)


def test_memory_and_device() -> None:
    examples = held(normalization=Normalization(), augmentation=Augmentation(flip=True))
    assert examples.nbytes == INPUTS.nbytes + LABELS.nbytes
    there = examples.to("meta")
    assert there.inputs.device.type == there.labels.device.type == "meta"
    assert (there.normalization, there.augmentation) == (Normalization(), Augmentation(flip=True))


def test_what_is_streamed_stays_where_it_is() -> None:
    examples = streamed(0)()
    assert examples.to("meta") is examples

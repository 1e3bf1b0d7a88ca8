"""What a grid will cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dqas_plugin.bench import Cell, Estimate, Store, estimate, open_dataset, plan, run
from dqas_plugin.bench.cost import measured_speed
from dqas_plugin.errors import UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.plugins import plugins
from dqas_plugin.recipes import recipe

QUICK = recipe("quick").with_(precision="fp32")  # 300 iterations, batch 64, 10 proxy epochs


def grid() -> list[Cell]:
    return plan(open_dataset("digits"), ["graphcut"], ratios=[0.05], allocators=["adaptive"], seeds=2, recipe=QUICK)


def test_by_hand(tmp_path: Path) -> None:
    """digits has 1,438 training and 359 test images; 72 images make batches of 36; an evaluated image costs a third."""
    found = estimate(grid(), tmp_path / "none", jobs=1, speed=lambda cell, device: 1000.0)
    training = (300 * 36 + 5 * 359 / 3) / 1000
    proxy = 1438 * (10 + 1 / 3) / 1000
    assert (found.cells, found.stored, found.proxies, found.trainings, found.searches) == (6, 0, 4, 6, 2)
    assert found.seconds == pytest.approx(2 * proxy + 2 * training + 6 * training)
    assert not (tmp_path / "none").exists()
    assert str(found) == (
        "6 cells, 0 of them stored; left to do: at most 4 trainings of proxies and 6 of final networks, about 2 min with 1 job "
        "(an estimate, from a few training steps on this machine); not counted: the search for class counts in 2 cells"
    )


def test_more_jobs_take_less_time(tmp_path: Path) -> None:
    one, two = (estimate(grid(), tmp_path, jobs=jobs, speed=lambda cell, device: 100.0) for jobs in (1, 2))
    assert two.seconds == pytest.approx(one.seconds / 2 + 4)  # and the workers have to start


def test_what_is_stored_is_not_counted(tmp_path: Path) -> None:
    cells = grid()
    with Store(tmp_path) as store:
        for cell in cells[:4]:
            store.add_cell(cell, {})
    left = estimate(cells, tmp_path, jobs=1, speed=lambda cell, device: 1000.0)
    assert (left.stored, left.trainings) == (4, 2)
    assert str(estimate(cells[:4], tmp_path)) == "all 4 cells are stored: nothing is left to do"


def test_random_alone_needs_no_proxy(tmp_path: Path) -> None:
    found = estimate(plan(open_dataset("digits"), []), tmp_path, speed=lambda cell, device: 1e6)
    assert (found.proxies, found.searches) == (0, 0)
    assert "not counted" not in str(found)


def test_methods_that_read_more_than_one_training_cost_more(tmp_path: Path) -> None:
    def found(*methods: str, **options: Any) -> Estimate:
        cells = plan(open_dataset("digits"), list(methods), ratios=[0.05], seeds=2, recipe=QUICK, method_options=options)
        return estimate(cells, tmp_path, jobs=1, speed=lambda cell, device: 1000.0)

    one = 1438 * (10 + 1 / 3) / 1000
    training = (300 * 36 + 5 * 359 / 3) / 1000
    several = found("margin", "grand", repeat=4)
    assert several.proxies == 2 * 4  # of which the first also serves margin
    assert several.seconds == pytest.approx(2 * 4 * one + several.trainings * training)
    assert found("grand").proxies == 2 * 10
    walked = found("margin", "deepfool")
    assert walked.proxies == 2
    assert walked.seconds > 2 * one + walked.trainings * training + 2 * 1438 * 10 / 1000


def dqas(*methods: str, **options: Any) -> list[Cell]:
    planned = plan(open_dataset("digits"), methods or ["dqas"], **{"ratios": [0.05], "seeds": 2, "recipe": QUICK, **options})
    return [one for one in planned if one.method != "random"]


def found(cells: list[Cell], tmp_path: Path) -> Estimate:
    return estimate(cells, tmp_path, jobs=1, speed=lambda cell, device: 1000.0)


def test_what_is_judged_and_what_is_read_are_two_proxies(tmp_path: Path) -> None:
    """Grad-CAM asks a network of the original images; bins of rebuilt ones are made of the features of another."""
    one = 1438 * (10 + 1 / 3) / 1000
    training = (300 * 48 + 5 * 359 / 3) / 1000  # 72 whole images are 96 without a quarter of each, in batches of 48
    both = found(dqas(), tmp_path)
    assert (both.proxies, both.trainings) == (4, 2)
    assert both.seconds == pytest.approx(4 * one + 2 * training)
    assert found(dqas("graphcut", "dq", "dqas"), tmp_path).proxies == 4  # the first serves all
    assert found(dqas("dq"), tmp_path).proxies == 2
    assert found(dqas(bins_on="original"), tmp_path).proxies == 2
    assert found(dqas(patches={"keep": True}), tmp_path).proxies == 2
    assert found(dqas(patches={"scores": "saliency"}), tmp_path).proxies == 2
    assert found(dqas("dq", bins_on="original", patches={"scores": "saliency"}), tmp_path).proxies == 2


def test_probes_of_other_images_are_other_probes(tmp_path: Path) -> None:
    cells = dqas("graphcut", "dq", "dqas", seeds=1, refiner="error-reduction")
    assert found(cells, tmp_path).proxies == 2 + 3  # the same images of the same number would be the same probe
    assert found(dqas("graphcut", "bins", seeds=1, refiner="error-reduction"), tmp_path).proxies == 1 + 1


def test_autoencoders_are_counted_but_not_timed(tmp_path: Path) -> None:
    told = found(dqas("dq", "dqas"), tmp_path)
    assert told.autoencoders == 1  # for both seeds
    assert str(told).endswith("; not counted: the training of 1 autoencoder")
    assert found(dqas("dq", "dqas") + dqas("dq", patches={"drop_rate": 0.5}), tmp_path).autoencoders == 2
    assert found(dqas(patches={"rebuild": "harmonic"}), tmp_path).autoencoders == 0


def test_a_training_with_every_candidate_is_counted(tmp_path: Path) -> None:
    """65 of 72 images are chosen first; then come two rounds of the network without and with each of the others."""
    options = {"scorer": "retrain", "rounds": 2}
    cells = dqas("graphcut", seeds=1, refiner="error-reduction", refiner_options=options)
    told = found(cells, tmp_path)
    trainings = (1 + 1373) + (1 + 1369)
    assert told.retrainings == trainings
    once = 300 * 65 / 2 + (1438 - 65) / 3  # two batches make an epoch
    usual = found(dqas("graphcut", seeds=1, refiner="error-reduction"), tmp_path)
    assert usual.retrainings == 0
    assert told.seconds - usual.seconds == pytest.approx(trainings * once / 1000)
    assert f", {trainings:,} to refine and 2 of final networks, about 7.8 h with 1 job" in str(told)


def test_more_trainings_than_allowed_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    options = {"scorer": "retrain"}
    cells = dqas("graphcut", seeds=1, refiner="error-reduction", refiner_options=options, ratios=[0.2])
    with pytest.raises(UserError, match=r"would train 1,180 networks .* \(.* years\).* option trainings=1180$"):
        run(cells, tmp_path / "results", jobs=1)
    assert not (tmp_path / "results").exists()


def test_the_speed_is_measured_once_for_a_model_and_recipe(tmp_path: Path) -> None:
    asked = []

    def speed(cell: Cell, device: str) -> float:
        asked.append(cell.budget)
        return 1000.0

    cells = plan(open_dataset("digits"), ["graphcut"], ratios=[0.05, 0.1])
    estimate([*cells, *(replace(cell, model="resnet18") for cell in cells)], tmp_path, speed=speed)
    assert asked == [144, 144]


def test_a_real_measurement() -> None:
    assert measured_speed(grid()[0], "cpu") > 10


# --- money ---------------------------------------------------------------------------------------------------------------


def paid(tmp_path: Path, price: float | None = 2.5, **options: Any) -> Estimate:
    return estimate(grid(), tmp_path / "none", price=price, speed=lambda cell, device: 1.0, **options)


def test_money_is_time_and_price_and_devices(tmp_path: Path) -> None:
    found = paid(tmp_path, jobs=1)
    assert found.money == pytest.approx(found.seconds / 3600 * 2.5)
    assert f"; at 2.50 an hour about {found.seconds / 3600 * 2.5:,.2f} (that time x the price x 1 device: an" in str(found)
    assert str(found).endswith("; not counted: the search for class counts in 2 cells")
    free = paid(tmp_path, price=None, jobs=1)
    assert free.money is None
    assert free.seconds == found.seconds
    assert not any(word in str(free) for word in ("price", "device", "an hour"))


def test_prices_of_every_size_can_be_read() -> None:
    base = Estimate(cells=6, stored=0, proxies=0, trainings=6, seconds=7200.0, jobs=4, searches=0, devices=4)
    assert "; at 1,500.00 an hour about 12,000.00 (that time x the price x 4 devices: an" in str(replace(base, price=1500))
    assert "; at 0.0001 an hour about less than 0.01 (" in str(replace(base, price=0.0001))
    assert "an hour" not in str(replace(base, stored=6, price=1500))


def test_processes_of_one_machine_are_paid_once(tmp_path: Path) -> None:
    one, two = (paid(tmp_path, jobs=jobs) for jobs in (1, 2))
    assert (one.devices, two.devices) == (1, 1)
    assert one.money is not None
    assert two.money == pytest.approx(one.money / 2 + 4 / 3600 * 2.5)  # they are paid for while they start


def test_jobs_share_the_gpus_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqas_plugin.bench.cost.default_jobs", lambda device: {"cuda": 2, "cuda:1": 1}[device])
    one = paid(tmp_path, device="cuda:1")
    assert (one.jobs, one.devices) == (1, 1)
    shared = paid(tmp_path, device="cuda:1", jobs=4)
    assert (shared.jobs, shared.devices) == (4, 1)
    assert shared.seconds == pytest.approx(one.seconds + 4)  # no faster than one job, and four have to start
    both = paid(tmp_path, device="cuda")
    assert (both.jobs, both.devices) == (2, 2)
    assert both.seconds == pytest.approx(one.seconds / 2 + 4)
    assert one.money is not None
    assert both.money == pytest.approx(one.money + 2 * 4 / 3600 * 2.5)
    assert paid(tmp_path, device="cuda", jobs=8).devices == 2
    assert paid(tmp_path, device="cuda", jobs=1).devices == 1


class Cloud:
    """An executor whose workers have a GPU each."""

    @hookimpl
    def dqas_register_executors(self, register: Any) -> None:
        register("cloud", lambda jobs: None, elsewhere=True)


def test_workers_elsewhere_have_a_device_each(tmp_path: Path) -> None:
    plugin = Cloud()
    plugins().register(plugin)
    try:
        found = [paid(tmp_path, device="cuda", jobs=jobs, executor="cloud") for jobs in (None, 3)]
    finally:
        plugins().unregister(plugin)
    assert [(one.jobs, one.devices) for one in found] == [(1, 1), (3, 3)]

"""Names, counts and the table of GPUs, against what clouds and people write."""

import itertools

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.plan.machine.hardware import (
    Hardware,
    all_gpus,
    cards_named,
    find_gpu,
    gpu_named,
    parse_on,
)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        # As SkyPilot's catalogs of Lambda, RunPod, Vast, GCP and AWS name them.
        ("V100", "V100-16"),
        ("V100-32GB", "V100-32"),
        ("A6000", "RTX A6000"),
        ("RTXA6000", "RTX A6000"),
        ("A100", "A100-40 SXM"),
        ("A100-80GB", "A100-80 SXM"),
        ("A100-80GB-SXM", "A100-80 SXM"),
        ("H100", "H100 SXM"),
        ("H100-SXM", "H100 SXM"),
        ("H200", "H200 SXM"),
        ("H200-SXM", "H200 SXM"),
        ("B200", "B200 SXM"),
        ("T4", "T4"),
        ("L4", "L4"),
        ("L40S", "L40S"),
        ("A10G", "A10G"),
        ("A10", "A10"),
        ("GH200", "GH200"),
        ("RTX6000", "RTX 6000"),
        ("RTX6000-Ada", "RTX 6000 Ada"),
        ("RTXPRO6000S", "RTX PRO 6000"),
        ("H100-NVL", "H100 NVL"),
        ("RTX3090", "RTX 3090"),
        ("RTX4090", "RTX 4090"),
        ("RTX4070", "RTX 4070"),
        # As people write them.
        ("a100-80gb", "A100-80 SXM"),
        ("A100 80GB", "A100-80 SXM"),
        ("A100-40GB", "A100-40 SXM"),
        ("4090", "RTX 4090"),
        ("3090", "RTX 3090"),
        ("rtx 4070 ti super", "RTX 4070 Ti SUPER"),
        ("RTX4070Ti", "RTX 4070 Ti"),
        ("4070ti", "RTX 4070 Ti"),
        ("GeForce RTX 3090 Ti", "RTX 3090 Ti"),
        ("NVIDIA A100 80GB PCIe", "A100-80 PCIe"),
        ("tesla t4", "T4"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("a100-sxm4-80gb", "A100-80 SXM"),
        ("a100 pcie 80gb", "A100-80 PCIe"),
    ],
)
def test_gpu_is_found_by_every_usual_name(written, name):
    assert gpu_named(written).name == name


def test_plans_print_names_that_parse_back():
    for gpu in all_gpus():
        assert gpu_named(gpu.key) is gpu_named(gpu.name) is gpu
        for hardware in (Hardware(gpu), Hardware(gpu, 8), Hardware(gpu, 1, 3), Hardware(gpu, 8, 2)):
            assert parse_on(str(hardware)) == hardware
    assert str(parse_on("a100:8x2")) == "A100:8x2"  # any A100, as it was asked for
    assert str(parse_on("a100-40gb-sxm:8x2")) == "A100-40GB-SXM:8x2"
    assert str(parse_on("3090:4")) == "RTX3090:4"


def test_every_spelling_of_a_machine_is_the_same_machine():
    forms = ("{g}:{n}x{m}", "{g}x{n}x{m}", "{m}x{n}x{g}", "{m} X {n} x {g}", "{g} : {n} * {m}")
    one_node = ("{g}:{n}", "{g}x{n}", "{n}x{g}", "{n} x {g}", "{n}\u00d7{g}")
    for gpu, n, m in itertools.product(all_gpus(), (1, 3, 4, 8, 16), (1, 2, 32)):
        for name in (gpu.key, gpu.key.lower(), gpu.key.replace("-", " "), f"NVIDIA {gpu.key}"):
            for form in forms + (one_node if m == 1 else ()) + (("{g}",) if n == m == 1 else ()):
                text = form.format(g=name, n=n, m=m)
                assert parse_on(text) == Hardware(gpu, n, m), text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("4x3090", "RTX3090:4"),
        ("8xH100", "H100:8"),
        ("H100x8", "H100:8"),
        ("rtx-4070-ti-super", "RTX4070TiSUPER"),
        ("A100-80GB:8x2", "A100-80GB:8x2"),
        ("2x8xH100", "H100:8x2"),
        ("3090", "RTX3090"),
        ("4 x 4070 Ti SUPER", "RTX4070TiSUPER:4"),
        ("rtx4090x2", "RTX4090:2"),
    ],
)
def test_machines_are_written_as_people_write(text, shown):
    assert str(parse_on(text)) == shown


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("A100-SXM:8", "A100-40GB-SXM or A100-80GB-SXM"),
        ("A100 PCIe", "A100-40GB-PCIe or A100-80GB-PCIe"),
        ("3090x4090", "3090:4090x1 or 4090:3090x1"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_both(text, forms):
    with pytest.raises(BadInput, match=forms):
        parse_on(text)


def test_a_familys_name_is_any_of_its_cards_and_a_cards_name_that_card():
    assert [gpu.name for gpu in cards_named("A100-80GB")] == ["A100-80 SXM", "A100-80 PCIe"]
    assert [gpu.name for gpu in cards_named("h100")] == ["H100 SXM", "H100 PCIe"]
    for gpu in all_gpus():
        assert cards_named(gpu.key) == (gpu,)
        assert all(gpu in cards_named(family) for family in gpu.families)
    assert parse_on("A100-80GB:8").name == "A100-80GB"
    assert parse_on("A100-80GB-PCIe:8").name == "A100-80GB-PCIe"


def test_no_two_gpus_share_a_name():
    gpus = all_gpus()
    assert len({gpu.key for gpu in gpus}) == len({gpu.name for gpu in gpus}) == len(gpus)
    for gpu in gpus:
        assert all(cards_named(name)[0] is gpu for name in (gpu.name, gpu.key))


@pytest.mark.parametrize(
    ("written", "near"),
    [("A10X", "A10G"), ("RTX6001", "RTX6000"), ("GH100", "GH200"), ("RTX 4060", "RTX4090")],
)
def test_unknown_gpu_names_the_nearest(written, near):
    with pytest.raises(BadInput, match=f"unknown GPU '{written}'; did you mean .*{near}"):
        gpu_named(written)


def test_hopelessly_unknown_gpu_lists_all():
    with pytest.raises(BadInput, match=r"T4, .*L4, .*H100-SXM, .*H200, .*B200"):
        parse_on("banana:2")


@pytest.mark.parametrize(
    ("text", "per_node", "nodes"),
    [
        ("A100", 1, 1),
        ("A100:8", 8, 1),
        ("A100:8x2", 8, 2),
        ("A100: 8x2 ", 8, 2),
        ("A100-80GB:1x16", 1, 16),
    ],
)
def test_on_is_gpu_count_nodes(text, per_node, nodes):
    hardware = parse_on(text)
    assert (hardware.gpus_per_node, hardware.nodes) == (per_node, nodes)
    assert hardware.gpus == per_node * nodes


@pytest.mark.parametrize(
    "text",
    [
        *("A100:", "A100:0", "A100:-1", "A100:8x", "A100:8x0", "A100:x2", "A100:8x2x2", "A100:1.5"),
        *("A100:8:2", "A100:٣", "A100:eight", "A100:9999999"),
    ],
)
def test_bad_counts_are_refused(text):
    with pytest.raises(BadInput, match=r"on=.*GPU:COUNTxNODES"):
        parse_on(text)


def test_table_agrees_with_data_sheets():
    """NVIDIA's data sheets: bandwidth in GB/s, both directions of NVLink, bf16 from Ampere on."""
    for name, bandwidth, nvlink, bf16 in (
        ("A100", 1555, 600, True),
        ("A100-80GB", 2039, 600, True),
        ("H100", 3350, 900, True),
        ("H200", 4800, 900, True),
        ("V100", 900, 300, False),
        ("T4", 320, None, False),
        ("RTX4090", 1008, None, True),
    ):
        gpu = gpu_named(name)
        assert (gpu.bandwidth_gbs, gpu.nvlink_gbs, gpu.has_bf16) == (bandwidth, nvlink, bf16)
    # A bridge joins two cards, not a node.
    assert gpu_named("RTX3090").nvlink_gbs is None
    assert gpu_named("H100-PCIE").nvlink_gbs is None


def test_every_gpu_has_a_measured_ceiling_or_a_measured_relative():
    for gpu in all_gpus():
        if gpu.measured_tflops is None:
            assert gpu_named(gpu.ceiling_like or "").measured_tflops is not None
        assert gpu.has_bf16 == ("bf16" in gpu.peak_tflops)


def test_device_names_still_match_whole_only():
    assert find_gpu("NVIDIA H200") is gpu_named("H200")
    assert find_gpu("NVIDIA GeForce RTX 4090 Laptop GPU") is None

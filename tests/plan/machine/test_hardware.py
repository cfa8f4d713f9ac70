"""Names, counts and the table of GPUs, against what clouds and people write."""

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.plan.machine.hardware import Hardware, all_gpus, find_gpu, gpu_named, parse_on


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
    ],
)
def test_gpu_is_found_by_every_usual_name(written, name):
    assert gpu_named(written).name == name


def test_plans_print_names_that_parse_back():
    for gpu in all_gpus():
        assert gpu_named(gpu.key) is gpu_named(gpu.name) is gpu
        for hardware in (Hardware(gpu), Hardware(gpu, 8), Hardware(gpu, 1, 3), Hardware(gpu, 8, 2)):
            assert parse_on(str(hardware)) == hardware
    assert str(parse_on("a100:8x2")) == "A100:8x2"
    assert str(parse_on("3090:4")) == "RTX3090:4"


def test_no_two_gpus_share_a_name():
    gpus = all_gpus()
    assert len({gpu.key for gpu in gpus}) == len({gpu.name for gpu in gpus}) == len(gpus)
    for gpu in gpus:
        assert all(gpu_named(name) is gpu for name in (gpu.name, *gpu.sky_names))


@pytest.mark.parametrize(
    ("written", "near"),
    [("A10", "A10G"), ("RTX6000", "RTXA6000"), ("GH200", "H200"), ("RTX 4080", "RTX4090")],
)
def test_unknown_gpu_names_the_nearest(written, near):
    with pytest.raises(BadInput, match=f"unknown GPU '{written}'; did you mean .*{near}"):
        gpu_named(written)


def test_hopelessly_unknown_gpu_lists_all():
    with pytest.raises(BadInput, match=r"T4, L4, .*H100, H200, B200"):
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

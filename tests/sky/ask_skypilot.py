"""Asks SkyPilot itself about task files; run by the Python that has it, printing one JSON object.

    ask_skypilot.py PRICES.csv [--env K=V ...] TASK.yaml...

No account, no server, no network: a temporary home with a reduced catalog, every provider taken as
enabled, and every connection to another machine an error.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import socket
import sys
import tempfile
from pathlib import Path

from reduced_catalog import write_catalog

PROVIDERS = ("lambda", "runpod", "vast", "gcp", "aws")


def forbid_traffic() -> None:
    original = socket.socket.connect

    def connect(self, address):
        local = ("127.0.0.1", "::1", "localhost")
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in local:
            raise OSError(f"refused a connection to {address[0]}")
        return original(self, address)

    socket.socket.connect = connect


def enable_all() -> list:
    from sky.utils import registry

    from sky import check

    clouds = [registry.CLOUD_REGISTRY.from_str(name) for name in PROVIDERS]
    check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: list(clouds)
    check.check_capability = lambda *_, **__: None
    for cloud in clouds:
        type(cloud).check_quota_available = classmethod(lambda *_, **__: True)
    return clouds


def capabilities(clouds: list) -> dict:
    """Which of what our tasks ask for each provider can do, as its class says."""
    from sky.clouds import CloudImplementationFeatures as Feature

    import sky
    from sky import exceptions

    asked = (Feature.MULTI_NODE, Feature.STORAGE_MOUNTING, Feature.SPOT_INSTANCE)
    answer: dict = {}
    for name, cloud in zip(PROVIDERS, clouds):
        resources = sky.Resources(infra=name)
        answer[name] = []
        for feature in asked:
            with contextlib.suppress(exceptions.NotSupportedError):
                type(cloud).check_features_are_supported(resources, {feature})
                answer[name].append(feature.name)
    return answer


def features(task, resources) -> set:
    """What a launch needs and the optimizer does not look at."""
    from sky.clouds import CloudImplementationFeatures as Feature
    from sky.data.storage import StorageMode

    wanted = set()
    if any(mount.mode != StorageMode.COPY for mount in task.storage_mounts.values()):
        wanted.add(Feature.STORAGE_MOUNTING)
    autostop = resources.autostop_config
    if autostop is not None and autostop.enabled:
        wanted.add(Feature.AUTODOWN if autostop.down else Feature.AUTOSTOP)
        if not autostop.down:
            wanted.add(Feature.STOP)
    if task.num_nodes > 1:
        wanted.add(Feature.MULTI_NODE)
    if resources.use_spot:
        wanted.add(Feature.SPOT_INSTANCE)
    return wanted


def optimize(tree: dict, env: list) -> tuple:
    from sky.utils import common

    import sky
    from sky import optimizer

    task = sky.Task.from_yaml_config(json.loads(json.dumps(tree)), env_overrides=env)
    task.validate()
    with sky.Dag() as dag:
        dag.add(task)
    optimizer.Optimizer.optimize(dag, minimize=common.OptimizeTarget.COST, quiet=True)
    return task, task.best_resources


def choices(tree: dict) -> list:
    """The same task narrowed to each of its choices."""
    resources = tree.get("resources") or {}
    common = {key: value for key, value in resources.items() if key != "any_of"}
    return [
        {**tree, "resources": {**common, **choice}} for choice in resources.get("any_of") or [{}]
    ]


def report(path: str, env: list) -> dict:
    """What SkyPilot would rent for each choice and in all; or why it refuses."""
    import yaml

    tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if isinstance(tree, dict) and isinstance(tree.get("secrets"), dict):
        missing = [name for name, value in tree["secrets"].items() if value is None]
        if missing:
            return {"error": f"no value for secret {missing[0]}"}
    try:
        machines = []
        for each in [*choices(tree), tree]:
            task, best = optimize(each, env)
            type(best.cloud).check_features_are_supported(best, features(task, best))
            machines.append(
                {
                    "provider": str(best.cloud).lower(),
                    "instance": best.instance_type,
                    "accelerators": best.accelerators,
                    "spot": best.use_spot,
                    "region": best.region,
                    "nodes": task.num_nodes,
                    "usd_per_hour": best.get_cost(3600),
                    "autodown": bool(best.autostop_config and best.autostop_config.down),
                    "secrets": sorted(task.secrets),
                }
            )
    except Exception as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        return {"error": f"{type(error).__name__}: {' '.join(text.split())}"}
    return {"choices": machines[:-1], "best": machines[-1]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("prices")
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--env", action="append", default=[])
    words = parser.parse_args()
    env = [tuple(word.split("=", 1)) for word in words.env]
    with tempfile.TemporaryDirectory() as home, contextlib.redirect_stdout(io.StringIO()):
        os.environ.update(HOME=home, SKYPILOT_DISABLE_USAGE_COLLECTION="1", DO_NOT_TRACK="1")
        write_catalog(Path(home), Path(words.prices))
        forbid_traffic()
        clouds = enable_all()
        answer = {
            "capabilities": capabilities(clouds),
            "tasks": {path: report(path, env) for path in words.tasks},
        }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

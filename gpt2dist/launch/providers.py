"""What each provider can do through SkyPilot, and how it gets to know who you are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt2dist.errors import BadInput
from gpt2dist.plan.machine.prices import MULTI_NODE


@dataclass(frozen=True)
class Provider:
    """Capabilities as SkyPilot 0.14.1 declares them; tests/sky compares with SkyPilot itself."""

    name: str
    "As SkyPilot writes it in `infra:`."
    mounts_buckets: bool
    "SkyPilot can mount a bucket as a folder; elsewhere only copy one at launch."
    spot: bool
    credential_files: tuple[str, ...]
    "Any of them is enough."
    login: str
    "The command that sets the credentials."
    credential_variables: tuple[str, ...] = ()
    "All of them together are enough as well."

    @property
    def multi_node(self) -> bool:
        return self.name in MULTI_NODE


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider(
            name="lambda",
            mounts_buckets=True,
            spot=False,
            credential_files=("~/.lambda_cloud/lambda_keys",),
            login="mkdir -p ~/.lambda_cloud; echo 'api_key = KEY' > ~/.lambda_cloud/lambda_keys",
        ),
        Provider(
            name="runpod",
            mounts_buckets=False,
            spot=True,
            credential_files=("~/.runpod/config.toml",),
            login="runpod config",
        ),
        Provider(
            name="vast",
            mounts_buckets=False,
            spot=True,
            credential_files=("~/.config/vastai/vast_api_key",),
            login="vastai set api-key KEY",
        ),
        Provider(
            name="gcp",
            mounts_buckets=True,
            spot=True,
            credential_files=("~/.config/gcloud/application_default_credentials.json",),
            credential_variables=("GOOGLE_APPLICATION_CREDENTIALS",),
            login="gcloud auth application-default login",
        ),
        Provider(
            name="aws",
            mounts_buckets=True,
            spot=True,
            credential_files=("~/.aws/credentials", "~/.aws/config"),
            credential_variables=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            login="aws configure",
        ),
    )
}


def require_capable(name: str, *, nodes: int, spot: bool, bucket_mount: bool) -> Provider:
    """The provider, or BadInput naming what it lacks for such a launch."""
    provider = PROVIDERS.get(name)
    if provider is None:
        raise BadInput(f"gpt2dist cannot rent from {name!r}; providers: {', '.join(PROVIDERS)}")
    lacks = (
        (nodes > 1 and not provider.multi_node, f"several nodes (asked: {nodes})", "multi_node"),
        (spot and not provider.spot, "spot machines", "spot"),
        (bucket_mount and not provider.mounts_buckets, "mounted buckets", "mounts_buckets"),
    )
    for missing, what, field in lacks:
        if missing:
            able = ", ".join(other.name for other in PROVIDERS.values() if getattr(other, field))
            raise BadInput(f"SkyPilot offers no {what} at {name}; it does at {able}")
    return provider


def can_log_in(provider: Provider, environ: Mapping[str, str]) -> bool:
    """Whether this machine has credentials of the provider.

    With a SkyPilot API server elsewhere they lie there, so nothing is asked here.
    """
    if environ.get("SKYPILOT_API_SERVER_ENDPOINT"):
        return True
    home = environ.get("HOME") or str(Path.home())
    files = (Path(file.replace("~", home, 1)) for file in provider.credential_files)
    variables = provider.credential_variables
    named = bool(variables) and all(environ.get(variable) for variable in variables)
    return named or any(file.is_file() for file in files)


def require_credentials(provider: Provider, environ: Mapping[str, str]) -> None:
    """BadInput where nothing on this machine could log in to the provider."""
    if can_log_in(provider, environ):
        return
    places = [*provider.credential_files, " and ".join(provider.credential_variables)]
    where = " or ".join(place for place in places if place)
    raise BadInput(
        f"no credentials for {provider.name} ({where}); set them with `{provider.login}`, "
        f"then `sky check {provider.name}`"
    )


def sky_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for every call of SkyPilot: no usage reports leave the machine."""
    return {**environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "DO_NOT_TRACK": "1"}

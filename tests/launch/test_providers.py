"""Who can log in where."""

from __future__ import annotations

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.launch.providers import PROVIDERS, require_credentials
from gpt2dist.plan.machine import prices


def test_every_provider_with_prices_can_be_rented_from():
    assert set(PROVIDERS) == set(prices.PROVIDERS)


@pytest.mark.parametrize("name", PROVIDERS)
def test_nothing_in_the_home_directory_is_no_login(name, tmp_path):
    with pytest.raises(BadInput, match=f"no credentials for {name} .*sky check {name}"):
        require_credentials(PROVIDERS[name], {"HOME": str(tmp_path)})


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_credential_file_is_enough(name, tmp_path):
    path = tmp_path / PROVIDERS[name].credential_files[0].removeprefix("~/")
    path.parent.mkdir(parents=True)
    path.touch()
    require_credentials(PROVIDERS[name], {"HOME": str(tmp_path)})


def test_keys_in_the_environment_are_enough_when_both_are_there(tmp_path):
    half = {"HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "x"}
    with pytest.raises(BadInput):
        require_credentials(PROVIDERS["aws"], half)
    require_credentials(PROVIDERS["aws"], {**half, "AWS_SECRET_ACCESS_KEY": "y"})


def test_a_server_elsewhere_keeps_its_own_credentials(tmp_path):
    environ = {"HOME": str(tmp_path), "SKYPILOT_API_SERVER_ENDPOINT": "http://127.0.0.1:46580"}
    require_credentials(PROVIDERS["lambda"], environ)

"""`gpt2dist launch` against a stand-in for the `sky` program, which notes how it is called."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from unittest.mock import ANY

import pytest
import yaml

from gpt2dist.config.load import resolve, run_name
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.launch.allowance import Allowance, Reserve
from gpt2dist.launch.control import logs, status, stop
from gpt2dist.launch.order import LaunchRequest
from gpt2dist.launch.record import read_record
from gpt2dist.launch.start import launch
from gpt2dist.launch.target import choose, recipe_target
from gpt2dist.launch.task import Rental, train_tree
from gpt2dist.plan.describe import as_json
from gpt2dist.plan.planner import plan_on

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hf_MUSTNOTAPPEAR"

SKY = """\
#!/bin/sh
if [ "$1" = --version ]; then echo 'skypilot, version 0.14.1'; exit 0; fi
echo "$@" >> "$SKY_CALLS"
env > "$SKY_CALLS.env"
case "$1" in
  launch) exit ${SKY_LAUNCH_CODE:-0} ;;
  queue) echo "${SKY_QUEUE:-{\\}}" ;;
  down) exit ${SKY_DOWN_CODE:-0} ;;
  status) echo 'NAME STATUS'; echo 'run1 UP' ;;
esac
"""
RSYNC = '#!/bin/sh\necho rsync "$@" >> "$SKY_CALLS"\nexit ${RSYNC_CODE:-0}\n'


class Bench:
    """A clone of the repository, a home with credentials for RunPod, and the two programs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        self.calls_file = folder / "calls"
        home, programs = folder / "home", folder / "bin"
        (home / ".runpod").mkdir(parents=True)
        (home / ".runpod" / "config.toml").touch()
        programs.mkdir()
        for name, text in (("sky", SKY), ("rsync", RSYNC)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        for name in ("cluster", "gpt2dist", "sky"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "constraints.txt").touch()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("SKY_RUNTIME_DIR", str(home))
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        monkeypatch.setenv("SKY_CALLS", str(self.calls_file))
        for name in ("HF_TOKEN", "SKYPILOT_API_SERVER_ENDPOINT"):
            monkeypatch.delenv(name, raising=False)
        self.said: list[str] = []
        self.asked: list[str] = []

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def launch(self, target: str = "gpt2-124m", *, agree: bool = True, **wishes) -> int:
        if not target.endswith(".yaml"):
            wishes.setdefault("on", "A100-80GB")
        wishes.setdefault("name", "run1")

        def confirm(question: str) -> bool:
            self.asked.append(question)
            return agree

        return launch(LaunchRequest(target, **wishes), self.said.append, confirm)

    def task(self) -> dict:
        return yaml.safe_load(Path("runs/launches/run1.yaml").read_text())


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def test_agreeing_launches_once_and_gives_the_machine_back(bench):
    assert bench.launch() == 0
    assert bench.calls == [
        "launch --yes --cluster run1 runs/launches/run1.yaml",
        "rsync -a --partial run1:sky_workdir/runs/ runs/",
        "down --yes run1",
    ]
    assert len(bench.asked) == 1
    assert "SKYPILOT_DISABLE_USAGE_COLLECTION=1" in Path(f"{bench.calls_file}.env").read_text()


def test_a_managed_job_on_several_machines_recovers_when_one_is_lost():
    """Only there: a cluster is not restarted, and without a bucket a run would begin anew."""
    envs = {"RECIPE": "gpt2-1558m", "BUCKET": "gs://bucket", "DATA": ""}

    def resources(nodes: int, *, spot: bool) -> dict:
        rental = Rental("gcp", "A100", 8, 30.0, spot=spot)
        return train_tree("run1", nodes, [rental], envs)["resources"]

    assert resources(2, spot=True)["job_recovery"] == {"recover_on_exit_codes": [75]}
    assert "job_recovery" not in resources(1, spot=True)
    assert "job_recovery" not in resources(2, spot=False)


def test_disagreeing_launches_nothing(bench):
    assert bench.launch(agree=False) == 0
    assert bench.calls == []
    assert not Path("runs/launches/run1.json").exists()


def test_nobody_to_ask_launches_nothing(bench):
    with pytest.raises(BadInput, match="--yes"):
        launch(LaunchRequest("gpt2-124m", on="A100-80GB"), bench.said.append, None)
    assert bench.calls == []


def test_yes_asks_nothing(bench):
    assert launch(LaunchRequest("gpt2-124m", on="A100-80GB", yes=True), bench.said.append) == 0
    assert bench.calls[0].startswith("launch --yes --cluster gpt2-124m-69e8-")


def test_a_dry_run_writes_and_calls_nothing(bench):
    assert bench.launch(dry_run=True) == 0
    assert bench.calls == []
    assert not Path("runs").exists()
    assert yaml.safe_load(bench.said[-1])["resources"]["infra"] == "runpod"


def test_a_plan_above_the_dollars_launches_nothing_and_says_what_would_do(bench):
    with pytest.raises(BadInput, match=r"--usd 10: .* is planned at \$.*train\.tokens=") as refusal:
        bench.launch(usd=10.0)
    assert bench.calls == []
    tokens = str(refusal.value).split("train.tokens=")[1].split()[0]
    shorter = (f"train.tokens={0.98 * float(tokens):.0f}", "optim.warmup_steps=100")
    assert bench.launch(usd=10.0, overrides=shorter) == 0


def test_the_budget_holds_the_plan_and_its_reserve(bench):
    """The smallest budget that is accepted is the plan's dollars and what the reserve adds."""
    plan = choose(recipe_target("gpt2-124m", (), "A100-80GB", spot=False, provider="runpod")).plan
    enough = plan.usd + Reserve.of(plan, bucket=False).beyond_plan_usd(plan.usd_per_hour)
    with pytest.raises(BadInput, match="would fit"):
        bench.launch(provider="runpod", usd=enough - 0.01)
    assert bench.launch(provider="runpod", usd=enough + 0.01) == 0


@pytest.mark.parametrize("usd", [0.05, 0.8])
def test_a_budget_below_one_evaluation_names_the_dollars_that_were_typed(bench, usd):
    with pytest.raises(BadInput, match=rf"^--usd {usd} cannot buy one step"):
        bench.launch(usd=usd)
    assert bench.calls == []


@pytest.mark.parametrize(
    ("on", "overrides"),
    [
        ("H100:8", ()),
        ("A100-80GB:8", ("train.tokens=5e8", "optim.warmup_steps=50")),
        ("A100-80GB", ("train.tokens=3e7", "optim.warmup_steps=5")),
        ("RTX4090", ()),
    ],
)
def test_the_default_budget_buys_the_plan_to_its_upper_end(bench, on, overrides):
    """The run's own limit, from boot on, is not below what the plan may come to without idling."""
    assert bench.launch(on=on, overrides=overrides, provider="runpod") == 0
    envs, record = bench.task()["envs"], read_record(Path("runs"), "run1")
    idle_usd = record.usd_per_hour * 5 / 60
    reserve = Reserve(float(envs["GRACE_S"]), float(envs["UPLOAD_S"]), bucket=False)
    allowance = Allowance(float(envs["BUDGET_USD"]), record.usd_per_hour, 0.0, reserve)
    assert allowance.run_usd >= record.plan["usd_range"][1] - idle_usd
    assert allowance.run_usd < record.plan["usd_range"][1] - idle_usd + 1
    said = next(line for line in bench.said if line.startswith("budget"))
    assert f"planned ${record.plan['usd']:.2f}" in said
    assert "reserve $" in said


def limits(bench, **wishes) -> tuple[float, float, str]:
    """Budget, hours until SIGTERM on a fresh machine, and the line that says so."""
    assert bench.launch(provider="runpod", dry_run=True, **wishes) == 0
    envs = yaml.safe_load(bench.said[-1])["envs"]
    budget_usd, price = float(envs["BUDGET_USD"]), float(envs["USD_PER_HOUR"])
    reserve = Reserve(float(envs["GRACE_S"]), float(envs["UPLOAD_S"]), bucket=False)
    line = next(line for line in reversed(bench.said) if line.startswith("budget"))
    deadline_s = Allowance(budget_usd, price, 0.0, reserve).deadline_s
    return budget_usd, deadline_s / 3600, line


def test_more_dollars_than_the_plan_needs_buy_no_days_of_a_stuck_machine(bench):
    """Time is limited too: 1.5 times the plan's longest, whatever was offered."""
    plan = choose(recipe_target("gpt2-124m", (), "A100-80GB", spot=False, provider="runpod")).plan
    longest_h = plan.usd_range[1] / plan.usd_per_hour
    _, enough_h, _ = limits(bench)
    budget_usd, hours, line = limits(bench, usd=50 * plan.usd)
    assert enough_h < hours <= 1.5 * longest_h + 1.0 / plan.usd_per_hour
    assert f"${budget_usd:,.2f} at most (1.5 x the plan's longest, which --hours raises)" in line
    budget_usd, hours, line = limits(bench, usd=50 * plan.usd, hours=4 * longest_h)
    assert budget_usd == pytest.approx(4 * longest_h * plan.usd_per_hour, rel=1e-4)
    assert 3.5 * longest_h < hours < 4 * longest_h
    assert f"at most (--hours {4 * longest_h:g})" in line
    budget_usd, _, line = limits(bench, usd=1.2 * plan.usd_range[1])
    assert budget_usd == pytest.approx(1.2 * plan.usd_range[1], rel=1e-4)
    assert "at most (--usd " in line


@pytest.mark.parametrize(("hours", "says"), [(0.2, r"^--hours 0\.2"), (-1.0, "positive number")])
def test_hours_that_buy_nothing_launch_nothing(bench, hours, says):
    with pytest.raises(BadInput, match=says):
        bench.launch(hours=hours)
    assert bench.calls == []


def test_a_bucket_is_given_time_for_the_last_upload(bench):
    bench.launch(bucket="s3://mine/runs")
    assert float(bench.task()["envs"]["UPLOAD_S"]) >= 2 * 12 * 124_439_808 / 100e6


def test_a_bucket_in_the_task_file_is_given_that_time_too(bench):
    task = yaml.safe_load((ROOT / "sky" / "rtx4090_124m.yaml").read_text())
    task["envs"]["BUCKET"] = "s3://mine/runs"
    Path("task.yaml").write_text(yaml.safe_dump(task))
    bench.launch("task.yaml")
    bench.launch("sky/rtx4090_124m.yaml", name="run2")
    assert bench.task()["envs"]["UPLOAD_S"] == "90"
    reserves = [line.split("reserve $")[1] for line in bench.said if "reserve $" in line]
    assert float(reserves[0].split()[0]) > float(reserves[1].split()[0])


def test_shards_that_are_given_are_not_prepared_again(bench):
    bench.launch(data="s3://mine/shards")
    assert read_record(Path("runs"), "run1").plan["hours_by_phase"]["data"] == 0


def test_the_task_trains_exactly_what_was_planned(bench):
    words = ("train.tokens=2e9", "model.layers=8", "optim.warmup_steps=50", "data.text_field=a b")
    bench.launch(on="RTX3090:4", overrides=words)
    envs, record = bench.task()["envs"], read_record(Path("runs"), "run1")
    config = resolve(envs["RECIPE"], shlex.split(envs["OVERRIDES"]))
    plan = plan_on(config, "RTX3090:4", provider="runpod")
    again = json.loads(json.dumps(as_json(plan)))
    assert again == json.loads(json.dumps(record.plan)) | {"settings": ANY}
    assert run_name(config) == envs["RUN"]


def test_what_does_not_fit_launches_nothing(bench):
    with pytest.raises(BadInput, match=r"on=RTX3090: gpt2-1558m needs .* GiB a GPU"):
        bench.launch("gpt2-1558m", on="RTX3090", provider="runpod", overrides=("zero.stage=0",))
    assert bench.calls == []


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"on": "A100-40"}, "unknown GPU"),
        ({"on": "RTX4090:64"}, "no known provider|offers no machine"),
        ({"on": "T4", "overrides": ("cluster.precision=bf16",)}, "no|bf16"),
        ({"on": "A100-80GB:8x2", "provider": "runpod"}, "no several nodes .* at runpod"),
        ({"on": "A100", "provider": "lambda", "spot": True, "bucket": "s3://b"}, "no spot"),
        ({"on": "A100", "spot": True}, "--bucket"),
        ({"on": "RTX4090", "bucket": "my-bucket"}, "no mounted buckets"),
        ({"on": None}, "on what"),
        ({"on": "A100", "overrides": ("cluster.usd_per_hour=1",)}, "machines of your own"),
        ({"on": "A100", "overrides": ("budget.usd=9",)}, "--usd 9"),
        ({"name": "a_b"}, "--name a_b"),
    ],
)
def test_bad_wishes_launch_nothing(bench, wishes, says):
    with pytest.raises(BadInput, match=says):
        bench.launch(**wishes)
    assert bench.calls == []


def test_no_skypilot_leaves_the_task_and_says_how_to_install(bench):
    (bench.folder / "bin" / "sky").unlink()
    with pytest.raises(BadInput, match=r"not installed; .*skypilot\[runpod\]==0\.14\.1"):
        bench.launch()
    assert bench.task()["envs"]["RECIPE"] == "gpt2-124m"


def test_another_program_called_sky_is_not_taken_for_skypilot(bench):
    (bench.folder / "bin" / "sky").write_text("#!/bin/sh\necho night sky 1.0\n")
    with pytest.raises(BadInput, match="is not SkyPilot"):
        bench.launch()


def test_no_credentials_name_the_provider_and_the_command(bench):
    (bench.folder / "home" / ".runpod" / "config.toml").unlink()
    with pytest.raises(BadInput, match=r"no credentials for runpod .*`runpod config`.*sky check"):
        bench.launch(provider="runpod")
    assert bench.calls == []


def test_a_provider_one_can_log_in_to_goes_before_a_cheaper_one(bench):
    assert bench.launch("gpt2-124m", on="RTX4090", dry_run=True) == 0
    assert yaml.safe_load(bench.said[-1])["resources"]["infra"] == "runpod"
    assert any("cheaper at vast" in line for line in bench.said)


def test_outside_a_clone_nothing_is_launched(bench):
    (bench.folder / "cluster").unlink()
    with pytest.raises(BadInput, match="root of a clone"):
        bench.launch()
    assert bench.calls == []


def test_the_record_has_the_price_and_no_secret(bench):
    bench.patch.setenv("HF_TOKEN", SECRET)
    bench.launch(usd=40.0)
    record = read_record(Path("runs"), "run1")
    assert (record.provider, record.instance) == ("runpod", "1x_A100-80GB_SECURE")
    assert (record.usd_per_hour, record.budget_usd, record.spot) == (1.39, 40.0, False)
    assert "2026-11" in record.price_source
    assert record.exit_code == 0
    assert "launch --yes --cluster run1 --secret HF_TOKEN" in bench.calls[0]
    written = [path.read_text() for path in Path("runs").rglob("*") if path.is_file()]
    assert not any(SECRET in text for text in [*written, *bench.calls, *bench.said])


def test_the_task_charges_what_was_planned_and_rents_nothing_dearer(bench):
    bench.launch(usd=40.0)
    task = bench.task()
    assert task["envs"]["BUDGET_USD"] == "40"
    assert float(task["envs"]["USD_PER_HOUR"]) == task["resources"]["max_hourly_cost"] == 1.39
    assert task["resources"]["autostop"] == {"idle_minutes": 5, "down": True, "wait_for": "jobs"}


def test_a_job_that_failed_still_gives_the_machine_back(bench):
    bench.patch.setenv("SKY_LAUNCH_CODE", "100")
    assert bench.launch() == 100
    assert bench.calls[-1] == "down --yes run1"


def test_a_launch_that_failed_halfway_gives_back_what_it_rented(bench):
    bench.patch.setenv("SKY_LAUNCH_CODE", "1")
    assert bench.launch() == 1
    assert bench.calls[1:] == [
        "queue --skip-finished --output json run1",
        "down --yes run1",
    ]


def test_a_lost_connection_does_not_end_the_run(bench):
    bench.patch.setenv("SKY_LAUNCH_CODE", "1")
    bench.patch.setenv("SKY_QUEUE", 'a log line\n{"run1": [{"job_id": 1, "status": "RUNNING"}]}')
    assert bench.launch() == 1
    assert not any(call.startswith("down") for call in bench.calls)


def test_a_machine_that_cannot_be_given_back_is_never_silent(bench):
    bench.patch.setenv("SKY_DOWN_CODE", "1")
    with pytest.raises(RunFailure, match="may still be billed"):
        bench.launch()


def test_results_that_could_not_be_fetched_keep_the_machine_for_its_idle_minutes(bench):
    bench.patch.setenv("RSYNC_CODE", "12")
    assert bench.launch() == 0
    assert not any(call.startswith("down") for call in bench.calls)


def test_a_bucket_makes_fetching_unnecessary(bench):
    assert bench.launch(bucket="s3://mine/runs") == 0
    assert [call.split()[0] for call in bench.calls] == ["launch", "down"]
    assert bench.task()["envs"]["BUCKET"] == "s3://mine/runs"


def test_spot_is_a_managed_job_with_a_mounted_bucket(bench):
    adc = bench.folder / "home/.config/gcloud/application_default_credentials.json"
    adc.parent.mkdir(parents=True)
    adc.touch()
    bench.launch(on="A100", provider="gcp", spot=True, bucket="mine")
    assert bench.calls == ["jobs launch --yes --name run1 runs/launches/run1.yaml"]
    task = bench.task()
    assert task["resources"]["use_spot"] is True
    assert task["file_mounts"] == {"/gpt2dist-bucket": {"name": "mine", "mode": "MOUNT"}}
    assert task["envs"]["BUCKET"] == "/gpt2dist-bucket"


def test_a_task_file_is_narrowed_to_the_machine_that_was_priced(bench):
    assert bench.launch("sky/rtx4090_124m.yaml", usd=30.0, overrides=("train.seed=7",)) == 0
    shipped = yaml.safe_load((ROOT / "sky" / "rtx4090_124m.yaml").read_text())
    task = bench.task()
    assert task["resources"]["infra"] == "runpod"
    assert "any_of" not in task["resources"]
    assert "train.seed=7" in task["envs"]["OVERRIDES"]
    assert (task["setup"], task["run"]) == (shipped["setup"], shipped["run"])
    assert task["envs"]["BUDGET_USD"] == "30"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run: echo hi\nresources: {infra: runpod, accelerators: A100-80GB}\n", "trains no recipe"),
        ("run: x\nenvs: {RECIPE: gpt2-124m}\nresources: {accelerators: A100}\n", "infra: PROVIDER"),
        ("run: x\nenvs: {RECIPE: gpt2-124m}\nresources: {infra: lambda, accelerators: RTX3090:4}\n",
         "lambda offers no"),
        ("run: x\nenvs: {RECIPE: gpt2-124m}\nresources: {infra: runpod, accelerators: A100-40GB}\n",
         "A100-40|offers no"),
        ("run: [\n", "not valid YAML"),
        ("run: x\nenvs: [RECIPE]\n", "envs must hold `key: value`"),
        ("run: x\nenvs: {RECIPE: gpt2-124m, OVERRIDES: \"'\"}\n", "No closing quotation"),
        ("run: x\nenvs: {RECIPE: gpt2-124m}\nnum_nodes: many\n", "num_nodes='many' is not"),
        (f"run: x\nenvs: {{RECIPE: gpt2-124m}}\nsecrets: {{WANDB_API_KEY: {SECRET}}}\n",
         "secrets.WANDB_API_KEY holds a secret"),
        (f"run: x\nenvs: {{RECIPE: gpt2-124m, MLFLOW_TRACKING_URI: 'http://me:{SECRET}@host'}}\n",
         "export MLFLOW_TRACKING_URI here"),
        (f"run: x\nenvs: {{RECIPE: gpt2-124m, OVERRIDES: 'track.uri=http://me:{SECRET}@host'}}\n",
         "track.uri=http://host holds a password"),
        ("run: x\nnum_nodes: 2\nenvs: {RECIPE: gpt2-124m}\n"
         "resources: {infra: vast, accelerators: H100:8}\n", "no several nodes .* at vast"),
    ],
)  # fmt: skip
def test_bad_task_files_launch_nothing(bench, text, says):
    Path("task.yaml").write_text(text)
    with pytest.raises(BadInput, match=says) as refusal:
        bench.launch("task.yaml")
    assert SECRET not in str(refusal.value)
    assert bench.calls == []


def test_one_name_is_launched_once(bench):
    bench.launch()
    with pytest.raises(BadInput, match="launched before"):
        bench.launch()


def test_status_logs_and_stop_find_the_launch_by_name(bench):
    bench.launch(bucket="s3://mine/runs")
    bench.calls_file.unlink()
    text = status(Path("runs"))
    assert text.startswith("run1  ")
    assert "run1 UP" in text
    assert logs("run1", Path("runs")) == 0
    assert stop("run1", Path("runs"), bench.said.append) == 0
    assert bench.calls == ["status --refresh", "logs run1", "down --yes run1"]
    with pytest.raises(BadInput, match=r"no launch 'run2'.*run1"):
        logs("run2", Path("runs"))


def test_the_record_is_plain_json(bench):
    bench.launch()
    tree = json.loads(Path("runs/launches/run1.json").read_text())
    assert tree["plan"]["recipe"] == "gpt2-124m"
    assert tree["command"][0] == "sky"
    assert os.environ["HOME"] not in json.dumps(tree)

"""The Kubernetes manifests: valid, hardened, and in agreement with the service."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.exits import ExitCode
from service.settings.catalogue import JOBS
from service.settings.variables import known_variables

ROOT = Path(__file__).parents[2]
MANIFESTS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "k8s").glob("*.yaml"))}
JOB_MANIFESTS = {name: manifest for name, manifest in MANIFESTS.items() if manifest["kind"] == "Job"}
OLDEST_KUBERNETES = "1.33"
SHARDS, FINALIZE = "data-prep-shards-job.yaml", "data-prep-finalize-job.yaml"

ANOTHER_ATTEMPT_CANNOT_HELP = {
    ExitCode.BAD_DATA,
    ExitCode.MISSING_INPUT,
    ExitCode.OUT_OF_DEVICE_MEMORY,
    ExitCode.ACCESS_DENIED,
    ExitCode.BAD_CONFIGURATION,
    ExitCode.REJECTED,
    ExitCode.DIVERGED,
}
NOT_THE_FAULT_OF_THE_JOB = {ExitCode.STOPPED, ExitCode.PEER_LOST}
ANOTHER_ATTEMPT_MAY_HELP = {
    ExitCode.STORAGE_UNREACHABLE,
    ExitCode.BUG,
    ExitCode.INPUT_OUTPUT,
    ExitCode.STALLED,
}

each_manifest = pytest.mark.parametrize("name", MANIFESTS)
each_job = pytest.mark.parametrize("name", JOB_MANIFESTS)


def pod_of(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = MANIFESTS[name]["spec"]["template"]["spec"]
    return pod


def container_of(name: str) -> dict[str, Any]:
    containers = pod_of(name)["containers"] + pod_of(name).get("initContainers", [])
    assert len(containers) == 1
    container: dict[str, Any] = containers[0]
    return container


def rules_of(name: str) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = MANIFESTS[name]["spec"]["podFailurePolicy"]["rules"]
    return rules


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
@each_manifest
def test_the_manifest_is_valid_from_the_oldest_to_the_newest_kubernetes(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_validation_is_strict_about_fields_that_do_not_exist() -> None:
    misspelt = {**MANIFESTS["namespace.yaml"], "speck": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="speck"):
        kubernetes_validate.validate(misspelt, OLDEST_KUBERNETES, strict=True)


def test_there_is_a_job_for_each_stage_for_the_parts_of_a_divided_one_and_for_what_comes_before_and_after() -> None:
    stages = {"doctor", "prefetch", "data-prep", "data-prep-shards", "data-prep-finalize", "train", "infer", "evaluate"}
    after = {"promote", "rollback", "retire", "trace", "prune", "retrain"}
    assert {f"{stage}-job.yaml" for stage in stages | after} == set(JOB_MANIFESTS)


@pytest.mark.parametrize("name", JOB_MANIFESTS)
def test_the_readme_lists_the_job(name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text()


@each_job
def test_what_takes_a_champion_away_waits_for_a_word_and_nothing_else_does(name: str) -> None:
    waits = MANIFESTS[name]["spec"].get("suspend", False)
    assert waits is (name in ("rollback-job.yaml", "retire-job.yaml"))


def test_a_rollback_whose_pod_is_started_twice_goes_back_once() -> None:
    assert int(variables_of("rollback-job.yaml")["ROLLBACK_TO"]) > 0


def test_prune_only_tells_until_it_is_told() -> None:
    assert variables_of("prune-job.yaml")["PRUNE_DRY_RUN"] == "true"


@pytest.mark.parametrize("name", ["promote-job.yaml", "rollback-job.yaml", "retire-job.yaml", "retrain-job.yaml"])
def test_an_entry_of_the_registry_names_the_image_that_the_job_runs_in(name: str) -> None:
    assert variables_of(name)["PROMOTE_IMAGE"] == container_of(name)["image"]


def variables_of(name: str) -> dict[str, str]:
    """The variables that a job has besides those of the ConfigMap, with their values."""
    return {variable["name"]: variable["value"] for variable in container_of(name)["env"] if "value" in variable}


@each_manifest
def test_everything_is_in_the_namespace(name: str) -> None:
    manifest = MANIFESTS[name]
    named = manifest["metadata"]["name"] if manifest["kind"] == "Namespace" else manifest["metadata"]["namespace"]
    assert named == "sdlora"


@each_job
def test_the_job_starts_the_stage_that_it_is_named_for(name: str) -> None:
    stage = name.removesuffix("-job.yaml")
    job = stage.removesuffix("-shards").removesuffix("-finalize")
    assert job in JOBS
    assert container_of(name)["args"] == [job]
    assert "command" not in container_of(name)
    assert MANIFESTS[name]["metadata"]["name"] == f"sdlora-{stage}"
    assert MANIFESTS[name]["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == stage


def test_the_namespace_enforces_pod_security_restricted() -> None:
    labels = MANIFESTS["namespace.yaml"]["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


@each_job
def test_the_pod_keeps_pod_security_restricted(name: str) -> None:
    pod, container = pod_of(name), container_of(name)
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "ports" not in container
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])


@each_job
def test_the_pod_runs_as_the_user_of_the_image_on_a_read_only_root(name: str) -> None:
    security = pod_of(name)["securityContext"]
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
    assert container_of(name)["securityContext"]["readOnlyRootFilesystem"] is True


@each_job
def test_the_writable_mounts_are_bounded_and_shared_memory_fits_the_memory_limit(name: str) -> None:
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod_of(name)["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container_of(name)["volumeMounts"]}
    limits = container_of(name)["resources"]["limits"]
    assert set(mounted) == {"/tmp", "/dev/shm"}
    assert mounted["/tmp"] == {"sizeLimit": limits["ephemeral-storage"]}
    assert mounted["/dev/shm"]["medium"] == "Memory"
    assert 2 * gibibytes(mounted["/dev/shm"]["sizeLimit"]) <= gibibytes(limits["memory"])


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))


@each_job
def test_the_pod_holds_no_cluster_credentials_and_no_service_addresses(name: str) -> None:
    assert pod_of(name)["automountServiceAccountToken"] is False
    assert pod_of(name)["enableServiceLinks"] is False


@each_job
def test_a_pod_is_replaced_only_when_it_is_gone_and_has_time_to_save(name: str) -> None:
    job, pod = MANIFESTS[name]["spec"], pod_of(name)
    assert job["podReplacementPolicy"] == "Failed"
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 120
    assert "livenessProbe" not in container_of(name)


@each_job
def test_the_job_is_indexed_ends_in_the_end_and_is_cleared_away(name: str) -> None:
    job = MANIFESTS[name]["spec"]
    pods = 5 if name == SHARDS else 1
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", pods, pods)
    assert job["backoffLimitPerIndex" if name == SHARDS else "backoffLimit"] > 0
    assert job["activeDeadlineSeconds"] > 0
    assert job["ttlSecondsAfterFinished"] > 0


@each_job
def test_the_reason_of_a_failure_shows_in_the_status_of_the_pod(name: str) -> None:
    assert container_of(name)["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_every_exit_code_has_a_place_in_the_failure_policy() -> None:
    placed = [ANOTHER_ATTEMPT_CANNOT_HELP, NOT_THE_FAULT_OF_THE_JOB, ANOTHER_ATTEMPT_MAY_HELP, {ExitCode.DONE}]
    assert set().union(*placed) == set(ExitCode)
    assert sum(map(len, placed)) == len(ExitCode)


@each_job
def test_the_job_fails_at_once_where_another_attempt_cannot_help(name: str) -> None:
    assert codes_of(name, "FailJob") == sorted(ANOTHER_ATTEMPT_CANNOT_HELP)


@each_job
def test_an_interruption_uses_up_no_attempt(name: str) -> None:
    assert codes_of(name, "Ignore") == sorted(NOT_THE_FAULT_OF_THE_JOB)
    disruptions = [rule for rule in rules_of(name) if "onPodConditions" in rule]
    # Older schemas require the status to be written out.
    assert disruptions == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


@each_job
def test_a_hopeless_failure_on_a_disrupted_node_still_fails_the_job(name: str) -> None:
    assert [rule["action"] for rule in rules_of(name)] == ["FailJob", "Ignore", "Ignore"]


def codes_of(name: str, action: str) -> list[int]:
    """The exit codes of the one rule with this action, which must be about the job's own container."""
    [on_codes] = [rule["onExitCodes"] for rule in rules_of(name) if rule["action"] == action and "onExitCodes" in rule]
    assert (on_codes["containerName"], on_codes["operator"]) == (container_of(name)["name"], "In")
    codes: list[int] = on_codes["values"]
    return codes


def test_the_stages_that_draw_or_train_ask_for_a_gpu() -> None:
    asking = {name for name in JOB_MANIFESTS if container_of(name)["resources"]["limits"].get("nvidia.com/gpu") == 1}
    assert asking == {"train-job.yaml", "infer-job.yaml", "evaluate-job.yaml", "doctor-job.yaml", "retrain-job.yaml"}


def test_the_cron_job_starts_the_very_job_of_retrain_one_at_a_time() -> None:
    cron = MANIFESTS["retrain-cronjob.yaml"]["spec"]
    assert cron["jobTemplate"]["spec"] == MANIFESTS["retrain-job.yaml"]["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert "suspend" not in cron


def test_doctor_looks_at_a_pod_like_the_one_that_trains() -> None:
    looked_at, trains = container_of("doctor-job.yaml"), container_of("train-job.yaml")
    for part in ("resources", "volumeMounts", "envFrom", "securityContext"):
        assert looked_at[part] == trains[part]
    assert pod_of("doctor-job.yaml")["volumes"] == pod_of("train-job.yaml")["volumes"]


@each_job
def test_the_job_reads_its_settings_from_the_config_map_and_its_keys_from_the_secret(name: str) -> None:
    config, secret = MANIFESTS["config.yaml"], MANIFESTS["secret.example.yaml"]
    assert container_of(name)["envFrom"] == [
        {"configMapRef": {"name": config["metadata"]["name"]}},
        {"secretRef": {"name": secret["metadata"]["name"]}},
    ]
    request, *more = container_of(name)["env"]
    assert request == {"name": "CPU_REQUEST", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}}
    if name in ("train-job.yaml", "retrain-job.yaml"):
        assert more.pop(0) == {"name": "ATTEMPT_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    assert [variable["name"] for variable in more] == list(variables_of(name))
    # The jobs find one another's work by the RUN_ID of the ConfigMap: none may have one of its own.
    assert not variables_of(name).keys() & config["data"].keys()


@each_job
def test_the_number_of_threads_follows_from_what_the_pod_requests(name: str) -> None:
    assert int(container_of(name)["resources"]["requests"]["cpu"]) >= 1
    assert "cpu" not in container_of(name)["resources"]["limits"]


def test_the_parts_of_a_divided_data_prep_agree_on_the_number_of_shards() -> None:
    shards, finalize = variables_of(SHARDS), variables_of(FINALIZE)
    number = str(MANIFESTS[SHARDS]["spec"]["completions"])
    assert shards == {"DATA_PREP_SHARDS": number, "DATA_PREP_STEP": "shard"}
    assert finalize == {"DATA_PREP_SHARDS": number, "DATA_PREP_STEP": "finalize"}


def test_every_variable_of_the_config_map_is_one_that_the_service_reads() -> None:
    foreign = {name for name in MANIFESTS["config.yaml"]["data"] if not name.startswith(("AWS_", "HF_"))}
    assert {"RUN_ID", "ARTIFACTS_URI"} <= foreign
    assert foreign <= known_variables()


@each_job
def test_the_service_accepts_the_values_of_the_config_map_and_of_the_job(name: str) -> None:
    assert set(variables_of(name)) <= known_variables()
    checked = subprocess.run(
        [sys.executable, "-m", "service", "config", "--check"],
        cwd=ROOT,
        env={**os.environ, **MANIFESTS["config.yaml"]["data"], **variables_of(name)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == ExitCode.DONE, checked.stderr


def test_keys_are_in_the_secret_and_only_there() -> None:
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert MANIFESTS["secret.example.yaml"]["stringData"] == dict.fromkeys(keys, "replace-me")
    assert not [name for name in MANIFESTS["config.yaml"]["data"] if name in keys or name.endswith(("KEY", "TOKEN"))]

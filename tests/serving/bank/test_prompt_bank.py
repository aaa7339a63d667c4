"""Prompts are put, replaced and removed while the server answers: each whole or not at all."""

import concurrent.futures
import io
import json
import pathlib
import shutil
import threading
import time
import zipfile

import pytest
import serving_kit
from serving_kit import TEXTS

from ptune.serving.access import hash_of
from ptune.serving.bank import bank_folder, prompt_bank
from ptune.serving.bank.bank_folder import Watcher
from ptune.serving.bank.prompt_files import NAMES, prompts_in

ADMIN = {"Authorization": "Bearer admin"}


@pytest.fixture
def bank(tmp_path):
    """A folder with three prompts, and other versions of them beside it."""
    for name in ("film", "plain", "letter"):
        serving_kit.save_prompt(tmp_path / "bank", name)
        serving_kit.save_prompt(tmp_path / "new", name, seed=1)
    serving_kit.save_prompt(tmp_path / "new", "city")
    return tmp_path / "bank"


@pytest.fixture
def served(bank, tmp_path):
    tokens = tmp_path / "tokens.yaml"
    hashes = {"admin": "- name: admin\n  admin: true\n", "user": "- name: user\n"}
    lines = [f"{text}  sha256: {hash_of(name)}\n" for name, text in hashes.items()]
    tokens.write_text("".join(lines))
    with serving_kit.serving(bank=bank, tokens=tokens) as (server, client):
        client.headers |= ADMIN
        yield server, client


def zipped(folder, method=zipfile.ZIP_DEFLATED):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name in NAMES:
            opened.write(folder / name, name)
    return archive.getvalue()


def cut_within(archive, name):
    """An archive in which the packed data of a file are no longer what they were."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        entry = opened.getinfo(name)
    begin = entry.header_offset + 30 + len(name)
    middle = begin + 10, begin + entry.compress_size // 2
    return archive[: middle[0]] + b"\xff" * (middle[1] - middle[0]) + archive[middle[1] :]


def scores(client, *names, text=TEXTS[0]):
    """The scores of a row by some prompts, in one batch."""
    rows = [{"prompt": name, "fields": {"x": text}} for name in names]
    answers = client.post("/v1/classify", json={"rows": rows}).json()["answers"]
    return [answer.get("scores") or answer["problem"]["status"] for answer in answers]


def test_a_prompt_is_put_replaced_and_removed(served, bank, tmp_path):
    server, client = served
    new = tmp_path / "new"
    answer = client.put("/v1/prompts/city", content=zipped(new / "city"))
    assert answer.status_code == 201 and answer.json()["labels"] == ["yes", "no"]
    assert list(scores(client, "city")[0]) and (bank / "city" / "prompt.json").exists()
    before = scores(client, "film")
    assert client.put("/v1/prompts/film", content=zipped(new / "film")).status_code == 200
    assert scores(client, "film") != before
    assert client.delete("/v1/prompts/film").status_code == 204
    assert scores(client, "film", "city")[0] == 404 and not (bank / "film").exists()
    assert client.delete("/v1/prompts/film").status_code == 404
    assert sorted(path.name for path in bank.iterdir()) == ["city", "letter", "plain"]


def test_a_name_that_a_file_has_is_not_taken(served, bank, tmp_path):
    """Nor that of a link that leads nowhere."""
    _, client = served
    (bank / "readme").write_text("mine")
    (bank / "gone").symlink_to(tmp_path / "nowhere")
    before = sorted(bank.rglob("*"))
    for name in ("readme", "gone"):
        answer = client.put(f"/v1/prompts/{name}", content=zipped(tmp_path / "new" / "city"))
        assert (answer.status_code, answer.json()["field"]) == (409, "id"), answer.text
    assert sorted(bank.rglob("*")) == before


def test_a_prompt_that_is_put_into_a_folder_leaves_other_files_there(served, bank, tmp_path):
    _, client = served
    (bank / "city").mkdir()
    (bank / "city" / "thesis.txt").write_text("years of work")
    archive = zipped(tmp_path / "new" / "city")
    for status in (201, 200):
        assert client.put("/v1/prompts/city", content=archive).status_code == status
    assert client.delete("/v1/prompts/city").status_code == 204
    assert contents(bank / "city") == {"thesis.txt": b"years of work"}
    assert client.put("/v1/prompts/city", content=archive).status_code == 201


def test_a_run_keeps_what_is_no_part_of_its_prompt(served, bank, tmp_path):
    """As where a prompt is saved over another; what the earlier prompt is trained on with goes."""
    _, client = served
    (bank / "film" / "lm").mkdir()
    (bank / "film" / "lm" / "model.safetensors").write_text("an LM")
    (bank / "film" / "run.json").write_text("{}")
    (bank / "film" / "encoder.safetensors").write_text("of the earlier prompt")
    new = tmp_path / "new" / "film"
    assert client.put("/v1/prompts/film", content=zipped(new)).status_code == 200
    assert {path.name for path in (bank / "film").iterdir()} == {*NAMES, "lm", "run.json"}
    assert (bank / "film" / NAMES[1]).read_bytes() == (new / NAMES[1]).read_bytes()
    assert client.delete("/v1/prompts/film").status_code == 204
    assert (bank / "film" / "lm" / "model.safetensors").read_text() == "an LM"
    assert {path.name for path in (bank / "film").iterdir()} == {"lm", "run.json"}


def test_several_prompts_that_answer_together_give_way_as_a_whole(served, bank, tmp_path):
    server, client = served
    for seed in (0, 1):
        shutil.copytree(tmp_path / "new" / "city", bank / "many" / "prompts" / f"{seed}")
    watcher = Watcher(server.prompts, bank, server.scheduler.call)
    for _ in range(2):
        watcher.check()
    assert client.put("/v1/prompts/many", content=zipped(tmp_path / "new" / "film")).is_success
    assert {path.name for path in (bank / "many").iterdir()} == set(NAMES)


def test_of_a_link_to_a_prompt_the_link_alone_is_replaced_and_removed(served, bank, tmp_path):
    server, client = served
    elsewhere = tmp_path / "runs" / "city"
    shutil.copytree(tmp_path / "new" / "city", elsewhere)
    (bank / "city").symlink_to(elsewhere)
    before = contents(elsewhere)
    watcher = Watcher(server.prompts, bank, server.scheduler.call)
    for _ in range(2):
        watcher.check()
    archive = zipped(tmp_path / "new" / "film")
    for _ in range(2):
        assert client.put("/v1/prompts/city", content=archive).status_code == 200
    bank_folder.recover(bank)
    assert not (bank / "city").is_symlink() and contents(elsewhere) == before
    shutil.rmtree(bank / "city")
    (bank / "city").symlink_to(elsewhere)
    assert client.delete("/v1/prompts/city").status_code == 204
    assert not (bank / "city").exists() and contents(elsewhere) == before
    assert sorted(path.name for path in bank.iterdir()) == ["film", "letter", "plain"]


def test_removal_leaves_every_bit_of_the_others(served):
    """Answers of the rest are the same to the last bit as before, and as on a server that never
    had the prompt."""
    server, client = served
    text = client.post("/v1/completions", json={"model": "letter", "prompt": TEXTS[4]}).json()
    before = [scores(client, "film", text=text)[0] for text in TEXTS]
    scores(client, "plain", "film")
    assert client.delete("/v1/prompts/plain").status_code == 204
    assert [scores(client, "film", text=text)[0] for text in TEXTS] == before
    again = client.post("/v1/completions", json={"model": "letter", "prompt": TEXTS[4]}).json()
    assert again["choices"] == text["choices"]


def damaged(folder):
    """What may be sent and is no prompt for this server, and why."""
    note = json.loads((folder / "prompt.json").read_text())
    vectors = (folder / "prompt.safetensors").read_bytes()

    def archive(note=note, vectors=vectors, **others):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("prompt.json", json.dumps(note))
            opened.writestr("prompt.safetensors", vectors)
            for name, text in others.items():
                opened.writestr(name.replace("SLASH", "/"), text)
        return content.getvalue()

    yield b"no archive", 400, "ZIP"
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        yield cut_within(zipped(folder, method), NAMES[0]), 400, "ZIP"
    yield archive(**{"..SLASH..SLASHevil": "x"}), 400, "nothing else"
    yield archive(note={"format": 3}), 400, "damaged"
    yield archive(note=note | {"template": "{soft:9} {x} {mask}"}), 400, "damaged"
    yield archive(vectors=vectors[:-4]), 400, "damaged"
    yield archive(note=note | {"lm": note["lm"] | {"width": 7}}), 400, "trained for"
    yield archive(vectors=b"\0" * 2_000_000), 413, "bytes"


def test_what_is_no_prompt_changes_nothing(served, bank, tmp_path, monkeypatch):
    server, client = served
    before, files = scores(client, "film"), sorted(bank.rglob("*"))
    monkeypatch.setattr("ptune.serving.http.routes.prompt_routes.MEGABYTE", 10_000)
    for content, status, reason in damaged(tmp_path / "new" / "film"):
        answer = client.put("/v1/prompts/film", content=content)
        assert answer.status_code == status and reason in answer.json()["detail"], answer.text
        assert str(tmp_path) not in answer.text
    assert scores(client, "film") == before and sorted(bank.rglob("*")) == files


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "a%2Fb", "x" * 101, "%00"])
def test_an_id_is_no_path(served, tmp_path, bank, name):
    before = sorted(tmp_path.rglob("*"))
    answer = served[1].put(f"/v1/prompts/{name}", content=zipped(tmp_path / "new" / "city"))
    assert answer.status_code in (400, 404, 405), answer.text
    assert sorted(tmp_path.rglob("*")) == before


def test_prompts_that_were_named_are_not_changed(tmp_path, bank):
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(f"- name: admin\n  admin: true\n  sha256: {hash_of('admin')}\n")
    with serving_kit.serving(bank / "film", tokens=tokens) as (_, client):
        for ask in (client.delete, client.put):
            assert ask("/v1/prompts/film", headers=ADMIN).status_code == 409


def test_the_folder_is_watched(served, bank, tmp_path):
    """A change counts when it has stayed as it is from one look to the next."""
    server, client = served
    watcher = Watcher(server.prompts, bank, server.scheduler.call)
    before = scores(client, "film", "plain")
    shutil.copytree(tmp_path / "new" / "city", bank / "city")
    shutil.copytree(tmp_path / "new" / "film", bank / "film", dirs_exist_ok=True)
    shutil.rmtree(bank / "letter")
    (bank / "plain" / "prompt.json").write_text("{}")
    (bank / "half").mkdir()
    watcher.check()
    assert "city" not in server.prompts and "letter" in server.prompts
    watcher.check()
    assert server.prompts.ids() == ["city", "film", "plain"]
    film, plain = scores(client, "film", "plain")
    assert film != before[0] and plain == before[1], "a damaged version answers"
    shutil.copy(tmp_path / "new" / "plain" / "prompt.json", bank / "plain")
    for _ in range(2):
        watcher.check()
    assert client.get("/v1/models/plain").json()["labels"] == ["good", "bad", "great"]


def test_memory_holds_the_hot_prompts_alone(bank, monkeypatch):
    read: list[str] = []
    load = prompt_bank.load
    monkeypatch.setattr(prompt_bank, "load", lambda f, lm: read.append(f.id) or load(f, lm))
    files = {one.id: one for one in prompts_in(bank)}
    size = load(files["film"], serving_kit.lm()).size
    prompts = prompt_bank.PromptBank(serving_kit.lm(), files.values(), size)
    for name in ("film", "film", "letter", "film"):
        assert prompts.get(name).description.id == name
        assert prompts.bytes_used <= size
    assert read == ["film", "letter", "film"] and size > 0


def test_a_prompt_is_read_without_a_look_at_all_weights(bank, monkeypatch):
    """The LM of a server is frozen, and has hundreds of weights."""
    lm, files = serving_kit.lm(), {one.id: one for one in prompts_in(bank)}
    lm.hold_record()
    prompts = prompt_bank.PromptBank(lm, files.values(), 10**9)
    prompts.get("film")
    monkeypatch.setattr("ptune.lm.identity.record_cache.named_weights", lambda network: 1 / 0)
    assert prompts.get("letter").description.id == "letter"


def test_half_a_replacement_is_not_read(bank, tmp_path):
    files = {one.id: one for one in prompts_in(bank)}
    prompts = prompt_bank.PromptBank(serving_kit.lm(), files.values(), 2**20)
    shutil.copy(tmp_path / "new" / "film" / NAMES[1], bank / "film")
    with pytest.raises(Exception, match="being replaced") as problem:
        prompts.get("film")
    assert problem.value.status == 503 and problem.value.retry_after


def test_a_killed_server_finds_its_prompts_again(bank):
    (bank / "film").rename(bank / f"{bank_folder.REPLACED}film")
    shutil.copytree(bank / "plain", bank / f"{bank_folder.REPLACED}plain")
    (bank / ".writing-1").mkdir()
    bank_folder.recover(bank)
    assert sorted(path.name for path in bank.iterdir()) == ["film", "letter", "plain"]


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("name", ["film", "city"])
def test_a_put_that_is_killed_leaves_the_old_prompt_or_the_new(bank, tmp_path, monkeypatch, name):
    """Killed before each change of the disk; what a kill leaves is put right at the next start."""
    served = prompt_bank.PromptBank(serving_kit.lm(), [], 10**6)
    others = {}
    if name == "film":  # it lies in the folder of a run
        others = {"run.json": b"{}"}
        (bank / name / "run.json").write_bytes(b"{}")
    old = contents(bank / name)
    new, archive = contents(tmp_path / "new" / name) | others, zipped(tmp_path / "new" / name)
    changes = [(pathlib.Path, "write_bytes"), (pathlib.Path, "rename"), (shutil, "rmtree")]
    for survived in range(20):
        left = [survived]
        with monkeypatch.context() as patch:
            for where, change in changes:
                real = getattr(where, change)

                def dying(*arguments, real=real, left=left, **more):
                    if left[0] == 0:
                        raise Killed
                    left[0] -= 1
                    return real(*arguments, **more)

                patch.setattr(where, change, dying)
            try:
                bank_folder.put(served, bank, name, archive=archive, most=10**6)
                break
            except Killed:
                pass
        bank_folder.recover(bank)
        assert contents(bank / name) in (old, new)
        assert {path.name for path in bank.iterdir()} - {name} == {"film", "plain", "letter"} - {
            name
        }
        if contents(bank / name) != old:
            shutil.rmtree(bank / name)
            if old:
                serving_kit.save_prompt(bank, name)
                (bank / name / "run.json").write_bytes(b"{}")
    assert contents(bank / name) == new and survived > 3


def contents(folder):
    """The files of a prompt; none where there is no folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def test_what_is_in_memory_does_not_change_with_its_file(served, bank, tmp_path):
    """Files are copied over in place, and cut short on the way."""
    _, client = served
    before = scores(client, "film")
    shutil.copyfile(tmp_path / "new" / "film" / NAMES[1], bank / "film" / NAMES[1])
    assert scores(client, "film") == before
    (bank / "film" / NAMES[1]).write_text("junk")
    assert scores(client, "film") == before


def test_a_damaged_version_of_what_is_not_in_memory_is_told_as_damaged(served, bank):
    """It is not being replaced for ever."""
    server, client = served
    watcher = Watcher(server.prompts, bank, server.scheduler.call)
    (bank / "film" / NAMES[1]).write_text("junk")
    for _ in range(2):
        watcher.check()
    assert scores(client, "plain", "film")[1] == 500
    serving_kit.save_prompt(bank, "film")
    for _ in range(2):
        watcher.check()
    assert list(scores(client, "film")[0])


def test_while_one_of_several_prompts_is_copied_the_others_answer(served, bank, tmp_path, caplog):
    """Also where the copy is broken off."""
    server, client = served
    source, many = tmp_path / "new" / "city", bank / "many" / "prompts"
    shutil.copytree(source, many / "0")
    watcher = Watcher(server.prompts, bank, server.scheduler.call)
    for _ in range(2):
        watcher.check()
    before = scores(client, "many")
    (many / "1").mkdir()
    shutil.copy(source / NAMES[0], many / "1")
    for _ in range(4):
        watcher.check()
    assert scores(client, "many") == before
    assert caplog.text.count("The prompt many on the disk is not whole") == 1
    shutil.copy(source / NAMES[1], many / "1")
    for _ in range(2):
        watcher.check()
    assert server.prompts.describe("many").members == 2
    shutil.rmtree(bank / "many")
    for _ in range(2):
        watcher.check()
    assert "many" not in server.prompts


def test_rights_that_change_are_a_change_of_the_file(bank):
    """A file that might not be read is looked at again once it may be."""
    (film,) = (one for one in prompts_in(bank) if one.id == "film")
    before = film.stamp()
    (bank / "film" / NAMES[1]).chmod(0o600)
    assert film.stamp() != before


def test_a_folder_that_may_not_be_read_is_left_out(bank, monkeypatch):
    (bank / "lost+found").mkdir()
    real = pathlib.Path.exists

    def exists(path):
        if "lost+found" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(pathlib.Path, "exists", exists)
    assert [one.id for one in prompts_in(bank)] == ["film", "letter", "plain"]


def test_tokens_are_read_again_also_where_the_folder_cannot_be_looked_at(bank, monkeypatch):
    prompts = prompt_bank.PromptBank(serving_kit.lm(), prompts_in(bank), 10**6)
    watcher = Watcher(prompts, bank, lambda work: work())
    monkeypatch.setattr(bank_folder, "INTERVAL", 0.001)
    bank.rename(bank.with_name("away"))
    looks = []

    def after_each():
        looks.append(True)
        watcher.stop()

    watcher.run(after_each)
    assert looks == [True]


def test_prompts_of_equal_names_are_refused(bank, tmp_path):
    with (
        pytest.raises(Exception, match="both be served as 'film'"),
        serving_kit.serving(bank / "film", tmp_path / "new" / "film"),
    ):
        pass
    with (
        pytest.raises(Exception, match="both be served as 'film'"),
        serving_kit.serving(tmp_path / "new" / "film", bank=bank),
    ):
        pass


def test_under_load_every_answer_is_of_one_version(served, tmp_path):
    """Rows are asked while their prompt is replaced and another comes and goes: each answer is
    wholly the old prompt's or wholly the new one's."""
    server, client = served
    new = tmp_path / "new"
    versions = [scores(client, "film")[0]]
    client.put("/v1/prompts/film", content=zipped(new / "film"))
    versions.append(scores(client, "film")[0])
    answers: list[dict] = []
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            answers.extend(scores(client, "film", "plain")[:1])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(4):
            for folder in (tmp_path / "old", new):
                source = folder if folder == new else serving_kit.save_prompt(folder, "film").parent
                assert client.put("/v1/prompts/film", content=zipped(source / "film")).is_success
                client.put("/v1/prompts/city", content=zipped(new / "city"))
                assert client.delete("/v1/prompts/city").status_code == 204
    finally:
        stop.set()
        thread.join()
    assert len(answers) > 5
    for given in answers:
        assert any(given == pytest.approx(version, abs=1e-5) for version in versions)


def test_changes_of_one_prompt_at_once_are_done_one_by_one(served, bank, tmp_path):
    """They come while the LM is busy, and each is answered as of its turn."""
    server, client = served
    archive = zipped(tmp_path / "new" / "film")
    changes = [
        lambda: client.put("/v1/prompts/film", content=archive),
        lambda: client.delete("/v1/prompts/film"),
        lambda: client.delete("/v1/prompts/film"),
        lambda: client.put("/v1/prompts/film", content=archive),
        lambda: client.put("/v1/prompts/film", content=archive),
        lambda: client.delete("/v1/prompts/film"),
    ]
    free = threading.Event()
    server.scheduler.call(free.wait)
    with concurrent.futures.ThreadPoolExecutor(len(changes)) as pool:
        answers = []
        for number, change in enumerate(changes, 1):
            answers.append(pool.submit(change))
            while len(server.scheduler._calls) < number and not answers[-1].done():
                time.sleep(0.01)
        free.set()
    statuses = [answer.result().status_code for answer in answers]
    assert statuses == [200, 204, 404, 201, 200, 204]
    assert not (bank / "film").exists() and client.get("/v1/models/film").status_code == 404
    assert not list(bank.glob(".*"))


def test_a_prompt_whose_folder_is_gone_can_be_removed(served, bank):
    server, client = served
    shutil.rmtree(bank / "film")
    assert client.delete("/v1/prompts/film").status_code == 204
    assert "film" not in server.prompts and not list(bank.glob(".*"))

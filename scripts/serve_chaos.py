"""A server under everything that goes wrong, each answer compared with its row alone:

    python scripts/serve_chaos.py --rows 10000 [--engine continuous] [--clients 32] [--seed 0]
    python scripts/serve_chaos.py --minutes 30 [--clients 4]

Of the requests 5 % are broken and 5 % are left by their client; prompts are replaced and removed all the time; in the middle the
server is killed (SIGKILL) and started again. With --minutes the requests go on for so long, rows are of all lengths from one word to
32, and the server is not killed: its memory is that of one life. It ends with 1 where an answer differs from that of its row alone (of either version,
where the prompt was being replaced), a request fails that should not, or memory grows.
"""

import argparse
import collections
import hashlib
import http.client
import io
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import serving_kit  # noqa: E402

from ptune import load  # noqa: E402
from ptune.settings import DecodingConfig  # noqa: E402

TOKEN = "chaos"
TOKENS = f"- name: chaos\n  sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}\n  admin: true\n  metrics: true\n"
STEADY = {"film": "film", "city": "city", "letter": "letter", "deep": "deep", "pair": "pair"}
CHANGING = {
    "replaced-labels": "film",
    "replaced-text": "deep",
}  # replaced by another version again and again
COMING = {"comes-and-goes": "letter"}  # removed and put again
KINDS = STEADY | CHANGING | COMING
LONGEST = 32  # words in a row of --minutes
GROWTH = 1.15  # of memory from the first quarter of a server's life to the last, at most


class Chaos:
    """What is asked, what the answers should be, and what came."""

    def __init__(self, options: argparse.Namespace, folder: pathlib.Path):
        self.options, self.folder = options, folder
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.memory: list[list[int]] = []
        self.lock, self.over = threading.Lock(), threading.Event()
        self.asked = 0
        self.texts = list(serving_kit.TEXTS)
        self.end = float("inf")
        if options.minutes:
            draw, words = random.Random(options.seed), " ".join(serving_kit.TEXTS).split()
            self.texts += [
                " ".join(draw.choices(words, k=count)) for count in range(1, LONGEST + 1)
            ]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def prepare(self) -> None:
        """The LM, the bank, two versions of each prompt, and the answers of all rows alone."""
        lm = serving_kit.lm()
        lm.save(self.folder / "lm")
        (self.folder / "bank").mkdir()
        (self.folder / "tokens.yaml").write_text(TOKENS)
        self.expected: dict[tuple[str, str], list[object]] = collections.defaultdict(list)
        self.archives: dict[str, list[bytes]] = collections.defaultdict(list)
        for version in (0, 1):
            for name, kind in KINDS.items():
                saved = serving_kit.save_prompt(
                    self.folder / f"{version}-{name}", kind, seed=version
                )
                self.archives[name].append(packed(saved))
                if version == 0:
                    shutil.copytree(saved, self.folder / "bank" / name)
                elif name not in CHANGING:
                    continue
                model = load(saved, lm)
                for text in self.texts:
                    row = {"x": text, "y": "Paris"}
                    if serving_kit.TEMPLATES[kind][1]:
                        answer = model.predict([row])[0]["scores"]
                    else:
                        answer = model.generate(
                            [row], config=DecodingConfig(max_new_tokens=serving_kit.WRITTEN)
                        )[0]
                    self.expected[name, text].append(answer)

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "ptune",
            "serve",
            "--bank",
            self.folder / "bank",
            "--lm",
            self.folder / "lm",
        ]
        command += [
            "--tokens",
            self.folder / "tokens.yaml",
            "--port",
            str(self.port),
            "--engine",
            self.options.engine,
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        with open(self.folder / "server.log", "ab") as log:
            server = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env=environment
            )
        for _ in range(1200):
            try:
                if self.ask("GET", "/ready")[0] == 200:
                    self.memory.append([])
                    return server
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit((self.folder / "server.log").read_text())

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            content = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(
                method,
                path,
                content,
                {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def client(self, seed: int) -> None:
        draw = random.Random(seed)
        while not self.over.is_set():
            with self.lock:
                if self.asked >= self.options.rows or time.monotonic() > self.end:
                    return
                self.asked += 1
            chance = draw.random()
            try:
                if chance < 0.05:
                    self.broken(draw)
                elif chance < 0.10:
                    self.leave(draw)
                else:
                    self.right(draw)
            except OSError:
                if not self.killing:
                    self.fault("a connection was lost")
                self.count("asked again after the server was killed")
                with self.lock:
                    self.asked -= 1
                time.sleep(0.5)

    def right(self, draw: random.Random) -> None:
        name, text = draw.choice(list(KINDS)), draw.choice(self.texts)
        kind = KINDS[name]
        fields = {"x": text, "y": "Paris"} if kind == "pair" else {"x": text}
        if serving_kit.TEMPLATES[kind][1]:
            status, content = self.ask(
                "POST", "/v1/classify", {"rows": [{"prompt": name, "fields": fields}]}
            )
        else:
            status, content = self.ask("POST", "/v1/completions", {"model": name, "fields": fields})
        document = json.loads(content)
        if "answers" in document and "scores" not in document["answers"][0]:
            status = (
                document["answers"][0].get("status") or document["answers"][0]["problem"]["status"]
            )
        if status == 503:
            return self.ask_again()
        if status == 404 and name in COMING:
            return self.count("404: removed at the moment")
        if status != 200:
            return self.fault(f"{name}: status {status}: {content[:200]!r}")
        given = (
            document["answers"][0]["scores"]
            if "answers" in document
            else document["choices"][0]["text"]
        )
        if not any(equal(given, wanted) for wanted in self.expected[name, text]):
            return self.fault(f"{name} on {text!r}: {given} is none of {self.expected[name, text]}")
        return self.count("equal to the row alone")

    def ask_again(self) -> None:
        """Let another request be asked for one that came while the server was not ready."""
        time.sleep(0.2)
        with self.lock:
            self.asked -= 1
        self.count("asked again after status 503")

    def broken(self, draw: random.Random) -> None:
        row = {"prompt": "film", "fields": {"x": "a"}}
        body = draw.choice(
            [
                b"{", b"\xff\xfe", b"null", {"rows": []}, {"rows": [{"prompt": "film"}]}, {"rows": [{**row, "prompt": "../film"}]},
                {"rows": [row], "top": 0}, {"rows": [{**row, "fields": {"x": "a" * 2_000_000}}]}, {"rows": [row], "nothing": 1},
            ]
        )  # fmt: skip
        status, content = self.ask("POST", "/v1/classify", body)
        if status == 503:
            return self.ask_again()
        document = json.loads(content)
        answer = document if status != 200 else document["answers"][0]
        if status >= 500 or "scores" in answer or b"Traceback" in content:
            return self.fault(f"broken request: status {status}: {content[:200]!r}")
        return self.count("broken, told so")

    def leave(self, draw: random.Random) -> None:
        body = json.dumps(
            {
                "model": "letter",
                "prompt": draw.choice(serving_kit.TEXTS),
                "stream": True,
                "max_tokens": 60,
            }
        ).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        )
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(head.encode() + body)
            if draw.random() < 0.5:
                connection.recv(100)
        self.count("left")

    def change(self) -> None:
        """Replace and remove prompts, again and again."""
        version = 0
        while not self.over.wait(0.15):
            version = 1 - version
            try:
                for name in CHANGING:
                    self.expect(
                        (200, 201),
                        *self.ask("PUT", f"/v1/prompts/{name}", self.archives[name][version]),
                    )
                for name in COMING:
                    if version:
                        self.expect((204, 404), *self.ask("DELETE", f"/v1/prompts/{name}"))
                    else:
                        self.expect(
                            (200, 201),
                            *self.ask("PUT", f"/v1/prompts/{name}", self.archives[name][0]),
                        )
                self.count("changes of prompts")
            except OSError:
                time.sleep(0.2)

    def expect(self, statuses: tuple[int, ...], status: int, content: bytes) -> None:
        if status not in (*statuses, 503):
            self.fault(f"a change of a prompt: {status}: {content[:200]!r}")

    def watch(self, server: subprocess.Popen[bytes]) -> None:
        for line in pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                self.memory[-1].append(int(line.split()[1]) // 1024)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def fault(self, what: str) -> None:
        with self.lock:
            self.faults.append(what)

    def run(self) -> int:
        self.prepare()
        self.killing, began = False, time.monotonic()
        server = self.start()
        if self.options.minutes:
            self.end = time.monotonic() + 60 * self.options.minutes
        threads = [
            threading.Thread(target=self.client, args=(self.options.seed + n,))
            for n in range(self.options.clients)
        ]
        changing = threading.Thread(target=self.change)
        for thread in (*threads, changing):
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.5)
            self.watch(server)
            is_half = not self.options.minutes and self.asked > self.options.rows / 2
            if not self.killing and is_half:
                self.killing = True
                server.send_signal(signal.SIGKILL)
                server.wait()
                server = self.start()
                self.count("killed and started again")
        self.over.set()
        changing.join()
        status, left = self.ask("GET", "/metrics")
        waiting = [
            line for line in left.decode().splitlines() if line.startswith("ptune_rows_waiting ")
        ]
        server.send_signal(signal.SIGTERM)
        ended = server.wait(60)
        if ended or waiting != ["ptune_rows_waiting 0.0"]:
            self.fault(f"the server ended with {ended}; {waiting}")
        return self.tell(time.monotonic() - began)

    def tell(self, seconds: float) -> int:
        for lived in self.memory:
            quarter = max(1, len(lived) // 4)
            first, last = max(lived[quarter : 2 * quarter] or [0]), max(lived[-quarter:] or [0])
            print(
                f"memory of a server: {first} MB in its second quarter, {last} MB in its last, of {len(lived) / 2:.0f} s"
            )
            if last > GROWTH * first and len(lived) > 60:
                self.faults.append(f"memory grew from {first} to {last} MB")
        for what, number in sorted(self.counts.items()):
            print(f"{number:7,}  {what}")
        print(f"{self.asked:,} requests in {seconds:.0f} s, {len(self.faults)} faults")
        for fault in self.faults[:20]:
            print(fault)
        return bool(self.faults)


def packed(folder: pathlib.Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("prompt.json", "prompt.safetensors"):
            archive.write(folder / name, name)
    return content.getvalue()


def equal(given: object, wanted: object) -> bool:
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(
            abs(given[label] - wanted[label]) < 1e-4 for label in wanted
        )
    return given == wanted


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="in place of --rows")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--engine", default="batch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.minutes:
        options.rows = sys.maxsize
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(Chaos(options, pathlib.Path(temporary)).run())

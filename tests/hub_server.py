"""A small model hub on this machine: the routes that huggingface_hub calls to make a repository, to
send a commit and to fetch files."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Its repositories, each with its commits, and what was asked for.

    Attributes:
        commits: for each repository the files of each commit, by its name, oldest first.
        fetched: the files whose content was sent, in order.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits = {}
        self.private = {}
        self.fetched = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repository, changes, gone=()):
        """Add a commit with more files, without those that are gone, and return its name."""
        commits = self.commits.setdefault(repository, {})
        files = {**(list(commits.values())[-1] if commits else {}), **changes}
        files = {file: content for file, content in files.items() if file not in gone}
        name = hashlib.sha1(repr((repository, len(commits), sorted(files))).encode()).hexdigest()
        commits[name] = files
        return name

    def commit_of(self, repository, revision):
        """The name of a commit and its files; None where there is none."""
        commits = self.commits.get(repository, {})
        if commits and revision in (None, "main"):
            return list(commits.items())[-1]
        return (revision, commits[revision]) if revision in commits else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _send(self, content, status=200, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value, status=200):
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _missing(self, what="Repo"):
        self._send(b"", 404, {"X-Error-Code": f"{what}NotFound"})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(*match.groups())
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+).*", path):
            commit = self.server.commit_of(*match.groups())
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": "0"}
                for file, content in (commit[1].items() if commit else ())
            ]
            self._json(entries)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*match.groups())
        else:
            self._missing()

    def _info(self, repository, revision):
        commit = self.server.commit_of(repository, revision)
        if commit is None:
            self._missing()
            return
        siblings = [{"rfilename": file} for file in commit[1]]
        self._json(
            {"id": repository, "sha": commit[0], "siblings": siblings, "private": False, "tags": []}
        )

    def _file(self, repository, revision, file):
        commit = self.server.commit_of(repository, revision)
        if commit is None or file not in commit[1]:
            self._missing("Repo" if commit is None else "Entry")
            return
        content = commit[1][file]
        if self.command == "GET":
            self.server.fetched.append(file)
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self._send(content, 200, {"ETag": etag, "X-Repo-Commit": commit[0]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization')}/{asked['name']}"
            self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
            self._json({"url": f"{self.server.address}/{name}"})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif re.fullmatch(r"/api/models/.+/preupload/main", self.path.partition("?")[0]):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path.partition("?")[0]):
            lines = [json.loads(line) for line in body.splitlines()[1:]]
            changes = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            gone = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
            name = self.server.commit(match[1], changes, gone)
            url = f"{self.server.address}/{match[1]}/commit/{name}"
            self._json({"commitUrl": url, "commitOid": name, "hookOutput": ""})
        else:
            self._missing()

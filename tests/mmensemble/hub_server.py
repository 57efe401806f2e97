"""A process that pushes a model to a hub on this machine and opens it from there; the hub is as much of one as it asks.

Arguments: model, folder for the process's cache. Prints JSON. Run by a test with arguments of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """Keeps the files of one repository, whose uploads are all small."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        _, found, name = unquote(self.path).partition("/resolve/main/")
        if not found or name not in self.files:
            self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        content = self.files[name]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.answer(content, ETag=etag, X_Repo_Commit=COMMIT, Content_Type="application/octet-stream")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        size = self.headers["Content-Length"]
        body = self.rfile.read(int(size)) if size else self._chunks()
        if self.path.endswith("/repos/create"):
            self.answer({"url": f"{os.environ['HF_ENDPOINT']}/me/model", "name": "me/model", "id": "1"})
        elif self.path.endswith("/validate-yaml"):
            self.answer({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in names]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                operation = json.loads(line)
                if operation["key"] == "file":
                    value = operation["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            self.answer(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"{os.environ['HF_ENDPOINT']}/me/model/commit/{COMMIT}",
                }
            )
        else:
            self.answer({"error": f"not asked for before: {self.path}"}, 404)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)


def main() -> None:
    model, cache = sys.argv[1:]
    Hub.files, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": cache,
        "HF_TOKEN": "hf_x",
        "HF_HUB_DISABLE_XET": "1",
    }
    from mmensemble.exceptions import ConfigurationError
    from mmensemble.publishing import from_hub, push_to_hub

    url = push_to_hub(model, "me/model")
    first = Hub.files["README.md"].decode()
    Hub.files["README.md"] = first.replace("*What the model is for", "Mine. *What").encode()
    push_to_hub(model, "me/model")
    predictor = from_hub("me/model", device="cpu")
    try:
        from_hub("me/model", "other.onnx")
    except ConfigurationError as error:
        absent = str(error)
    print(
        json.dumps(
            {
                "url": url,
                "names": sorted(Hub.files),
                "equal": Hub.files["model.onnx"] == Path(model).read_bytes(),
                "kept": "Mine. *What" in Hub.files["README.md"].decode(),
                "columns": predictor.manifest.columns,
                "absent": absent,
            }
        )
    )
    server.shutdown()


if __name__ == "__main__":
    main()

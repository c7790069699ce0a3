#!/usr/bin/env bash
# fsspec 2026.9.0: a few bytes of a file over HTTP fetch five megabytes.
#
# Guess: `seek` and `read(4096)` at random places ask the server for 4 KiB each.
# Seen:  each asks for 5,246,976 bytes: the default cache of an open HTTP file reads a block of 5
#        MiB ahead, and throws it away at the next place. `cat_file(url, start, end)` asks for
#        just 4 KiB.
# So:    random samples from remote archives cost some thousand times their size in bandwidth;
#        open with `cache_type='none'`, or a block size of a sample.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check fsspec==2026.9.0 aiohttp==3.13.5
cd "$folder"
cat > seen.py <<'EOP'
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import fsspec

SIZE, sent = 64 * 2**20, []


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self):
        begin, end = map(int, re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        sent.append(end - begin + 1)
        self.send_response(206)
        self.send_header("Content-Length", str(sent[-1]))
        self.send_header("Content-Range", f"bytes {begin}-{end}/{SIZE}")
        self.end_headers()
        self.wfile.write(bytes(sent[-1]))


if __name__ == "__main__":
    print("fsspec", version("fsspec"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/x"
    seen = {}
    for name, options in (("default", {}), ("none", {"cache_type": "none"})):
        with fsspec.open(url, "rb", **options) as file:
            sent.clear()
            for place in range(4):
                file.seek((13 * place + 5) * 2**20)
                file.read(4096)
            seen[name] = list(sent)
    sent.clear()
    fsspec.filesystem("http").cat_file(url, 5 * 2**20, 5 * 2**20 + 4096)
    print("four reads of 4 KiB:", seen, "cat_file:", sent)
    assert seen["default"] == [5 * 2**20 + 4096] * 4
    assert seen["none"] == [4096] * 4 and sent == [4096]
EOP
"$folder/venv/bin/python" -W ignore seen.py
